"""The frontier: settings side by side are each replayed alone, and judged at one rate."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from margincast.backtest.frontier import (
    Judge,
    efficient,
    replay_settings,
    without_cost,
)
from margincast.backtest.published import published_margin
from margincast.core.errors import InputError
from margincast.models.protocol import Panel, TailForecast
from margincast.specs.loading import load_spec
from margincast.specs.schedule import BaseSchedule
from margincast.specs.serving import MarginPolicy

WORKSPACE = Path(__file__).resolve().parents[2]
SPEC = WORKSPACE / "serving" / "perp-8h.toml"
FREE = (
    "liquidation.taker_fee_rate=0.0", "liquidation.liquidation_fee_rate=0.0",
    "liquidation.half_spread_bps=0.0", "long_run.minimum_history=2d",
)  # fmt: skip
SIDES = ("long", "short")
CONTRACTS = ("BTCUSDT", "ETHUSDT")
HOURS = 24 * 12


def setting(*overrides):
    return without_cost(load_spec(SPEC, MarginPolicy, [*FREE, *overrides]))


@pytest.fixture(scope="module")
def panel():
    rng = np.random.default_rng(5)
    ts = pd.date_range("2024-01-01", periods=HOURS, freq="h", tz="UTC", unit="us")
    frame = pd.DataFrame({"symbol": np.tile(CONTRACTS, HOURS), "ts": np.repeat(ts, 2)})
    scale = np.exp(np.repeat(np.cumsum(rng.normal(0.0, 0.1, HOURS)), 2))
    outcomes = {side: 0.01 * scale * rng.exponential(size=len(frame)) for side in SIDES}
    end = frame["ts"].dt.tz_localize(None).to_numpy() + np.timedelta64(8, "h")
    return Panel(frame.assign(scale=scale), {}, outcomes, scale, end)


@pytest.fixture(scope="module")
def forecast(panel):
    quantile = 0.01 * panel.frame["scale"].to_numpy() * np.log(100.0)
    return TailForecast(SIDES, (0.99,), np.repeat(quantile[:, None, None], 2, axis=1))


def test_settings_side_by_side_are_each_the_replay_of_their_own_policy(panel, forecast):
    policies = {
        "as it is": setting(),
        "fast": setting("speed.rise_per_day=3.0", "buffer.rate=0.0"),
        "narrow": setting("long_run.floor=0.9", "long_run.cap=1.5"),
    }
    schedule = load_spec(WORKSPACE / "serving/schedules/perpetuals.toml", BaseSchedule)
    for name, rates in replay_settings(panel, forecast, policies, panel, at_a_time=2):
        alone = published_margin(
            panel, forecast, schedule, policies.pop(name), tier=1, history=panel
        )
        np.testing.assert_allclose(rates, alone.rates, rtol=1e-6)
    assert not policies


def test_a_margin_scaled_by_a_constant_stands_as_before(panel, forecast):
    margins = forecast.quantiles[:, :, 0].T
    one, twice = (Judge.of(panel, SIDES, 0.99).standing(k * margins) for k in (1.0, 2.0))
    assert twice.scale == pytest.approx(0.5 * one.scale)
    for name in ("scaled_mean", "scaled_shortfall_bps", "peak_to_trough", "largest_1_day_rise"):
        assert getattr(twice, name) == pytest.approx(getattr(one, name))
    assert twice.exceedance_ratio <= one.exceedance_ratio
    outcomes = np.stack([panel.outcomes[side] for side in SIDES])
    assert (outcomes > one.scale * margins).mean() == pytest.approx(0.01, abs=2.0 / outcomes.size)


def test_a_margin_that_knows_the_scale_loses_less_than_one_that_does_not(panel, forecast):
    sharp = Judge.of(panel, SIDES, 0.99).standing(forecast.quantiles[:, :, 0].T)
    flat = Judge.of(panel, SIDES, 0.99).standing(np.full((2, len(panel)), 0.05))
    assert sharp.scaled_shortfall_bps < flat.scaled_shortfall_bps
    assert sharp.scaled_mean < flat.scaled_mean
    assert flat.peak_to_trough == 1.0
    assert flat.largest_1_day_rise == 0.0


@given(arrays(np.float64, st.tuples(st.integers(1, 25), st.just(3)), elements=st.floats(0, 5)))
def test_efficient_settings_are_those_nobody_beats(values):
    table = pd.DataFrame(values, columns=["a", "b", "c"])
    slow = [
        not any((other <= own).all() and (other < own).any() for other in values) for own in values
    ]
    assert efficient(table, ["a", "b", "c"]).tolist() == slow
    assert any(slow)


def test_settings_that_cannot_stand_side_by_side_are_named(panel, forecast):
    policies = {"a": setting(), "b": setting("publication.every=2h", "long_run.window=100d")}
    with pytest.raises(InputError, match=r"publication.every and notice, long_run.window"):
        next(replay_settings(panel, forecast, policies, panel))


def test_nothing_to_judge_is_said(panel):
    with pytest.raises(InputError, match="nothing can be judged"):
        Judge.of(panel, SIDES, 0.99).standing(np.full((2, len(panel)), np.nan))
