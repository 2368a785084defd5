"""The head minimises the raw pinball loss, shares its bins and is the same for any thread count."""

import lightgbm as lgb
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from margincast.core.errors import InputError
from margincast.models.head import (
    QuantileHead,
    booster_from_text,
    booster_text,
    dataset_parameters,
    min_data_in_leaf,
    training_parameters,
)
from margincast.scoring.pinball import mean_pinball, pinball_loss
from margincast.specs.loading import validate_spec
from margincast.specs.training import Head

SIDES = ("long", "short")
LEVELS = (0.9, 0.95)
UNITS = {"volatility": "fraction", "activity": "number", "drawdown": "fraction"}
HEAD = validate_spec(
    {
        "rounds": 20,
        "num_leaves": 4,
        "learning_rate": 0.1,
        "min_data_factor": 10.0,
        "feature_fraction": 0.7,
        "bagging_fraction": 0.5,
        "max_bin": 63,
        "seed": 1,
    },
    Head,
    "test",
)


def sample(seed: int, count: int = 4000) -> tuple[pd.DataFrame, np.ndarray, dict[str, np.ndarray]]:
    """Decisions, a scale and outcomes whose standardised tail hangs on ``activity``."""
    rng = np.random.default_rng(seed)
    scale = 0.01 * rng.lognormal(0, 0.7, count)
    activity = rng.normal(0, 1, count)
    frame = pd.DataFrame(
        {
            "volatility": scale * rng.lognormal(0, 0.2, count),
            "activity": activity,
            "drawdown": -scale * rng.exponential(1, count),
        }
    )
    width = scale * np.where(activity > 0, 2.0, 1.0)
    outcomes = {side: np.abs(rng.standard_t(4, count)) * width for side in SIDES}
    return frame, scale, outcomes


def head(levels: tuple[float, ...] = LEVELS, threads: int = 1, **changes: object) -> QuantileHead:
    return QuantileHead(HEAD.model_copy(update=changes), UNITS, SIDES, levels, threads)


def test_text_of_every_booster_is_the_same_bytes_for_one_thread_and_two():
    data = sample(0)
    one, two = head(threads=1).fit(*data), head(threads=2).fit(*data)
    assert set(one.boosters) == {(side, level) for side in SIDES for level in LEVELS}
    for key, booster in one.boosters.items():
        assert booster_text(booster).encode() == booster_text(two.boosters[key]).encode()
        assert booster.num_trees() == HEAD.rounds


def test_another_seed_is_another_model():
    data = sample(0)
    texts = {booster_text(head(seed=s).fit(*data).boosters["long", 0.9]) for s in (1, 2)}
    assert len(texts) == 2


@given(st.integers(0, 2**32), st.sampled_from([0.9, 0.99, 0.999]), st.floats(0.1, 5))
def test_the_weighted_loss_of_the_standardised_outcome_is_the_raw_loss(seed, level, quantile):
    _, scale, outcomes = sample(seed, 50)
    difference = outcomes["long"] / scale - quantile
    weighted = scale * np.maximum(level * difference, (level - 1) * difference)
    raw = pinball_loss(outcomes["long"], quantile * scale, level)
    np.testing.assert_allclose(weighted, raw, rtol=1e-9, atol=1e-15)


def test_what_lightgbm_minimises_is_the_raw_pinball_loss_of_the_forecast():
    frame, scale, outcomes = sample(1)
    fitted = head().fit(frame, scale, outcomes)
    # LightGBM's own metric on the head's own label and weight, times the mean scale
    bins = lgb.Dataset(
        fitted.design(frame, scale),
        label=outcomes["short"] / scale,
        weight=scale / scale.mean(),
        params=dataset_parameters(HEAD) | {"num_threads": 1},
        free_raw_data=False,
    )
    recorded: dict[str, dict[str, list[float]]] = {}
    lgb.train(
        training_parameters(HEAD, 0.95) | {"num_threads": 1, "metric": "quantile"},
        bins,
        num_boost_round=HEAD.rounds,
        valid_sets=[bins],
        valid_names=["fit"],
        callbacks=[lgb.record_evaluation(recorded)],
    )
    forecast = fitted.predict(frame, scale)[:, 1, 1] * scale
    raw = mean_pinball(outcomes["short"], forecast, 0.95)
    assert recorded["fit"]["quantile"][-1] * scale.mean() == pytest.approx(raw, rel=1e-5)


def test_shared_bins_give_the_model_that_own_bins_give():
    frame, scale, outcomes = sample(2)
    shared = head().fit(frame, scale, outcomes)
    for side in SIDES:
        for level in LEVELS:
            alone = QuantileHead(HEAD, UNITS, (side,), (level,), 1).fit(frame, scale, outcomes)
            text = booster_text(alone.boosters[side, level])
            assert text == booster_text(shared.boosters[side, level])


def test_a_tail_that_hangs_on_a_feature_is_learned():
    frame, scale, outcomes = sample(3, 8000)
    fitted = head(rounds=40).fit(frame, scale, outcomes)
    fresh, fresh_scale, fresh_outcomes = sample(4, 8000)
    forecast = fitted.predict(fresh, fresh_scale)
    busy = fresh["activity"].to_numpy() > 0
    for i, side in enumerate(SIDES):
        for j, level in enumerate(LEVELS):
            exceeded = fresh_outcomes[side] > forecast[:, i, j] * fresh_scale
            for part in (busy, ~busy):
                # 4000 outcomes a part: three standard errors are 0.014 at 0.9
                assert exceeded[part].mean() == pytest.approx(1 - level, abs=0.02)
            ratio = forecast[busy, i, j].mean() / forecast[~busy, i, j].mean()
            assert ratio == pytest.approx(2.0, rel=0.15)


def test_fractions_enter_free_of_scale_and_numbers_as_they_are():
    frame, scale, _ = sample(5, 100)
    matrix = head().design(frame, scale)
    assert matrix.dtype == np.float32
    expected = np.column_stack(
        [frame["volatility"] / scale, frame["activity"], frame["drawdown"] / scale, np.log(scale)]
    ).astype(np.float32)
    np.testing.assert_array_equal(matrix, expected)
    wild = frame.assign(volatility=frame["volatility"] * 2, drawdown=frame["drawdown"] * 2)
    np.testing.assert_array_equal(head().design(wild, scale * 2)[:, :3], matrix[:, :3])


def test_quantiles_are_never_negative():
    frame, scale, outcomes = sample(6, 2000)
    # an outcome that is nearly always nothing pulls a boosted quantile below zero
    rare = {side: np.where(values > 0.08, values, 0.0) for side, values in outcomes.items()}
    assert (head(learning_rate=0.5).fit(frame, scale, rare).predict(frame, scale) >= 0).all()


def test_a_booster_read_back_from_text_predicts_the_same_bits():
    frame, scale, outcomes = sample(7)
    fitted = head().fit(frame, scale, outcomes)
    again = head()
    again.boosters = {
        key: booster_from_text(booster_text(booster)) for key, booster in fitted.boosters.items()
    }
    np.testing.assert_array_equal(again.predict(frame, scale), fitted.predict(frame, scale))


def test_no_leaf_of_equal_weights_is_smaller_than_the_exceedances_it_must_expect():
    assert min_data_in_leaf(HEAD, 0.99) == 1000
    assert min_data_in_leaf(HEAD, 0.95) == 200
    frame, scale, outcomes = sample(8)
    fitted = head(bagging_fraction=1.0).fit(frame, np.full(len(scale), 0.01), outcomes)
    trees = fitted.boosters["long", 0.95].trees_to_dataframe()
    leaves = trees[trees["split_feature"].isna()]
    assert len(leaves) > HEAD.rounds
    assert leaves["count"].min() >= 200


def test_a_missing_feature_is_named():
    frame, scale, outcomes = sample(9, 100)
    with pytest.raises(InputError, match=r"quantile head needs the feature\(s\) drawdown"):
        head().fit(frame.drop(columns="drawdown"), scale, outcomes)
