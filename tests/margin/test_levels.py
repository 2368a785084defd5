import math
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from margincast.core.errors import InputError
from margincast.margin.background import Background
from margincast.margin.explanation import chain_of, steps_of
from margincast.margin.levels import fallback_levels, margin_levels, position_margin_usd
from margincast.margin.liquidation_cost import Book, liquidation_costs, walk_book
from margincast.margin.maintenance import maintenance_amounts, maintenance_margin_usd
from margincast.margin.rounding import exact, round_up
from margincast.margin.schedule import tiers_for
from margincast.margin.tier_rows import tier_rows
from margincast.specs.loading import load_spec
from margincast.specs.schedule import BaseSchedule
from margincast.specs.serving import MarginPolicy

SERVING = Path(__file__).resolve().parents[2] / "serving"
PERPETUALS = load_spec(SERVING / "schedules" / "perpetuals.toml", BaseSchedule)
POLICY = load_spec(SERVING / "perp-8h.toml", MarginPolicy)
BOOK_POLICY = load_spec(SERVING / "demo.toml", MarginPolicy)
LARGER = load_spec(SERVING / "perp-8h.toml", MarginPolicy, ["forecast.sides=larger"])
FRESH = timedelta(0)
AT = np.datetime64("2024-05-01T12:00", "us")
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
    """The levels of one contract's side, as records."""
    return of_side({side: forecast}, symbol, side, policy, book=book).to_dict("records")


def table_of(levels):
    """Caps, rates and amounts of records."""
    names = ("tier_cap_usd", "mmr", "maintenance_amount")
    return [[level[name] for level in levels] for name in names]


def of_side(forecasts, symbol="BTCUSDT", side="long", policy=POLICY, *, book=None, age=FRESH):
    rows = tier_rows([symbol], PERPETUALS, policy)
    levels = margin_levels(
        rows,
        {side: np.array([forecast]) for side, forecast in forecasts.items()},
        policy,
        data_age=np.array([age], dtype="timedelta64[us]"),
        books={} if book is None else {symbol: book},
        background=Background.none(len(rows), AT),
    )
    return levels[levels["side"] == side]


def test_the_first_tier_by_hand():
    # See margin_levels: 4 % + 0.17 %, x 1.1, rounded up to 4.6 %; 11.5 x the base 0.4 %.
    first, *_, last = levels_of()
    assert (first["mmr"], first["imr"], first["maintenance_amount"]) == (0.046, 0.069, 0.0)
    assert first["max_leverage"] == pytest.approx(14.4928, abs=1e-4)
    assert first["liquidation_cost"] == pytest.approx(0.0017)
    assert (first["status"], first["binding_rule"], first["tier"]) == ("ok", "forecast", 1)
    assert first["reason"] == "0.99 quantile of the adverse excursion over 8h, long: 4 %"
    assert first["imr_reason"] == "1.5 x MMR 4.6 %"
    assert (last["mmr"], last["imr"], last["binding_rule"]) == (0.5, 1.0, "base schedule")
    assert last["reason"] == "raised to 1 x base MMR 50 % = 50 %"


def test_the_chain_of_a_row_is_told_from_the_row():
    last = levels_of(forecast=0.5)[-1]
    steps = chain_of(last, POLICY)
    assert [step.name for step in steps] == list(steps_of(POLICY))
    assert [step.value_before for step in steps] == [0.0] + [s.value_after for s in steps[:-1]]
    assert steps[-1].value_after == last["mmr"]
    said = {step.name: step.reason for step in steps}
    assert said["cap"] == "lowered to cap of 50 %"
    assert said["multiplier cap"] == "not binding: 100 x base MMR 50 % = 5000 %"
    assert said["long-run floor"] == "not binding: the contract's history is not known"
    assert said[last["binding_rule"]] == last["reason"]
    (fallback,) = chain_of(levels_of(forecast=-1.0)[0], POLICY)
    assert (fallback.name, fallback.value_after) == ("fallback", 0.004)


# A slow twin: one contract, one tier, one number at a time


def twin_of(symbol, side, forecast, policy, book):
    tiers = tiers_for(PERPETUALS, symbol)
    limits, made = policy.limits, []
    for tier, cost in zip(tiers, liquidation_costs(tiers, side, policy, book), strict=True):
        value = (forecast + cost.rate) * (1.0 + policy.buffer.rate)
        value = max(value, limits.mmr_floor, limits.multiplier_floor * tier.mmr)
        value = min(value, max(limits.multiplier_cap * tier.mmr, cost.rate), limits.mmr_cap)
        mmr = round_up(value, policy.rounding.mmr_step)
        wanted = max(exact(policy.initial.imr_over_mmr) * exact(mmr), exact(tier.imr))
        imr = round_up(min(wanted, exact(1.0)), policy.rounding.imr_step)
        made.append((mmr, imr, mmr / tier.mmr))
    amounts = maintenance_amounts([t.floor_usd for t in tiers], [mmr for mmr, _, _ in made])
    return [(*one, amount) for one, amount in zip(made, amounts, strict=True)]


@settings(max_examples=25)
@given(st.lists(st.tuples(SYMBOLS, FORECASTS, FORECASTS, st.none() | books()), max_size=3))
def test_all_rows_at_once_are_one_number_at_a_time(cases):
    named = {symbol: (symbol, long, short, book) for symbol, long, short, book in cases}
    symbols = sorted(named)
    rows = tier_rows(symbols, PERPETUALS, BOOK_POLICY)
    levels = margin_levels(
        rows,
        {
            "long": np.array([named[symbol][1] for symbol in symbols]),
            "short": np.array([named[symbol][2] for symbol in symbols]),
        },
        BOOK_POLICY,
        data_age=np.zeros(len(symbols), dtype="timedelta64[us]"),
        books={symbol: book for symbol, _, _, book in named.values() if book is not None},
        background=Background.none(len(rows), AT),
    )
    slow = [
        row
        for symbol, long, short, book in (named[symbol] for symbol in symbols)
        for side, forecast in (("long", long), ("short", short))
        for row in twin_of(symbol, side, forecast, BOOK_POLICY, book)
    ]
    numbers = levels[["mmr", "imr", "multiplier", "maintenance_amount"]]
    assert list(numbers.itertuples(index=False, name=None)) == slow


@given(SYMBOLS, SIDES, FORECASTS, st.none() | books())
def test_rates_never_fall_from_tier_to_tier(symbol, side, forecast, book):
    levels = levels_of(symbol, side, forecast, BOOK_POLICY, book)
    tiers = tiers_for(PERPETUALS, symbol)
    assert [level["tier"] for level in levels] == list(range(1, len(tiers) + 1))
    for lower, upper in pairwise(levels):
        assert lower["mmr"] <= upper["mmr"]
        assert lower["imr"] <= upper["imr"]
        assert lower["tier_cap_usd"] == upper["tier_floor_usd"]
        assert lower["maintenance_amount"] <= upper["maintenance_amount"]
    for level, tier in zip(levels, tiers, strict=True):
        assert level["status"] == "ok"
        assert level["mmr"] >= max(tier.mmr, level["liquidation_cost"])
        assert level["multiplier"] == pytest.approx(level["mmr"] / tier.mmr)


@given(SYMBOLS, SIDES, FORECASTS, books())
def test_margin_is_continuous_and_rising_in_notional(symbol, side, forecast, book):
    levels = levels_of(symbol, side, forecast, BOOK_POLICY, book)
    of_tiers = table_of(levels)
    for level in levels[1:]:
        edge = level["tier_floor_usd"]
        above = edge * level["mmr"] - level["maintenance_amount"]
        assert maintenance_margin_usd(edge, *of_tiers) == pytest.approx(above, rel=1e-9)
    notionals = np.geomspace(1.0, levels[-1]["tier_cap_usd"], 40)
    margins = [maintenance_margin_usd(float(notional), *of_tiers) for notional in notionals]
    assert all(low < high for low, high in pairwise(margins))


@given(SYMBOLS, SIDES, st.floats(1e-4, 0.03), books())
def test_every_position_can_pay_for_the_forecast_and_for_closing(symbol, side, forecast, book):
    levels = levels_of(symbol, side, forecast, BOOK_POLICY, book)
    assert all("cap" not in level["binding_rule"] for level in levels)
    fee_rate, of_tiers = 0.0005 + 0.001, table_of(levels)
    for notional in np.geomspace(1.0, levels[-1]["tier_cap_usd"], 40):
        closing = walk_book(book, side, np.array([notional]), least_rate=0.0001, unshown_rate=0.02)
        need = notional * (forecast + fee_rate) + closing[0]
        assert maintenance_margin_usd(float(notional), *of_tiers) >= need * (1.0 - 1e-9)


@given(SYMBOLS, SIDES, FORECASTS, FORECASTS)
def test_a_larger_forecast_never_lowers_a_level(symbol, side, first, second):
    low, high = sorted((first, second))
    for lower, upper in zip(
        levels_of(symbol, side, low), levels_of(symbol, side, high), strict=True
    ):
        assert lower["mmr"] <= upper["mmr"]
        assert lower["imr"] <= upper["imr"]
        assert lower["max_leverage"] >= upper["max_leverage"]


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
    levels = of_side({"long": math.nan} | forecasts, symbol, age=data_age).to_dict("records")
    assert [
        (level["tier_floor_usd"], level["tier_cap_usd"], level["mmr"], level["imr"])
        for level in levels
    ] == [(t.floor_usd, t.cap_usd, t.mmr, t.imr) for t in tiers_for(PERPETUALS, symbol)]
    for level in levels:
        assert (level["status"], level["multiplier"]) == ("fallback", 1.0)
        assert said in level["reason"]
        assert math.isnan(level["liquidation_cost"])


def test_data_of_the_largest_allowed_age_is_used():
    pd.testing.assert_frame_equal(
        of_side({"long": 0.04}, age=timedelta(hours=2)), of_side({"long": 0.04})
    )


def test_the_fallback_keeps_the_refused_forecast_and_continuous_margins():
    levels = levels_of(side="short", forecast=-1.0)
    assert {level["forecast"] for level in levels} == {-1.0}
    # 50,000 x (0.5 % - 0.4 %) = 50; + 500,000 x 0.5 % = 2,550; + 5,000,000 x 1.5 % = 77,550.
    amounts = [level["maintenance_amount"] for level in levels[:4]]
    assert amounts == [0.0, 50.0, 2550.0, 77550.0]


def test_contracts_that_cannot_be_forecast_get_their_reason():
    rows = tier_rows(["BTCUSDT", "FTTUSDT"], PERPETUALS, POLICY)
    none = Background.none(len(rows), AT)
    levels = fallback_levels(rows, POLICY, ["model missing", "delisted"], none)
    said = levels.groupby("symbol")["reason"].unique()
    assert said["BTCUSDT"] == ["base schedule in force: model missing"]
    assert said["FTTUSDT"] == ["base schedule in force: delisted"]
    assert (levels["mmr"] == rows.base_mmr).all()


def test_the_fallback_keeps_a_higher_rate_that_was_published_last():
    rows = tier_rows(["BTCUSDT"], PERPETUALS, POLICY)
    none = Background.none(len(rows), AT)
    published = np.where(rows.tier == 1, 0.02, 0.001)
    memory = replace(none.memory, published=published)
    levels = fallback_levels(rows, POLICY, ["model missing"], replace(none, memory=memory))
    first, second = levels[levels["side"] == "long"].to_dict("records")[:2]
    assert (first["mmr"], first["imr"]) == (0.02, 0.03)
    assert first["reason"] == "last margin kept: model missing"
    assert (second["mmr"], second["imr"]) == (0.005, 0.01)


def test_closing_that_costs_more_than_the_cap_falls_back():
    raw = BOOK_POLICY.model_dump()
    raw["liquidation"]["book"]["unshown_depth_bps"] = 6_000.0
    policy = MarginPolicy.model_validate(raw)
    levels = levels_of(policy=policy)
    assert {level["status"] for level in levels} == {"fallback"}
    assert (
        "liquidation cost 0.6015 is not between 0 and limits.mmr_cap = 0.5" in levels[0]["reason"]
    )


@given(SYMBOLS, FORECASTS, FORECASTS)
def test_the_larger_forecast_margins_both_sides(symbol, long, short):
    both = {"long": long, "short": short}
    alone = levels_of(symbol, "long", max(long, short))
    for side in ("long", "short"):
        levels = of_side(both, symbol, side, LARGER)
        assert levels["mmr"].tolist() == [level["mmr"] for level in alone]
        assert set(levels["forecast"]) == {max(long, short)}


@pytest.mark.parametrize("short", [math.nan, -0.01])
def test_the_larger_of_two_needs_both(short):
    level = of_side({"long": 0.04, "short": short}, policy=LARGER).iloc[0]
    assert level["status"] == "fallback"
    assert "short forecast" in level["reason"]


def test_a_contradictory_policy_is_refused_and_not_published():
    policy = load_spec(SERVING / "perp-8h.toml", MarginPolicy, ["limits.mmr_cap=0.1"])
    with pytest.raises(InputError, match="contradicts itself on tier 6 of BTCUSDT"):
        levels_of(policy=policy)


def test_the_margin_of_a_position_by_hand():
    # 20,000 USD x 4.6 %; the same rate up to 50,000 USD and beyond, because the forecast sets both
    levels = of_side({"long": 0.04})
    assert position_margin_usd(20_000.0, levels) == 920.0
    assert position_margin_usd(100_000.0, levels) == 4_600.0


def test_the_margin_of_a_position_needs_the_levels_of_one_side():
    with pytest.raises(InputError, match="levels of one contract and side"):
        position_margin_usd(1.0, pd.DataFrame(levels_of() + levels_of(side="short")))
