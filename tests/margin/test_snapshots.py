from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from margincast.core.errors import InputError
from margincast.margin.snapshots import Snapshots, walk_books

START = np.datetime64("2026-01-01", "us")
SECOND = np.timedelta64(1, "s")
SEEDS = st.integers(0, 2**32 - 1)


def market(seed, count=5, levels=4):
    """Books around 100 with holes: unknown prices and empty levels, never the best."""
    generator = np.random.default_rng(seed)
    gaps = generator.uniform(0.01, 1.0, (2, count, levels)).cumsum(axis=2)
    sizes = generator.uniform(0.01, 50.0, (2, count, levels))
    sizes[:, :, 1:][generator.random((2, count, levels - 1)) < 0.2] = 0.0
    prices = np.stack([100.0 - gaps[0], 100.0 + gaps[1]])
    prices[:, :, 1:][generator.random((2, count, levels - 1)) < 0.2] = np.nan
    known_at = START + generator.integers(0, 60, count).cumsum() * SECOND
    return Snapshots(known_at, prices[0], sizes[0], prices[1], sizes[1])


def slow_cost(books, row, side, notional_usd, *, least_rate, unshown_rate):
    """Fill one book's levels one after another."""
    prices = (books.bid_prices if side == "long" else books.ask_prices)[row]
    sizes = (books.bid_sizes if side == "long" else books.ask_sizes)[row]
    mid = (books.bid_prices[row][0] + books.ask_prices[row][0]) / 2.0
    left, cost, rate = notional_usd, 0.0, 0.0
    for price, size in zip(prices, sizes, strict=True):
        if not np.isfinite(price) or size == 0.0:
            continue
        rate = max(abs(price - mid) / mid, least_rate)
        filled = min(left, size * mid)
        cost, left = cost + filled * rate, left - filled
    return cost + left * max(unshown_rate, rate)


@settings(max_examples=20)
@given(SEEDS, st.sampled_from(["long", "short"]))
def test_many_books_at_once_cost_what_each_costs_alone(seed, side):
    books = market(seed)
    notional_usd = np.array([0.0, 10.0, 700.0, 5_000.0, 1e6])
    rates = {"least_rate": 0.001, "unshown_rate": 0.02}
    fast = walk_books(books, side, notional_usd, **rates)
    slow = [
        [slow_cost(books, row, side, notional, **rates) for notional in notional_usd]
        for row in range(len(books))
    ]
    np.testing.assert_allclose(fast, slow, rtol=1e-12, atol=1e-12)


def test_books_walked_in_parts_cost_the_same(monkeypatch):
    books, notional_usd = market(1, count=9), np.geomspace(1.0, 1e5, 7)
    whole = walk_books(books, "long", notional_usd, least_rate=0.0, unshown_rate=0.01)
    monkeypatch.setattr("margincast.margin.snapshots._CELLS", 2 * 7 * 4)
    parts = walk_books(books, "long", notional_usd, least_rate=0.0, unshown_rate=0.01)
    np.testing.assert_array_equal(parts, whole)


def test_a_window_holds_the_books_after_its_start():
    books = market(2, count=6)
    later = books.since(books.known_at[2])
    assert later.known_at.tolist() == [at for at in books.known_at if at > books.known_at[2]]
    np.testing.assert_array_equal(later.ask_sizes, books.ask_sizes[-len(later) :])


def test_time_without_books_is_not_covered():
    # a feed of one second that vanished for an hour: two periods of ten seconds have books
    seconds = [0, 1, 9, 3_600, 3_605]
    one = market(3, count=len(seconds))
    books = Snapshots(
        START + np.array(seconds) * SECOND,
        one.bid_prices,
        one.bid_sizes,
        one.ask_prices,
        one.ask_sizes,
    )
    assert books.covered(timedelta(seconds=10)) == timedelta(seconds=20)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"bid_sizes": -1.0}, "bid sizes must be finite and zero or more"),
        ({"ask_sizes": np.inf}, "ask sizes must be finite and zero or more"),
        ({"bid_prices": 1e3}, "crossed: best bid above best ask"),
        ({"ask_prices": np.nan}, "shows no ask depth; pass no book instead"),
        ({"ask_prices": -5.0}, "ask prices must be positive"),
    ],
)
def test_a_faulty_book_among_many_is_refused_by_its_time(change, said):
    books = market(4, count=3, levels=1)
    tables = {name: getattr(books, name).copy() for name in ("bid_prices", "bid_sizes")}
    tables |= {name: getattr(books, name).copy() for name in ("ask_prices", "ask_sizes")}
    ((name, value),) = change.items()
    tables[name][1, 0] = value
    with pytest.raises(InputError, match=said) as caught:
        Snapshots(books.known_at, **tables)
    assert str(books.known_at[1]) in str(caught.value)


def test_books_out_of_order_are_refused():
    books = market(5, count=2)
    tables = (books.bid_prices, books.bid_sizes, books.ask_prices, books.ask_sizes)
    with pytest.raises(InputError, match="in the order in which they were known"):
        Snapshots(START - np.arange(2) * SECOND, *tables)
