"""The published margin is serving's own, decision by decision."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from margincast.backtest.published import published_margin
from margincast.core.errors import InputError
from margincast.margin.background import Background
from margincast.margin.levels import margin_levels
from margincast.margin.tier_rows import tier_rows
from margincast.models.protocol import Panel, TailForecast
from margincast.specs.loading import load_spec, validate_spec
from margincast.specs.schedule import BaseSchedule
from margincast.specs.serving import MarginPolicy, Publication

WORKSPACE = Path(__file__).resolve().parents[2]
SHIPPED = load_spec(WORKSPACE / "serving" / "perp-8h.toml", MarginPolicy)
POLICY = SHIPPED.model_copy(update={"long_run": None, "speed": None, "publication": None})
"""Without memory: every margin can be made from its own decision."""
SCHEDULE = load_spec(WORKSPACE / POLICY.schedule.file, BaseSchedule)
SIDES = ("long", "short")
LEVELS = (0.99, 0.999)
CONTRACTS = ("BTCUSDT", "NEWUSDT")
HOURS = 60


def changed(**sections):
    raw = POLICY.model_dump(mode="json")
    raw |= {key: (raw[key] or {}) | value for key, value in sections.items()}
    known = {key: value for key, value in raw.items() if value is not None}
    return validate_spec(known, MarginPolicy, "changed")


@pytest.fixture
def panel():
    ts = pd.date_range("2024-01-01", periods=HOURS, freq="h", tz="UTC", unit="us")
    frame = pd.DataFrame(
        {"symbol": np.tile(CONTRACTS, HOURS), "ts": np.repeat(ts, len(CONTRACTS)), "close": 1.0}
    )
    rows = len(frame)
    outcome = np.zeros(rows)
    end = frame["ts"].dt.tz_localize(None).to_numpy() + np.timedelta64(8, "h")
    return Panel(frame, {}, dict.fromkeys(SIDES, outcome), outcome, end)


@pytest.fixture
def forecast(panel):
    rng = np.random.default_rng(1)
    quantiles = np.sort(rng.lognormal(-3.0, 0.8, (len(panel), 2, 2)), axis=2)
    quantiles[rng.random(len(panel)) < 0.1, 1] = np.nan
    quantiles[5, 0] = 50.0  # not plausible
    return TailForecast(SIDES, LEVELS, quantiles)


def published(panel, forecast, policy=POLICY, every="1h", tier=1):
    policy = policy.model_copy(
        update={"publication": Publication.model_validate({"every": every, "hold": 0.0})}
    )
    return published_margin(panel, forecast, SCHEDULE, policy, tier=tier, history=panel)


@pytest.mark.parametrize("sides", ["each", "larger"])
@pytest.mark.parametrize("tier", [1, 2])
def test_every_margin_is_the_one_serving_publishes_from_that_decision(panel, forecast, sides, tier):
    policy = changed(forecast={"sides": sides})
    made = published(panel, forecast, policy, tier=tier)
    decided = panel.frame["symbol"].tolist()
    rows = tier_rows(decided, SCHEDULE, policy)
    levels = margin_levels(
        rows,
        {side: forecast.at(side, 0.99) for side in SIDES},
        policy,
        data_age=np.zeros(len(decided), dtype="timedelta64[us]"),
        background=Background.none(len(rows), np.datetime64("2024-01-01T00:00", "us")),
    )
    for i, side in enumerate(SIDES):
        own = levels[(levels["side"] == side) & (levels["tier"] == tier)]
        for row, (mmr, status) in enumerate(zip(own["mmr"], own["status"], strict=True)):
            assert made.fallback[i, row] == (status == "fallback")
            before = made.rates[i, row - len(CONTRACTS)] if row >= len(CONTRACTS) else 0.0
            assert made.rates[i, row] == (max(mmr, before) if status == "fallback" else mmr)
    assert made.fallback.any()
    assert not made.fallback.all()


def test_between_publications_the_last_one_stays_in_force(panel, forecast):
    policy = changed(staleness={"max_data_age": "4h"})
    made = published(panel, forecast, policy, every="4h")
    each = published(panel, forecast, policy)
    hour = (panel.frame["ts"].dt.hour % 4).to_numpy()
    first = np.flatnonzero(hour == 0)
    forecast_used = ~each.fallback[:, first]
    np.testing.assert_array_equal(
        made.rates[:, first][forecast_used], each.rates[:, first][forecast_used]
    )
    for contract in range(len(CONTRACTS)):
        own = made.rates[:, contract :: len(CONTRACTS)]
        blocks = own.reshape(2, -1, 4)
        assert (blocks == blocks[:, :, :1]).all()


def test_a_contract_that_falls_silent_keeps_the_larger_of_its_last_margin_and_the_schedule(
    panel, forecast
):
    names = panel.frame["symbol"].to_numpy()
    silent = (names == "NEWUSDT") & (np.arange(len(panel)) >= 40) & (np.arange(len(panel)) < 100)
    rows = np.flatnonzero(~silent)
    made = published(panel.rows(rows), forecast.rows(rows))
    own = np.flatnonzero(names[rows] == "NEWUSDT")
    # the first decision after the pause is no fallback; before it nothing is decided
    back = own[rows[own] >= 100][0]
    assert not made.fallback[0, back]
    assert (made.rates >= made.base)[made.fallback].all()


def test_what_comes_later_changes_no_margin(panel, forecast):
    whole = published(panel, forecast, every="3h")
    cut = 71
    part = published(panel.rows(np.arange(cut)), forecast.rows(np.arange(cut)), every="3h")
    np.testing.assert_array_equal(whole.rates[:, :cut], part.rates)


def test_closing_costs_its_owner_the_move_and_the_liquidation(panel, forecast):
    made = published(panel, forecast)
    fees = POLICY.liquidation.taker_fee_rate + POLICY.liquidation.liquidation_fee_rate
    outcomes = np.full((2, len(panel)), 0.03)
    assert (made.losses(outcomes) >= 0.03 + fees).all()


def test_a_level_that_was_not_forecast_is_named(panel, forecast):
    with pytest.raises(InputError, match=r"margins level 0\.95, the forecasts have 0\.99, 0\.999"):
        published(panel, forecast, changed(model={"level": 0.95}))


def test_a_tier_that_is_not_there_is_the_last_one(panel, forecast):
    last = published(panel, forecast, tier=99)
    tiers = [published(panel, forecast, tier=number) for number in range(1, 10)]
    np.testing.assert_array_equal(last.rates, tiers[-1].rates)
    assert (last.rates >= tiers[0].rates).all()
