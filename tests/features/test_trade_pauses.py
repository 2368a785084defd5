"""A quiet market and a feed of trades that is down look alike: where no trade means "none made"."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from margincast.data.book import BookTable
from margincast.data.mid_bars import mid_bars
from margincast.data.schemas import TIMESTAMP
from margincast.data.trades import TradeTable
from margincast.features import trade_flow
from margincast.features.library import LIBRARY
from margincast.features.pipeline import build_features
from margincast.features.sources import Sources
from margincast.features.stream import FeatureStream
from margincast.features.trade_flow.reduction import LONGEST_PAUSE
from margincast.specs.features import Feature, FeatureSet
from margincast.specs.loading import validate_spec

START = datetime(2026, 1, 5, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
STEP = 10 * MINUTE
NAMES = [name for family, name in LIBRARY if family == "trades"]
SET = validate_spec(
    {
        "name": "pauses",
        "description": "trades that come and go",
        "grid": {"interval": "10m", "warm_up": "10m", "minimum_present": 0.5, "leader": "X"},
        "trades": [{"function": name, "windows": ["30m", "1h"]} for name in NAMES],
    },
    FeatureSet,
    "pauses",
)


def at(minutes):
    return pl.Series([START + minute * MINUTE for minute in minutes], dtype=TIMESTAMP)


def book_rows(minutes):
    known = at(minutes)
    prices = {"bid_price_0": 99.0, "bid_size_0": 1.0, "ask_price_0": 101.0, "ask_size_0": 1.0}
    moving = pl.int_range(pl.len()).cast(pl.Float64) % 7 * 0.01
    return pl.DataFrame({"ts": known, "known_at": known}).with_columns(
        *((pl.lit(value) + moving).alias(name) for name, value in prices.items()),
        symbol=pl.lit("X"),
    )


def trade_rows(minutes):
    known = at(minutes)
    sides = ["buy" if number % 3 else "sell" for number in range(len(known))]
    return pl.DataFrame({"ts": known, "known_at": known}).with_columns(
        price=pl.lit(100.0), size=pl.lit(1.0), side=pl.Series(sides, dtype=pl.String)
    )


def counts(trades, book):
    entries = [Feature(function="trade_count", windows=(STEP,))]
    reduced = trade_flow.reduce_trades(
        trade_rows(trades).lazy(), book_rows(book).lazy(), entries, STEP, 1.0
    )
    minutes = ((reduced["ts"] - START).dt.total_minutes()).to_list()
    return dict(zip(minutes, reduced["trade_count_10m"].to_list(), strict=True))


@settings(max_examples=40)
@given(
    trades=st.lists(st.integers(1, 900), min_size=1, max_size=8, unique=True),
    down=st.sets(st.integers(0, 89), max_size=10),
)
def test_an_interval_is_zero_only_soon_after_a_trade(trades, down):
    trades = sorted(trades)
    up = [decile for decile in range(90) if decile not in down]
    fast = counts(trades, [10 * number + 5 for number in up])
    for number in range(90):
        close = 10 * (number + 1)
        within = sum(close - 10 < minute <= close for minute in trades)
        last = max((minute for minute in trades if minute <= close), default=None)
        soon = last is not None and (close - last) * MINUTE <= LONGEST_PAUSE
        expected = within if number in up and soon else None
        assert fast.get(close) == expected, close


def test_trades_that_the_book_never_meets_leave_nothing_behind():
    entries = [Feature(function=name, windows=(3 * STEP,)) for name in NAMES]
    reduced = trade_flow.reduce_trades(
        trade_rows([700, 710]).lazy(), book_rows(range(1, 300)).lazy(), entries, STEP, 1.0
    )
    assert reduced.is_empty()
    assert reduced.schema == {"ts": TIMESTAMP} | {
        name: pl.Float64() for name in trade_flow.column_units(entries, STEP)
    }


@pytest.mark.parametrize("warmed_at", [None, 12, 30, 60])
def test_a_stream_knows_as_little_as_the_batch(warmed_at):
    """Trades begin late, pause for five hours, and end; also from a history that ends meanwhile."""
    minutes = [*range(63, 160, 3), *range(460, 520, 7)]
    book, trades = book_rows(range(1, 900, 2)), trade_rows(minutes)
    books = BookTable({"X": book.lazy()}, {"X": 1}, ())
    # as the reader gives them: the first is a sell, and no buy had been seen
    told = trades.with_columns(pl.when(pl.int_range(pl.len()) > 0).then("side").alias("side"))
    table = TradeTable({"X": told.lazy()}, ())
    sources = Sources(mid_bars(books, STEP, table), books, table)
    batch = build_features(SET, sources).frame.set_index("ts")
    known = batch["trade_count_30m"].notna()
    assert 0 < known.sum() < len(known)
    stream = FeatureStream(SET, ("book", "trades"), timedelta(0))
    first = 0
    if warmed_at is not None:
        first = warmed_at
        stream = FeatureStream.warm(
            SET, sources, START + warmed_at * STEP, timedelta(0), bars_of_book=True
        )
    for number in range(first + 1, 90):
        decided_at = START + number * STEP
        new = pl.col("known_at").is_between(decided_at - STEP, decided_at, closed="right")
        for row in book.filter(new).drop("known_at", "symbol").to_dicts():
            stream.update_book("X", row)
        for row in trades.filter(new).drop("known_at").to_dicts():
            stream.update_trade("X", row)
        row = stream.decide(decided_at)
        assert len(row) == 1
        for name in stream.units:
            value = row[name][0]
            np.testing.assert_allclose(
                np.nan if value is None else value, batch.loc[decided_at, name],
                rtol=1e-9, atol=1e-12, err_msg=f"{name} at {decided_at}",
            )  # fmt: skip
