"""Read the Binance public archive: bars, trades, quotes, open interest, funding, liquidations.

Years of these files are what most margins are estimated from, so their records become canonical
rows one for one; what is left out of a row repeats something else in it.

Source: README of the repository ``binance/binance-public-data``; see
:mod:`margincast.data.formats.binance.archive_columns` for the columns and
:mod:`margincast.data.formats.binance.archive_recognition` for how a file is known.
"""

import json
from collections.abc import Iterable, Iterator
from functools import partial

import polars as pl

from margincast.data.formats.binance.archive_columns import (
    COIN_M,
    COIN_M_NAMES,
    LAYOUTS,
    LIQUIDATION_SNAPSHOT,
    Layout,
)
from margincast.data.formats.binance.archive_recognition import match_archive
from margincast.data.formats.format import ROW, TRANSLATED, Account, Batch, Format, Match
from margincast.data.formats.source import Source
from margincast.data.formats.text import read_text

REPEATED = "not stored: the same record again"
"""Outcome of liquidations that repeat the record before them in every column."""
OTHER_SYMBOL = "the record names another symbol than the file's name or the user"
NO_SYMBOL = "column 'symbol' is empty"
NO_SIDE = "column 'side' is neither BUY nor SELL"


def _read(layout: Layout, source: Source, match: Match, account: Account) -> Iterator[Batch]:
    frames: Iterable[pl.DataFrame] = read_text(
        source,
        layout.columns,
        account,
        header=match.details["header"],
        delimiter=match.details["delimiter"],
    )
    if layout is LIQUIDATION_SNAPSHOT:
        frames = _without_repeats(frames, account)
    for frame in frames:
        rows = _with_symbol(_translated(frame, match, account), match, account)
        account.count(TRANSLATED, len(rows))
        if len(rows):
            yield Batch(match.table, match.venue, rows)


def _translated(frame: pl.DataFrame, match: Match, account: Account) -> pl.DataFrame:
    if match.venue == COIN_M:
        frame = frame.rename(dict(COIN_M_NAMES), strict=False)
    if "is_buyer_maker" in frame.columns:
        # where the buyer's order was resting in the book, the seller was the aggressor
        side = pl.when("is_buyer_maker").then(pl.lit("sell")).otherwise(pl.lit("buy"))
        known = pl.col("is_buyer_maker").is_not_null()
        frame = frame.with_columns(side=pl.when(known).then(side)).drop("is_buyer_maker")
    elif "side" in frame.columns:
        frame = frame.with_columns(pl.col("side").str.to_lowercase())
        frame = _rejecting(frame, ~frame["side"].is_in(["buy", "sell"]), NO_SIDE, account)
    if "close_time" in frame.columns:
        return _bars_of(frame, match)
    return frame


def _bars_of(frame: pl.DataFrame, match: Match) -> pl.DataFrame:
    length = pl.col("close_time") - pl.col("ts") - pl.lit(match.details["interval"])
    one_unit_less = length.dt.total_microseconds().is_in([-1, -1000])
    superfluous = ["ignore"]
    if frame.select(one_unit_less.fill_null(value=False).all()).item():
        superfluous.append("close_time")
    if not match.table.startswith("bars_"):
        frame = frame.rename({"trade_count": "observations"})
        volumes = [name for name in frame.columns if name.endswith("volume")]
        superfluous += [name for name in volumes if (frame[name] == 0).all()]
    return frame.drop(superfluous, strict=False)


def _without_repeats(frames: Iterable[pl.DataFrame], account: Account) -> Iterator[pl.DataFrame]:
    """Leave out liquidations that repeat the record before them in every column.

    The archive has most of them twice. They are one order each: the stream of which the files are
    a copy gives at most one order a second and contract.
    """
    last: pl.DataFrame | None = None
    for frame in frames:
        before = frame.clear() if last is None else last
        joined = pl.concat([before, frame])
        columns = [pl.col(name) for name in joined.columns if name != ROW]
        same = pl.all_horizontal(column.eq_missing(column.shift(1)) for column in columns)
        fresh = joined.filter(~same).join(before, on=ROW, how="anti", maintain_order="left")
        last = frame.tail(1)
        account.count(REPEATED, len(frame) - len(fresh))
        yield fresh


def _with_symbol(frame: pl.DataFrame, match: Match, account: Account) -> pl.DataFrame:
    if match.symbol is None:
        return _rejecting(frame, frame["symbol"].is_null(), NO_SYMBOL, account)
    if "symbol" in frame.columns:
        others = int((frame["symbol"] != match.symbol).sum())
        account.note(OTHER_SYMBOL, others)
        frame = frame.rename({"symbol": "source_symbol"}) if others else frame.drop("symbol")
    return frame.with_columns(symbol=pl.lit(match.symbol))


def _rejecting(
    frame: pl.DataFrame, wrong: pl.Series, reason: str, account: Account
) -> pl.DataFrame:
    wrong = wrong.fill_null(value=True)
    for row in frame.filter(wrong).iter_rows(named=True):
        account.reject(row[ROW], reason, json.dumps(row, default=str, ensure_ascii=False))
    return frame.filter(~wrong)


FORMATS: tuple[Format, ...] = tuple(
    Format(f"Binance {layout.name}", partial(match_archive, layout), partial(_read, layout))
    for layout in LAYOUTS
)
