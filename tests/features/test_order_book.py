import hashlib
import io
import math
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from margincast.core.errors import InputError
from margincast.data.book import mended_book, read_books
from margincast.data.schemas import book_columns
from margincast.features import order_book
from margincast.features.library import LIBRARY, Window
from margincast.specs.features import Feature, FeatureSet
from margincast.specs.loading import load_spec

START = datetime(2026, 1, 5, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)

FIVE_ROWS = {
    # Two levels a side, in the order of ``book_columns(2)``: bid price and size, ask price and
    # size, best first. The second is locked, the third has lost its second bid level.
    0: (99.0, 1.0, 101.0, 3.0, 98.0, 2.0, 102.0, 4.0),
    1: (100.0, 2.0, 100.0, 6.0, 99.0, 1.0, 101.0, 1.0),
    2: (99.0, 4.0, 101.0, 4.0, None, None, 102.0, 2.0),
    10: (99.0, 5.0, 101.0, 1.0, 98.0, 1.0, 102.0, 1.0),
    11: (99.0, 7.0, 101.0, 4.0, 98.0, 1.0, 102.0, 1.0),
}


def book_of(rows, seconds, levels=2):
    return (
        pl.DataFrame(rows, schema=dict.fromkeys(book_columns(levels), pl.Float64), orient="row")
        .with_columns(pl.Series("ts", [START + second * SECOND for second in seconds]))
        .with_columns((pl.col("ts") + SECOND).alias("known_at"))
    )


def five_rows(expression):
    book = book_of(list(FIVE_ROWS.values()), list(FIVE_ROWS))
    return book.select(expression).to_series().to_list()


def random_book(seed, seconds, levels=3):
    """A seeded book of several levels, uncrossed, some of its deeper levels missing."""
    generator = np.random.default_rng(seed)
    count = len(seconds)
    middle = 100 + generator.normal(size=count).cumsum() * 0.1
    columns = {}
    for side, direction in (("bid", -1), ("ask", 1)):
        gaps = generator.integers(0, 3, size=(levels, count)).cumsum(axis=0) * 0.01
        for level in range(levels):
            there = (generator.random(count) < 0.9) | (level == 0)
            price = middle + direction * gaps[level]
            size = generator.lognormal(size=count)
            columns[f"{side}_price_{level}"] = np.where(there, price, np.nan)
            columns[f"{side}_size_{level}"] = np.where(there, size, np.nan)
    rows = pl.DataFrame(columns, nan_to_null=True).select(book_columns(levels)).rows()
    return book_of(rows, seconds, levels)


def entry(function, *, values=(), statistics=("last",), windows=()):
    return Feature(function=function, values=values, statistics=statistics, windows=windows)


def close_to(found, expected, **tolerance):
    """Compare lists in which None must meet None."""
    assert [value is None for value in found] == [value is None for value in expected]
    pairs = [pair for pair in zip(found, expected, strict=True) if pair[0] is not None]
    return [one for one, _ in pairs] == pytest.approx([other for _, other in pairs], **tolerance)


def every_function(windows=(MINUTE, 3 * MINUTE)):
    statistics = ("last", "mean", "deviation", "time_mean", "minimum", "rank")
    walked = ("cost_to_buy", "cost_to_sell", "depth_shortage", "effective_spread")
    notionals = dict.fromkeys(walked, (50.0, 300.0))
    book = [function for (family, _), function in LIBRARY.items() if family == "book"]
    values = {
        function.name: notionals.get(function.name, (1.0, 3.0))
        for function in book
        if function.argument == "values"
    }
    return [
        entry(
            function.name,
            values=values.get(function.name, ()),
            statistics=statistics,
            windows=windows,
        )
        for function in book
    ]


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        (order_book.relative_spread(), [0.02, 0.0, 0.02, 0.02, 0.02]),
        # (99 * 3 + 101 * 1) / 4 = 99.5, half a per cent below the mid
        (order_book.microprice_deviation(), [-0.005, 0.0, 0.0, 0.01 * 4 / 6, 0.01 * 3 / 11]),
        (order_book.imbalance(1, 2), [-2 / 4, -4 / 8, 0.0, 4 / 6, 3 / 11]),
        (order_book.imbalance(2, 2), [-4 / 10, -4 / 10, -2 / 10, 4 / 8, 3 / 13]),
        (
            order_book.log_depth_usd(2, 2),
            [math.log(usd) for usd in (295 + 711, 299 + 701, 396 + 608, 593 + 203, 791 + 506)],
        ),
        (
            order_book.depth_asymmetry(1, 2),
            [
                math.log(bid / ask)
                for bid, ask in ((99, 303), (200, 600), (396, 404), (495, 101), (693, 404))
            ],
        ),
        # Buy 4: 3 at 1 above the mid and 1 at 2 above; 4 at 0; 4 at 1; only 2 there; 4 at 1.
        (order_book.cost_to_buy(400, 2), [5 / 400, 0.0, 4 / 400, None, 4 / 400]),
        # Sell 3: 1 at 1 below and 2 at 2 below; 2 at 0 and 1 at 1; 3 at 1; 3 at 1; 3 at 1.
        (order_book.cost_to_sell(300, 2), [5 / 300, 1 / 300, 3 / 300, 3 / 300, 3 / 300]),
        (order_book.depth_shortage(400, 2), [1.0, 1.0, 0.0, 1.0, 0.0]),
        (
            order_book.book_slope(1, 2),
            [
                (0.01e6 / bid + 0.01e6 / ask) / 2 if bid else 0.0
                for bid, ask in ((99, 303), (0, 0), (396, 404), (495, 101), (693, 404))
            ],
        ),
        # 1: bid up to 100 (+2), ask down to 100 (-6), depth (1 + 2 + 3 + 6) / 4 = 3.
        # 2: bid down (-2), ask up (+6), depth 4. 10: after a hole. 11: bid +2, ask -3, depth 17/4.
        (order_book.order_flow_imbalance(1, 2), [None, -4 / 3, 4 / 4, None, -4 / 17]),
        # Level two: 1: bid up (+1), ask down (-1), depth 2; 2: the bid is gone and adds nothing,
        # ask up (+1), depth (1 + 2) / 4; 11: no change, depth 1.
        (order_book.order_flow_imbalance(2, 2), [None, -4 / 5, 5 / 4.75, None, -1 / 5.25]),
    ],
    ids=lambda value: value.meta.output_name() if isinstance(value, pl.Expr) else "",
)
def test_worked_by_hand(expression, expected):
    assert close_to(five_rows(expression), expected, abs=1e-15, rel=1e-12)


def test_book_slope_is_least_squares_through_the_origin():
    book = random_book(4, range(20))
    found = book.select(order_book.book_slope(3, 3)).to_series().to_list()
    for row, value in zip(book.iter_rows(named=True), found, strict=True):
        mid = (row["bid_price_0"] + row["ask_price_0"]) / 2
        slopes = []
        for side in ("bid", "ask"):
            there = [n for n in range(3) if row[f"{side}_price_{n}"] is not None]
            price = np.array([row[f"{side}_price_{n}"] for n in there])
            size = np.array([row[f"{side}_size_{n}"] for n in there])
            depth = (price * size).cumsum()[:, np.newaxis]
            slopes.append(np.linalg.lstsq(depth, np.abs(price / mid - 1), rcond=None)[0][0] * 1e6)
        assert value == pytest.approx(np.mean(slopes), rel=1e-9)


def walked(row, side, notional_usd, levels):
    """The obvious walk: take each level until the size is filled."""
    mid = (row["bid_price_0"] + row["ask_price_0"]) / 2
    left, paid = notional_usd / mid, 0.0
    for level in range(levels):
        fill = min(left, row[f"{side}_size_{level}"] or 0.0)
        paid += fill * (row[f"{side}_price_{level}"] or 0.0)
        left -= fill
    return None if left > 1e-12 else abs(paid / (notional_usd / mid) - mid) / mid


@given(st.integers(0, 10_000), st.floats(1.0, 600.0))
def test_cost_to_trade_equals_the_obvious_walk(seed, notional_usd):
    book = random_book(seed, range(5))
    for side, function in (("ask", order_book.cost_to_buy), ("bid", order_book.cost_to_sell)):
        found = book.select(function(notional_usd, 3)).to_series().to_list()
        expected = [walked(row, side, notional_usd, 3) for row in book.iter_rows(named=True)]
        assert close_to(found, expected, rel=1e-6, abs=1e-12)


@given(st.integers(0, 10_000), st.floats(1.0, 600.0), st.floats(1.0, 3.0))
def test_cost_rises_with_notional_and_is_at_least_half_the_spread(seed, notional_usd, factor):
    book = random_book(seed, range(5))
    for function in (order_book.cost_to_buy, order_book.cost_to_sell):
        small, large, half_spread = book.select(
            function(notional_usd, 3).alias("small"),
            function(notional_usd * factor, 3).alias("large"),
            (order_book.relative_spread() / 2).alias("half_spread"),
        )
        rounding = 1e-15
        assert (small >= half_spread - rounding).all()
        assert (large >= small - rounding).all()
        assert large.is_not_null().sum() <= small.is_not_null().sum()


@given(st.integers(0, 10_000))
def test_swapping_the_sides_mirrors_every_feature(seed):
    """Reflect prices at the first mid: bids become asks. What leans one way leans the other."""
    book = random_book(seed, range(6))
    columns = {
        f"{side}_{what}_{level}": pl.col(f"{other}_{what}_{level}")
        for side, other in (("bid", "ask"), ("ask", "bid"))
        for level in range(3)
        for what in ("price", "size")
    }
    mirrored = book.with_columns(
        (200 - other if "price" in name else other).alias(name) for name, other in columns.items()
    )
    for function in (order_book.imbalance, order_book.order_flow_imbalance):
        for count in (1, 3):
            one = book.select(function(count, 3)).to_series()
            other = mirrored.select(function(count, 3)).to_series()
            assert close_to(one.to_list(), (-other).to_list())
            assert one.drop_nulls().abs().max() <= (1 if function is order_book.imbalance else 4)
    # A size costs as much, in USD, to buy as it costs to sell in the mirror.
    size = 2.0
    mid = (book["bid_price_0"] + book["ask_price_0"]) / 2
    for row in range(len(book)):
        one = book[row].select(order_book.cost_to_buy(size * mid[row], 3) * mid[row]).item()
        other = (
            mirrored[row]
            .select(order_book.cost_to_sell(size * (200 - mid[row]), 3) * (200 - mid[row]))
            .item()
        )
        assert close_to([one], [other], rel=1e-6, abs=1e-9)


@given(st.integers(0, 10_000), st.sets(st.integers(0, 400), min_size=1, max_size=30))
def test_statistics_are_those_of_all_snapshots_in_the_window(seed, seconds):
    seconds = sorted(seconds)
    book = random_book(seed, seconds)
    entries = [
        entry(
            "imbalance",
            values=(3.0,),
            statistics=("last", "mean", "deviation"),
            windows=(MINUTE, 3 * MINUTE),
        ),
        entry("cost_to_buy", values=(200.0,), statistics=("last", "mean"), windows=(3 * MINUTE,)),
    ]
    reduced = order_book.reduce_book(book.lazy(), 3, entries, MINUTE, 0.9)
    assert reduced.columns == ["ts", *order_book.column_units(entries, MINUTE)]
    known = book["known_at"].to_list()
    signals = {
        "imbalance_3": book.select(order_book.imbalance(3, 3)).to_series().to_list(),
        "cost_to_buy_200": book.select(order_book.cost_to_buy(200, 3)).to_series().to_list(),
    }

    def inside(values, end, length):
        return [value for value, at in zip(values, known, strict=True) if end - length < at <= end]

    for row in reduced.iter_rows(named=True):
        for name, values in signals.items():
            last = inside(values, row["ts"], MINUTE)
            assert row[f"{name}_last"] == (last[-1] if last else None)
            for label, rows in (("1m", 1), ("3m", 3)):
                if f"{name}_mean_{label}" not in row:
                    continue
                window = Window.over(rows * MINUTE, MINUTE, 0.9)
                present = sum(
                    any(v is not None for v in inside(values, row["ts"] - n * MINUTE, MINUTE))
                    for n in range(rows)
                )
                there = [v for v in inside(values, row["ts"], rows * MINUTE) if v is not None]
                mean = np.mean(there) if present >= window.minimum else None
                assert close_to([row[f"{name}_mean_{label}"]], [mean], rel=1e-9, abs=1e-12)
                if f"{name}_deviation_{label}" in row:
                    many = present >= window.minimum and len(there) > 1
                    deviation = np.std(there) if many else None
                    # Sums of squares cancel: a deviation of 0 may come out as some 1e-8.
                    assert close_to([row[f"{name}_deviation_{label}"]], [deviation], abs=1e-7)


def test_a_row_known_exactly_at_the_decision_counts_and_one_just_after_does_not():
    rows = [(99.0, size, 101.0, 1.0, 98.0, 1.0, 102.0, 1.0) for size in (1.0, 3.0, 7.0)]
    book = book_of(rows, [0, 59, 59]).with_columns(
        pl.Series(
            "known_at",
            [START + SECOND, START + MINUTE, START + MINUTE + timedelta(microseconds=1)],
        )
    )
    reduced = order_book.reduce_book(
        book.lazy(), 2, [entry("imbalance", values=(1.0,))], MINUTE, 0.9
    )
    assert reduced["ts"].to_list() == [START + MINUTE, START + 2 * MINUTE]
    assert reduced["imbalance_1_last"].to_list() == [0.5, 0.75]


@given(st.integers(0, 10_000), st.integers(0, 590))
def test_nothing_at_a_decision_moves_when_later_snapshots_are_perturbed(seed, cut):
    generator = np.random.default_rng(seed)
    seconds = [*np.flatnonzero(generator.random(600) < 0.3).tolist(), 600]
    book = random_book(seed, seconds)
    decision = START + cut * SECOND
    later = pl.col("known_at") > decision
    perturbed = book.with_columns(
        pl.when(later).then(pl.col(name) * factor).otherwise(pl.col(name)).alias(name)
        for name, factor in ((name, 0.5 if "bid" in name else 2.0) for name in book_columns(3))
    )
    before = order_book.reduce_book(book.lazy(), 3, every_function(), MINUTE, 0.5)
    after = order_book.reduce_book(perturbed.lazy(), 3, every_function(), MINUTE, 0.5)
    until = pl.col("ts") <= decision
    assert before.filter(until).equals(after.filter(until))
    assert not before.equals(after)


def test_a_minute_without_a_snapshot_has_no_last():
    book = random_book(1, [*range(60), *range(240, 300)])
    entries = [entry("imbalance", values=(1.0,))]
    reduced = order_book.reduce_book(book.lazy(), 3, entries, MINUTE, 0.5)
    missing = [ts.minute for ts in reduced.filter(pl.col("imbalance_1_last").is_null())["ts"]]
    # Row 0 of minute n is known at n:01, the last at the close: minutes 0 and 4 hold them all.
    assert missing == [2, 3, 4]
    assert len(reduced) == 5


DETERMINISM = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import test_order_book as t
book = t.random_book(7, range(20_000))
print(t.digest(t.order_book.reduce_book(book.lazy(), 3, t.every_function(), t.MINUTE, 0.9)))
deep = t.random_book(8, range(2_000), levels=20)
depth, asymmetry = t.order_book.log_depth_usd(20, 20), t.order_book.depth_asymmetry(20, 20)
print(t.digest(deep.select(depth.alias("depth"), asymmetry.alias("asymmetry"))))
"""


def digest(frame):
    buffer = io.BytesIO()
    frame.write_ipc(buffer)
    return hashlib.sha256(buffer.getvalue()).hexdigest()


def test_the_bits_do_not_depend_on_threads():
    found = set()
    for threads, morsel in (("1", "100000"), ("3", "700"), ("4", "1300")):
        environment = {
            **os.environ,
            "POLARS_MAX_THREADS": threads,
            "POLARS_IDEAL_MORSEL_SIZE": morsel,
        }
        done = subprocess.run(  # noqa: S603 - our own interpreter and text
            [sys.executable, "-c", DETERMINISM, str(Path(__file__).parent)],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        found.add(done.stdout)
    assert len(found) == 1


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (entry("imbalanc", values=(1.0,)), "did you mean 'imbalance'"),
        (entry("imbalance"), "needs values, and lists none"),
        (entry("relative_spread", values=(5.0,)), "takes no values, and lists 5"),
        (entry("imbalance", values=(3.0,)), "3 book levels, and the book has 2"),
        (entry("imbalance", values=(1.5,)), "whole numbers from 1 to 2"),
        (entry("cost_to_buy", values=(0.0,)), "above 0 USD"),
        (entry("relative_spread", statistics=()), "needs statistics"),
        (entry("relative_spread", statistics=("mean",)), "windows for mean, "),
        (entry("relative_spread", windows=(MINUTE,)), "windows for mean, .* and rank only"),
        (
            entry("relative_spread", statistics=("mean",), windows=(90 * SECOND,)),
            "not a whole number",
        ),
    ],
)
def test_a_line_that_cannot_be_built_is_refused(wrong, message):
    book = book_of(list(FIVE_ROWS.values()), list(FIVE_ROWS))
    with pytest.raises(InputError, match=message):
        order_book.reduce_book(book.lazy(), 2, [wrong], MINUTE, 0.9)


def test_names_and_units_come_in_the_order_of_the_feature_set():
    entries = [
        entry("cost_to_buy", values=(1e4, 2.5e6), statistics=("last", "mean"), windows=(MINUTE,)),
        entry("imbalance", values=(5.0,), statistics=("deviation",), windows=(10 * MINUTE,)),
    ]
    assert list(order_book.column_units(entries, MINUTE).items()) == [
        ("cost_to_buy_10000_last", "fraction"),
        ("cost_to_buy_10000_mean_1m", "fraction"),
        ("cost_to_buy_2500000_last", "fraction"),
        ("cost_to_buy_2500000_mean_1m", "fraction"),
        ("imbalance_5_deviation_10m", "number"),
    ]


def test_the_shipped_feature_set_on_standx(shared_data):
    path = Path(__file__).parents[2] / "features" / "book-1m.toml"
    feature_set = load_spec(path, FeatureSet)
    books = read_books(shared_data / "data", ["book"], [], SECOND)
    reduced = order_book.reduce_book(
        books.frames["BTC-USD"],
        books.levels["BTC-USD"],
        feature_set.book,
        feature_set.grid.interval,
        feature_set.grid.minimum_present,
    )
    assert reduced.columns == ["ts", *order_book.column_units(feature_set.book, MINUTE)]
    assert len(reduced) == 49 * 60 + 6
    bounded = reduced.select(pl.col("^imbalance_.*$"))
    assert bounded.min_horizontal().min() >= -1
    assert bounded.max_horizontal().max() <= 1
    # The spread is 0 in the 46 % of snapshots that are locked, so in many minutes' last one.
    locked = (reduced["relative_spread_last"] == 0).mean()
    assert locked == pytest.approx(0.46, abs=0.05)
    costs = [reduced[f"cost_to_sell_{usd}_mean_10m"].mean() for usd in (10_000, 50_000, 100_000)]
    assert costs == sorted(costs)
    assert costs[0] > reduced["relative_spread_mean_10m"].mean() / 2
    # 2026-01-06 19:27..19:29: a gap of 108 s, so order flow starts anew there.
    untouched = mended_book(books.frames["BTC-USD"].drop("known_at"), "X", "x", SECOND)[0].collect()
    assert untouched["ts"].diff().max() == 108 * SECOND
