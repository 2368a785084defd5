"""Bars of a book's mid price: volatility and outcomes where a venue gives no bars."""

from datetime import timedelta

import polars as pl

from margincast.core.errors import InputError, did_you_mean
from margincast.data.bars import BarTable, regular_bars
from margincast.data.book import BookTable
from margincast.data.intervals import bar_open, interval_batches
from margincast.data.schemas import book_columns
from margincast.data.trades import TradeTable


def mid_bars(books: BookTable, interval: timedelta, trades: TradeTable | None = None) -> BarTable:
    """Make bars of the mid price, (best bid + best ask) / 2, as ``read_bars`` gives them.

    A bar holds the snapshots known in (ts, ts + interval]; one without a snapshot is missing. It is
    stale when nothing was traded and neither best price nor best size changed since the bar before:
    a quiet minute of a living book is no stale one.

    Args:
        books: order books.
        interval: grid step.
        trades: trades of the same contracts, whose size is the bars' ``volume`` (0 where the book
            was there and nothing traded); without them ``volume`` counts the snapshots.

    Returns:
        Bars with ``snapshot_count`` beside the canonical columns.

    Raises:
        InputError: a contract has a book but no trades, or all its bars are stale.
    """
    frames, findings = {}, []
    for symbol, book in books.frames.items():
        bars = _mid_bars(book, interval)
        if trades is None:
            bars = bars.with_columns(pl.lit(0.0).alias("traded"))
        elif symbol in trades.frames:
            traded = _traded_size(trades.frames[symbol], interval)
            bars = bars.join(traded, on="ts", how="left", maintain_order="left").with_columns(
                pl.col("traded").fill_null(0.0)
            )
        else:
            raise InputError(
                f"data.trades: no trades for {symbol}{did_you_mean(symbol, trades.frames)}, which "
                f"has a book; there are {', '.join(sorted(trades.frames))}"
            )
        # Bars are stale where their volume is zero; in a book, a change is a sign of life too.
        living = bars.with_columns((pl.col("traded") + pl.col("change_count")).alias("volume"))
        regular, more = regular_bars(living, symbol, interval)
        volume = pl.col("snapshot_count" if trades is None else "traded").alias("volume")
        frames[symbol] = regular.with_columns(volume).drop("traded", "change_count")
        findings += more
    return BarTable(frames, interval, tuple(findings))


def _mid_bars(book: pl.LazyFrame, interval: timedelta) -> pl.DataFrame:
    mid = (pl.col("bid_price_0") + pl.col("ask_price_0")) / 2
    changed = pl.any_horizontal(
        pl.col(name).ne_missing(pl.col(name).shift(1)) for name in book_columns(1)
    )
    return (
        book.select(bar_open(interval).alias("ts"), mid.alias("mid"), changed.alias("changed"))
        .group_by("ts")
        .agg(
            pl.col("mid").first().alias("open"),
            pl.col("mid").max().alias("high"),
            pl.col("mid").min().alias("low"),
            pl.col("mid").last().alias("close"),
            pl.len().cast(pl.Float64).alias("snapshot_count"),
            pl.col("changed").sum().cast(pl.Float64).alias("change_count"),
        )
        .sort("ts")
        .collect(engine="streaming")
    )


def _traded_size(trades: pl.LazyFrame, interval: timedelta) -> pl.DataFrame:
    parts = [
        batch.group_by("ts", maintain_order=True).agg(pl.col("size").sum().alias("traded"))
        for batch in interval_batches(trades.select("known_at", "size"), interval)
    ]
    return pl.concat(parts)
