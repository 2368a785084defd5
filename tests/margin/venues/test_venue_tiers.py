"""From a table of margin levels to the tiers that an export reproduces."""

from itertools import product
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from margincast.core.errors import InputError, SpecError
from margincast.core.types import SIDES
from margincast.margin.rounding import exact
from margincast.margin.schedule import tiers_for
from margincast.margin.venues.tiers import (
    NEEDED,
    ExactTiers,
    amounts_of,
    larger_of,
    tiers_of_levels,
    up_to,
)
from margincast.specs.loading import load_spec
from margincast.specs.schedule import BaseSchedule, Tier

SERVING = Path(__file__).resolve().parents[3] / "serving"
PERPETUALS = load_spec(SERVING / "schedules" / "perpetuals.toml", BaseSchedule)


def levels(symbols=("BTCUSDT", "XRPUSDT")):
    """A table of levels with the columns that are read: the base schedule on both sides."""
    rows = []
    for symbol, side in product(symbols, SIDES):
        own = tiers_for(PERPETUALS, symbol)
        for number, (tier, amount) in enumerate(zip(own, amounts_of(own), strict=True), start=1):
            edges = (tier.floor_usd, tier.cap_usd)
            rows.append((symbol, side, number, *edges, tier.mmr, tier.imr, amount))
    return pd.DataFrame(rows, columns=list(NEEDED))


def tiers(*rows):
    caps = [row[0] for row in rows]
    return tuple(
        Tier(floor_usd=float(floor), cap_usd=float(cap), mmr=mmr, imr=imr)
        for floor, (cap, mmr, imr) in zip([0, *caps[:-1]], rows, strict=True)
    )


@st.composite
def any_tiers(draw):
    caps = sorted(draw(st.lists(st.integers(1, 40), min_size=1, max_size=6, unique=True)))
    rates = sorted(draw(st.lists(st.integers(1, 6), min_size=len(caps), max_size=len(caps))))
    return tiers(*[(cap, rate / 20, rate / 10) for cap, rate in zip(caps, rates, strict=True)])


def margin(own, notional):
    return ExactTiers.of(own).maintenance_usd(notional)


def test_the_levels_of_a_side_are_its_tiers():
    found = tiers_of_levels(levels(), "long")
    assert set(found) == {"BTCUSDT", "XRPUSDT"}
    assert found["BTCUSDT"] == PERPETUALS.brackets[0].tiers
    assert tiers_of_levels(levels(), "larger") == found


def test_the_larger_of_both_sides_is_taken_tier_by_tier():
    frame = levels(["BTCUSDT"])
    short = frame["side"] == "short"
    frame.loc[short & (frame["tier"] >= 2), "mmr"] = [0.006, 0.01, 0.03, 0.05, 0.125, 0.25, 0.5]
    own = [
        Tier(floor_usd=r.tier_floor_usd, cap_usd=r.tier_cap_usd, mmr=r.mmr, imr=r.imr)
        for r in frame.loc[short].itertuples()
    ]
    frame.loc[short, "maintenance_amount"] = amounts_of(own)
    found = tiers_of_levels(frame, "larger")["BTCUSDT"]
    assert [tier.mmr for tier in found] == [0.004, 0.006, 0.01, 0.03, 0.05, 0.125, 0.25, 0.5]
    assert [tier.cap_usd for tier in found] == [tier.cap_usd for tier in own]


def test_edges_of_both_sides_are_kept_where_rates_change():
    long = tiers((10, 0.01, 0.02), (40, 0.03, 0.06))
    short = tiers((20, 0.02, 0.04), (30, 0.025, 0.05))
    assert larger_of(long, short) == tiers((10, 0.02, 0.04), (30, 0.03, 0.06))
    # an edge that both have stays, even where the rates do not change
    same = tiers((10, 0.02, 0.04), (30, 0.02, 0.04))
    assert larger_of(same, same) == same
    assert larger_of(same, tiers((30, 0.02, 0.04))) == tiers((30, 0.02, 0.04))


@given(any_tiers(), any_tiers(), st.fractions(0, 1))
@settings(max_examples=40)
def test_the_larger_of_two_is_below_neither_and_no_larger_than_it_must(first, second, share):
    both = larger_of(first, second)
    assert both == larger_of(second, first)
    assert larger_of(both, first) == larger_of(first, both)
    notional = share * exact(both[-1].cap_usd)
    if notional == 0:
        return
    assert margin(both, notional) >= max(margin(first, notional), margin(second, notional))
    rates = [own[ExactTiers.of(own).position(notional)] for own in (both, first, second)]
    assert rates[0].mmr == max(rates[1].mmr, rates[2].mmr)
    assert rates[0].imr == max(rates[1].imr, rates[2].imr)


@given(any_tiers(), st.floats(0.01, 1.0))
@settings(max_examples=25)
def test_tiers_cut_at_a_notional_give_the_same_margins_up_to_it(own, share):
    cap = share * own[-1].cap_usd
    cut = up_to(own, cap)
    assert cut[-1].cap_usd == cap
    for notional in (exact(cap), exact(cap) / 3):
        assert margin(cut, notional) == margin(own, notional)


@pytest.mark.parametrize("cap", [0.0, -1.0, 41.0, float("nan")])
def test_tiers_cannot_be_cut_where_there_are_none(cap):
    with pytest.raises(InputError, match="up to 40 USD, where the tiers end"):
        up_to(tiers((40, 0.01, 0.02)), cap)


def changed(column, value, rows=0):
    frame = levels(["BTCUSDT"])
    frame.loc[frame.index[rows], column] = value
    return frame


@pytest.mark.parametrize(
    ("frame", "side", "said"),
    [
        (levels().drop(columns=["imr", "mmr"]), "long", "has no column mmr, imr"),
        (levels().iloc[:0], "long", "is empty"),
        (pd.concat([levels(), levels()]), "long", "stands more than once"),
        (changed("mmr", 0.0039), "long", "tier 2: maintenance_amount is 50.0, .* give 55.0"),
        (changed("mmr", 0.4), "long", "tier 1: mmr must lie below imr"),
        (changed("tier_cap_usd", 49_000.0), "long", "tier 2 must start where tier 1 ends"),
        (levels().query("side == 'short'"), "long", "BTCUSDT has no long levels; found: short"),
        (levels().query("side == 'short'"), "larger", "BTCUSDT has no long levels"),
    ],
)
def test_a_table_that_contradicts_itself_is_not_exported(frame, side, said):
    with pytest.raises((InputError, SpecError), match=said):
        tiers_of_levels(frame, side)
