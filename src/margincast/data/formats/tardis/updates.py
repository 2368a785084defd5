"""Rebuild the books of Tardis' ``incremental_book_L2`` files.

The cost of closing a position is read off these books, so an update that cannot be read makes the
book unknown until the next snapshot: one wrong level would stand until the end of the day.

Source: docs.tardis.dev, "Downloadable CSV files: Data types" and "FAQ: Order books" ("How can I
reconstruct full order book state from incremental_book_L2 CSV dataset"). Rows of one
``local_timestamp`` are one message. A row with ``is_snapshot`` true after one with false says that
the connection was restarted and the book begins anew. Updates ahead of the first snapshot are to be
passed over.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import polars as pl

from margincast.core.types import BoolArray
from margincast.data.book_builder import BookBuilder
from margincast.data.formats.format import APPLIED, ROW, Account, Batch, Match, Options, Reject
from margincast.data.formats.source import Source
from margincast.data.formats.tardis.rows import read_update_rows, venue_of
from margincast.data.formats.text import HEADER_IN_THE_MIDDLE

REPLACED = "book replaced by a new snapshot"
"""Event: the connection was restarted."""
LOST = "faulty update: book unknown until the next snapshot"
"""Event: an update that could not be read."""
BEFORE_SNAPSHOT = "without a book: before the first snapshot"
AFTER_FAULT = "without a book: after a faulty update"
BESIDE_FAULT = "not applied: of a message in or beside which an update is faulty"


def read_updates(source: Source, match: Match, account: Account) -> Iterator[Batch]:
    """Read updates and give the books they make."""
    books = _Books(match, account)
    for rows in read_update_rows(source, match.details["delimiter"], account):
        yield from books.take(rows)
    yield from books.finish()


class _Book:
    """The book of one contract, and what Tardis says about its connection."""

    def __init__(self, symbol: str, options: Options, without: str) -> None:
        self._builder = BookBuilder(symbol, levels=options.book_levels, every=options.book_every)
        self._messages = 0
        self._in_snapshot = False
        self._known = False
        self._without = without  # what becomes of updates while no book is known

    def apply(self, updates: pl.DataFrame, account: Account) -> pl.DataFrame:
        """Apply whole messages, account for their updates and return the books."""
        is_snapshot = updates["is_snapshot"].to_numpy()
        begins = is_snapshot & ~np.r_[self._in_snapshot, is_snapshot[:-1]]
        if not self._known:
            # the snapshot by which a book becomes known replaces none
            begins[: 1 + int(is_snapshot.argmax())] = False
        account.note(REPLACED, int(begins.sum()))
        message = self._messages + np.cumsum(
            _changes(updates["received_at"]) | _changes(updates["is_snapshot"])
        )
        without_book = self._builder.updates_without_book
        books = self._builder.apply(updates.with_columns(pl.Series("message", message)))
        without_book = self._builder.updates_without_book - without_book
        account.count(self._without, without_book)
        account.count(APPLIED, len(updates) - without_book)
        self._messages, self._in_snapshot = int(message[-1]), bool(is_snapshot[-1])
        self._known |= bool(is_snapshot.any())
        return books

    def forget(self) -> pl.DataFrame:
        """Make the book unknown until the next snapshot and return the one that was held back."""
        self._known, self._without = False, AFTER_FAULT
        return self._builder.invalidate()

    def flush(self) -> pl.DataFrame:
        """Return the last book."""
        return self._builder.flush()


class _Books:
    """The books of a file: hands whole messages to the book of each contract."""

    def __init__(self, match: Match, account: Account) -> None:
        self._match, self._account = match, account
        account.listen(self._note_fault)
        self._books: dict[tuple[str, str], _Book] = {}
        self._made: list[tuple[str, pl.DataFrame]] = []
        self._held: pl.DataFrame | None = None  # the last message may go on in the next rows
        self._last_row = 0  # the last row before those held
        self._last_fault = 0
        self._headers: set[int] = set()
        self._without = BEFORE_SNAPSHOT

    def take(self, updates: pl.DataFrame) -> list[Batch]:
        """Take the next rows and return the books that became final."""
        if updates.is_empty():
            return []
        held = updates if self._held is None else pl.concat([self._held, updates])
        cut = int(np.flatnonzero(_changes(held["received_at"]))[-1])
        if cut:
            self._hand_over(held[:cut], next_message=held[cut:])
        self._held = held[cut:]
        return self._batches()

    def finish(self) -> list[Batch]:
        """Return the remaining books at the end of the file."""
        if self._held is not None:
            self._hand_over(self._held, next_message=None)
        for (exchange, _), book in self._books.items():
            self._made.append((exchange, book.flush()))
        return self._batches()

    def _note_fault(self, reject: Reject) -> None:
        if reject.reason == HEADER_IN_THE_MIDDLE:
            self._headers.add(reject.row)  # no market data is lost with it
        else:
            self._last_fault = max(self._last_fault, reject.row)

    def _hand_over(self, updates: pl.DataFrame, next_message: pl.DataFrame | None) -> None:
        """Apply whole messages up to each faulty update, and make all books unknown there."""
        rows = updates[ROW].to_numpy()
        following = int(rows[-1]) + 1 if next_message is None else int(next_message[ROW][0])
        if next_message is None and self._last_fault >= following:
            following = self._last_fault + 1
        faults = self._faults(np.r_[self._last_row, rows, following])
        seen_before, self._last_row = self._last_row > 0, int(rows[-1])
        if not faults:
            self._apply(updates)
            return
        run = np.cumsum(_changes(updates["received_at"]))
        # nobody knows of which message the fault is: of the one before it or of the one after
        beside = [
            run[place] for fault in faults for place in (fault - 1, fault) if 0 <= place < len(run)
        ]
        beside_fault = np.isin(run, beside)
        self._account.count(BESIDE_FAULT, int(beside_fault.sum()))
        start = 0
        for fault in faults:
            self._apply(updates[start:fault].filter(~beside_fault[start:fault]))
            start = fault
            if fault or not seen_before:
                self._account.note(LOST)
                self._without = AFTER_FAULT
                for (exchange, _), book in self._books.items():
                    self._made.append((exchange, book.forget()))
        self._apply(updates[start:].filter(~beside_fault[start:]))

    def _faults(self, rows: npt.NDArray[np.int64]) -> list[int]:
        """Places ``i`` where, between ``rows[i]`` and ``rows[i + 1]``, rows are faulty."""
        gaps = np.flatnonzero(np.diff(rows) > 1)
        return [
            int(gap)
            for gap in gaps
            if any(row not in self._headers for row in range(rows[gap] + 1, rows[gap + 1]))
        ]

    def _apply(self, updates: pl.DataFrame) -> None:
        for part in _by_contract(updates):
            exchange, symbol = part["exchange"][0], part["symbol"][0]
            if (exchange, symbol) not in self._books:
                name = self._match.symbol or symbol
                book = _Book(name, self._match.options, self._without)
                self._books[exchange, symbol] = book
            book = self._books[exchange, symbol]
            books = book.apply(part.drop("exchange", "symbol"), self._account)
            self._made.append((exchange, books))

    def _batches(self) -> list[Batch]:
        """Take the books made so far, a batch a venue."""
        by_exchange: dict[str, list[pl.DataFrame]] = {}
        for exchange, books in self._made:
            if len(books):
                by_exchange.setdefault(exchange, []).append(books)
        self._made = []
        return [
            Batch("book", venue_of(exchange, self._match), pl.concat(books))
            for exchange, books in by_exchange.items()
        ]


def _by_contract(updates: pl.DataFrame) -> list[pl.DataFrame]:
    if updates.is_empty():
        return []
    contract = pl.col("exchange", "symbol")
    if updates.select(pl.all_horizontal((contract == contract.first()).all())).item():
        return [updates]  # grouping costs more than a file of one contract should pay
    return updates.partition_by("exchange", "symbol", maintain_order=True)


def _changes(values: pl.Series) -> BoolArray:
    """Whether each value differs from the one before; the first does."""
    return values.ne_missing(values.shift(1)).to_numpy()
