"""Bybit's public archives: order books and trades of contracts.

Both feed a margin's liquidation cost: what stands in the book, and what is traded against it. Sizes
are in coins (linear contracts, spot) or USD (inverse contracts). Books are rebuilt in
:mod:`margincast.data.formats.bybit.books`.

Source: Bybit's public archive, "trading" (trades, of which ``side`` is the taker's) and "Historical
data: OrderBook".
"""

import re
from collections.abc import Iterator

import polars as pl

from margincast.data.formats.bybit.books import read_books
from margincast.data.formats.format import TRANSLATED, Account, Batch, Format, Match, Sample
from margincast.data.formats.records import reject_rows, with_side
from margincast.data.formats.source import Source
from margincast.data.formats.text import Column, read_text

_TRADE_CELLS = {
    "timestamp": Column("ts", "time"),
    "symbol": Column("symbol", "text"),
    "side": Column("side", "text"),
    "size": Column("size", "number"),
    "price": Column("price", "number"),
    "tickDirection": Column("tick_direction", "text"),
    "trdMatchID": Column("trade_id", "text"),
    "grossValue": Column("gross_value", "number"),
    "homeNotional": Column("home_notional", "number"),
    "foreignNotional": Column("foreign_notional", "number"),
}

_FIRST_MESSAGE = re.compile(r'\{.{0,200}?"topic": ?"orderbook\.\d+\.[^"]+"')
# spot and contracts share names and formats, the archive keeps them in folders of their own
_VENUES = {"spot": "bybit-spot", "linear": "bybit", "inverse": "bybit"}


def _match_books(sample: Sample) -> Match | str:
    first = sample.lines[0] if sample.lines else ""
    if _FIRST_MESSAGE.match(first) is None:
        return "the first line is no message of a stream orderbook.{depth}.{symbol}"
    folders = reversed(sample.source.folders)
    venue = next((_VENUES[folder] for folder in folders if folder in _VENUES), "bybit")
    return Match("book", venue)


def _match_trades(sample: Sample) -> Match | str:
    lacking = sample.lacks(*_TRADE_CELLS)
    if lacking:
        return lacking
    if "trdType" in sample.header:
        return "the header has a column trdType, which is BitMEX's"
    return Match("trades", "bybit", details={"delimiter": sample.delimiter})


def _read_trades(source: Source, match: Match, account: Account) -> Iterator[Batch]:
    for cells in read_text(source, _TRADE_CELLS, account, delimiter=match.details["delimiter"]):
        named = reject_rows(cells, pl.col("symbol").is_null(), "column 'symbol' is empty", account)
        rows = with_side(named, "trade without an aggressor side", account)
        if match.symbol is not None:
            rows = rows.with_columns(pl.lit(match.symbol).alias("symbol"))
        account.count(TRANSLATED, len(rows))
        if len(rows):
            yield Batch("trades", match.venue, rows)


FORMATS: tuple[Format, ...] = (
    Format("Bybit order book archive", _match_books, read_books),
    Format("Bybit trades", _match_trades, _read_trades),
)
