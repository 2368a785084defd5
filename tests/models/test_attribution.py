"""Every explanation multiplies out to the forecast, and names what changed and nothing else."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.models.attribution_case import (
    COLUMNS,
    EVERY,
    LEVELS,
    MODEL,
    SIDES,
    other_days,
    simulated,
)

from margincast.core.errors import InputError
from margincast.models.attribution import (
    OTHERS,
    explain,
    explain_change,
    logarithmic_mean,
)
from margincast.models.head import booster_from_text, booster_text
from margincast.models.margincast import MargincastForecaster
from margincast.models.parts import CALIBRATION, LOG_SCALE, ONLINE, REARRANGEMENT, parts_of
from margincast.models.protocol import Panel
from margincast.models.scale import HOUR_OF_WEEK, known_volatilities


@pytest.fixture(scope="module")
def panel() -> Panel:
    return simulated()


@pytest.fixture(scope="module")
def fitted(panel) -> MargincastForecaster:
    return MargincastForecaster(MODEL, SIDES, LEVELS, overlap=1.0, threads=1).fit(panel)


@pytest.fixture(scope="module")
def future() -> Panel:
    return other_days()


@pytest.fixture(scope="module")
def crossing(fitted) -> MargincastForecaster:
    """The same model where SOL's 0.9 forecasts are five times as high, above those at 0.95."""
    assert fitted._fitted is not None
    factors = fitted._fitted.factors
    stretched = factors.contracts["SOL"] + np.log([5.0, 1.0])
    other = replace(fitted)
    other._fitted = replace(
        fitted._fitted,
        factors=replace(factors, contracts={**factors.contracts, "SOL": stretched}),
    )
    return other


@pytest.fixture(scope="module")
def later() -> Panel:
    """Days after the training ones with outcomes three times as wide: the model must learn."""
    panel = simulated(3, 300)
    shift = pd.Timedelta(days=100)
    return replace(
        panel,
        frame=panel.frame.assign(ts=panel.frame["ts"] + shift),
        outcomes={side: 3 * values for side, values in panel.outcomes.items()},
        label_end=panel.label_end + np.timedelta64(shift),
    )


def contribution(lines: pd.DataFrame, feature: str) -> float:
    return float(lines.set_index("feature")["contribution"][feature])


@pytest.mark.parametrize(("side", "level"), EVERY)
@pytest.mark.parametrize("model", ["fitted", "crossing"])
def test_the_lines_multiply_out_to_the_forecast(request, future, side, level, model):
    forecaster = request.getfixturevalue(model)
    forecasts = forecaster.predict(future).at(side, level)
    references = set()
    for row in range(0, len(future), 79):
        explanation = explain(forecaster, future.rows(np.array([row])), 0, side, level)
        references.add(explanation.reference)
        lines = explanation.lines
        assert explanation.forecast == forecasts[row]
        total = math.log(explanation.forecast / explanation.reference)
        assert math.fsum(lines["contribution"]) == pytest.approx(total, abs=1e-9)
        product = explanation.reference * math.prod(lines["multiplier"])
        assert product == pytest.approx(explanation.forecast, rel=1e-9)
        rise = explanation.forecast / explanation.reference - 1
        assert math.fsum(lines["points"]) == pytest.approx(rise, abs=1e-8)
        assert lines["contribution"].abs().is_monotonic_decreasing
    assert len(references) == 1  # average conditions do not hang on the row


@pytest.mark.parametrize(("side", "level"), EVERY)
def test_a_change_multiplies_out_whatever_the_two_rows(crossing, future, side, level):
    for before, after in [(0, 1), (5, 300), (300, 5), (22, 23), (77, 77)]:
        explanation = explain_change(
            parts_of(crossing, future, before, side, level)[1],
            parts_of(crossing, future, after, side, level)[1],
        )
        forecasts = crossing.predict(future).at(side, level)
        total = math.log(forecasts[after] / forecasts[before])
        assert explanation.lines["contribution"].sum() == pytest.approx(total, abs=1e-9)
        rise = forecasts[after] / forecasts[before] - 1
        assert explanation.lines["points"].sum() == pytest.approx(rise, abs=1e-8)
        if before == after:
            assert (explanation.lines["contribution"] == 0).all()


def test_the_scale_is_split_as_its_formula_says(fitted, future, panel):
    # the slow twin: coefficient x (log volatility - mean over training), written out
    assert fitted._fitted is not None
    scale = fitted._fitted.scale

    def logs(frame: pd.DataFrame) -> np.ndarray:
        return np.log(known_volatilities(frame[list(COLUMNS)].to_numpy(), COLUMNS))

    usual = logs(panel.frame).mean(axis=0)
    split = scale.contributions(future.frame)
    for i, column in enumerate(COLUMNS):
        expected = scale.coefficients[1 + i] * (logs(future.frame)[:, i] - usual[i])
        np.testing.assert_allclose(split[column], expected, atol=1e-12)
    total = np.sum(list(split.values()), axis=0)
    np.testing.assert_allclose(
        total, np.log(scale.predict(future.frame) / scale.average), atol=1e-12
    )
    # least squares goes through the means: average conditions have the average log range
    usual_range = np.log(panel.log_range).mean()
    assert math.log(scale.average) == pytest.approx(usual_range, abs=1e-9)


@pytest.mark.parametrize(("side", "level"), [(s, level) for s in SIDES for level in LEVELS[:2]])
def test_the_head_is_split_into_what_its_trees_say(fitted, future, side, level):
    assert fitted._fitted is not None
    head, scale = fitted._fitted.head, fitted._fitted.scale
    booster = head.boosters[side, level]
    for row in (1, 2, 44):
        frame = future.rows(np.array([row])).frame
        matrix = head.design(frame, scale.predict(frame))
        _, parts = parts_of(fitted, future, row, side, level)
        raw = booster.predict(matrix)[0]
        assert parts.average_head + math.fsum(parts.head.values()) == pytest.approx(raw, abs=1e-12)
        assert parts.head["idle"] == 0.0
        assert parts.head["stress"] != 0.0


def test_stress_that_widens_the_tail_is_named_and_only_it(fitted, panel):
    row = np.array([0])
    calm, stressed = panel.rows(row).frame.assign(stress=-1.5), panel.rows(row).frame
    both = pd.concat([calm, stressed.assign(stress=1.5)], ignore_index=True)
    twins = Panel.of_decisions(both.assign(ts=both["ts"]), panel.units, SIDES)
    lines = explain_change(
        parts_of(fitted, twins, 0, "long", 0.9)[1], parts_of(fitted, twins, 1, "long", 0.9)[1]
    ).lines
    assert lines["feature"][0] == "stress"
    # true effect of 3 units is exp(1.2); shrunken trees find most of it
    assert 1.3 < lines["multiplier"][0] < 4
    for silent in (CALIBRATION, ONLINE, REARRANGEMENT, HOUR_OF_WEEK, "idle"):
        assert contribution(lines, silent) == 0.0


def test_another_contract_with_the_same_features_differs_by_its_factor_alone(fitted, panel):
    one = panel.rows(np.array([100])).frame
    twins = Panel.of_decisions(
        pd.concat([one.assign(symbol="BTC"), one.assign(symbol="SOL")]), panel.units, SIDES
    )
    explanation = explain_change(
        parts_of(fitted, twins, 0, "short", 0.95)[1], parts_of(fitted, twins, 1, "short", 0.95)[1]
    )
    lines = explanation.lines.set_index("feature")["contribution"]
    assert lines[CALIBRATION] == pytest.approx(
        math.log(explanation.forecast / explanation.reference)
    )
    assert lines[CALIBRATION] > 0  # SOL is wilder than its volatility shows
    assert (lines.drop(CALIBRATION) == 0).all()


def test_a_volatility_that_trebles_is_what_the_rise_is_put_down_to(fitted, panel):
    one = panel.rows(np.array([100])).frame
    wild = one.assign(**{column: 3 * one[column] for column in COLUMNS})
    twins = Panel.of_decisions(
        pd.concat([one, wild.assign(symbol=one["symbol"] + "2")]), panel.units, SIDES
    )
    explanation = explain_change(
        parts_of(fitted, twins, 0, "long", 0.99)[1],
        parts_of(fitted, twins, 1, "long", 0.99)[1],
        groups=dict.fromkeys([*COLUMNS, LOG_SCALE], "volatility"),
    )
    top = explanation.lines.iloc[0]
    assert top["feature"] == "volatility"
    assert math.isnan(top["value"])  # of several features
    assert 2 < top["multiplier"] < 4


def test_levels_that_crossed_are_said_to_be_rearranged(fitted, crossing, future):
    contracts = future.frame["symbol"].to_numpy()
    sol, btc = (int(np.flatnonzero(contracts == name)[0]) for name in ("SOL", "BTC"))
    # the trees of both say what they said; each level is served what the other's do
    said = fitted.predict(future).at("long", 0.95)[sol]
    low, high = (explain(crossing, future, sol, "long", level) for level in (0.9, 0.95))
    assert low.forecast == said
    assert contribution(high.lines, REARRANGEMENT) == pytest.approx(
        math.log(high.forecast / said), abs=1e-12
    )
    assert contribution(low.lines, REARRANGEMENT) < 0 < contribution(high.lines, REARRANGEMENT)
    for explanation, level in ((low, 0.9), (high, 0.95)):
        own = explain(fitted, future, sol, "long", level).lines.set_index("feature")
        lines = explanation.lines.set_index("feature").reindex(own.index)
        same = [name for name in own.index if name not in {REARRANGEMENT, CALIBRATION}]
        pd.testing.assert_series_equal(
            lines["contribution"][same], own["contribution"][same], check_exact=True
        )
    assert contribution(explain(crossing, future, btc, "long", 0.95).lines, REARRANGEMENT) == 0.0


@pytest.mark.parametrize("level", LEVELS)
def test_what_was_learnt_since_the_fit_is_a_line_of_its_own(fitted, later, level):
    first, last = 0, len(later) - 2  # decisions of one contract
    before, after = (parts_of(fitted, later, row, "short", level)[1] for row in (first, last))
    lines = explain_change(before, after).lines
    assert contribution(lines, ONLINE) > 0.01
    # a panel of nothing but the row knows no outcomes before it, and is forecast without them
    alone = parts_of(fitted, later.rows(np.array([last])), 0, "short", level)[1]
    learnt = math.log(after.forecast / alone.forecast)
    assert contribution(lines, ONLINE) == pytest.approx(learnt, abs=1e-9)


@pytest.mark.parametrize("most_lines", [1, 2, 4, 100])
def test_no_more_lines_than_asked_and_nothing_lost(fitted, future, most_lines):
    everything = explain(fitted, future, 3, "long", 0.99)
    few = explain(fitted, future, 3, "long", 0.99, most_lines=most_lines)
    assert len(few.lines) == min(most_lines, len(everything.lines))
    total = everything.lines["contribution"].sum()
    assert few.lines["contribution"].sum() == pytest.approx(total, abs=1e-12)
    if most_lines < len(everything.lines):
        assert few.lines["feature"].iloc[-1] == OTHERS
        kept = everything.lines.head(most_lines - 1)
        pd.testing.assert_frame_equal(few.lines.head(most_lines - 1), kept)


def test_the_record_is_json_and_says_what_is_not_known(fitted, future):
    explanation = explain(fitted, future, 0, "short", 0.9)  # row 0 knows neither stress nor its day
    record = json.loads(json.dumps(explanation.record(), allow_nan=False))
    values = {line["feature"]: line["value"] for line in record["lines"]}
    assert values["stress"] is None
    assert values["volatility_1h"] == future.frame["volatility_1h"][0]
    assert record["forecast"] == explanation.forecast


def test_a_loaded_model_explains_itself_alike(fitted, future, tmp_path):
    fitted.save(tmp_path)
    loaded = MargincastForecaster.load(tmp_path)
    for side, level in EVERY:
        left = explain(fitted, future, 8, side, level)
        right = explain(loaded, future, 8, side, level)
        assert left.reference == right.reference
        pd.testing.assert_frame_equal(left.lines, right.lines, check_exact=True)


class Misdescribed:
    """A forecaster whose stages are not those of its forecasts: every factor is 1 % higher."""

    def __init__(self, honest: MargincastForecaster) -> None:
        self.honest, self.sides, self.levels = honest, honest.sides, honest.levels
        self.predict = honest.predict

    def stages(self, panel: Panel):
        stages = self.honest.stages(panel)
        higher = {name: logs + 0.005 for name, logs in stages.log_factors.items()}
        return replace(stages, log_factors=higher)


def test_stages_that_do_not_make_the_forecast_are_found_out(fitted, future):
    with pytest.raises(RuntimeError, match=r"stages\(\) .* do not describe one model"):
        explain(Misdescribed(fitted), future, 1, "long", 0.9)


def test_forecasts_of_two_models_or_levels_are_not_compared(fitted, panel, future):
    other = MargincastForecaster(MODEL, SIDES, LEVELS, overlap=1.0, threads=1)
    other.fit(panel.rows(np.arange(len(panel)) < 2000))
    one = parts_of(fitted, future, 1, "long", 0.9)[1]
    for another in (
        parts_of(other, future, 1, "long", 0.9)[1],
        parts_of(fitted, future, 1, "short", 0.9)[1],
        parts_of(fitted, future, 1, "long", 0.95)[1],
    ):
        with pytest.raises(InputError, match="not forecast by one model for one side and level"):
            explain_change(one, another)


def test_what_cannot_be_explained_says_why(fitted, future):
    with pytest.raises(InputError, match=r"no forecast of side long, level 0\.5 .* 0\.9, 0\.95"):
        explain(fitted, future, 0, "long", 0.5)
    with pytest.raises(InputError, match="no row 400 to explain; the panel's rows are 0 to 399"):
        explain(fitted, future, 400, "long", 0.9)
    with pytest.raises(InputError, match="at least 1 line, found most_lines = 0"):
        explain(fitted, future, 0, "long", 0.9, most_lines=0)
    blind = replace(future, frame=future.frame.assign(volatility_1h=np.nan))
    with pytest.raises(InputError, match=r"SOL, 2024-01-01 00:00 UTC, long, 0\.9 is not known"):
        explain(fitted, blind, 1, "long", 0.9)


def test_a_forecast_of_zero_has_no_logarithm_and_says_so(fitted, future):
    # a head whose trees say less than nothing for this decision is held at 0
    assert fitted._fitted is not None
    head = fitted._fitted.head
    frame = future.rows(np.array([1])).frame
    booster = head.boosters["long", 0.9]
    said = booster.predict(head.design(frame, fitted._fitted.scale.predict(frame)))[0]
    text = booster_text(booster)
    leaf = booster.predict(head.design(frame, fitted._fitted.scale.predict(frame)), pred_leaf=True)[
        0, 0
    ]
    sunk = booster_from_text(text)
    sunk.set_leaf_output(0, int(leaf), sunk.get_leaf_output(0, int(leaf)) - said - 0.5)
    low = replace(head, boosters={**head.boosters, ("long", 0.9): sunk})
    pinned = replace(fitted)
    pinned._fitted = replace(fitted._fitted, head=low)
    assert pinned.predict(future).at("long", 0.9)[1] == 0.0
    with pytest.raises(InputError, match=r"the forecast of SOL, .* is held at 0 .* no logarithm"):
        explain(pinned, future, 1, "long", 0.9)


def test_the_guides_example_runs_and_says_what_it_says(monkeypatch, capsys):
    workspace = Path(__file__).resolve().parents[2]
    guide = workspace / "docs" / "guide" / "explain.md"
    (example,) = re.findall(r"```python\n(.*?)```", guide.read_text(encoding="utf-8"), re.DOTALL)
    monkeypatch.chdir(workspace)
    exec(compile(example, str(guide), "exec"), {})  # noqa: S102  # the page's own code
    rise, _, top, *_, band = capsys.readouterr().out.splitlines()
    before, after = (float(part) for part in re.findall(r"([\d.]+)%", rise))
    lower, upper = (float(part) for part in re.findall(r"([\d.]+)%", band))
    assert 1.2 * before < after  # the last hour's volatility doubled
    assert "parkinson_volatility_1h" in top
    assert lower < after < upper


POSITIVE = st.floats(1e-6, 1e6)


@given(POSITIVE, POSITIVE)
def test_the_logarithmic_mean_lies_between_the_geometric_and_the_arithmetic(left, right):
    mean = logarithmic_mean(left, right)
    assert mean == pytest.approx(logarithmic_mean(right, left), rel=1e-9)
    assert math.sqrt(left * right) * (1 - 1e-9) <= mean <= (left + right) / 2 * (1 + 1e-9)
    assert mean * math.log(left / right) == pytest.approx(left - right, rel=1e-9, abs=1e-9 * left)


@given(POSITIVE, st.floats(-1e-4, 1e-4))
def test_the_logarithmic_mean_of_neighbours_keeps_its_digits(value, distance):
    exact = value * (1 + distance / 2 + distance**2 / 6 + distance**3 / 24)
    assert logarithmic_mean(value * math.exp(distance), value) == pytest.approx(exact, rel=1e-12)
