"""Trades met with the book: values worked out, a slow twin, and nothing known before its time."""

import math
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from margincast.data.book import read_books
from margincast.data.trades import read_trades
from margincast.features.library import LIBRARY, Window
from margincast.features.trade_flow.execution import AFTER, FLOW_GAP, LARGE_SHARE
from margincast.features.trade_flow.reduction import reduce_trades
from margincast.specs.features import Feature

START = datetime(2026, 1, 5, 12, tzinfo=UTC)
SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)
STAMP = pl.Datetime("us", "UTC")
NAMES = ("effective_spread_paid", "price_impact", "realised_spread", "depth_restored")
NEEDS_SIDE = ("price_impact", "realised_spread")


def trades_of(rows):
    """Rows of (seconds, price, size, side)."""
    return pl.LazyFrame(
        [(START + second * SECOND, price, size, side) for second, price, size, side in rows],
        schema={"known_at": STAMP, "price": pl.Float64, "size": pl.Float64, "side": pl.String},
        orient="row",
    )


def book_of(rows):
    """Rows of (seconds, bid, ask, size on each side): one level."""
    return pl.LazyFrame(
        [(START + second * SECOND, bid, size, ask, size) for second, bid, ask, size in rows],
        schema={
            "known_at": STAMP,
            "bid_price_0": pl.Float64,
            "bid_size_0": pl.Float64,
            "ask_price_0": pl.Float64,
            "ask_size_0": pl.Float64,
        },
        orient="row",
    )


def assert_same(values, wanted):
    """Equal but for rounding, and not known at the same places."""
    numbers = np.array([values, wanted], dtype=float)
    np.testing.assert_allclose(numbers[0], numbers[1], rtol=1e-9, atol=1e-12)


def entries(*windows):
    return [Feature(function=name, windows=windows) for name in NAMES]


def reduced(trades, book, *windows, share=0.5, interval=MINUTE):
    lazy = None if book is None else book_of(book)
    return reduce_trades(trades_of(trades), lazy, entries(*windows), interval, share)


# --- worked out by hand ---------------------------------------------------------------------------

# Five snapshots: mid 100 before the trade, 100 just after, 102 ten seconds later. Both sides hold
# 10 x (99 + 101) = 2,000 USD before, 4 x 200 = 800 just after, 7 x (101 + 103) = 1,428 later.
BOOK = [
    (0.5, 99.0, 101.0, 10.0),
    (1, 99.0, 101.0, 10.0),
    (3, 99.0, 101.0, 4.0),
    (12, 101.0, 103.0, 7.0),
    (20, 101.0, 103.0, 7.0),
]
BOUGHT = (2.0, 101.0, 2.0, "buy")


def test_five_snapshots_and_a_trade():
    row = reduced([BOUGHT], BOOK, MINUTE).row(0, named=True)
    assert row["ts"] == START + MINUTE
    assert row["effective_spread_paid_1m"] == pytest.approx(2 * 1 / 100)
    assert row["price_impact_1m"] == pytest.approx(2 * 2 / 100)
    assert row["realised_spread_1m"] == pytest.approx(0.02 - 0.04)
    # 1,200 USD went, 628 came back; the trade's 202 USD are more than a tenth of a side's 1,000
    assert row["depth_restored_1m"] == pytest.approx(628 / 1200)


def test_trades_are_weighted_by_their_notional():
    sold = (2.5, 99.5, 6.0, "sell")
    row = reduced([BOUGHT, sold], BOOK, MINUTE).row(0, named=True)
    bought_usd, sold_usd = 202, 597
    total = bought_usd + sold_usd
    assert row["effective_spread_paid_1m"] == pytest.approx(
        (bought_usd * 0.02 + sold_usd * 0.01) / total
    )
    # the seller's first later snapshot, 12.5 s or more, is the one at 20 s: within three seconds it
    # is not, so its outcome is not known and the impact is the buyer's alone
    assert row["price_impact_1m"] == pytest.approx(0.04)
    with_later = [*BOOK[:4], (12.5, 101.0, 103.0, 7.0), BOOK[4]]
    row = reduced([BOUGHT, sold], with_later, MINUTE).row(0, named=True)
    assert row["price_impact_1m"] == pytest.approx((bought_usd * 0.04 - sold_usd * 0.04) / total)


def test_a_snapshot_known_with_the_trade_is_not_before_it():
    trade = (1.0, 101.0, 2.0, "buy")
    book = [(0.5, 97.0, 99.0, 10.0), (1, 99.0, 101.0, 10.0)]
    row = reduced([trade], book, MINUTE).row(0, named=True)
    assert row["effective_spread_paid_1m"] == pytest.approx(2 * (101 - 98) / 98)
    assert reduced([trade], book[1:], MINUTE)["effective_spread_paid_1m"].to_list() == [None]


def test_an_outcome_belongs_to_the_interval_in_which_it_is_known():
    book = [(54, 99.0, 101.0, 10.0), (56, 99.0, 101.0, 4.0), (65, 101.0, 103.0, 7.0)]
    table = reduced([(55, 101.0, 2.0, "buy")], book, MINUTE)
    assert table["ts"].to_list() == [START + MINUTE, START + 2 * MINUTE]
    assert table["effective_spread_paid_1m"].to_list() == [pytest.approx(0.02), None]
    for name in NAMES[1:]:
        assert table[f"{name}_1m"][0] is None
        assert table[f"{name}_1m"][1] is not None
    # one microsecond earlier, and the later snapshot comes too soon to count
    early = [*book[:2], (64.999999, 101.0, 103.0, 7.0), (66, 97.0, 99.0, 1.0)]
    table = reduced([(55, 101.0, 2.0, "buy")], early, MINUTE)
    assert table["price_impact_1m"][1] == pytest.approx(2 * (98 / 100 - 1))


def test_known_exactly_at_a_close_is_known_to_its_decision():
    book = [(49, 99.0, 101.0, 10.0), (60, 101.0, 103.0, 7.0)]
    table = reduced([(50, 101.0, 2.0, "buy")], book, MINUTE)
    assert table["price_impact_1m"].to_list() == [pytest.approx(0.04)]


@pytest.mark.parametrize("hole", ["before", "after"])
def test_trades_beside_a_hole_of_the_feed_are_left_out(hole):
    gap = (FLOW_GAP / SECOND) + 0.001
    before = 2.0 - gap if hole == "before" else 1.0
    later = 12.0 + gap if hole == "after" else 12.0
    book = [(before, 99.0, 101.0, 10.0), (later, 101.0, 103.0, 7.0)]
    row = reduced([BOUGHT], book, MINUTE).row(-1, named=True)
    assert (row["effective_spread_paid_1m"] is None) == (hole == "before")
    assert row["price_impact_1m"] is None


def test_small_trades_and_trades_that_took_nothing_say_nothing_of_resilience():
    small = (2.0, 101.0, 0.9 * LARGE_SHARE * 1000 / 101, "buy")
    assert reduced([small], BOOK, MINUTE)["depth_restored_1m"].to_list() == [None]
    for size in (11.0, 9.6):  # more than before, and less by less than a tenth of a side
        deep = [*BOOK[:2], (3, 99.0, 101.0, size), *BOOK[3:]]
        assert reduced([BOUGHT], deep, MINUTE)["depth_restored_1m"].to_list() == [None]


def test_without_a_side_the_spread_and_resilience_are_known_and_impact_is_not():
    unsided = (*BOUGHT[:3], None)
    row = reduced([unsided], BOOK, MINUTE).row(0, named=True)
    assert row["effective_spread_paid_1m"] == pytest.approx(0.02)
    assert row["depth_restored_1m"] is not None
    assert all(row[f"{name}_1m"] is None for name in NEEDS_SIDE)


def test_without_a_book_nothing_is_known():
    table = reduced([BOUGHT], None, MINUTE)
    assert len(table) == 1
    assert all(table[f"{name}_1m"].to_list() == [None] for name in NAMES)


def test_minutes_without_a_trade_leave_a_window_to_those_that_have_one():
    book = [*BOOK, (70, 101.0, 103.0, 7.0), (130, 101.0, 103.0, 7.0)]
    table = reduced([BOUGHT], book, 3 * MINUTE, share=1.0)
    assert table["effective_spread_paid_3m"].to_list() == [None, None, pytest.approx(0.02)]
    assert table["price_impact_3m"].to_list() == [None, None, pytest.approx(0.04)]


# --- the slow twin --------------------------------------------------------------------------------


def twin(trades, book, rows, minimum):
    """The same features by loops over lists, one decision a minute from the first snapshot's."""
    gap, after = FLOW_GAP / SECOND, AFTER / SECOND
    minute = [math.ceil(second / 60) for second, *_ in book]
    up, last = set(minute), max(minute)

    def depth(snapshot):
        _, bid, ask, size = snapshot
        return bid * size + ask * size

    paid, outcomes = [], []
    for second, price, size, side in trades:
        before = [row for row in book if second - gap <= row[0] < second]
        if not before:
            continue
        mid, usd = (before[-1][1] + before[-1][2]) / 2, price * size
        spread = 2 * abs(price - mid) / mid
        paid.append((math.ceil(second / 60), usd, spread))
        later = [row for row in book if second + after <= row[0] <= second + after + gap]
        if not later:
            continue
        sign = {"buy": 1.0, "sell": -1.0, None: math.nan}[side]
        later_mid = (later[0][1] + later[0][2]) / 2
        impact = 2 * sign * (later_mid - mid) / mid
        realised = 2 * sign * (price - later_mid) / mid
        at_once = [row for row in book if second <= row[0] <= second + gap]
        taken = depth(before[-1]) - depth(at_once[0]) if at_once else -1.0
        back = depth(later[0]) - depth(at_once[0]) if at_once else 0.0
        large = min(usd, taken) >= LARGE_SHARE / 2 * depth(before[-1])
        outcomes.append(
            (math.ceil(later[0][0] / 60), usd, realised, impact, large * taken, large * back)
        )
    table = []
    for decision in range(min(minute), last + 1):
        window = {n for n in range(decision - rows + 1, decision + 1) if n in up}
        if len(window) < minimum:
            table.append([None] * 4)
            continue
        met = [row for row in paid if row[0] in window]
        known = [row for row in outcomes if row[0] in window]
        usd = sum(row[1] for row in met)
        # an interval with an unknown aggressor is not known, and its window has one row less
        sided = {n for n in window if not any(math.isnan(r[3]) for r in known if r[0] == n)}
        signed = [row for row in known if row[0] in sided]
        signed_usd = sum(row[1] for row in signed)
        table.append([
            sum(row[1] * row[2] for row in met) / usd if met else None,
            *(
                [None, None]
                if not signed or len(sided) < minimum
                else [
                    sum(row[1] * row[3] for row in signed) / signed_usd,
                    sum(row[1] * row[2] for row in signed) / signed_usd,
                ]
            ),
            sum(row[5] for row in known) / sum(row[4] for row in known)
            if any(row[4] for row in known) else None,
        ])  # fmt: skip
    return table


@st.composite
def markets(draw, sides=("buy", "sell")):
    """Seven minutes of a feed with holes, and trades in it."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    seconds = np.cumsum(rng.choice([1.0, 2.0, 5.0, 40.0], 150, p=[0.7, 0.2, 0.07, 0.03]))
    mid = 100 * np.exp(np.cumsum(rng.normal(0, 0.001, len(seconds))))
    half = rng.choice([0.0, 0.02, 0.1], len(seconds))
    book = [
        (float(s), float(m - h), float(m + h), float(q))
        for s, m, h, q in zip(seconds, mid, half, rng.lognormal(0, 0.5, len(seconds)), strict=True)
    ]
    times = np.sort(rng.uniform(0, seconds[-1] + 20, 120)).round(3)
    trades = [
        (float(t), float(100 * np.exp(rng.normal(0, 0.01))), float(rng.lognormal(-2, 1)),
         sides[rng.integers(len(sides))])
        for t in times
    ]  # fmt: skip
    return trades, book


@settings(max_examples=25)
@given(markets())
def test_equals_the_slow_twin(market):
    trades, book = market
    rows = 3
    table = reduced(trades, book, rows * MINUTE, share=2 / 3)
    expected = twin(trades, book, rows, 2)
    for place, name in enumerate(NAMES):
        values = table[f"{name}_3m"].to_list()
        wanted = [row[place] for row in expected]
        assert_same(values, wanted)
    known = sum(value is not None for row in expected for value in row)
    assert known > len(expected)


@settings(max_examples=25)
@given(markets(sides=("buy", "sell", "buy", "sell", "buy", "sell", None)))
def test_equals_the_slow_twin_where_some_aggressors_are_not_known(market):
    trades, book = market
    for rows, least in ((1, 1), (3, 2)):
        table = reduced(trades, book, rows * MINUTE, share=least / rows)
        expected = twin(trades, book, rows, least)
        for place, name in enumerate(NAMES):
            assert_same(table[f"{name}_{rows}m"].to_list(), [row[place] for row in expected])


# --- properties -----------------------------------------------------------------------------------


@settings(max_examples=25)
@given(markets())
def test_mirrored_markets_and_other_units_give_the_same(market):
    trades, book = market
    table = reduced(trades, book, 2 * MINUTE)
    # prices in cents and sizes in hundredths: the notional stays
    cents = reduced(
        [(t, p * 100, q / 100, side) for t, p, q, side in trades],
        [(t, bid * 100, ask * 100, size / 100) for t, bid, ask, size in book],
        2 * MINUTE,
    )
    flipped = {"buy": "sell", "sell": "buy"}
    swapped = reduced([(t, p, q, flipped[side]) for t, p, q, side in trades], book, 2 * MINUTE)
    for name in NAMES:
        values = table[f"{name}_2m"].to_list()
        assert_same(cents[f"{name}_2m"].to_list(), values)
        other = swapped[f"{name}_2m"].to_list()
        if name in ("price_impact", "realised_spread"):
            values = [None if value is None else -value for value in values]
        assert_same(other, values)
    assert table["effective_spread_paid_2m"].drop_nulls().min() >= 0


@settings(max_examples=40)
@given(markets(), st.integers(2, 5), st.sampled_from(["cut", "price", "size", "delay"]))
def test_nothing_known_after_a_decision_moves_it_by_a_bit(market, minutes, change):
    trades, book = market
    decided = START + minutes * MINUTE
    seconds = minutes * 60

    def later(rows, changed):
        return [row for row in rows if row[0] <= seconds] + [
            new for row in rows if row[0] > seconds for new in changed(row)
        ]

    change_trade, change_book = {
        "cut": (lambda _: [], lambda _: []),
        "price": (
            lambda row: [(row[0], row[1] * 3, *row[2:])],
            lambda row: [(row[0], row[1] * 0.5, row[2] * 0.5, row[3])],
        ),
        "size": (
            lambda row: [(*row[:2], row[2] * 1e6, row[3])],
            lambda row: [(*row[:3], row[3] * 1e-3)],
        ),
        "delay": (
            lambda row: [(row[0] + 7, *row[1:])],
            lambda row: [(row[0] + 11, *row[1:])],
        ),
    }[change]
    before = reduced(trades, book, MINUTE, 2 * MINUTE)
    after = reduced(later(trades, change_trade), later(book, change_book), MINUTE, 2 * MINUTE)
    known = pl.col("ts") <= decided
    assert len(before.filter(known)) > 0
    assert before.filter(known).equals(after.filter(known))


@settings(max_examples=25)
@given(markets())
def test_a_value_hangs_on_no_more_than_its_declared_look_back(market):
    trades, book = market
    table = reduced(trades, book, 2 * MINUTE)
    look_back = LIBRARY["trades", "price_impact"].look_back(Window(2, 1, "2m"))
    assert look_back == 3
    decided = table["ts"][-1]
    first = (decided - look_back * MINUTE - START) / SECOND
    short = reduced(
        [row for row in trades if row[0] > first], [row for row in book if row[0] > first],
        2 * MINUTE,
    )  # fmt: skip
    for name in NAMES:
        assert_same([short[f"{name}_2m"][-1]], [table[f"{name}_2m"][-1]])


def test_a_grid_finer_than_an_outcome_looks_back_as_far_as_its_trades():
    window = Window(5, 1, "5s")
    rows = LIBRARY["trades", "price_impact"].look_back(window)
    assert rows == 5 + (AFTER + 2 * FLOW_GAP) // SECOND


# --- a real feed ----------------------------------------------------------------------------------


def test_a_real_feed_pays_spreads_of_basis_points_and_says_no_side(shared_data):
    root = shared_data / "data"
    books = read_books(root, ["book/standx_BTC-USD_book20_1s.parquet"], (), SECOND)
    trades = read_trades(root, ["trades/standx_BTC-USD_trades.parquet"], ())
    table = reduce_trades(
        trades.frames["BTC-USD"], books.frames["BTC-USD"], entries(10 * MINUTE), MINUTE, 0.9
    )
    paid = table["effective_spread_paid_10m"]
    assert paid.is_not_null().mean() > 0.95
    assert 1e-5 < paid.median() < 1e-3
    assert all(table[f"{name}_10m"].null_count() == len(table) for name in NEEDS_SIDE)
    restored = table["depth_restored_10m"].drop_nulls()
    assert len(restored) > 0
    assert -2 < restored.median() < 2
