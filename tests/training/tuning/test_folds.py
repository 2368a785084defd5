"""No trial learns from what it is scored on, nor sees the held-out stretch; bins change nothing."""

import pickle
from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.training.tuning.study_cases import LEVELS, job, simulated_panel

from margincast.core.errors import InsufficientHistoryError
from margincast.models.head import QuantileHead
from margincast.models.scale import HarScale
from margincast.scoring.pinball import mean_pinball
from margincast.training.tuning.folds import fold_rows, prepare_folds, study_edges, study_spans
from margincast.training.tuning.objective import figures_of, mean_largest_rise, score_step

HOUR = np.timedelta64(1, "h")
PANEL = simulated_panel(0, count=400)


@given(
    folds=st.integers(1, 6),
    share=st.sampled_from([0.0, 0.1, 0.2, 0.45]),
    embargo_hours=st.integers(1, 30),
    window=st.sampled_from(["3d", "10d", "6y"]),
)
def test_no_outcome_to_learn_from_is_known_too_late_and_none_of_the_study_reaches_the_held_out_time(
    folds, share, embargo_hours, window
):
    embargo = timedelta(hours=embargo_hours)
    edges = study_edges(PANEL.decided, folds, share)
    spans = study_spans(edges, folds)
    assert len(spans) == folds + (share > 0)
    held_out_from = edges[folds]
    tested = np.zeros(len(PANEL), dtype=int)
    for number, (start, end, known_by) in enumerate(spans):
        training, inside = fold_rows(PANEL, start, end, known_by, embargo=embargo, window=window)
        assert inside.any()
        first = PANEL.decided[inside].min()
        assert (PANEL.label_end[training] <= first - np.timedelta64(embargo)).all()
        assert not (training & inside).any()
        if number < folds and share:
            assert (PANEL.label_end[training | inside] <= held_out_from).all()
        tested += inside
    assert tested.max() == 1
    # the earlier half of what the study sees only teaches
    assert tested[: round(len(PANEL) * (1 - share)) // 2].sum() == 0


def test_too_little_history_for_the_folds_says_so():
    with pytest.raises(InsufficientHistoryError, match=r"fewer tuning\.folds"):
        study_edges(PANEL.decided[:5], 4, 0.2)


def test_what_is_prepared_once_forecasts_as_a_head_fitted_from_scratch_and_in_another_process():
    spec = job("tuning.folds=2")
    folds = prepare_folds(spec, [PANEL], LEVELS)
    edges = study_edges(PANEL.decided, 2, spec.tuning.held_out_share)
    chosen = spec.model.head.model_copy(update={"rounds": 7, "num_leaves": 3})
    # bins were built for one head already when another comes
    score_step(folds, folds.steps[0], spec.model.head, 1)
    spans = study_spans(edges, 2)
    for step, span in zip([*folds.steps, folds.held_out], spans, strict=True):
        training, inside = fold_rows(
            PANEL, *span, embargo=spec.backtest.embargo, window=spec.model.window
        )
        train, test = PANEL.rows(training), PANEL.rows(inside)
        scale = HarScale(("fast",), (), spec.model.scale.ridge).fit(train.frame, train.log_range)
        head = QuantileHead(chosen, PANEL.units, spec.target.sides, LEVELS, threads=1)
        head.fit(train.frame, scale.predict(train.frame), train.outcomes)
        width = scale.predict(test.frame)
        slow = head.predict(test.frame, width) * width[:, None, None]
        (fold,) = step
        np.testing.assert_array_equal(fold.forecast(head), slow)
        (arrived,) = pickle.loads(pickle.dumps(step))  # noqa: S301  # our own bytes
        np.testing.assert_array_equal(arrived.forecast(head), slow)
        score = score_step(folds, step, chosen, 1)
        losses = [
            mean_pinball(test.outcomes[side], slow[:, i, j], level) / fold.reference_loss[i, j]
            for i, side in enumerate(spec.target.sides)
            for j, level in enumerate(LEVELS)
        ]
        assert score.loss == pytest.approx(np.mean(losses), rel=1e-12)
        assert score.exceedances.tolist() == [
            sum((test.outcomes[s] > slow[:, i, j]).sum() for i, s in enumerate(spec.target.sides))
            for j in range(len(LEVELS))
        ]
        hours = [(test.decided.astype("datetime64[D]") == day).sum() for day in score.days]
        assert np.average(score.daily_loss, weights=hours) == pytest.approx(score.loss, rel=1e-12)


def test_the_reference_is_beaten_by_no_other_multiple_of_the_scale_where_it_was_learned():
    spec = job()
    (fold,) = prepare_folds(spec, [PANEL], LEVELS).steps[0]
    multiple = fold.reference_margin / fold.test_scale.mean()
    for i, side in enumerate(spec.target.sides):
        outcome = fold.train_outcomes[side]
        for j, level in enumerate(LEVELS):
            least = mean_pinball(outcome, multiple[i, j] * fold.train_scale, level)
            for other in (0.97, 1.03):
                assert least <= mean_pinball(
                    outcome, other * multiple[i, j] * fold.train_scale, level
                )


def test_the_largest_rise_of_a_day_is_that_of_each_contract_averaged():
    # two contracts, every twelve hours; the second has no decision a day earlier but once
    contract = np.array([0, 0, 1, 0, 0, 1])
    day_before = np.array([-1, -1, -1, 0, 1, 2])
    forecast = np.array([1.0, 2.0, 1.0, 3.0, 2.0, np.e])[:, None, None]
    assert mean_largest_rise(forecast, contract, day_before) == pytest.approx(
        (np.log(3.0) + 1.0) / 2
    )
    assert np.isnan(mean_largest_rise(forecast, contract, np.full(6, -1)))
    # a forecast of 0 has no logarithm: its pair does not count
    forecast[0] = 0.0
    assert mean_largest_rise(forecast, contract, day_before) == pytest.approx((0.0 + 1.0) / 2)


def test_exceedances_are_counted_over_all_folds_before_they_are_divided():
    spec = job("tuning.folds=3")
    folds = prepare_folds(spec, [PANEL], LEVELS)
    scores = [score_step(folds, step, spec.model.head, 1) for step in folds.steps]
    figures = figures_of(scores, LEVELS)
    for j, level in enumerate(LEVELS):
        observed = sum(score.exceedances[j] for score in scores)
        expected = sum(score.decisions for score in scores) * (1 - level)
        assert figures.exceedance_ratios[level] == pytest.approx(observed / expected)
    assert figures.coverage_error == max(
        abs(ratio - 1) for ratio in figures.exceedance_ratios.values()
    )
    assert figures.procyclicality > 0
