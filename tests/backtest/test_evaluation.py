"""Evaluation on a simulated market whose conditional quantiles are known exactly."""

import json
from datetime import timedelta

import numpy as np
import pandas as pd
import pytest

from margincast.backtest.evaluation import evaluate
from margincast.backtest.replay import Replay
from margincast.models.protocol import Panel, TailForecast

SIDES = ("long", "short")
LEVELS = (0.95, 0.99)
HOUR = timedelta(hours=1)


def simulate(days=300, symbols=("A", "B"), *, seed=1):
    """Exponential excursions whose mean, the volatility, is known to whoever forecasts.

    The quantile at a level is then -volatility log(1 - level), the expected shortfall beyond it one
    volatility more. Windows do not overlap: decisions and horizon are one hour.
    """
    generator = np.random.default_rng(seed)
    times = pd.date_range("2024-01-01", periods=24 * days, freq="h", tz="UTC").as_unit("us")
    wave = 1.0 + 0.5 * np.sin(np.arange(len(times)) / 200.0)
    volatility = 0.005 * np.repeat(wave, len(symbols)) * np.tile([1.0, 2.0], len(times))
    frame = pd.DataFrame(
        {"symbol": np.tile(symbols, len(times)), "ts": np.repeat(times, len(symbols))}
    )
    panel = Panel(
        frame=frame,
        units={},
        outcomes={side: volatility * generator.exponential(size=len(frame)) for side in SIDES},
        log_range=volatility,
        label_end=(frame["ts"] + HOUR).dt.tz_localize(None).to_numpy("datetime64[us]"),
    )
    return panel, volatility


def forecast(scale):
    """The forecast that is right where ``scale`` is the volatility."""
    quantiles = scale[:, None, None] * -np.log1p(-np.array(LEVELS))
    quantiles = np.repeat(quantiles, len(SIDES), axis=1)
    return TailForecast(SIDES, LEVELS, quantiles, quantiles + scale[:, None, None])


def replay_of(panel, forecasts):
    return Replay(panel, (), np.zeros(len(panel), dtype=np.intp), forecasts)


def run(panel, forecasts, reference="truth", spacing=HOUR):
    return evaluate(replay_of(panel, forecasts), reference, horizon=HOUR, spacing=spacing)


@pytest.fixture(scope="module")
def market():
    return simulate()


@pytest.fixture(scope="module")
def evaluation(market):
    panel, volatility = market
    halved = forecast(0.5 * volatility)
    flat = forecast(np.full(len(panel), volatility.mean()))
    flat = TailForecast(flat.sides, flat.levels, flat.quantiles)
    return run(panel, {"truth": forecast(volatility), "halved": halved, "flat": flat})


def summary_of(evaluation, model):
    return next(summary for summary in evaluation.models if summary.model == model)


@pytest.mark.parametrize("side", [*SIDES, "both"])
@pytest.mark.parametrize("level", LEVELS)
def test_the_true_quantile_is_exceeded_as_often_as_promised(evaluation, side, level):
    cell = evaluation.cell("truth", side, level)
    error = np.sqrt(level / (1 - level) / cell.decisions)
    assert cell.exceedance_ratio == pytest.approx(1.0, abs=4 * error)
    assert cell.exceedance_ratio_low < 1.0 < cell.exceedance_ratio_high
    # A 95 % interval of independent outcomes is about four standard errors wide.
    width = cell.exceedance_ratio_high - cell.exceedance_ratio_low
    assert width == pytest.approx(4 * error, rel=0.4)


def test_the_true_expected_shortfall_has_ratio_one_and_no_forecast_has_none(evaluation):
    for level in LEVELS:
        truth = evaluation.cell("truth", "both", level)
        assert truth.expected_shortfall_ratio == pytest.approx(1.0, abs=0.05)
        assert np.isnan(evaluation.cell("flat", "both", level).expected_shortfall_ratio)
        assert np.isfinite(truth.fissler_ziegel)
        assert np.isnan(evaluation.cell("flat", "both", level).fissler_ziegel)


@pytest.mark.parametrize("level", LEVELS)
def test_a_halved_forecast_is_worse_in_every_respect_but_its_price(evaluation, level):
    truth = evaluation.cell("truth", "both", level)
    halved = evaluation.cell("halved", "both", level)
    # P(excursion > q / 2) is the square root of 1 - level for an exponential excursion.
    expected = np.sqrt(1 - level) / (1 - level)
    assert halved.exceedance_ratio == pytest.approx(expected, rel=0.05)
    assert halved.exceedance_ratio_low > 1.0
    assert halved.pinball > truth.pinball
    assert halved.pinball_ratio > 1.0
    assert halved.mean_shortfall > truth.mean_shortfall
    assert halved.mean_forecast == pytest.approx(truth.mean_forecast / 2)


def test_the_tests_pass_the_truth_and_fail_the_halved_forecast(evaluation):
    truth, halved = summary_of(evaluation, "truth"), summary_of(evaluation, "halved")
    assert truth.kupiec_failed == 0.0
    assert halved.kupiec_failed == 1.0
    assert halved.versus_reference_p < 1e-6
    assert truth.kupiec_without_power == 0.0


def test_a_contract_with_few_decisions_is_without_power_not_passed():
    panel, volatility = simulate(days=12)
    found = summary_of(run(panel, {"truth": forecast(volatility)}), "truth")
    assert found.kupiec_failed + found.kupiec_without_power == 1.0


def test_a_flat_forecast_is_right_on_average_only(evaluation):
    flat = evaluation.cell("flat", "both", 0.99)
    assert flat.pinball_ratio > 1.05
    by_symbol = evaluation.contracts.query("model == 'flat' and level == 0.99")
    ratios = by_symbol.groupby("symbol")["exceedance_ratio"].mean()
    assert ratios["A"] < 0.6
    assert ratios["B"] > 1.5


def test_the_reference_to_itself_is_exactly_one(evaluation):
    for cell in evaluation.cells:
        if cell.model == "truth":
            assert cell.pinball_ratio == 1.0
    assert summary_of(evaluation, "truth").pinball_ratio == 1.0
    assert np.isnan(summary_of(evaluation, "truth").versus_reference_p)


def test_exchanging_the_reference_inverts_the_ratio(market, evaluation):
    panel, volatility = market
    other = run(
        panel,
        {"truth": forecast(volatility), "halved": forecast(0.5 * volatility)},
        reference="halved",
    )
    for level in LEVELS:
        there = evaluation.cell("halved", "both", level).pinball_ratio
        back = other.cell("truth", "both", level).pinball_ratio
        assert there * back == pytest.approx(1.0)


def test_figures_equal_a_count_by_hand(market, evaluation):
    panel, volatility = market
    quantile = 0.5 * volatility * -np.log(0.01)
    hits = loss = beyond = 0.0
    for outcome, margin in zip(panel.outcomes["short"], quantile, strict=True):
        hits += outcome > margin
        loss += 0.99 * (outcome - margin) if outcome > margin else 0.01 * (margin - outcome)
        beyond += max(0.0, outcome - margin)
    cell = evaluation.cell("halved", "short", 0.99)
    assert cell.decisions == len(panel)
    assert cell.exceedances == hits
    assert cell.pinball == pytest.approx(loss / len(panel))
    assert cell.mean_shortfall == pytest.approx(beyond / len(panel))


def test_contracts_add_up_to_the_cells(evaluation):
    table = evaluation.contracts.set_index(["model", "side", "level"]).sort_index()
    for cell in evaluation.cells:
        if cell.side != "both":
            rows = table.loc[(cell.model, cell.side, cell.level)]
            assert rows["exceedances"].sum() == cell.exceedances
            assert rows["decisions"].sum() == cell.decisions
            weighted = (rows["pinball"] * rows["decisions"]).sum() / cell.decisions
            assert weighted == pytest.approx(cell.pinball)


def test_both_sides_together_are_the_sum_of_the_sides(evaluation):
    for model in ("truth", "halved", "flat"):
        for level in LEVELS:
            sides = [evaluation.cell(model, side, level) for side in SIDES]
            both = evaluation.cell(model, "both", level)
            assert both.exceedances == sum(side.exceedances for side in sides)
            assert both.decisions == sum(side.decisions for side in sides)


def test_what_cannot_be_scored_is_counted_and_changes_nothing_else(market):
    panel, volatility = market
    outcomes = {side: values.copy() for side, values in panel.outcomes.items()}
    outcomes["long"][:7] = np.nan
    forecasts = {"truth": forecast(volatility), "halved": forecast(0.5 * volatility)}
    forecasts["halved"].quantiles[5:18, 1, 0] = np.nan
    holes = Panel(panel.frame, panel.units, outcomes, panel.log_range, panel.label_end)
    found = run(holes, forecasts)
    assert found.unscored == {"no outcome": 7, "a model has no forecast": 11}
    assert found.scored == len(panel) - 18
    rest = np.arange(len(panel)) >= 18
    short = {
        name: TailForecast(SIDES, LEVELS, f.quantiles[rest], f.expected_shortfall[rest])
        for name, f in forecasts.items()
    }
    without = run(panel.rows(rest), short)
    assert without.unscored == {"no outcome": 0, "a model has no forecast": 0}
    assert found.cells == without.cells
    pd.testing.assert_frame_equal(found.contracts, without.contracts)


def test_crossings_are_counted(market):
    panel, volatility = market
    crossed = forecast(volatility)
    rows = np.arange(0, len(panel), 100)
    crossed.quantiles[rows, 0] = crossed.quantiles[rows, 0, ::-1]
    found = run(panel, {"truth": forecast(volatility), "crossed": crossed})
    assert summary_of(found, "truth").crossings == 0
    assert summary_of(found, "crossed").crossings == len(rows)


def test_a_forecast_that_doubles_overnight_rises_by_one():
    panel, volatility = simulate(days=30)
    late = np.arange(len(panel)) >= len(panel) // 2
    jumping = forecast(np.where(late, 0.02, 0.01))
    found = summary_of(run(panel, {"truth": forecast(volatility), "jumping": jumping}), "jumping")
    assert found.largest_one_day_rise == pytest.approx(1.0)
    assert found.peak_to_trough == pytest.approx(2.0)
    truth = summary_of(run(panel, {"truth": forecast(volatility)}), "truth")
    one_contract = volatility[::2]
    assert truth.peak_to_trough == pytest.approx(one_contract.max() / one_contract.min())


def test_same_replay_same_figures(market, evaluation):
    panel, volatility = market
    again = run(panel, {"truth": forecast(volatility)})
    for side in (*SIDES, "both"):
        assert again.cell("truth", side, 0.99) == evaluation.cell("truth", side, 0.99)


def test_the_record_is_strict_json(evaluation):
    text = json.dumps(evaluation.as_record(), allow_nan=False)
    record = json.loads(text)
    assert record["scored_decisions"] == evaluation.scored
    assert len(record["cells"]) == len(evaluation.cells)
    reference = next(model for model in record["models"] if model["model"] == "truth")
    assert reference["versus_reference_p"] is None


def test_too_few_blocks_give_no_interval_and_null_in_the_record():
    panel, volatility = simulate(days=1)
    keep = np.arange(len(panel)) < 16
    found = run(panel.rows(keep), {"truth": forecast(volatility[keep])})
    cell = found.cell("truth", "both", 0.95)
    assert np.isnan([cell.exceedance_ratio_low, cell.exceedance_ratio_high]).all()
    record = json.loads(json.dumps(found.as_record(), allow_nan=False))
    assert record["cells"][0]["exceedance_ratio_low"] is None
    assert record["models"][0]["largest_one_day_rise"] is None
