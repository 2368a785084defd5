import math
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from margincast.core.errors import InputError
from margincast.data.book import read_books
from margincast.data.trades import read_trades
from margincast.features import trade_flow
from margincast.features.library import LIBRARY
from margincast.specs.features import Feature, FeatureSet
from margincast.specs.loading import load_spec

START = datetime(2026, 1, 5, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
STAMP = pl.Datetime("us", "UTC")


def trades_of(rows):
    return pl.LazyFrame(
        [(START + second * SECOND, price, size, side) for second, price, size, side in rows],
        schema={"known_at": STAMP, "price": pl.Float64, "size": pl.Float64, "side": pl.String},
        orient="row",
    )


def book_at(seconds):
    return pl.LazyFrame(
        {"known_at": [START + second * SECOND for second in seconds]},
        schema_overrides={"known_at": STAMP},
    )


def every_function(*windows):
    names = ("log_traded_notional_usd", "trade_count", "signed_flow_imbalance")
    return [Feature(function=name, windows=windows) for name in names]


# Minute 0: bought 200 and sold 100; minute 1: nothing; minute 2: bought 100 at the very close.
TRADES = [(1, 100.0, 2.0, "buy"), (30, 50.0, 2.0, "sell"), (180, 100.0, 1.0, "buy")]


def test_worked_by_hand_where_the_book_says_the_feed_was_up():
    reduced = trade_flow.reduce_trades(
        trades_of(TRADES), book_at([10, 70, 130]), every_function(MINUTE, 2 * MINUTE), MINUTE, 0.5
    )
    assert reduced["ts"].to_list() == [START + n * MINUTE for n in (1, 2, 3)]
    assert reduced["trade_count_1m"].to_list() == [2.0, 0.0, 1.0]
    assert reduced["trade_count_2m"].to_list() == [2.0, 1.0, 0.5]
    assert reduced["log_traded_notional_usd_1m"].to_list() == pytest.approx(
        [math.log(301), 0.0, math.log(101)]
    )
    assert reduced["log_traded_notional_usd_2m"].to_list() == pytest.approx(
        [math.log(301), math.log(151), math.log(51)]
    )
    # Nothing traded in minute 1, so no side of it is known.
    assert reduced["signed_flow_imbalance_1m"].to_list() == pytest.approx([1 / 3, None, 1.0])
    assert reduced["signed_flow_imbalance_2m"].to_list() == pytest.approx([1 / 3, 1 / 3, 1.0])


def test_a_minute_without_a_snapshot_is_not_known_whatever_it_traded():
    reduced = trade_flow.reduce_trades(
        trades_of(TRADES), book_at([70, 190]), every_function(MINUTE), MINUTE, 0.5
    )
    # Minutes 1 and 3 have a book; minute 2 traded, but the feed was down.
    assert reduced["ts"].to_list() == [START + n * MINUTE for n in (2, 3, 4)]
    assert reduced["trade_count_1m"].to_list() == [0.0, None, 0.0]


def test_without_a_book_a_minute_without_a_trade_is_not_known():
    reduced = trade_flow.reduce_trades(
        trades_of(TRADES), None, every_function(MINUTE, 2 * MINUTE), MINUTE, 0.5
    )
    assert reduced["trade_count_1m"].to_list() == [2.0, None, 1.0]
    assert reduced["trade_count_2m"].to_list() == [2.0, 2.0, 1.0]


def test_where_the_side_is_not_known_signed_flow_is_not_known():
    unsided = trades_of(TRADES).with_columns(pl.lit(None, pl.String).alias("side"))
    reduced = trade_flow.reduce_trades(
        unsided, book_at([10, 70, 130]), every_function(MINUTE, 3 * MINUTE), MINUTE, 0.1
    )
    assert reduced.select(pl.col("^signed.*$")).null_count().sum_horizontal().item() == 6
    assert reduced["trade_count_1m"].to_list() == [2.0, 0.0, 1.0]


def test_one_trade_without_a_side_leaves_its_minute_out():
    rows = [*TRADES, (185, 100.0, 5.0, None), (245, 100.0, 3.0, "sell")]
    reduced = trade_flow.reduce_trades(
        trades_of(rows), None, every_function(2 * MINUTE), MINUTE, 0.1
    )
    # Decision 12:04 sees 100 bought in minute 2 and an unknown side in minute 3: only the first.
    assert reduced["signed_flow_imbalance_2m"].to_list() == pytest.approx(
        [1 / 3, 1 / 3, 1.0, 1.0, -1.0]
    )


@given(st.integers(0, 10_000), st.integers(0, 590))
def test_nothing_at_a_decision_moves_when_later_trades_are_perturbed(seed, cut):
    generator = np.random.default_rng(seed)
    seconds = [*np.flatnonzero(generator.random(600) < 0.2).tolist(), 600]
    trades = trades_of(
        [
            (second, generator.lognormal(4.0), generator.lognormal(), side)
            for second, side in zip(
                seconds, generator.choice(["buy", "sell"], size=len(seconds)), strict=True
            )
        ]
    )
    decision = START + cut * SECOND
    later = pl.col("known_at") > decision
    perturbed = trades.with_columns(
        pl.when(later).then(pl.col("price") * 3).otherwise(pl.col("price")).alias("price"),
        pl.when(later).then(pl.lit("sell")).otherwise(pl.col("side")).alias("side"),
    )
    book = book_at(range(600))
    entries = every_function(MINUTE, 3 * MINUTE)
    before = trade_flow.reduce_trades(trades, book, entries, MINUTE, 0.5)
    after = trade_flow.reduce_trades(perturbed, book, entries, MINUTE, 0.5)
    until = pl.col("ts") <= decision
    assert before.filter(until).equals(after.filter(until))
    assert before.select(pl.col("^signed.*$").abs().max()).max_horizontal().item() <= 1
    flipped = trades.with_columns(
        pl.when(pl.col("side") == "buy").then(pl.lit("sell")).otherwise(pl.lit("buy")).alias("side")
    )
    mirrored = trade_flow.reduce_trades(flipped, book, entries, MINUTE, 0.5)
    assert mirrored["signed_flow_imbalance_3m"].to_list() == pytest.approx(
        [None if v is None else -v for v in before["signed_flow_imbalance_3m"]]
    )


@settings(max_examples=30)
@given(
    seed=st.integers(0, 10_000),
    cut=st.integers(1, 9),
    change=st.sampled_from(["price", "side", "delete", "delay", "more"]),
)
def test_no_function_at_a_decision_moves_when_what_was_known_later_changes(seed, cut, change):
    generator = np.random.default_rng(seed)
    seconds = np.flatnonzero(generator.random(600) < 0.3).tolist()
    sides = generator.choice(["buy", "sell"], size=len(seconds)).tolist()
    rows = [
        (s, generator.lognormal(4), generator.lognormal(), side)
        for s, side in zip(seconds, sides, strict=True)
    ]
    trades = trades_of(rows)
    later = pl.col("known_at") > START + cut * MINUTE
    match change:
        case "price":
            changed = trades.with_columns(
                pl.when(later).then(pl.col("price") * 3).otherwise(pl.col("price"))
            )
        case "side":
            changed = trades.with_columns(
                pl.when(later).then(None).otherwise(pl.col("side")).alias("side")
            )
        case "delete":
            changed = trades.filter(~later)
        case "delay":
            changed = trades.with_columns(
                pl.when(later).then(pl.col("known_at") + MINUTE).otherwise(pl.col("known_at"))
            )
        case _:
            more = trades_of([(60 * cut + s, 1.0, 1e6, "sell") for s in range(1, 600)])
            changed = pl.concat([trades, more]).sort("known_at", maintain_order=True)
    every = [
        Feature(function=name, windows=(3 * MINUTE, 5 * MINUTE))
        for (family, name), function in LIBRARY.items()
        # functions that meet the book have their own such test
        if family == "trades" and function.build.__module__ != trade_flow.execution.__name__
    ]
    before, after = (
        trade_flow.reduce_trades(frame, book_at(range(5, 600, 10)), every, MINUTE, 0.5)
        for frame in (trades, changed)
    )
    until = pl.col("ts") <= START + cut * MINUTE
    assert before.filter(until).height == cut
    assert before.filter(until).equals(after.filter(until))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (Feature(function="trade_counts", windows=(MINUTE,)), "did you mean 'trade_count'"),
        (Feature(function="trade_count"), "needs windows"),
        (Feature(function="trade_count", windows=(MINUTE,), values=(1.0,)), "takes no values"),
        (Feature(function="trade_count", windows=(90 * SECOND,)), "not a whole number"),
    ],
)
def test_a_line_that_cannot_be_built_is_refused(wrong, message):
    with pytest.raises(InputError, match=message):
        trade_flow.column_units([wrong], MINUTE)


def test_the_shipped_feature_set_on_standx(shared_data):
    path = Path(__file__).parents[2] / "features" / "book-1m.toml"
    entries = load_spec(path, FeatureSet).trades
    root = shared_data / "data"
    trades = read_trades(root, ["trades"], []).frames["BTC-USD"]
    book = read_books(root, ["book"], [], SECOND).frames["BTC-USD"]
    reduced = trade_flow.reduce_trades(trades, book, entries, MINUTE, 0.9)
    assert reduced.columns == ["ts", *trade_flow.column_units(entries, MINUTE)]
    assert reduced["trade_count_1m"].sum() == 306_657
    # Fourteen minutes of the living book saw no trade; that is known, and is zero.
    assert (reduced["trade_count_1m"] == 0).sum() == 14
    assert reduced["signed_flow_imbalance_10m"].null_count() == len(reduced)
