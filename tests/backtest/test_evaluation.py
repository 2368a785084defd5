"""Evaluation on a simulated market whose conditional quantiles are known exactly."""

import json
from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import pandas as pd
import pytest

from margincast.backtest.contracts import BAND, first_decisions
from margincast.backtest.dependence import block_bootstrap_interval, clustered_sample_size
from margincast.backtest.evaluation import evaluate
from margincast.backtest.replay import Replay
from margincast.backtest.time_blocks import REPLICATIONS, RUN_DAYS
from margincast.core.errors import InputError
from margincast.models.protocol import Panel, TailForecast
from margincast.scoring.pinball import pinball_loss

SIDES = ("long", "short")
LEVELS = (0.95, 0.99)
HOUR = timedelta(hours=1)


def simulate(days=300, symbols=("A", "B"), *, seed=1, start="2024-01-01"):
    """Exponential excursions whose mean, the volatility, is known to whoever forecasts.

    The quantile at a level is then -volatility log(1 - level), the expected shortfall beyond it one
    volatility more. Windows do not overlap: decisions and horizon are one hour.
    """
    generator = np.random.default_rng(seed)
    times = pd.date_range(start, periods=24 * days, freq="h", tz="UTC").as_unit("us")
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


def run(panel, forecasts, reference="truth", first=None):
    return evaluate(
        replay_of(panel, forecasts),
        reference,
        horizon=HOUR,
        spacing=HOUR,
        first_decisions=first_decisions(panel) if first is None else first,
    )


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
    assert halved.mean_forecast_ratio == pytest.approx(0.5)
    # an exponential excursion has no memory: beyond any forecast it loses its mean, 0.75 % here
    for cell in (truth, halved):
        assert cell.shortfall_per_exceedance == pytest.approx(0.0075, rel=0.15)
        assert cell.mean_shortfall * cell.decisions == pytest.approx(
            cell.shortfall_per_exceedance * cell.exceedances
        )


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
            assert (cell.pinball_ratio, cell.pinball_ratio_error) == (1.0, 0.0)
            assert cell.mean_forecast_ratio == 1.0
    own = summary_of(evaluation, "truth")
    ratios = (own.pinball_ratio_low, own.pinball_ratio, own.pinball_ratio_high)
    assert ratios == (1.0, 1.0, 1.0)
    assert own.pinball_ratio_error == 0.0
    assert np.isnan(own.versus_reference_p)
    for figures in evaluation.groups:
        if figures.model == "truth":
            assert (figures.pinball_ratio, figures.pinball_ratio_error) == (1.0, 0.0)


def test_a_twin_of_the_reference_has_its_figures_and_its_place_in_the_confidence_set(market):
    panel, volatility = market
    truth, twin = forecast(volatility), forecast(volatility)
    found = run(panel, {"truth": truth, "twin": twin, "halved": forecast(0.5 * volatility)})
    for level in LEVELS:
        for side in (*SIDES, "both"):
            one, other = found.cell("truth", side, level), found.cell("twin", side, level)
            assert replace(other, model="truth") == one
            assert one.confidence_set_p == 1.0


def test_errors_and_intervals_are_those_of_a_bootstrap_of_rows(market, evaluation):
    """The slow, obvious way: rows of both sides under one another, resampled by day."""
    panel, volatility = market
    days = np.tile(panel.decided.astype("datetime64[D]"), 2)
    shape = -np.log1p(-0.99)
    outcome = np.concatenate([panel.outcomes[side] for side in SIDES])
    scales = {"truth": volatility, "flat": np.full(len(panel), volatility.mean())}
    losses = {
        name: pinball_loss(outcome, np.tile(scale * shape, 2), 0.99)
        for name, scale in scales.items()
    }
    hits = (outcome > np.tile(scales["flat"] * shape, 2)).astype(float)

    def slow(numerator, denominator):
        return block_bootstrap_interval(
            numerator,
            denominator,
            blocks=days,
            generator=np.random.default_rng(0),
            run_length=RUN_DAYS,
            replications=REPLICATIONS,
        )

    cell = evaluation.cell("flat", "both", 0.99)
    coverage = slow(hits, np.full(len(hits), 0.01))
    expected = (coverage.lower, coverage.estimate, coverage.upper)
    found = (cell.exceedance_ratio_low, cell.exceedance_ratio, cell.exceedance_ratio_high)
    assert found == pytest.approx(expected, rel=1e-9)
    assert cell.effective_decisions == pytest.approx(clustered_sample_size(hits, days), rel=1e-9)
    ratio = slow(losses["flat"], losses["truth"])
    assert cell.pinball_ratio == pytest.approx(ratio.estimate, rel=1e-12)
    # a 95 % interval is about four standard errors wide
    assert cell.pinball_ratio_error == pytest.approx((ratio.upper - ratio.lower) / 3.92, rel=0.1)


def test_the_true_quantile_stays_in_the_confidence_set_and_the_dominated_leave(evaluation):
    for level in LEVELS:
        for side in (*SIDES, "both"):
            members = {
                cell.model: cell.in_confidence_set
                for cell in evaluation.cells
                if (cell.side, cell.level) == (side, level)
            }
            assert members == {"truth": True, "halved": False, "flat": False}


def test_the_worst_day_is_the_one_that_cost_most():
    panel, volatility = simulate(days=40)
    crash = panel.decided.astype("datetime64[D]") == np.datetime64("2024-01-17")
    rows = np.flatnonzero(crash)[:6]
    panel.outcomes["long"][rows] = 0.9
    found = run(panel, {"truth": forecast(volatility)})
    long = found.cell("truth", "long", 0.99).worst_day
    assert long.day == date(2024, 1, 17)
    quantile = volatility[crash] * -np.log(0.01)
    beyond = np.maximum(panel.outcomes["long"][crash] - quantile, 0.0)
    assert (long.decisions, long.exceedances) == (48, int((beyond > 0).sum()))
    assert long.mean_shortfall == pytest.approx(beyond.mean())
    both = found.cell("truth", "both", 0.99).worst_day
    assert (both.day, both.decisions) == (long.day, 96)
    assert found.cell("truth", "short", 0.99).worst_day.day != long.day


def test_without_an_exceedance_there_is_no_worst_day_and_no_shortfall():
    panel, volatility = simulate(days=30)
    found = run(panel, {"truth": forecast(volatility), "wide": forecast(9 * volatility)})
    cell = found.cell("wide", "both", 0.99)
    assert (cell.exceedances, cell.worst_day) == (0, None)
    assert np.isnan(cell.shortfall_per_exceedance)
    assert np.isnan([cell.exceedance_ratio_low, cell.exceedance_ratio_high]).all()
    assert np.isnan([cell.effective_decisions, cell.expected_shortfall_ratio]).all()


def test_years_show_what_their_sum_hides():
    """Twice too wide in the first year, half in the second: right on average, wrong in each."""
    panel, volatility = simulate(days=400, start="2023-06-01")
    early = panel.decided < np.datetime64("2024-01-01")
    turned = forecast(np.where(early, 1.5, 0.75) * volatility)
    found = run(panel, {"truth": forecast(volatility), "turned": turned})
    assert [g.name for g in found.groups if g.kind == "year" and g.model == "truth"] == [
        *["2023"] * 2,
        *["2024"] * 2,
    ]
    for level in LEVELS:
        years = [found.group("turned", year, level) for year in ("2023", "2024")]
        assert years[0].exceedance_ratio_high < 1.0 < years[1].exceedance_ratio_low
        for name in ("truth", "turned"):
            parts = [found.group(name, year, level) for year in ("2023", "2024")]
            whole = found.cell(name, "both", level)
            assert sum(part.decisions for part in parts) == whole.decisions
            assert sum(part.exceedances for part in parts) == whole.exceedances
            forecasts = sum(part.mean_forecast * part.decisions for part in parts)
            assert forecasts / whole.decisions == pytest.approx(whole.mean_forecast)
        truth = found.group("truth", "2023", level)
        assert truth.exceedance_ratio_low < 1.0 < truth.exceedance_ratio_high
        assert years[0].decisions == 2 * early.sum()


def test_new_listings_are_judged_apart():
    panel, volatility = simulate(days=300, symbols=("OLD", "NEW"))
    # the forecast knows nothing of the new contract, whose volatility is twice the old one's
    blind = forecast(np.repeat(volatility[::2], 2))
    start = panel.decided.min()
    first = {"OLD": start - np.timedelta64(91, "D"), "NEW": start - np.timedelta64(89, "D")}
    found = run(panel, {"truth": forecast(volatility), "blind": blind}, first=first)
    new, old = (found.group("blind", name, 0.99) for name in ("new listings", "established"))
    assert (new.contracts, old.contracts) == (1, 1)
    # P(2 x > q) is the square root of 1 - level
    assert new.exceedance_ratio == pytest.approx(10.0, rel=0.1)
    assert old.exceedance_ratio == pytest.approx(1.0, abs=0.15)
    assert new.pinball_ratio > 1.0 + 3 * new.pinball_ratio_error > 1.0
    assert (old.pinball_ratio, old.pinball_ratio_error) == (1.0, 0.0)
    listed = found.contracts.query("symbol == 'NEW'")["new_listing"]
    assert listed.all()
    coverage = found.coverage_of("blind", 0.99)
    assert (coverage.contracts, coverage.within, coverage.new_listings) == (2, 0.5, 1)
    assert coverage.new_listings_within == 0.0
    assert list(coverage.outside) == ["NEW"]
    assert coverage.outside["NEW"] == pytest.approx(new.exceedance_ratio)
    assert summary_of(found, "blind").contracts_within == found.coverage_of("blind", 0.95).within
    nothing_new = run(panel, {"truth": blind}, first=dict.fromkeys(first, first["OLD"]))
    assert np.isnan(nothing_new.coverage_of("truth", 0.99).new_listings_within)
    assert {g.name for g in nothing_new.groups if g.kind == "listing"} == {"established"}


def test_contracts_outside_the_band_are_named_the_worst_first():
    symbols = ("A", "B", "C", "D")
    panel, volatility = simulate(days=300, symbols=symbols[:2])
    frame = panel.frame.assign(symbol=np.resize(symbols, len(panel)))
    panel = Panel(frame, {}, panel.outcomes, panel.log_range, panel.label_end)
    factor = np.select([frame["symbol"] == "B", frame["symbol"] == "D"], [0.8, 0.6], 1.0)
    found = run(panel, {"truth": forecast(volatility), "off": forecast(factor * volatility)})
    assert found.coverage_of("truth", 0.95).outside == {}
    off = found.coverage_of("off", 0.95)
    assert list(off.outside) == ["D", "B"]
    assert off.within == 0.5
    table = found.contracts.query("model == 'off' and level == 0.95 and side == 'both'")
    inside = table[table["exceedance_ratio"].between(*BAND)]
    assert set(inside["symbol"]) == {"A", "C"}


def test_a_contract_of_unknown_listing_is_refused(market):
    panel, volatility = market
    with pytest.raises(InputError, match="no first decision is known of 1 contract"):
        run(panel, {"truth": forecast(volatility)}, first={"A": panel.decided[0]})


def test_a_reference_that_was_not_replayed_is_refused(market):
    panel, volatility = market
    with pytest.raises(InputError, match="ewma_fhs was not replayed, only truth"):
        run(panel, {"truth": forecast(volatility)}, reference="ewma_fhs")


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
        rows = table.loc[(cell.model, cell.side, cell.level)]
        assert rows["exceedances"].sum() == cell.exceedances
        assert rows["decisions"].sum() == cell.decisions
        for column in ("pinball", "mean_forecast"):
            weighted = (rows[column] * rows["decisions"]).sum() / cell.decisions
            assert weighted == pytest.approx(getattr(cell, column))
        lost = (rows["shortfall_per_exceedance"] * rows["exceedances"]).sum()
        assert lost == pytest.approx(cell.mean_shortfall * cell.decisions)


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
    assert found.without_forecast == {"truth": 0, "halved": 11}
    assert found.scored == len(panel) - 18
    rest = np.arange(len(panel)) >= 18
    short = {
        name: TailForecast(SIDES, LEVELS, f.quantiles[rest], f.expected_shortfall[rest])
        for name, f in forecasts.items()
    }
    without = run(panel.rows(rest), short, first=first_decisions(panel))
    assert without.unscored == {"no outcome": 0, "a model has no forecast": 0}
    # NaN differs from itself, null does not
    assert found.as_record()["cells"] == without.as_record()["cells"]
    assert found.as_record()["groups"] == without.as_record()["groups"]
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
        one, other = again.cell("truth", side, 0.99), evaluation.cell("truth", side, 0.99)
        # alone it is the best; beside others it need not be
        assert (one.confidence_set_p, one.in_confidence_set) == (1.0, True)
        assert replace(other, confidence_set_p=1.0) == one


def test_no_decision_to_score_says_why(market):
    panel, volatility = market
    forecasts = {"truth": forecast(volatility), "mute": forecast(np.full(len(panel), np.nan))}
    with pytest.raises(InputError, match=r"most are missing from mute: 14,400"):
        run(panel, forecasts)


def test_an_expected_shortfall_with_holes_is_not_judged(market):
    panel, volatility = market
    holes = forecast(volatility)
    holes.expected_shortfall[3, 1, 1] = np.nan
    cell = run(panel, {"truth": holes}).cell("truth", "both", 0.99)
    assert np.isnan([cell.expected_shortfall_ratio, cell.fissler_ziegel]).all()


def test_the_record_is_strict_json(evaluation):
    text = json.dumps(evaluation.as_record(), allow_nan=False)
    record = json.loads(text)
    assert record["scored_decisions"] == evaluation.scored
    assert len(record["cells"]) == len(evaluation.cells)
    reference = next(model for model in record["models"] if model["model"] == "truth")
    assert reference["versus_reference_p"] is None
    assert len(record["contracts"]) == len(evaluation.contracts)
    assert len(record["groups"]) == len(evaluation.groups)
    assert len(record["contract_coverage"]) == len(evaluation.models) * len(LEVELS)
    worst = evaluation.cell("truth", "long", 0.95).worst_day
    assert date.fromisoformat(record["cells"][0]["worst_day"]["day"]) == worst.day
    assert record["inference"]["bootstrap_run_days"] == RUN_DAYS


def test_too_few_blocks_give_no_interval_and_null_in_the_record():
    panel, volatility = simulate(days=1)
    keep = np.arange(len(panel)) < 16
    found = run(panel.rows(keep), {"truth": forecast(volatility[keep])})
    cell = found.cell("truth", "both", 0.95)
    assert np.isnan([cell.exceedance_ratio_low, cell.exceedance_ratio_high]).all()
    assert np.isnan([cell.pinball_ratio_error, cell.confidence_set_p]).all()
    assert cell.in_confidence_set is None
    record = json.loads(json.dumps(found.as_record(), allow_nan=False))
    assert record["cells"][0]["exceedance_ratio_low"] is None
    assert record["models"][0]["largest_one_day_rise"] is None
