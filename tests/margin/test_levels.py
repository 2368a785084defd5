import math
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from margincast.core.errors import InputError
from margincast.margin.levels import (
    fallback_levels,
    margin_levels_for,
    position_margin_usd,
)
from margincast.margin.liquidation_cost import Book, walk_book
from margincast.margin.schedule import tiers_for
from margincast.specs.loading import load_spec
from margincast.specs.schedule import BaseSchedule
from margincast.specs.serving import MarginPolicy

SERVING = Path(__file__).resolve().parents[2] / "serving"
PERPETUALS = load_spec(SERVING / "schedules" / "perpetuals.toml", BaseSchedule)
POLICY = load_spec(SERVING / "perp-8h.toml", MarginPolicy)
BOOK_POLICY = load_spec(SERVING / "book-10m.toml", MarginPolicy)
LARGER = load_spec(SERVING / "perp-8h.toml", MarginPolicy, ["forecast.sides=larger"])
FRESH = timedelta(0)
SYMBOLS = st.sampled_from(["BTCUSDT", "XRPUSDT", "FTTUSDT"])
SIDES = st.sampled_from(["long", "short"])
FORECASTS = st.floats(1e-5, 2.0)


@st.composite
def books(draw):
    """A book of ten levels around 100, one basis point apart or more, deep or thin."""
    gaps = np.array(draw(st.lists(st.floats(0.01, 0.5), min_size=20, max_size=20)))
    sizes = np.array(draw(st.lists(st.floats(0.01, 1e5), min_size=20, max_size=20)))
    return Book(100.0 - np.cumsum(gaps[:10]), sizes[:10], 100.0 + np.cumsum(gaps[10:]), sizes[10:])


def levels_of(symbol="BTCUSDT", side="long", forecast=0.04, policy=POLICY, book=None):
    return margin_levels_for(
        symbol, side, {side: forecast}, PERPETUALS, policy, data_age=FRESH, book=book
    )


def test_the_first_tier_by_hand():
    # See margin_for_tier: 4 % + 0.17 %, x 1.1, rounded up to 4.6 %; 11.5 x the base 0.4 %.
    first, *_, last = levels_of()
    assert (first.mmr, first.imr, first.maintenance_amount) == (0.046, 0.069, 0.0)
    assert first.max_leverage == pytest.approx(14.4928, abs=1e-4)
    assert first.liquidation_cost == pytest.approx(0.0017)
    assert (first.status, first.binding_rule, first.tier) == ("ok", "forecast", 1)
    assert first.reason == "0.99 quantile of the adverse excursion over 8h, long: 4 %"
    assert (last.mmr, last.imr, last.binding_rule) == (0.5, 1.0, "base schedule")


@given(SYMBOLS, SIDES, FORECASTS, st.none() | books())
def test_rates_never_fall_from_tier_to_tier(symbol, side, forecast, book):
    levels = levels_of(symbol, side, forecast, BOOK_POLICY, book)
    tiers = tiers_for(PERPETUALS, symbol)
    assert [level.tier for level in levels] == list(range(1, len(tiers) + 1))
    for lower, upper in pairwise(levels):
        assert lower.mmr <= upper.mmr
        assert lower.imr <= upper.imr
        assert lower.tier_cap_usd == upper.tier_floor_usd
        assert lower.maintenance_amount <= upper.maintenance_amount
    for level, tier in zip(levels, tiers, strict=True):
        assert level.status == "ok"
        assert level.mmr >= max(tier.mmr, level.liquidation_cost)
        assert level.multiplier == pytest.approx(level.mmr / tier.mmr)


@given(SYMBOLS, SIDES, FORECASTS, books())
def test_margin_is_continuous_and_rising_in_notional(symbol, side, forecast, book):
    levels = levels_of(symbol, side, forecast, BOOK_POLICY, book)
    for level in levels[1:]:
        edge = level.tier_floor_usd
        above = edge * level.mmr - level.maintenance_amount
        assert position_margin_usd(edge, levels) == pytest.approx(above, rel=1e-9)
    notionals = np.geomspace(1.0, levels[-1].tier_cap_usd, 40)
    margins = [position_margin_usd(float(notional), levels) for notional in notionals]
    assert all(low < high for low, high in pairwise(margins))


@given(SYMBOLS, SIDES, st.floats(1e-4, 0.05), books())
def test_every_position_can_pay_for_the_forecast_and_for_closing(symbol, side, forecast, book):
    levels = levels_of(symbol, side, forecast, BOOK_POLICY, book)
    assert all("cap" not in level.binding_rule for level in levels)
    fee_rate = 0.0005 + 0.001
    for notional in np.geomspace(1.0, levels[-1].tier_cap_usd, 40):
        closing = walk_book(book, side, np.array([notional]), least_rate=0.0001, unshown_rate=0.02)
        need = notional * (forecast + fee_rate) + closing[0]
        assert position_margin_usd(float(notional), levels) >= need * (1.0 - 1e-9)


@given(SYMBOLS, SIDES, FORECASTS, FORECASTS)
def test_a_larger_forecast_never_lowers_a_level(symbol, side, first, second):
    low, high = sorted((first, second))
    for lower, upper in zip(
        levels_of(symbol, side, low), levels_of(symbol, side, high), strict=True
    ):
        assert lower.mmr <= upper.mmr
        assert lower.imr <= upper.imr
        assert lower.max_leverage >= upper.max_leverage


@pytest.mark.parametrize(
    ("forecasts", "data_age", "said"),
    [
        ({}, FRESH, "long forecast not known"),
        ({"short": 0.04}, FRESH, "long forecast not known"),
        ({"long": math.nan}, FRESH, "long forecast not known"),
        ({"long": math.inf}, FRESH, "long forecast inf is not above 0 and at most 2"),
        ({"long": 0.0}, FRESH, "long forecast 0 is not above 0"),
        ({"long": -0.01}, FRESH, "long forecast -0.01 is not above 0"),
        ({"long": 4.0}, FRESH, "long forecast 4 is not above 0 and at most 2"),
        ({"long": 0.04}, timedelta(hours=3), "stale data: 3:00:00 old, allowed 2h"),
        ({"long": 0.04}, timedelta(seconds=-1), "data from the future"),
    ],
)
@pytest.mark.parametrize("symbol", ["BTCUSDT", "FTTUSDT"])
def test_the_fallback_is_the_base_schedule_exactly(symbol, forecasts, data_age, said):
    levels = margin_levels_for(symbol, "long", forecasts, PERPETUALS, POLICY, data_age=data_age)
    assert [
        (level.tier_floor_usd, level.tier_cap_usd, level.mmr, level.imr) for level in levels
    ] == [(t.floor_usd, t.cap_usd, t.mmr, t.imr) for t in tiers_for(PERPETUALS, symbol)]
    for level in levels:
        assert (level.status, level.multiplier) == ("fallback", 1.0)
        assert said in level.reason
        assert math.isnan(level.liquidation_cost)


def test_data_of_the_largest_allowed_age_is_used():
    levels = margin_levels_for(
        "BTCUSDT", "long", {"long": 0.04}, PERPETUALS, POLICY, data_age=timedelta(hours=2)
    )
    assert levels == levels_of()


def test_the_fallback_keeps_the_refused_forecast_and_continuous_margins():
    levels = fallback_levels("BTCUSDT", "short", PERPETUALS, "model missing", forecast=-1.0)
    assert {level.forecast for level in levels} == {-1.0}
    # 50,000 x (0.5 % - 0.4 %) = 50; + 500,000 x 0.5 % = 2,550; + 5,000,000 x 1.5 % = 77,550.
    assert [level.maintenance_amount for level in levels[:4]] == [0.0, 50.0, 2550.0, 77550.0]
    assert levels[0].reason == "base schedule in force: model missing"


def test_closing_that_costs_more_than_the_cap_falls_back():
    raw = BOOK_POLICY.model_dump()
    raw["liquidation"]["book"]["unshown_depth_bps"] = 6_000.0
    policy = MarginPolicy.model_validate(raw)
    levels = levels_of(policy=policy)
    assert {level.status for level in levels} == {"fallback"}
    assert "liquidation cost 0.6015 is not between 0 and limits.mmr_cap = 0.5" in levels[0].reason


@given(SYMBOLS, FORECASTS, FORECASTS)
def test_the_larger_forecast_margins_both_sides(symbol, long, short):
    both = {"long": long, "short": short}
    by_side = [
        margin_levels_for(symbol, side, both, PERPETUALS, LARGER, data_age=FRESH)
        for side in ("long", "short")
    ]
    alone = levels_of(symbol, "long", max(long, short))
    for levels in by_side:
        assert [level.mmr for level in levels] == [level.mmr for level in alone]
        assert {level.forecast for level in levels} == {max(long, short)}


@pytest.mark.parametrize("short", [math.nan, -0.01])
def test_the_larger_of_two_needs_both(short):
    both = {"long": 0.04, "short": short}
    level = margin_levels_for("BTCUSDT", "long", both, PERPETUALS, LARGER, data_age=FRESH)[0]
    assert level.status == "fallback"
    assert "short forecast" in level.reason


def test_a_contradictory_policy_is_refused_and_not_published():
    policy = load_spec(SERVING / "perp-8h.toml", MarginPolicy, ["limits.mmr_cap=0.1"])
    with pytest.raises(InputError, match="contradicts itself on tier 6 of BTCUSDT"):
        levels_of(policy=policy)


def test_the_margin_of_a_position_needs_the_levels_of_one_side():
    with pytest.raises(InputError, match="levels of one contract and side"):
        position_margin_usd(1.0, levels_of(side="long") + levels_of(side="short"))
