from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from margincast.core.errors import InputError
from margincast.margin.liquidation_cost import Book, liquidation_costs, walk_book
from margincast.specs.loading import load_spec
from margincast.specs.schedule import Tier
from margincast.specs.serving import MarginPolicy

SERVING = Path(__file__).resolve().parents[2] / "serving"
FEES = (
    "liquidation.taker_fee_rate=0.0005",
    "liquidation.liquidation_fee_rate=0.001",
    "liquidation.half_spread_bps=2.0",
)
STATED = load_spec(SERVING / "perp-8h.toml", MarginPolicy, FEES)
WALKED = load_spec(
    SERVING / "demo.toml", MarginPolicy, [*FEES, "liquidation.book.unshown_depth_bps=300.0"]
)
TIERS = (
    Tier(floor_usd=0, cap_usd=1_000, mmr=0.01, imr=0.02),
    Tier(floor_usd=1_000, cap_usd=20_000, mmr=0.02, imr=0.04),
    Tier(floor_usd=20_000, cap_usd=500_000, mmr=0.05, imr=0.1),
)
# Mid 100: one unit at 0.1 %, two at 0.3 %, seven at 1 % on either side, 1,000 USD in all.
BOOK = Book(
    bid_prices=np.array([99.9, 99.7, 99.0]),
    bid_sizes=np.array([1.0, 2.0, 7.0]),
    ask_prices=np.array([100.1, 100.3, 101.0]),
    ask_sizes=np.array([1.0, 2.0, 7.0]),
)


@st.composite
def books(draw):
    count = draw(st.integers(1, 8))
    gaps = st.lists(st.floats(0.01, 2.0), min_size=count, max_size=count)
    sizes = st.lists(st.floats(0.0, 1e3), min_size=count, max_size=count)
    first = st.floats(0.01, 100.0)
    return Book(
        bid_prices=100.0 - np.cumsum(draw(gaps)),
        bid_sizes=np.array([draw(first), *draw(sizes)[1:]]),
        ask_prices=100.0 + np.cumsum(draw(gaps)),
        ask_sizes=np.array([draw(first), *draw(sizes)[1:]]),
    )


def slow_walk_usd(prices, sizes, mid_price, notional_usd, *, least_rate, unshown_rate):
    """Fill level after level, as a liquidation engine would."""
    left_usd, cost_usd, rate = notional_usd, 0.0, 0.0
    for price, size in zip(prices, sizes, strict=True):
        if size == 0.0:
            continue
        rate = max(abs(price - mid_price) / mid_price, least_rate)
        filled_usd = min(left_usd, size * mid_price)
        cost_usd += filled_usd * rate
        left_usd -= filled_usd
    return cost_usd + left_usd * max(unshown_rate, rate)


@given(books(), st.sampled_from(["long", "short"]), st.floats(0.0, 1e6), st.floats(0.0, 0.05))
def test_walking_equals_filling_level_after_level(book, side, notional_usd, unshown_rate):
    prices = book.bid_prices if side == "long" else book.ask_prices
    sizes = book.bid_sizes if side == "long" else book.ask_sizes
    mid_price = 0.5 * (book.bid_prices[0] + book.ask_prices[0])
    slow = slow_walk_usd(
        prices, sizes, mid_price, notional_usd, least_rate=0.0002, unshown_rate=unshown_rate
    )
    fast = walk_book(
        book, side, np.array([notional_usd]), least_rate=0.0002, unshown_rate=unshown_rate
    )
    assert fast[0] == pytest.approx(slow, rel=1e-9, abs=1e-9)


@given(books(), st.sampled_from(["long", "short"]))
def test_cost_is_convex_in_notional_and_zero_at_zero(book, side):
    cost_usd = walk_book(book, side, np.linspace(0.0, 2e5, 201), least_rate=0.0, unshown_rate=0.01)
    assert cost_usd[0] == 0.0
    assert np.all(np.diff(cost_usd, 2) >= -1e-9 * cost_usd[-1])


@given(books(), st.sampled_from(["long", "short"]))
def test_rates_never_fall_and_pay_for_closing_every_position(book, side):
    costs = liquidation_costs(TIERS, side, WALKED, book)
    rates = np.array([cost.trading_rate for cost in costs])
    assert np.all(np.diff(rates) >= 0.0)
    assert rates[0] >= 0.0002 * (1.0 - 1e-12)
    floors = np.array([tier.floor_usd for tier in TIERS])
    caps = np.array([tier.cap_usd for tier in TIERS])
    for notional_usd in np.geomspace(1.0, 500_000.0, 60):
        charged_usd = np.sum(rates * np.clip(notional_usd - floors, 0.0, caps - floors))
        cost_usd = walk_book(
            book, side, np.array([notional_usd]), least_rate=0.0002, unshown_rate=0.03
        )
        assert charged_usd >= cost_usd[0] * (1.0 - 1e-9)


def test_walking_by_hand():
    # 100 USD at 0.1 %, 200 at 0.3 %, 100 of the 700 at 1 %: 0.1 + 0.6 + 1.0; all 1,000 cost 7.7,
    # and the 500 that the book does not show cost 3 % of 500 = 15.
    cost_usd = walk_book(
        BOOK, "long", np.array([100.0, 400.0, 1_500.0]), least_rate=0.0, unshown_rate=0.03
    )
    assert cost_usd == pytest.approx([0.1, 1.7, 22.7])


def test_tier_rates_by_hand():
    # Tier 1 holds the whole book, 7.7 on 1,000 USD; the next two are beyond it.
    first, second, third = liquidation_costs(TIERS, "short", WALKED, BOOK)
    assert first.trading_rate == pytest.approx(0.0077)
    assert second.trading_rate == pytest.approx(0.03)
    assert third.rate == pytest.approx(0.0315)
    assert "walking the book from 0 to 1,000 USD" in first.reason


def test_without_a_walk_the_half_spread_and_the_fees_are_all():
    for cost in liquidation_costs(TIERS, "long", STATED, BOOK):
        assert cost.rate == pytest.approx(0.0017)
        assert "stated half spread of 2 bps" in cost.reason


def test_without_a_book_all_depth_is_unshown():
    for cost in liquidation_costs(TIERS, "long", WALKED, None):
        assert cost.trading_rate == pytest.approx(0.03)
        assert "no order book" in cost.reason


def test_a_locked_book_costs_the_stated_half_spread():
    locked = Book(np.array([100.0]), np.array([1e6]), np.array([100.0]), np.array([1e6]))
    assert liquidation_costs(TIERS, "long", WALKED, locked)[0].trading_rate == pytest.approx(0.0002)


def test_levels_that_are_not_known_or_empty_are_no_depth():
    gappy = Book(
        bid_prices=np.array([np.nan, 99.9, 99.8, 99.7, 99.0, np.nan]),
        bid_sizes=np.array([3.0, 1.0, 0.0, 2.0, 7.0, np.nan]),
        ask_prices=BOOK.ask_prices,
        ask_sizes=BOOK.ask_sizes,
    )
    notional_usd = np.linspace(0.0, 2_000.0, 41)
    cost_usd, same_usd = (
        walk_book(book, "long", notional_usd, least_rate=0.0, unshown_rate=0.0)
        for book in (BOOK, gappy)
    )
    np.testing.assert_allclose(same_usd, cost_usd, rtol=1e-12)


@pytest.mark.parametrize(
    ("bid_prices", "bid_sizes", "said"),
    [
        ([99.0, 98.0], [1.0, -1.0], "bid sizes must be finite and zero or more"),
        ([98.0, 99.0], [1.0, 1.0], "ordered best first"),
        ([99.0, -1.0], [1.0, 1.0], "must be positive"),
        ([102.0, 99.0], [1.0, 1.0], r"crossed: best bid above best ask; .* found \[102. 101.\]"),
        ([np.nan, np.nan], [1.0, 1.0], "shows no bid depth"),
        ([99.0], [1.0, 1.0], "two tables of one shape"),
    ],
)
def test_a_book_that_is_none_is_refused(bid_prices, bid_sizes, said):
    with pytest.raises(InputError, match=said):
        Book(np.array(bid_prices), np.array(bid_sizes), np.array([101.0]), np.array([1.0]))


def test_a_negative_notional_is_refused():
    with pytest.raises(InputError, match="notional_usd must be finite and zero or more"):
        walk_book(BOOK, "long", np.array([-1.0]), least_rate=0.0, unshown_rate=0.0)
