"""Every book feature against a slow, obvious version of itself, and its statistics likewise."""

import math
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from margincast.core.errors import InputError
from margincast.data.schemas import book_columns
from margincast.features import order_book
from margincast.features.library import LIBRARY
from margincast.features.order_book import reduction, summary
from margincast.specs.features import Feature

START = datetime(2026, 1, 5, 12, tzinfo=UTC)
SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)
LEVELS = 6
VALUES = {
    "effective_spread": (50.0, 300.0),
    "cost_to_buy": (50.0, 300.0),
    "cost_to_sell": (50.0, 300.0),
    "depth_shortage": (50.0, 300.0),
    "imbalance_within": (1.0, 4.0),
    "bid_depth_usd_within": (1.0, 4.0),
    "ask_depth_usd_within": (1.0, 4.0),
    "depth_recovery": (1.0, 4.0),
}
FUNCTIONS = [
    (name, value)
    for (family, name), function in LIBRARY.items()
    if family == "book"
    for value in (VALUES.get(name, (1.0, 3.0)) if function.argument == "values" else (None,))
]


def book_of(rows, seconds, levels):
    return (
        pl.DataFrame(rows, schema=dict.fromkeys(book_columns(levels), pl.Float64), orient="row")
        .with_columns(pl.Series("ts", [START + second * SECOND for second in seconds]))
        .with_columns((pl.col("ts") + SECOND).alias("known_at"))
    )


def random_book(seed, count, *, holes=True):
    """Prices on a tick, locked at times, sizes that jump, levels and snapshots missing."""
    rng = np.random.default_rng(seed)
    seconds = np.flatnonzero(rng.random(3 * count) < 0.7)[:count]
    middle = np.round(100 + rng.normal(size=count).cumsum() * 0.01, 2)
    columns = {}
    for side, direction in (("bid", -1), ("ask", 1)):
        gaps = rng.integers(0, 3, (LEVELS, count)).cumsum(axis=0) * 0.01
        for level in range(LEVELS):
            there = (rng.random(count) < 0.9) | (level == 0) | (not holes)
            price = np.round(middle + direction * gaps[level], 2)
            size = np.round(rng.lognormal(size=count, sigma=1.0) + 0.01, 2)
            columns[f"{side}_price_{level}"] = np.where(there, price, np.nan)
            columns[f"{side}_size_{level}"] = np.where(there, size, np.nan)
    rows = pl.DataFrame(columns, nan_to_null=True).select(book_columns(LEVELS)).rows()
    return book_of(rows, seconds.tolist(), LEVELS)


def of(book, name, value):
    arguments = () if value is None else (value, LEVELS)
    return book.select(LIBRARY["book", name].build(*arguments)).to_series().to_list()


# --- the obvious version: dictionaries and loops, a snapshot at a time -------------------------


def stack(row, side, levels=LEVELS):
    """Price and size of the levels that hold something, None for the others."""
    found = [(row[f"{side}_price_{n}"], row[f"{side}_size_{n}"]) for n in range(levels)]
    return [None if price is None else (price, size) for price, size in found]


def mid_of(row):
    return (row["bid_price_0"] + row["ask_price_0"]) / 2


def there(row, side, levels=LEVELS):
    return [level for level in stack(row, side, levels) if level is not None]


def usd(row, side, levels):
    return sum(price * size for price, size in there(row, side, levels))


def size_of(row, side, levels):
    return sum(size for _, size in there(row, side, levels))


def within(row, side, bps):
    mid = mid_of(row)
    return sum(p * s for p, s in there(row, side) if abs(p - mid) <= mid * (bps * 1e-4))


def walk(row, side, notional):
    mid = mid_of(row)
    left, paid = notional / mid, 0.0
    for price, size in there(row, side):
        fill = min(left, size)
        paid += fill * abs(price - mid)
        left -= fill
    return None if size_of(row, side, LEVELS) < notional / mid else paid / notional


def slope(row, side, levels):
    mid, depth, products, squares = mid_of(row), 0.0, 0.0, 0.0
    for price, size in there(row, side, levels):
        depth += price * size
        products += abs(price - mid) / mid * depth
        squares += depth**2
    return products / squares * 1e6


def convexity(row, side, levels):
    """Area below the lines that join (0 or best, distance) points, by shapes."""
    mid = mid_of(row)
    points = [(0.0, 0.0)]
    for price, size in there(row, side, levels):
        points.append((points[-1][0] + price * size, abs(price - mid)))
    area = np.trapezoid([y for _, y in points], [x for x, _ in points])
    rectangle = points[-1][0] * points[-1][1]
    return None if rectangle == 0 else 1 - area / (rectangle / 2)


def level_flow(row, before, level):
    flow, depth = 0.0, 0.0
    for side, sign in (("bid", 1), ("ask", -1)):
        now, then = stack(row, side)[level], stack(before, side)[level]
        if now is None or then is None:
            continue
        change = 0.0
        if sign * (now[0] - then[0]) >= 0:
            change += now[1]
        if sign * (now[0] - then[0]) <= 0:
            change -= then[1]
        flow += sign * change
        depth += (now[1] + then[1]) / 4
    return flow, depth


def balance(bid, ask):
    return (bid - ask) / (bid + ask) if bid + ask else None


def microprice(row):
    bid, ask = row["bid_size_0"], row["ask_size_0"]
    return (row["ask_price_0"] * bid + row["bid_price_0"] * ask) / (bid + ask)


def both_sides(function, row, value):
    both = function(row, "bid", value), function(row, "ask", value)
    return None if None in both else sum(both)


def logs_of_depth(row, levels):
    return [math.log(usd(row, side, levels)) for side in ("bid", "ask")]


def half(value):
    return None if value is None else value / 2


OF_ONE_SNAPSHOT = {
    "relative_spread": lambda row, _: (row["ask_price_0"] - row["bid_price_0"]) / mid_of(row),
    "microprice_deviation": lambda row, _: microprice(row) / mid_of(row) - 1,
    "effective_spread": lambda row, v: both_sides(walk, row, v),
    "cost_to_buy": lambda row, v: walk(row, "ask", v),
    "cost_to_sell": lambda row, v: walk(row, "bid", v),
    "depth_shortage": lambda row, v: float(both_sides(walk, row, v) is None),
    "imbalance": lambda row, v: balance(size_of(row, "bid", int(v)), size_of(row, "ask", int(v))),
    "imbalance_within": lambda row, v: balance(within(row, "bid", v), within(row, "ask", v)),
    "bid_depth_usd_within": lambda row, v: within(row, "bid", v),
    "ask_depth_usd_within": lambda row, v: within(row, "ask", v),
    "log_depth_usd": lambda row, v: math.log(both_sides(usd, row, int(v))),
    "depth_asymmetry": lambda row, v: float(np.subtract(*logs_of_depth(row, int(v)))),
    "book_slope": lambda row, v: half(both_sides(slope, row, int(v))),
    "book_convexity": lambda row, v: half(both_sides(convexity, row, int(v))),
}


def flow_over(rows, i, levels):
    flows = [level_flow(rows[i], rows[i - 1], level) for level in levels]
    depth = sum(depth for _, depth in flows)
    return sum(flow for flow, _ in flows) / depth if depth else None


def changes(rows, i):
    changed = any(rows[i][name] != rows[i - 1][name] for name in rows[i] if name.endswith("_0"))
    return changed / (rows[i]["ts"] - rows[i - 1]["ts"]).total_seconds()


SINCE_THE_ONE_BEFORE = {
    "order_flow_imbalance": lambda rows, i, v: flow_over(rows, i, range(int(v))),
    "order_flow_imbalance_at": lambda rows, i, v: flow_over(rows, i, [int(v) - 1]),
    "quote_intensity": lambda rows, i, _: changes(rows, i),
}


def obvious(name, value, rows, i):
    if name in OF_ONE_SNAPSHOT:
        return OF_ONE_SNAPSHOT[name](rows[i], value)
    if name in SINCE_THE_ONE_BEFORE:
        near = i > 0 and rows[i]["ts"] - rows[i - 1]["ts"] <= order_book.FLOW_GAP
        return SINCE_THE_ONE_BEFORE[name](rows, i, value) if near else None
    return {"depth_recovery": recovery}[name](rows, i, value)


def recovery(rows, i, seconds):
    def depth(j):
        return usd(rows[j], "bid", 5) + usd(rows[j], "ask", 5)

    then = rows[i]["ts"] - timedelta(seconds=seconds)
    old = [j for j in range(i + 1) if rows[j]["ts"] <= then]
    if len(old) < 2:
        return None
    j = old[-1]
    gaps = then - rows[j]["ts"], rows[j]["ts"] - rows[j - 1]["ts"]
    lost = depth(j - 1) - depth(j)
    if max(gaps) > order_book.FLOW_GAP or lost < 0.2 * depth(j - 1):
        return None
    return (depth(i) - depth(j)) / lost


def same(found, expected):
    missing = [i for i, v in enumerate(expected) if v is None]
    assert [i for i, v in enumerate(found) if v is None] == missing
    pairs = [(a, b) for a, b in zip(found, expected, strict=True) if b is not None]
    if pairs:
        np.testing.assert_allclose(*zip(*pairs, strict=True), rtol=1e-9, atol=1e-9)
    return len(pairs)


@pytest.mark.parametrize(("name", "value"), FUNCTIONS)
@pytest.mark.parametrize("holes", [True, False])
def test_every_function_equals_its_obvious_version(name, value, holes):
    known = 0
    for seed in range(3):
        book = random_book(seed, 60, holes=holes)
        rows = book.rows(named=True)
        expected = [obvious(name, value, rows, i) for i in range(len(rows))]
        known += same(of(book, name, value), expected)
    assert known > 10


# --- worked by hand -------------------------------------------------------------------------------

FIVE_ROWS = [
    # bid price and size, ask price and size; second level likewise. Mid 100, ticks of 1 bp.
    (99.99, 1.0, 100.01, 3.0, 99.98, 2.0, 100.04, 1.0),
    (99.99, 1.0, 100.01, 3.0, 99.98, 2.0, 100.04, 1.0),
    (99.99, 1.0, 100.01, 1.0, 99.98, 1.0, 100.04, 1.0),
    (99.99, 1.0, 100.01, 2.5, 99.98, 1.0, 100.04, 1.0),
    (99.99, 1.0, 100.01, 3.0, None, None, 100.04, 3.0),
]


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        (order_book.bid_depth_usd_within(1.5, 2), [99.99] * 5),
        (order_book.bid_depth_usd_within(2.5, 2), [299.95, 299.95, 199.97, 199.97, 99.99]),
        (order_book.ask_depth_usd_within(3, 2), [300.03, 300.03, 100.01, 250.025, 300.03]),
        (
            order_book.imbalance_within(1.5, 2),
            [(99.99 - ask) / (99.99 + ask) for ask in (300.03, 300.03, 100.01, 250.025, 300.03)],
        ),
        (order_book.imbalance_within(0.5, 2), [None] * 5),
        # Sell 2 and buy 2: 1 bp and 2 bp on the bids, 1 bp on asks unless there is only one.
        (order_book.effective_spread(200, 2), [2.5e-4, 2.5e-4, 1.5e-4 + 2.5e-4, 2.5e-4, None]),
        (order_book.quote_intensity(), [None, 0.0, 1.0, 1.0, 1.0]),
        # Only sizes of the asks change: at the best less 2, more 1.5, more 0.5.
        (
            order_book.order_flow_imbalance_at(1, 2),
            [None, 0.0, 2 / 1.5, -1.5 / ((2 + 3.5) / 4), -0.5 / ((2 + 5.5) / 4)],
        ),
        # The second bid is lost in the last row and adds nothing; the second ask gains 2.
        (order_book.order_flow_imbalance_at(2, 2), [None, 0.0, -1 / 1.25, 0.0, -2 / 1.0]),
        # 700.02 falls to 400.02, a drop; a second later 150.015 of it is back.
        (order_book.depth_recovery(1, 2), [None, None, None, 150.015 / 300.0, None]),
    ],
)
def test_worked_by_hand(expression, expected):
    found = book_of(FIVE_ROWS, range(5), 2).select(expression).to_series().to_list()
    assert [v is None for v in found] == [v is None for v in expected]
    for one, other in zip(found, expected, strict=True):
        assert one == other or one == pytest.approx(other, rel=1e-4)


def test_convexity_is_zero_for_a_straight_book_and_signed_by_where_the_depth_stands():
    def convexity(sizes):
        row = [
            v
            for level, size in enumerate(sizes)
            for v in (
                100 - level - 0.5,
                size / (99.5 - level),
                100.5 + level,
                size / (100.5 + level),
            )
        ]
        found = book_of([row], [0], len(sizes))
        return found.select(order_book.book_convexity(len(sizes), len(sizes))).item()

    # Distances 0.5, 1.5, 2.5 at cumulative notionals 1, 3, 5: a straight line.
    assert convexity([1.0, 2.0, 2.0]) == pytest.approx(0, abs=1e-12)
    # 10, 11, 12: (10 * 0.5 + 1 * 2 + 1 * 4) / (2.5 * 12) of twice the area.
    assert convexity([10.0, 1.0, 1.0]) == pytest.approx(1 - 11 / 30)
    assert convexity([1.0, 1.0, 10.0]) == pytest.approx(1 - 42.5 / 30)


# --- properties -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "value"), FUNCTIONS)
@settings(max_examples=10)
@given(seed=st.integers(0, 10_000))
def test_prices_in_another_unit_change_no_feature(name, value, seed):
    """Prices times 1024, sizes over 1024: the same USD, and exact in floating point."""
    book = random_book(seed, 20)
    scaled = book.with_columns(pl.col("^.*_price_.*$") * 1024, pl.col("^.*_size_.*$") / 1024)
    assert of(book, name, value) == of(scaled, name, value)


@settings(max_examples=25)
@given(st.integers(0, 10_000))
def test_bounds(seed):
    book = random_book(seed, 40)
    bounds = {
        "imbalance": (-1, 1),
        "imbalance_within": (-1, 1),
        "book_convexity": (-1, 1),
        "order_flow_imbalance": (-4, 4),
        "order_flow_imbalance_at": (-4, 4),
        "depth_shortage": (0, 1),
        "bid_depth_usd_within": (0, math.inf),
        "quote_intensity": (0, math.inf),
        "depth_recovery": (-4, math.inf),
    }
    for name, value in FUNCTIONS:
        low, high = bounds.get(name, (-math.inf, math.inf))
        assert all(v is None or low - 1e-9 <= v <= high + 1e-9 for v in of(book, name, value)), name


@settings(max_examples=25)
@given(st.integers(0, 10_000))
def test_depth_grows_with_the_band_and_the_effective_spread_with_the_size(seed):
    book = random_book(seed, 20)
    grows = [("bid_depth_usd_within", (1.0, 2.0, 5.0)), ("effective_spread", (20.0, 60.0, 200.0))]
    for name, values in grows:
        for small, large in pairwise(values):
            for one, other in zip(of(book, name, small), of(book, name, large), strict=True):
                assert one is None or other is None or one <= other + 1e-15
    quoted = of(book, "relative_spread", None)
    paid = of(book, "effective_spread", 20.0)
    assert all(p is None or p >= q - 1e-15 for q, p in zip(quoted, paid, strict=True))


# --- statistics -----------------------------------------------------------------------------------


def every_function():
    lines: dict[str, tuple[float, ...]] = {}
    for name, value in FUNCTIONS:
        lines[name] = (*lines.get(name, ()), *(() if value is None else (value,)))
    return [
        Feature(
            function=name,
            values=values,
            statistics=("last", "mean", "deviation", "time_mean", "minimum", "rank"),
            windows=(MINUTE, 3 * MINUTE),
        )
        for name, values in lines.items()
    ]


@pytest.mark.parametrize("seed", range(2))
def test_statistics_equal_those_of_pandas_over_all_snapshots(seed):
    book = random_book(seed, 500)
    entries = every_function()
    reduced = order_book.reduce_book(book.lazy(), LEVELS, entries, MINUTE, 0.5)
    known = book["known_at"].to_pandas()
    close = known.dt.ceil("1min")
    seconds = (known.shift(-1).fillna(close.iloc[-1]).clip(upper=close) - known).dt.total_seconds()
    weights = seconds.clip(upper=10).to_numpy()
    compared = 0
    for name, value in FUNCTIONS:
        column = name if value is None else f"{name}_{value:g}"
        values = pd.Series(of(book, name, value), dtype=float)
        lasts = values.groupby(close).apply(lambda part: part.iloc[-1])
        for row in reduced.iter_rows(named=True):
            end = pd.Timestamp(row["ts"])
            start = end - 3 * MINUTE
            inside = values[(known > start) & (known <= end)]
            there = inside.dropna()
            present = values[there.index].groupby(close[there.index]).count()
            expected = {"mean": None, "time_mean": None, "minimum": None}
            if len(present) >= 2:
                weight = weights[there.index]
                expected = {
                    "mean": there.mean(),
                    "time_mean": (there * weight).sum() / weight.sum(),
                    "minimum": there.min(),
                }
            recent = lasts[(lasts.index > start) & (lasts.index <= end)].dropna()
            now = lasts.get(end, math.nan)
            expected["rank"] = (
                ((recent < now).sum() + (recent == now).sum() / 2) / len(recent)
                if not math.isnan(now) and len(recent) >= 2
                else None
            )
            for statistic, one in expected.items():
                compared += same([row[f"{column}_{statistic}_3m"]], [one])
    assert compared > 500


@pytest.mark.parametrize(("read", "block"), [(1, 1), (7, 3), (64, 1000), (1000, 64)])
def test_the_bits_do_not_depend_on_where_batches_and_blocks_are_cut(monkeypatch, read, block):
    book = random_book(5, 400)
    entries = every_function()
    whole = order_book.reduce_book(book.lazy(), LEVELS, entries, MINUTE, 0.5)
    monkeypatch.setattr(reduction, "READ_ROWS", read)
    monkeypatch.setattr(summary, "BLOCK_ROWS", block)
    monkeypatch.setattr(summary, "HELD_ROWS", 2 * block)
    assert whole.equals(order_book.reduce_book(book.lazy(), LEVELS, entries, MINUTE, 0.5))


def test_a_silent_feed_stands_for_ten_seconds_in_a_time_weighted_mean():
    book = book_of([(99.0, s, 101.0, 1.0) for s in (1.0, 3.0)], [0, 49], 1)
    line = Feature(
        function="imbalance", values=(1.0,), statistics=("time_mean",), windows=(MINUTE,)
    )
    # Known from :01 to :50 at 0, counted for 10 s; from :50 to the close at 0.5, for 10 s.
    reduced = order_book.reduce_book(book.lazy(), 1, [line], MINUTE, 1.0)
    assert reduced["imbalance_1_time_mean_1m"].to_list() == [pytest.approx(0.25)]


def test_a_rank_is_a_number_and_a_minimum_keeps_its_unit():
    line = Feature(
        function="relative_spread", statistics=("minimum", "rank"), windows=(10 * MINUTE,)
    )
    assert order_book.column_units([line], MINUTE) == {
        "relative_spread_minimum_10m": "fraction",
        "relative_spread_rank_10m": "number",
    }


@pytest.mark.parametrize(
    ("function", "value", "message"),
    [
        ("imbalance_within", 0.0, "must be above 0 bps, found 0"),
        ("effective_spread", -5.0, "above 0 USD"),
        ("depth_recovery", 0.0, "0 seconds; list times above 0"),
        ("order_flow_imbalance_at", 7.0, "7 book levels, and the book has 6"),
    ],
)
def test_values_that_mean_nothing_are_refused(function, value, message):
    line = Feature(function=function, values=(value,), statistics=("last",))
    with pytest.raises(InputError, match=message):
        order_book.reduce_book(random_book(1, 9).lazy(), LEVELS, [line], MINUTE, 0.5)
