"""Margins set by hand: what they do to a table, and what they may not do."""

from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from margincast.margin.background import Background
from margincast.margin.explanation import chain_of
from margincast.margin.levels import fallback_levels, margin_levels
from margincast.margin.override import Override
from margincast.margin.tier_rows import tier_rows
from margincast.specs.loading import load_spec
from margincast.specs.schedule import BaseSchedule
from margincast.specs.serving import MarginPolicy

SERVING = Path(__file__).resolve().parents[2] / "serving"
SCHEDULE = load_spec(SERVING / "schedules" / "perpetuals.toml", BaseSchedule)
POLICY = load_spec(SERVING / "perp-8h.toml", MarginPolicy)
SYMBOLS = ("BTCUSDT", "XRPUSDT")
AT = np.datetime64("2024-05-01T12:00", "us")
ROWS = tier_rows(SYMBOLS, SCHEDULE, POLICY)
HOUR = np.timedelta64(1, "h")


def override(action, mmr=np.nan, symbol=None, side=None, *, tier=None, line=7):
    return Override(
        line=line,
        action=action,
        mmr=mmr,
        symbol=symbol,
        side=side,
        tier=tier,
        reason="an exchange stopped withdrawals",
        approver="head of risk",
        begins=datetime(2024, 5, 1, 11, tzinfo=UTC),
        expires=datetime(2024, 5, 2, tzinfo=UTC),
    )


def background(published=np.nan):
    """An hour after every rate was ``published``."""
    none = Background.none(len(ROWS), AT)
    if np.isnan(published):
        return none
    rates, before = np.full(len(ROWS), published), AT - HOUR
    memory = type(none.memory)(
        before, none.memory.buffer, rates, np.full(len(ROWS), before), rates, ((before, rates),)
    )
    return Background(AT, memory, none.in_force, none.long_run, none.stressed, none.fee_multiplier)


def levels(*overrides, forecast=0.04, published=np.nan):
    return margin_levels(
        ROWS,
        {side: np.full(len(SYMBOLS), forecast) for side in ("long", "short")},
        POLICY,
        data_age=np.zeros(len(SYMBOLS), dtype="timedelta64[us]"),
        background=background(published),
        overrides=overrides,
    )


def row(table, symbol="BTCUSDT", side="long", tier=1):
    own = (table["symbol"] == symbol) & (table["side"] == side) & (table["tier"] == tier)
    return table[own].iloc[0]


def test_a_raised_margin_is_shown_with_who_why_and_until_when():
    table = levels(override("raise", 0.08, "BTCUSDT", "long"))
    first = row(table)
    assert (first["mmr"], first["mmr_in_force"], first["imr"]) == (0.08, 0.08, 0.12)
    assert (first["binding_rule"], first["status"]) == ("override", "ok")
    assert (first["override_approver"], first["override_line"]) == ("head of risk", 7)
    assert first["override_reason"] == "an exchange stopped withdrawals"
    assert first["override_expires"] == pd.Timestamp("2024-05-02", tz="UTC")
    assert first["reason"] == (
        "raise to 8 %, by override (line 7 of the ledger) approved by head of risk until "
        "2024-05-02 00:00 UTC: an exchange stopped withdrawals"
    )
    last = chain_of(first, POLICY)[-1]
    assert (last.name, last.value_before, last.value_after) == ("override", 0.046, 0.08)
    assert last.reason == first["reason"]
    # a higher tier asks for more by itself: the override is there, and binds nothing
    high = row(table, tier=6)
    assert (high["mmr"], high["binding_rule"]) == (0.125, "base schedule")
    assert chain_of(high, POLICY)[-1].reason.startswith("not binding: raise to 8 %")
    # others are as without it
    others = table["override_line"].isna()
    assert set(table.loc[~others, "symbol"]) == {"BTCUSDT"}
    assert table.loc[others, "override"].isna().all()
    pd.testing.assert_frame_equal(table[others], levels()[others])


def test_a_fixed_margin_may_lower_but_not_below_the_schedule_floor_and_cost():
    table = levels(override("fix", 0.005, "BTCUSDT"))
    assert row(table)["mmr"] == 0.005
    # the second tier's base is 0.5 %, the third's 1 %
    assert [row(table, tier=tier)["mmr"] for tier in (2, 3)] == [0.005, 0.01]
    low = POLICY.model_copy(
        update={"liquidation": POLICY.liquidation.model_copy(update={"taker_fee_rate": 0.02})}
    )
    dear = margin_levels(
        tier_rows(SYMBOLS, SCHEDULE, low),
        {"long": np.array([0.04, 0.04])},
        low,
        data_age=np.zeros(2, dtype="timedelta64[us]"),
        background=background(),
        overrides=[override("fix", 0.005, "BTCUSDT")],
    )
    # 2 % + 0.1 % fees + 0.02 % half spread, on the grid: also for the short, which falls back
    assert row(dear)["mmr"] == 0.0215
    assert row(dear, side="short")["mmr"] == 0.021


def test_a_tier_above_an_override_never_charges_less():
    table = levels(override("raise", 0.2, "BTCUSDT", "long", tier=2))
    assert [row(table, tier=tier)["mmr"] for tier in (1, 2, 3, 6)] == [0.046, 0.2, 0.2, 0.2]
    assert row(table, tier=3)["override_line"] == 7
    assert pd.isna(row(table, tier=1)["override_line"])
    assert row(table, tier=7)["mmr"] == 0.25


def test_a_lifted_limit_lets_the_margin_rise_at_once_and_never_lowers_it():
    # from 3 % to above 4.2 % within an hour is not allowed
    limited, lifted = levels(forecast=0.2, published=0.03), override("lift", symbol="BTCUSDT")
    free = levels(lifted, forecast=0.2, published=0.03)
    assert row(limited)["binding_rule"] == "speed limit"
    assert row(limited)["mmr"] < 0.06
    assert row(free)["mmr"] == row(levels(forecast=0.2))["mmr"] > 0.2
    assert row(free)["binding_rule"] == "override"
    assert row(free, "XRPUSDT")["mmr"] == row(limited, "XRPUSDT")["mmr"]
    falling = row(levels(lifted, forecast=0.004, published=0.03))
    assert falling["mmr"] == row(levels(forecast=0.004, published=0.03))["mmr"]
    assert falling["override_line"] == 7


def test_an_override_holds_in_a_fallback_too():
    table = fallback_levels(
        ROWS, POLICY, ["no champion"] * 2, background(), [override("raise", 0.06)]
    )
    first = row(table)
    assert (first["mmr"], first["imr"], first["status"]) == (0.06, 0.09, "fallback")
    assert (first["binding_rule"], first["step_fallback"]) == ("override", 0.004)
    steps = chain_of(first, POLICY)
    assert [(step.name, step.value_after) for step in steps] == [
        ("fallback", 0.004),
        ("override", 0.06),
    ]
    high = row(table, tier=6)
    assert (high["mmr"], high["reason"]) == (0.125, "base schedule in force: no champion")


def test_of_several_for_a_row_the_newest_counts():
    table = levels(override("raise", 0.08, line=3), override("raise", 0.06, "BTCUSDT", line=5))
    assert (row(table)["mmr"], row(table)["override_line"]) == (0.06, 5)
    assert (row(table, "XRPUSDT")["mmr"], row(table, "XRPUSDT")["override_line"]) == (0.08, 3)


def twin(table, overrides):
    """Row by row, in plain words."""
    made = []
    for _, group in groupby(table.to_dict("records"), key=lambda r: (r["symbol"], r["side"])):
        below = None
        for one in group:
            found, rate = None, one["mmr"]
            for each in overrides:
                wanted = zip(
                    (each.symbol, each.side, each.tier),
                    (one["symbol"], one["side"], one["tier"]),
                    strict=True,
                )
                if all(what is None or what == own for what, own in wanted):
                    found = each
            if found is not None and found.action == "raise":
                rate = max(rate, found.mmr)
            elif found is not None and found.action == "fix":
                least = max(one["base_mmr"], POLICY.limits.mmr_floor, one["liquidation_cost"])
                grid = POLICY.rounding.mmr_step
                rate = max(found.mmr, np.ceil(round(least / grid, 9)) * grid)
            if below is not None and overrides:
                rate = max(rate, below)
            made.append(rate)
            below = rate
    return made


OVERRIDES = st.builds(
    override,
    st.sampled_from(["raise", "fix"]),
    st.integers(10, 1000).map(lambda count: count * 0.0005),
    st.sampled_from([None, *SYMBOLS]),
    st.sampled_from([None, "long", "short"]),
    tier=st.sampled_from([None, 1, 2, 5]),
)


@settings(max_examples=25)
@given(st.lists(OVERRIDES, max_size=3), st.floats(1e-3, 0.4))
def test_all_rows_at_once_are_one_row_at_a_time_and_keep_every_invariant(overrides, forecast):
    plain, table = levels(forecast=forecast), levels(*overrides, forecast=forecast)
    assert table["mmr"].tolist() == pytest.approx(twin(plain, overrides), abs=1e-12)
    assert (table["mmr"] < table["imr"]).all()
    assert (table["mmr"] >= table["base_mmr"]).all()
    assert (table["mmr"] >= table["liquidation_cost"]).all()
    assert (table["mmr"] <= POLICY.limits.mmr_cap).all()
    for _, own in table.groupby(["symbol", "side"]):
        assert (np.diff(own["mmr"]) >= 0.0).all()
        assert (np.diff(own["maintenance_amount"]) >= 0.0).all()
    changed = table["mmr"] != plain["mmr"]
    assert (table["binding_rule"].eq("override") == changed).all()
    assert table.loc[changed, "override_approver"].notna().all()
