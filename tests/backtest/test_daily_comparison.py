"""Losses by day are those of the report, and two models are compared where both were asked."""

import math
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pandas as pd
import pytest
from scipy import special

from margincast.backtest.contracts import first_decisions
from margincast.backtest.daily_comparison import compare_daily
from margincast.backtest.daily_losses import (
    SCHEMA,
    DailyLosses,
    read_daily_losses,
    write_daily_losses,
)
from margincast.backtest.evaluation import evaluate
from margincast.backtest.replay import Replay
from margincast.core.errors import InputError
from margincast.models.protocol import Panel, TailForecast

SIDES = ("long", "short")
LEVELS = (0.95, 0.99)
HOUR = timedelta(hours=1)
CONTRACTS = ("A", "B")


def simulate(days=60, *, seed=1, contracts=CONTRACTS):
    """Exponential excursions around a volatility that rises and falls; all true quantiles known."""
    generator = np.random.default_rng(seed)
    times = pd.date_range("2024-01-01", periods=24 * days, freq="h", tz="UTC").as_unit("us")
    wave = 1.0 + 0.5 * np.sin(np.arange(len(times)) / 200.0)
    volatility = 0.005 * np.repeat(wave, len(contracts)) * np.tile([1.0, 2.0], len(times))
    frame = pd.DataFrame(
        {"symbol": np.tile(contracts, len(times)), "ts": np.repeat(times, len(contracts))}
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
    quantiles = scale[:, None, None] * -np.log1p(-np.array(LEVELS))
    return TailForecast(SIDES, LEVELS, np.repeat(quantiles, len(SIDES), axis=1), None)


def replay_of(panel, forecasts):
    return Replay(panel, (), np.zeros(len(panel), dtype=np.intp), forecasts)


@pytest.fixture(scope="module")
def market():
    return simulate()


@pytest.fixture(scope="module")
def replay(market):
    panel, volatility = market
    noise = np.exp(0.5 * np.random.default_rng(3).normal(size=len(panel)))
    # two weeks without an outcome: not scored, so not in the table
    panel = replace(panel, log_range=np.where(np.arange(len(panel)) < 672, np.nan, volatility))
    forecasts = {"truth": forecast(volatility), "noisy": forecast(volatility * noise)}
    return replay_of(panel, forecasts)


@pytest.fixture(scope="module")
def losses(replay):
    made = DailyLosses({60: replay})
    return {model: made.of(model) for model in replay.forecasts}


@pytest.fixture(scope="module")
def evaluation(replay):
    first = first_decisions(replay.panel)
    return evaluate(replay, "truth", horizon=HOUR, spacing=HOUR, first_decisions=first)


@pytest.mark.parametrize("model", ["truth", "noisy"])
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("side", SIDES)
def test_days_add_up_to_the_figures_of_the_report(losses, evaluation, model, side, level):
    cell = evaluation.cell(model, side, level)
    own = losses[model].query("side == @side and level == @level")
    weights = own["decisions"]
    assert weights.sum() == cell.decisions
    assert own["exceedances"].sum() == cell.exceedances
    for column in ("pinball", "mean_forecast", "mean_shortfall"):
        mean = np.average(own[column], weights=weights)
        assert mean == pytest.approx(getattr(cell, column), rel=1e-12)


def test_a_table_comes_back_from_its_file_as_it_was(losses, tmp_path):
    path = tmp_path / "daily_losses.parquet"
    write_daily_losses(path, losses["truth"])
    read = read_daily_losses(path)
    assert list(read.columns) == SCHEMA.names
    pd.testing.assert_frame_equal(read, losses["truth"], check_dtype=False)
    assert str(read["day"].dt.tz) == "UTC"


def test_another_file_is_no_table_of_losses(tmp_path):
    path = tmp_path / "other.parquet"
    pd.DataFrame({"day": [1]}).to_parquet(path)
    with pytest.raises(InputError, match="lacks symbol"):
        read_daily_losses(path)
    path.write_bytes(b"PAR0")
    with pytest.raises(InputError, match="no table of daily losses"):
        read_daily_losses(path)


def test_differences_are_those_of_the_report(losses, evaluation):
    found = compare_daily(losses["noisy"], losses["truth"])
    noisy = next(model for model in evaluation.models if model.model == "noisy")
    together = found.difference(60)
    assert together.difference == pytest.approx(noisy.pinball_ratio - 1.0)
    # another estimate of the same error: the bootstrap of the report
    assert together.standard_error == pytest.approx(noisy.pinball_ratio_error, rel=0.5)
    for level in LEVELS:
        one, cell = found.difference(60, level), evaluation.cell("noisy", "both", level)
        assert one.difference == pytest.approx(cell.pinball_ratio - 1.0)
        assert one.first_loss == pytest.approx(cell.pinball)
        assert one.days == 46


def test_the_test_is_the_plain_formula_day_by_day(losses):
    """Loops in place of arrays; every day has the same number of decisions here."""
    found = compare_daily(losses["noisy"], losses["truth"]).difference(60, 0.99)
    daily = {
        model: table.query("level == 0.99").groupby("day")["pinball"].mean()
        for model, table in losses.items()
    }
    series = ((daily["noisy"] - daily["truth"]) / daily["truth"].mean()).tolist()
    n, degrees = len(series), int(0.4 * len(series) ** (2 / 3))
    variance = 0.0
    for j in range(1, degrees + 1):
        look = sum(math.cos(math.pi * j * (t + 0.5) / n) * x for t, x in enumerate(series))
        variance += 2.0 / n * look**2 / degrees
    error = math.sqrt(variance / n)
    assert found.difference == pytest.approx(np.mean(series))
    assert found.standard_error == pytest.approx(error)
    assert found.degrees_of_freedom == degrees
    assert found.p_value == pytest.approx(2 * special.stdtr(degrees, -abs(np.mean(series)) / error))


def test_a_worse_model_is_worse_and_a_better_one_is_not(losses):
    worse = compare_daily(losses["noisy"], losses["truth"]).difference(60)
    better = compare_daily(losses["truth"], losses["noisy"]).difference(60)
    assert worse.worse(0.05)
    assert not better.worse(0.05)
    assert better.difference < 0.0 < worse.difference
    assert better.p_worse > 0.95
    assert better.highest(0.95) < 0.0 < worse.difference < worse.highest(0.95)


def test_a_model_is_as_good_as_itself(losses):
    for one in compare_daily(losses["truth"], losses["truth"]).differences:
        assert (one.difference, one.standard_error, one.statistic, one.p_value) == (0, 0, 0, 1)
        assert not one.worse(0.05)


def test_only_the_same_decisions_are_compared_and_the_rest_is_counted(losses):
    """Another contract, other days, revised data, more decisions: none of it moves a figure."""
    first, second = losses["noisy"], losses["truth"]
    days = sorted(first["day"].unique())
    kept = first["day"].isin(days[5:])
    expected = compare_daily(first[kept], second[kept])
    changed = second[second["day"] != days[0]].copy()  # 1 day, 2 contracts, 2 sides
    changed.loc[changed["day"] == days[1], "mean_outcome"] *= 1.001
    changed.loc[changed["day"].isin(days[2:4]), "decisions"] -= 1
    early = first[first["day"] != days[4]]
    third = second.assign(symbol="C", pinball=1.0)
    found = compare_daily(early, pd.concat([changed, third], ignore_index=True))
    assert found.differences == expected.differences
    assert found.shared.contracts == CONTRACTS
    assert found.shared.left_out == {
        "only in the first": 4,
        "only in the second": 4 + 2 * 46,
        "other decisions": 8,
        "other outcomes": 4,
    }
    assert found.shared.contract_days == 41 * 2 * 2
    assert found.shared.decisions == 41 * 2 * 2 * 24
    assert (found.shared.first_day, found.shared.last_day) == (days[5], days[-1])


def test_nothing_in_common_is_an_error_that_says_why(losses):
    with pytest.raises(InputError, match=r"no decisions in common.*only in the first: 184"):
        compare_daily(losses["truth"], losses["truth"].assign(symbol="C"))


def test_a_single_day_shows_a_difference_and_no_significance(losses):
    one_day = {name: table[table["day"] == table["day"].min()] for name, table in losses.items()}
    found = compare_daily(one_day["noisy"], one_day["truth"]).difference(60)
    assert found.difference != 0.0
    assert (found.p_value, found.p_worse, found.standard_error) == (1.0, 1.0, math.inf)
    assert found.highest(0.95) == math.inf


def test_a_level_that_was_not_compared_is_named(losses):
    found = compare_daily(losses["noisy"], losses["truth"])
    with pytest.raises(InputError, match=r"level 0\.5 over 60 min"):
        found.difference(60, 0.5)
