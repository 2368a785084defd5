"""Tiers as venues' tables: never below ours in the venue's own arithmetic, and back again."""

import math
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from margincast.core.errors import CheckFailedError, InputError
from margincast.margin.maintenance import maintenance_margin_usd
from margincast.margin.rounding import exact
from margincast.margin.venues import drift
from margincast.margin.venues.catalogue import VENUES, ExportOptions, export_text
from margincast.margin.venues.check import compare, notionals_of, require_never_below
from margincast.margin.venues.drift_fit import LEAST_UNITS, fit, least_factors
from margincast.margin.venues.imported import ReadOptions, rate_of_leverage
from margincast.margin.venues.own import margin_of
from margincast.margin.venues.tiers import ExactTiers, amounts_of
from margincast.specs.schedule import Tier

WRITTEN = [name for name, venue in VENUES.items() if venue.export is not None]
OPTIONS = ExportOptions("exported", {"A": 60_000.0, "B": 0.25})
EXAMPLE = (
    Tier(floor_usd=0.0, cap_usd=50_000.0, mmr=0.0265, imr=0.04),
    Tier(floor_usd=50_000.0, cap_usd=600_000.0, mmr=0.034, imr=0.055),
    Tier(floor_usd=600_000.0, cap_usd=3_000_000.0, mmr=0.0815, imr=0.125),
)


@st.composite
def random_tiers(draw):
    """Tiers as policies publish them: rates on a grid of 5 basis points, edges in whole dollars."""
    caps = sorted(draw(st.lists(st.integers(1_000, 10**8), min_size=1, max_size=8, unique=True)))
    steps = st.lists(st.integers(1, 999), min_size=len(caps), max_size=len(caps))
    rates = sorted(draw(steps))
    over = draw(st.integers(1, 1_000))
    return tuple(
        Tier(
            floor_usd=float(floor),
            cap_usd=float(cap),
            mmr=rate * 5 / 10_000,
            imr=min(rate + over, 2_000) * 5 / 10_000,
        )
        for floor, cap, rate in zip([0, *caps[:-1]], caps, rates, strict=True)
    )


def written(name, tiers):
    """The document of an export, as it is read back from its text."""
    text, checks = export_text(name, tiers, OPTIONS)
    return VENUES[name].parse(text), checks


def read_back(name, document, last_cap=None):
    return VENUES[name].read([document], ReadOptions(last_cap, all_usd=True))


@pytest.mark.parametrize("name", WRITTEN)
@given(tiers=random_tiers(), share=st.floats(1e-4, 1.0))
@settings(max_examples=12)
def test_no_position_pays_less_on_the_venue_than_our_tiers_ask(name, tiers, share):
    document, (check,) = written(name, {"A": tiers})
    venue = read_back(name, document, last_cap=tiers[-1].cap_usd).margins["A"]
    notional = Fraction(max(1, round(share * tiers[-1].cap_usd * 100)), 100)
    ours = ExactTiers.of(tiers)
    assert venue.maintenance_usd(notional) >= ours.maintenance_usd(notional)
    assert venue.initial_rate(notional) >= ours.initial_rate(notional)
    assert 0.0 <= check.least <= check.mean <= check.largest


@pytest.mark.parametrize("name", ["binance", "csv", "json", "toml"])
@given(tiers=random_tiers())
@settings(max_examples=12)
def test_a_table_with_the_same_arithmetic_gives_the_same_margins_to_the_last_digit(name, tiers):
    document, (check,) = written(name, {"A": tiers})
    assert (check.least, check.largest, check.changed) == (0.0, 0.0, 0)
    back = read_back(name, document).tiers["A"]
    assert amounts_of(back) == amounts_of(tiers)
    for here, there in zip(tiers, back, strict=True):
        assert (here.floor_usd, here.cap_usd, here.mmr) == (
            there.floor_usd,
            there.cap_usd,
            there.mmr,
        )
        assert there.imr == (
            rate_of_leverage(math.floor(1 / exact(here.imr))) if name == "binance" else here.imr
        )


@pytest.mark.parametrize("name", ["hyperliquid", "dydx"])
@given(tiers=random_tiers())
@settings(max_examples=12)
def test_what_comes_back_has_the_venues_margins_and_goes_out_as_it_came(name, tiers):
    document, _ = written(name, {"A": tiers})
    last = tiers[-1].cap_usd
    found = read_back(name, document, last_cap=last)
    back = found.tiers["A"]
    check = compare("A", back, found.margins["A"])
    # a millionth of a USDC, rounded up twice, of the margin of the smallest notional compared
    tick = 0.0 if name == "hyperliquid" else 2e-6 / (float(notionals_of(back)[0]) * back[0].mmr)
    assert -1e-12 <= check.least <= check.largest <= 1e-12 + tick
    assert written(name, {"A": back})[0] == document


@pytest.mark.parametrize("name", ["binance", "hyperliquid", "drift"])
@given(tiers=random_tiers())
@settings(max_examples=12)
def test_a_venues_margin_rises_with_notional_and_does_not_jump(name, tiers):
    document, _ = written(name, {"A": tiers})
    venue = read_back(name, document, last_cap=tiers[-1].cap_usd).margins["A"]
    notionals = notionals_of(tiers)
    margins = [venue.maintenance_usd(notional) for notional in notionals]
    assert all(lower < upper for lower, upper in pairwise(margins))
    for tier in tiers[1:]:
        edge, tiny = exact(tier.floor_usd), Fraction(1, 10**9)
        jump = venue.maintenance_usd(edge + tiny) - venue.maintenance_usd(edge)
        # the program's ratio moves in steps of 1e-4
        assert jump <= (edge / 10_000 + tiny if name == "drift" else tiny)


def test_binance_brackets_by_hand():
    (contract,), _ = written("binance", {"A": EXAMPLE})
    first, second, third = contract["brackets"]
    assert first == {
        "bracket": 1,
        "initialLeverage": 25,
        "notionalFloor": 0,
        "notionalCap": 50_000,
        "maintMarginRatio": 0.0265,
        "cum": 0.0,
    }
    # 1 / 5.5 % = 18.18; 50,000 x 0.75 % = 375; + 600,000 x 4.75 % = 28,875
    assert (second["initialLeverage"], second["cum"]) == (18, 375.0)
    assert (third["initialLeverage"], third["cum"]) == (8, 28_875.0)


def test_hyperliquid_table_by_hand():
    document, (check, _) = written("hyperliquid", {"A": EXAMPLE, "B": EXAMPLE[:1]})
    # 1 / (2 x 2.65 %) = 18.9, 1 / (2 x 3.4 %) = 14.7, 1 / (2 x 8.15 %) = 6.1
    assert [list(one.values()) for one in document["universe"]] == [["A", 18, 50], ["B", 18, 18]]
    ((number, table),) = document["marginTables"]
    assert number == 50
    assert [(float(t["lowerBound"]), t["maxLeverage"]) for t in table["marginTiers"]] == [
        (0.0, 18),
        (50_000.0, 14),
        (600_000.0, 6),
    ]
    # 50,000 / 36 + 550,000 / 28 in place of 600,000 x 3.4 % - 375
    assert check.largest_at_usd == 600_000.0
    assert check.largest == pytest.approx((50_000 / 36 + 550_000 / 28) / 20_025 - 1)


def test_hyperliquid_tiers_of_equal_leverage_become_one():
    near = (EXAMPLE[0], EXAMPLE[1].model_copy(update={"mmr": 0.0266, "imr": 0.0401}))
    document, (check,) = written("hyperliquid", {"A": near})
    assert document["marginTables"] == []
    assert document["universe"] == [{"name": "A", "maxLeverage": 18, "marginTableId": 18}]
    assert (check.tiers, check.venue_tiers) == (2, 1)


def test_a_rate_above_half_cannot_be_asked_on_hyperliquid():
    with pytest.raises(InputError, match=r"A tier 1: an MMR of 60\.00% lies above 50 %"):
        written("hyperliquid", {"A": (EXAMPLE[0].model_copy(update={"mmr": 0.6, "imr": 0.9}),)})


def test_dydx_tier_by_hand():
    document, (check, _) = written("dydx", {"A": EXAMPLE[:2], "B": EXAMPLE[:2]})
    (tier,) = document["liquidity_tiers"]
    # at 600,000 USD: 3.4 % - 375 / 600,000 = 3.3375 %, of an initial 5.5 %: 606,818.18 ppm
    assert (tier["initial_margin_ppm"], tier["maintenance_fraction_ppm"]) == (55_000, 606_819)
    # perpetual.proto: 500 USDC over the initial margin fraction, in quote quantums
    assert tier["impact_notional"] == str(math.ceil(500e6 / 0.055))
    assert [market["params"]["liquidity_tier"] for market in document["perpetuals"]] == [0, 0]
    # small positions pay the rate of the largest
    assert check.largest == pytest.approx(0.033375 / 0.0265 - 1, rel=1e-3)


@pytest.mark.parametrize(
    ("imf_factor", "weight", "expected"),
    # drift-labs/protocol-v2, programs/drift/src/math/margin/tests.rs, spot_market_asset_weight:
    # size 1,000 x QUOTE_PRECISION of 6 decimals, in units of 1e-9
    [(0, 11_000, 11_000), (10, 11_000, 11_000), (10_000, 11_000, 11_962), (100_000, 11_000, 40_422),
     (100_000, 0, 31_622)],
)  # fmt: skip
def test_drifts_size_premium(imf_factor, weight, expected):
    assert drift.size_premium_weight(10**12, imf_factor, weight, 10_000) == expected


def test_drifts_margin_of_a_position():
    # the same file, calculate_user_equity_value_tests: 6.147540983 BTC at 22,050, ratio 10 %,
    # imf_factor 0.001: the premium does not bind, 13,555.327867 USDC
    market = drift.PerpMarket("BTC", 1_000, 500, 1_000, 22_050.0)
    notional = Fraction(6_147_540_983, 10**9) * 22_050
    assert math.floor(notional * market.ratio(1_000, notional) * 10**6) == 13_555_327_867


@pytest.mark.parametrize("price", [60_000.0, 20.0])
def test_the_least_premium_is_the_largest_that_any_notional_needs(price):
    ratios = np.array([265.0, 300.0, 500.0, 600.0, 900.0])
    own = ExactTiers.of(EXAMPLE)
    for ratio, found in zip(ratios, least_factors(ratios, EXAMPLE, price), strict=True):
        needed = 0.0
        for notional in np.geomspace(100.0, EXAMPLE[-1].cap_usd, 2_000):
            asked = own.maintenance_usd(Fraction(notional)) / Fraction(notional) * 10_000
            if asked > ratio:
                premium = float(asked) - (ratio - ratio // 5) + 1
                needed = max(needed, 1e7 * premium / (math.sqrt(1e10 * notional / price) - 2))
        assert needed <= found <= needed * 1.001 + 1


def test_drift_parameters_have_the_least_mean_excess_of_those_that_are_safe():
    price = 150.0
    found = fit("A", EXAMPLE, price)
    notionals = [Fraction(n) for n in np.geomspace(1e-3 * 50_000, EXAMPLE[-1].cap_usd, 100)]
    asked = [margin_of(EXAMPLE).maintenance_usd(n) / n for n in notionals]

    def excess(ratio, factor):
        market = drift.PerpMarket("A", 10_000, ratio, factor, price)
        charged = [market.ratio(ratio, n) for n in notionals]
        return float(sum(have / need for have, need in zip(charged, asked, strict=True)))

    ratios = np.arange(265.0, 730.0, 15.0)
    factors = least_factors(ratios, EXAMPLE, price)
    others = [excess(int(r), int(f)) for r, f in zip(ratios, factors, strict=True)]
    assert excess(found.maintenance, found.imf_factor) <= min(others) * (1 + 1e-9)
    # and a smaller initial ratio, by the units that rounding down may cost, would not do
    less = found.initial - 3
    market = drift.PerpMarket("A", less, found.maintenance, found.imf_factor, price)
    short = [market.ratio(less, exact(tier.floor_usd) + 1) < exact(tier.imr) for tier in EXAMPLE]
    assert any(short)


def test_drift_needs_a_price_and_has_a_least_ratio():
    with pytest.raises(InputError, match="--price C=USD"):
        export_text("drift", {"C": EXAMPLE}, OPTIONS)
    small = (EXAMPLE[0].model_copy(update={"mmr": 0.005, "imr": 0.01}),)
    assert fit("A", small, 1.0) == (LEAST_UNITS + 1, LEAST_UNITS, 0)
    with pytest.raises(InputError, match="a price must be above 0"):
        fit("A", EXAMPLE, 0.0)


def test_tables_that_are_only_read_are_not_written():
    with pytest.raises(InputError, match="tables of okx are only read; there are exports for: bin"):
        export_text("okx", {"A": EXAMPLE}, OPTIONS)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        # 0.1 % less, and the amount that goes with it
        ({"maintMarginRatio": 0.0265 * 0.999, "cum": 0.0}, "maintenance"),
        ({"initialLeverage": 26}, "initial"),
    ],
)
def test_a_table_that_asks_too_little_is_caught_by_its_check(changes, what):
    first = EXAMPLE[:1]
    document, _ = written("binance", {"A": first})
    document[0]["brackets"][0] |= changes
    check = compare("A", first, read_back("binance", document).margins["A"])
    with pytest.raises(CheckFailedError, match=f"A: in the venue's arithmetic .* less {what}"):
        require_never_below([check])


def test_the_check_compares_with_the_margins_that_are_published():
    notionals = notionals_of(EXAMPLE)
    assert notionals[0] == 50
    assert {Fraction(50_000), Fraction(600_000), Fraction(3_000_000)} <= set(notionals)
    assert Fraction(5_000_001, 100) in notionals
    ours = margin_of(EXAMPLE)
    for notional in notionals:
        published = maintenance_margin_usd(
            float(notional),
            [tier.cap_usd for tier in EXAMPLE],
            [tier.mmr for tier in EXAMPLE],
            amounts_of(EXAMPLE),
        )
        assert float(ours.maintenance_usd(notional)) == published


@given(st.integers(1, 10_000))
@settings(max_examples=40)
def test_a_rate_made_of_a_leverage_gives_that_leverage_back(leverage):
    rate = exact(rate_of_leverage(leverage))
    assert math.floor(1 / rate) == leverage
    assert rate * leverage <= 1
