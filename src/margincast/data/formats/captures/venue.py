"""What the decoders of recorded venues share: one message in, rows of tables and books out.

A book after a lost message is not the market's, and a liquidation cost computed from it would be
wrong without a sign of it: so a book is known from a snapshot until the first hole, and what comes
between is counted, never applied.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from margincast.data.formats.captures.decoder import FAULTS, Levels, Rows, Updates, fault_of
from margincast.data.formats.format import (
    AFTER_HOLE,
    APPLIED,
    CLOCK_BEHIND,
    HOLE,
    NO_SNAPSHOT,
    ROWS_BEYOND,
    TRANSLATED,
    Account,
    Batch,
    Options,
)
from margincast.data.schemas import TIMESTAMP

ANSWER = "not stored: answer to a request"
REPLY = "not stored: subscription reply"
HEARTBEAT = "not stored: heartbeat"
NOTICE = "not stored: notice of the venue"
CANDLES = "not stored: candles"
TICKER = "not stored: ticker"
OTHER_CHANNEL = "not stored: another channel"
NO_CONTENT = "not stored: message without content"

ABSENT_LEVEL = "delete of a level that was not there"
"""Event: a level of size zero that the book did not have."""
EARLIER_DATE = "book message dated before its book"
"""Event: a message that follows by its number and yet has an earlier time."""

Columns = Mapping[str, pl.DataType | type]

TRADE_COLUMNS: Columns = {"price": pl.Float64, "size": pl.Float64, "side": pl.String}
"""Values that the trades and liquidations of every venue begin with."""

QUOTE_COLUMNS: Columns = {
    "bid_price_0": pl.Float64,
    "bid_size_0": pl.Float64,
    "ask_price_0": pl.Float64,
    "ask_size_0": pl.Float64,
}
"""Values of best quotes."""

TICKER_COLUMNS: Columns = {
    "last_price": pl.Float64,
    "mark_price": pl.Float64,
    "index_price": pl.Float64,
    "open_interest": pl.Float64,
    "funding_rate": pl.Float64,
}
"""Values that the tickers of every venue's contracts begin with."""

Row = tuple[str, int, tuple[object, ...]]
"""Symbol, time in microseconds and the values of a row."""


@dataclass(frozen=True)
class Record:
    """A message as it was received.

    Attributes:
        row: number of the record in the capture.
        received_us: microseconds since 1970 at which it was received.
        connection: the recorder's name of the connection.
        account: where the message is accounted for.
    """

    row: int
    received_us: int
    connection: str
    account: Account


@dataclass(frozen=True)
class BookMessage:
    """A snapshot or an update of a book.

    Attributes:
        ts_us: the venue's time, microseconds since 1970.
        bids: levels, not in a particular order; size zero deletes.
        asks: the same of the other side.
        is_snapshot: whether it replaces what was there.
        sequence: the venue's number of it, where there is one.
        follows: number of the message that it must come after; None where that is not told.
    """

    ts_us: int
    bids: Levels
    asks: Levels
    is_snapshot: bool
    sequence: int | None = None
    follows: int | None = None


class ContractBook:
    """The book of one contract: known from a snapshot until a hole.

    Attributes:
        updates: collects what is applied.
        connection: the one that the last snapshot came by; what others tell is not applied.
    """

    def __init__(self, updates: Updates) -> None:
        self.updates = updates
        self.connection = ""
        self._unknown: str | None = NO_SNAPSHOT
        self._sequence: int | None = None

    def take(self, message: BookMessage, record: Record) -> str:
        """Apply a message if the book is known; returns what became of it."""
        outcome = self.refusal_of(message, record)
        if outcome is None:
            self.apply(message, record)
        return outcome or APPLIED

    def refusal_of(self, message: BookMessage, record: Record) -> str | None:
        """Say why a message cannot be applied; None if it can."""
        if message.is_snapshot:
            return None
        if record.connection != self.connection:
            return NO_SNAPSHOT
        if self._unknown is None and message.follows not in (None, self._sequence):
            self.lose(record.account)
        return self._unknown

    def apply(self, message: BookMessage, record: Record) -> None:
        """Apply a message; a snapshot makes its connection the book's."""
        self._unknown, self._sequence = None, message.sequence
        self.connection = record.connection
        self.updates.add(
            record.row,
            message.ts_us,
            message.bids,
            message.asks,
            is_snapshot=message.is_snapshot,
            received_us=record.received_us,
            sequence=message.sequence,
        )
        _note_clock(message.ts_us, record)

    def lose(self, account: Account) -> None:
        """Take note of a hole: the book is unknown until the next snapshot."""
        if self._unknown is None:
            account.note(HOLE)
            self._unknown = AFTER_HOLE
            self.updates.invalidate()

    def restart(self) -> None:
        """Take note of a new connection, which begins with a snapshot of its own."""
        if self._unknown is None:
            self.updates.invalidate()
        self._unknown = NO_SNAPSHOT


class VenueDecoder(ABC):
    """The :class:`~margincast.data.formats.captures.decoder.Decoder` of a venue.

    A venue says what a message means (:meth:`decode`); tables, books and accounting are kept here.
    """

    has_sequence = True
    """Whether the venue numbers its book messages."""

    def __init__(self, options: Options) -> None:
        """Begin without books.

        Args:
            options: how books are written down.
        """
        self._options = options
        self._tables: dict[tuple[str, str], Rows] = {}
        self._books: dict[tuple[str, str, str], ContractBook] = {}
        self.addresses: dict[str, str] = {}

    @abstractmethod
    def decode(self, content: object, record: Record) -> None:
        """Turn one message into rows and account for it.

        Raises:
            ValueError: or another of :data:`~margincast.data.formats.captures.decoder.FAULTS`: the
                message cannot be read; none of it was used.
        """

    def http(self, url: str, body: str, received_us: int, row: int, account: Account) -> None:  # noqa: ARG002  # answers of these venues hold instruments, not the market
        """Account for the answer to a request."""
        account.count(ANSWER)

    def received(
        self, message: str, connection: str, received_us: int, row: int, account: Account
    ) -> None:
        """Take one websocket message; one that cannot be read is rejected whole."""
        if message in ("ping", "pong"):
            account.count(HEARTBEAT)
            return
        try:
            self.decode(json.loads(message), Record(row, received_us, connection, account))
        except RecursionError:
            account.reject(row, "not JSON", message)
        except FAULTS as error:
            account.reject(row, fault_of(error), message)

    def connected(self, connection: str, address: str) -> None:
        """Take note of a connection: books of an earlier one of that name are no longer known."""
        self.addresses[connection] = address
        for book in self.books_of(connection):
            book.restart()

    def take(self, account: Account, *, last: bool) -> list[Batch]:
        """Hand over the rows and books collected so far."""
        batches = [batch for rows in self._tables.values() for batch in rows.take()]
        for book in self._books.values():
            batches.extend(book.updates.take(last=last))
            if last:
                builder = book.updates.builder
                account.note(ABSENT_LEVEL, builder.deletes_of_absent_levels)
                account.note(EARLIER_DATE, builder.late_messages)
        return batches

    def book(self, venue: str, symbol: str, channel: str = "") -> ContractBook:
        """Return the book that a channel tells of a contract."""
        key = (venue, symbol, channel)
        if key not in self._books:
            updates = Updates(symbol, venue, self._options, sequence=self.has_sequence)
            self._books[key] = ContractBook(updates)
        return self._books[key]

    def books_of(self, connection: str) -> list[ContractBook]:
        """Return the books that a connection keeps up to date."""
        return [book for book in self._books.values() if book.connection == connection]

    def add_rows(
        self,
        record: Record,
        table: str,
        venue: str,
        columns: Columns,
        rows: Sequence[Row],
    ) -> None:
        """Add the rows of a message to a table; ``columns`` name their values."""
        if not rows:
            record.account.count(NO_CONTENT)
            return
        key = (table, venue)
        if key not in self._tables:
            times = {"ts": TIMESTAMP, "received_at": TIMESTAMP}
            self._tables[key] = Rows(table, venue, {"symbol": pl.String, **times, **columns})
        for symbol, ts_us, values in rows:
            self._tables[key].add(record.row, symbol, ts_us, record.received_us, *values)
        _note_clock(max(ts_us for _, ts_us, _ in rows), record)
        record.account.count(TRANSLATED)
        record.account.note(ROWS_BEYOND, len(rows) - 1)


def _note_clock(ts_us: int, record: Record) -> None:
    if record.received_us < ts_us:
        record.account.note(CLOCK_BEHIND)
