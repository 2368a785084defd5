"""Read Binance's historical depth of futures (``T_DEPTH``): a file of snapshots, one of updates.

Rebuilt, they are the order books of a whole day that a liquidation cost is measured on. The columns
are those of "Binance Futures Order Book Historical Data" in the venue's support pages, where rows
with one last update id are one message. An update file is read together with the snapshot file
beside it, of the same name with ``snap`` for ``update``; whatever that cannot be joined to has no
book and is counted so.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl

from margincast.data.formats.binance.depth import DepthBook, DepthSnapshot, DepthUpdate
from margincast.data.formats.captures.decoder import Levels, Updates
from margincast.data.formats.format import ROW, Account, Batch, Format, Match, Sample
from margincast.data.formats.source import Source
from margincast.data.formats.text import Column, read_text

_COLUMNS = {
    "symbol": Column("symbol", "text"),
    "timestamp": Column("ts", "time"),
    "first_update_id": Column("first_id", "integer"),
    "last_update_id": Column("last_id", "integer"),
    "side": Column("side", "text"),
    "update_type": Column("update_type", "text"),
    "price": Column("price", "number"),
    "qty": Column("size", "number"),
    "pu": Column("previous_id", "integer"),
}
_NAMES = [column.name for column in _COLUMNS.values()]
_REQUIRED = [name for name in _NAMES if name != "previous_id"]
_SNAPSHOT, _UPDATE = "snap", "set"
_ASK, _BID = "a", "b"


def _match(sample: Sample) -> Match | str:
    lacking = sample.lacks(*_COLUMNS)
    if lacking:
        return lacking
    first = sample.lines[1].split(sample.delimiter) if len(sample.lines) > 1 else []
    symbol = first[sample.header.index("symbol")] if len(first) == len(sample.header) else ""
    # contracts margined in coins are BTCUSD_PERP and BTCUSD_200925, in dollars BTCUSDT
    is_coin_margined = symbol.partition("_")[0].endswith("USD")
    venue = "binance-delivery" if is_coin_margined else "binance-futures"
    return Match("book", venue, details={"delimiter": sample.delimiter})


def _companions(source: Source, _match: Match) -> tuple[Path, ...]:
    name = source.path.name
    if source.member is not None or "update" not in name:
        return ()
    beside = source.path.with_name(name.replace("update", "snap"))
    return (beside,) if beside.is_file() else ()


def _read(source: Source, match: Match, account: Account) -> Iterator[Batch]:
    books: dict[str, DepthBook] = {}
    beside = _companions(source, match)
    # an account of its own: its records are counted where that file is itself the source
    messages = _messages(Source(beside[0]), match, Account()) if beside else iter(())
    snapshots = _Snapshots(message for message in messages if message.is_snapshot)
    for message in _messages(source, match, account):
        if message.symbol not in books:
            updates = Updates(message.symbol, match.venue, match.options, received=False)
            books[message.symbol] = DepthBook(updates)
        book = books[message.symbol]
        if message.is_snapshot:
            book.snapshot(message.as_snapshot(), account)
        else:
            for snapshot in snapshots.before(message):
                book.snapshot(snapshot, account)
            book.update(message.as_update(), account)
        if message.ends_block:
            for each in books.values():
                yield from each.take(account, last=False)
    for book in books.values():
        yield from book.take(account, last=True)


@dataclass(frozen=True, slots=True)
class _Message:
    """Consecutive rows of one contract, update id and type."""

    symbol: str
    is_snapshot: bool
    ts_us: int
    after_id: int
    last_id: int
    row: int
    bids: Levels
    asks: Levels
    records: int
    ends_block: bool

    def as_snapshot(self) -> DepthSnapshot:
        return DepthSnapshot(
            self.row, self.last_id, self.bids, self.asks, self.ts_us, records=self.records
        )

    def as_update(self) -> DepthUpdate:
        return DepthUpdate(
            self.row,
            self.after_id,
            self.last_id,
            self.bids,
            self.asks,
            self.ts_us,
            records=self.records,
        )


class _Snapshots:
    """Snapshots of another file, each given before the first update that goes beyond it."""

    def __init__(self, messages: Iterator[_Message]) -> None:
        self._messages = messages
        self._next = next(messages, None)

    def before(self, update: _Message) -> Iterator[DepthSnapshot]:
        while (
            self._next is not None
            and self._next.symbol == update.symbol
            and self._next.last_id < update.last_id
        ):
            snapshot = self._next.as_snapshot()
            # without its time it makes no book of its own: that file's own reading gives it
            yield replace(snapshot, ts_us=None, records=0)
            self._next = next(self._messages, None)


def _messages(source: Source, match: Match, account: Account) -> Iterator[_Message]:
    for frame in _whole_messages(source, match, account):
        number = frame.select(_message_number()).to_series().to_numpy()
        first = np.flatnonzero(np.diff(number, prepend=-1))
        columns = frame.select(
            "symbol",
            pl.col("update_type") == _SNAPSHOT,
            pl.col("ts").dt.epoch("us"),
            pl.when(pl.col("previous_id") >= 0)
            .then(pl.col("previous_id"))
            .otherwise(pl.col("first_id") - 1),
            "last_id",
        )[first]
        end = np.r_[first[1:], len(frame)]
        # bids before asks within each message, otherwise in the order of the file
        is_bid = (frame["side"] == _BID).to_numpy()
        order = np.lexsort((~is_bid, number))
        levels = frame.select("price", "size").to_numpy()[order]
        first_ask = first + np.add.reduceat(is_bid, first, dtype=np.int64)
        last_row = frame[ROW].to_numpy()[end - 1]
        bounds = np.column_stack([first, first_ask, end, last_row]).tolist()
        for head, (start, middle, stop, row) in zip(columns.iter_rows(), bounds, strict=True):
            symbol, is_snapshot, ts_us, after_id, last_id = head
            yield _Message(
                symbol,
                is_snapshot,
                ts_us,
                after_id,
                last_id,
                row,
                levels[start:middle],
                levels[middle:stop],
                stop - start,
                ends_block=stop == len(frame),
            )


def _whole_messages(source: Source, match: Match, account: Account) -> Iterator[pl.DataFrame]:
    """Parse the file in blocks that cut no message."""
    carried: pl.DataFrame | None = None
    for parsed in read_text(source, _COLUMNS, account, delimiter=match.details["delimiter"]):
        sound = _without_faults(parsed.select(ROW, *_NAMES), account)
        frame = sound if carried is None else pl.concat([carried, sound])
        if frame.is_empty():
            continue
        number = frame.select(_message_number()).to_series()
        is_last = number == number[-1]
        carried = frame.filter(is_last)
        if not is_last.all():
            yield frame.filter(~is_last)
    if carried is not None:
        yield carried


def _message_number() -> pl.Expr:
    return pl.struct("symbol", "last_id", "update_type").rle_id()


def _without_faults(frame: pl.DataFrame, account: Account) -> pl.DataFrame:
    """Reject rows that say no side, type, id, time or finite level."""
    faults = {
        "column 'side' is neither a nor b": ~pl.col("side").is_in([_ASK, _BID]),
        "column 'update_type' is neither snap nor set": ~pl.col("update_type").is_in(
            [_SNAPSHOT, _UPDATE]
        ),
        "column 'price' or 'qty' is not finite": ~(
            pl.col("price").is_finite() & pl.col("size").is_finite()
        ),
    }
    fault = pl.coalesce(
        pl.when(pl.any_horizontal(pl.col(_REQUIRED).is_null())).then(pl.lit("an empty cell")),
        *(pl.when(wrong).then(pl.lit(reason)) for reason, wrong in faults.items()),
    )
    judged = frame.with_columns(fault.alias("fault"))
    for row in judged.filter(pl.col("fault").is_not_null()).iter_rows(named=True):
        reason, number = row.pop("fault"), row.pop(ROW)
        account.reject(number, reason, json.dumps(row, default=str))
    return judged.filter(pl.col("fault").is_null()).drop("fault")


DEPTH_CSV = Format("Binance historical depth", _match, _read, _companions)
"""``depth-snap.csv`` and ``depth-update.csv`` files."""
