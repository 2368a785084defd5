"""Summaries of intervals: the same however snapshots arrive, and for a stream that forgets."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from margincast.data.intervals import bar_open
from margincast.data.schemas import book_columns
from margincast.features import order_book
from margincast.features.library import LIBRARY
from margincast.features.order_book import summary
from margincast.specs.features import Feature

START = datetime(2026, 1, 5, 12, tzinfo=UTC)
SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)
LEVELS = 3
STATISTICS = ("last", "mean", "deviation", "time_mean", "minimum", "rank")


def random_book(seed, count):
    """One to some seconds apart, some deeper levels missing."""
    rng = np.random.default_rng(seed)
    seconds = rng.choice([1, 1, 1, 2, 5, 70], count).cumsum()
    middle = 100 + rng.normal(size=count).cumsum() * 0.01
    columns = {}
    for side, direction in (("bid", -1), ("ask", 1)):
        gaps = rng.integers(0, 3, (LEVELS, count)).cumsum(axis=0) * 0.01
        for level in range(LEVELS):
            there = (rng.random(count) < 0.9) | (level == 0)
            columns[f"{side}_price_{level}"] = np.where(
                there, middle + direction * gaps[level], np.nan
            )
            columns[f"{side}_size_{level}"] = np.where(there, rng.lognormal(size=count), np.nan)
    ts = pl.Series("ts", [START + int(second) * SECOND for second in seconds])
    frame = pl.DataFrame(columns, nan_to_null=True).select(ts, *book_columns(LEVELS))
    return frame.with_columns((pl.col("ts") + SECOND).alias("known_at"))


def every_function(windows=(MINUTE, 3 * MINUTE)):
    special = {
        "depth_recovery": (5.0, 30.0),
        "imbalance_within": (2.0,),
        "bid_depth_usd_within": (2.0,),
        "ask_depth_usd_within": (2.0,),
        **dict.fromkeys(
            ("cost_to_buy", "cost_to_sell", "effective_spread", "depth_shortage"), (100.0, 300.0)
        ),
    }
    return [
        Feature(
            function=name,
            # descending: what is summed over the levels must not hang on the order asked for
            values=special.get(name, (3.0, 1.0)) if function.argument == "values" else (),
            statistics=STATISTICS,
            windows=windows,
        )
        for (family, name), function in LIBRARY.items()
        if family == "book"
    ]


def summarise(book, entries):
    return order_book.summarise_book(book.lazy(), LEVELS, entries, MINUTE)


def test_summaries_worked_by_hand():
    # imbalances 0, 0.5 and 0.75, known at :01, :31 and :41 of one minute
    book = pl.DataFrame(
        {
            "ts": [START + second * SECOND for second in (0, 30, 40)],
            "known_at": [START + second * SECOND for second in (1, 31, 41)],
            "bid_price_0": 99.0,
            "bid_size_0": [1.0, 3.0, 7.0],
            "ask_price_0": 101.0,
            "ask_size_0": 1.0,
        }
    )
    line = Feature(
        function="imbalance", values=(1.0,), statistics=STATISTICS, windows=(3 * MINUTE,)
    )
    found = order_book.summarise_book(book.lazy(), 1, [line], MINUTE)
    assert found.row(0, named=True) == {
        "ts": START,
        "imbalance_1 last": 0.75,
        "imbalance_1 minimum": 0.0,
        "imbalance_1 count": 3.0,
        "imbalance_1 sum": 1.25,
        "imbalance_1 squares": 0.25 + 0.5625,
        # each stands for ten seconds at most
        "imbalance_1 weight": pytest.approx(30.0),
        "imbalance_1 weighted": pytest.approx(12.5),
    }


@settings(max_examples=20)
@given(st.integers(0, 10_000), st.lists(st.integers(1, 40), max_size=12))
def test_batches_of_any_size_leave_the_same_rows(seed, sizes):
    book = random_book(seed, 120)
    entries = every_function()
    rows = order_book.BookSummary(LEVELS, entries, MINUTE)
    place = 0
    for size in [*sizes, len(book)]:
        rows.add(book[place : place + size])
        place += size
    assert rows.finish().equals(summarise(book, entries))


@settings(max_examples=20)
@given(st.integers(0, 10_000), st.integers(1, 119))
def test_snapshots_to_come_leave_the_rows_of_whole_intervals_alone(seed, cut):
    book = random_book(seed, 120).with_columns(bar_open(MINUTE).alias("open"))
    entries = every_function()
    early = book.filter(pl.col("open") < book["open"][cut])
    if len(early):
        assert summarise(early, entries).equals(
            summarise(book, entries)[: early["open"].n_unique()]
        )


def test_windows_over_the_summaries_are_the_reduction():
    book = random_book(3, 400)
    entries = every_function()
    found = order_book.over_windows(summarise(book, entries), entries, MINUTE, 0.5)
    assert found.equals(order_book.reduce_book(book.lazy(), LEVELS, entries, MINUTE, 0.5))
    assert found.columns == ["ts", *order_book.column_units(entries, MINUTE)]


def test_a_signal_in_two_lines_is_computed_once_for_the_statistics_of_both():
    book = random_book(4, 400)
    lines = [
        Feature(function="relative_spread", statistics=(statistic,), windows=windows)
        for statistic, windows in (("last", ()), ("mean", (MINUTE,)), ("minimum", (3 * MINUTE,)))
    ]
    together = order_book.reduce_book(book.lazy(), LEVELS, lines, MINUTE, 0.5)
    alone = [order_book.reduce_book(book.lazy(), LEVELS, [line], MINUTE, 0.5) for line in lines]
    assert together.equals(
        pl.concat([alone[0], *(one.drop("ts") for one in alone[1:])], how="horizontal")
    )
    assert summarise(book, lines).columns == [
        "ts",
        *(f"relative_spread {what}" for what in ("last", "minimum", "count", "sum")),
    ]


def test_an_interval_longer_than_what_is_held_at_a_time_is_one_row(monkeypatch):
    book = random_book(5, 500)
    hour = timedelta(hours=1)
    entries = every_function(windows=(hour,))
    expected = order_book.summarise_book(book.lazy(), LEVELS, entries, hour)
    monkeypatch.setattr(summary, "HELD_ROWS", 16)
    monkeypatch.setattr(summary, "BLOCK_ROWS", 8)
    found = order_book.summarise_book(book.lazy(), LEVELS, entries, hour)
    assert found.equals(expected)
    assert len(found) < 5
