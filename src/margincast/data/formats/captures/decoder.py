"""Decode a venue's recorded messages into canonical rows: the protocol, and helpers for it.

A margin from order books needs the books a venue's messages describe, and every message accounted
for: one that cannot be read is rejected whole, before any of it became a row.
"""

import json
import math
from array import array
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import polars as pl

from margincast.data.book_builder import BookBuilder
from margincast.data.formats.format import ROW, Account, Batch, Options
from margincast.data.schemas import TIMESTAMP

TAKE_EVERY = 20_000
"""Messages after which a reader takes the rows collected so far."""

FAULTS = (ArithmeticError, AttributeError, IndexError, KeyError, TypeError, ValueError)
"""What reading a message of another shape than documented can raise."""

DataType = pl.DataType | type[pl.DataType]
"""Type of a column, as an instance or a class."""

Levels = Sequence[tuple[float, float]] | np.ndarray[tuple[int, int], np.dtype[np.float64]]
"""Price and size of levels of one side, a row a level; size zero deletes the level."""

_MOST_LEVELS = 200_000  # held before they are fed to a book
_LARGEST_WHOLE = 2**63
_LATEST_MICROSECONDS = 2**53  # the year 2255; a float still holds every whole number up to it


class Decoder(Protocol):
    """Turns the messages of one venue's recording into rows; holds the books of its contracts.

    Every message is accounted for once, whatever number of rows it carries. Times are microseconds
    since 1970, receive times rounded up to them; ``row`` is the number of the record.
    """

    def http(self, url: str, body: str, received_us: int, row: int, account: Account) -> None:
        """Take the answer to a request."""

    def received(
        self, message: str, connection: str, received_us: int, row: int, account: Account
    ) -> None:
        """Take one websocket message."""

    def connected(self, connection: str, address: str) -> None:
        """Take note of a connection; messages of it before this belong to an earlier one."""

    def take(self, account: Account, *, last: bool) -> list[Batch]:
        """Hand over the rows collected so far; ``last`` at the end of the source."""


class Rows:
    """Rows of one table, collected one by one and handed over column by column.

    Attributes:
        table: canonical table.
        venue: where it was traded.
    """

    def __init__(self, table: str, venue: str, columns: Mapping[str, DataType]) -> None:
        """Name the columns.

        Args:
            table: canonical table.
            venue: where it was traded.
            columns: type by name, without ``_row``; values of a time are whole microseconds.
        """
        self.table, self.venue = table, venue
        self._columns = {**columns, ROW: pl.Int64}
        self._rows: list[tuple[Any, ...]] = []

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, row: int, *values: object) -> None:
        """Add a row made of record ``row``: a value for each column, in their order."""
        self._rows.append((*values, row))

    def take(self) -> list[Batch]:
        """Hand over what was collected: one batch, or none if there is nothing."""
        if not self._rows:
            return []
        lists = zip(*self._rows, strict=True)
        series = [
            _column(name, list(values), dtype)
            for (name, dtype), values in zip(self._columns.items(), lists, strict=True)
        ]
        self._rows = []
        return [Batch(self.table, self.venue, pl.DataFrame(series))]


class Updates:
    """Book updates of one contract, collected and fed to its :class:`BookBuilder` in batches.

    Attributes:
        builder: the book, with its counters.
    """

    def __init__(
        self,
        symbol: str,
        venue: str,
        options: Options,
        *,
        received: bool = True,
        sequence: bool = True,
    ) -> None:
        """Begin without a book.

        Args:
            symbol: contract.
            venue: where it is traded.
            options: levels and the time between two books.
            received: whether messages have a receive time.
            sequence: whether messages have a sequence number.
        """
        self.builder = BookBuilder(symbol, levels=options.book_levels, every=options.book_every)
        self._venue = venue
        self._dropped = [
            *([] if received else ["received_at"]),
            *([] if sequence else ["sequence"]),
        ]
        self._count = 0
        self._messages: list[tuple[int, int, int, int | None, int | None, bool]] = []
        self._bids: list[int] = []  # levels of each message
        self._asks: list[int] = []
        self._levels = array("d")  # price, size, price, size, ...
        self._books: list[pl.DataFrame] = []

    def add(
        self,
        row: int,
        ts_us: int,
        bids: Levels,
        asks: Levels,
        *,
        is_snapshot: bool,
        received_us: int | None = None,
        sequence: int | None = None,
    ) -> None:
        """Add one message; a snapshot replaces the whole book, also where it has no level."""
        self._count += 1
        self._messages.append((row, self._count, ts_us, received_us, sequence, is_snapshot))
        if is_snapshot and len(bids) + len(asks) == 0:
            bids = [(0.0, 0.0)]  # a message needs a level to be one; this one deletes nothing
        self._bids.append(len(bids))
        self._asks.append(len(asks))
        for levels in (bids, asks):
            if isinstance(levels, np.ndarray):
                self._levels.frombytes(levels.tobytes())
                continue
            for level in levels:
                self._levels.extend(level)
        if len(self._levels) > 2 * _MOST_LEVELS:
            self._apply()

    def invalidate(self) -> None:
        """Take note of a hole: the book is unknown until the next snapshot."""
        self._apply()
        self._books.append(self.builder.invalidate())

    def take(self, *, last: bool) -> list[Batch]:
        """Hand over the books that became final; ``last`` also the pending one."""
        self._apply()
        if last:
            self._books.append(self.builder.flush())
        books = [book for book in self._books if len(book)]
        self._books = []
        if not books:
            return []
        return [Batch("book", self._venue, pl.concat(books))]

    def _apply(self) -> None:
        """Feed what was collected, whole messages, to the book."""
        messages = pl.DataFrame(
            self._messages,
            schema={
                ROW: pl.Int64,
                "message": pl.Int64,
                "ts": pl.Int64,
                "received_at": pl.Int64,
                "sequence": pl.Int64,
                "is_snapshot": pl.Boolean,
            },
            orient="row",
        ).with_columns(pl.col("ts", "received_at").cast(TIMESTAMP))
        counts = np.array([self._bids, self._asks], dtype=np.int64).T
        levels = np.frombuffer(self._levels.tobytes(), dtype=np.float64).reshape(-1, 2)
        self._messages, self._bids, self._asks, self._levels = [], [], [], array("d")
        if len(levels) == 0:
            return
        updates = messages.drop(self._dropped)[np.repeat(np.arange(len(counts)), counts.sum(1))]
        sides = np.tile([True, False], len(counts))
        updates = updates.with_columns(
            pl.Series("is_bid", np.repeat(sides, counts.ravel())),
            pl.Series("price", levels[:, 0]),
            pl.Series("size", levels[:, 1]),
        )
        self._books.append(self.builder.apply(updates))


def levels_of(pairs: Iterable[Sequence[object]]) -> list[tuple[float, float]]:
    """Read levels given as ``[price, size, ...]``; raises one of :data:`FAULTS`."""
    return [(number(pair[0]), number(pair[1])) for pair in pairs]


def number(value: object) -> float:
    """Read a finite number given as JSON number or text.

    Raises:
        ValueError: it is none.
    """
    # float() reads 1_000 and True too, which no venue means as a number
    if isinstance(value, str):
        is_number = "_" not in value
    else:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number:
        try:
            read = float(value)  # type: ignore[arg-type]  # narrowed above, through is_number
        except (ValueError, OverflowError):
            read = math.nan
        if math.isfinite(read):
            return read
    raise ValueError("a value that is no number")


def whole(value: object) -> int:
    """Read a whole number of 64 bits given as JSON number or text.

    Raises:
        ValueError: it is none.
    """
    if isinstance(value, str) and value.removeprefix("-").isdecimal():
        value = int(value) if len(value) < 21 else _LARGEST_WHOLE
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < _LARGEST_WHOLE:
        return value
    raise ValueError("a value that is no whole number")


def microseconds_of(milliseconds: object) -> int:
    """Read a time in whole milliseconds since 1970 as microseconds.

    Raises:
        ValueError: it is no time between 1970 and 2255.
    """
    microseconds = whole(milliseconds) * 1000
    if not 0 <= microseconds < _LATEST_MICROSECONDS:
        raise ValueError("a value that is no time")
    return microseconds


def fault_of(error: Exception) -> str:
    """Name the kind of fault of a message, the same for all messages that have it."""
    if isinstance(error, json.JSONDecodeError):
        return "not JSON"
    if isinstance(error, KeyError):
        return f"a message without {error}"
    if isinstance(error, ValueError) and str(error).startswith("a value"):
        return str(error)
    return "a message of another shape than documented"


def _column(name: str, values: list[Any], dtype: DataType) -> pl.Series:
    if dtype == TIMESTAMP:
        return pl.Series(name, values, dtype=pl.Int64).cast(TIMESTAMP)
    return pl.Series(name, values, dtype=dtype)
