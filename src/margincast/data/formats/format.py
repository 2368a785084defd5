"""What a file format is: how a file is recognised, and how its records become canonical rows.

Every record of a source ends in exactly one place, and :class:`Account` counts where: translated
into rows, applied to a book, of a kind that is not market data, or rejected with a reason. A margin
can be audited only if nothing went missing on the way in.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from margincast.core.errors import InputError
from margincast.data.formats.source import HEAD_BYTES, Source, foreign_content
from margincast.data.schemas import SCHEMAS, schema_of

ROW = "_row"
"""Column of every batch: number of the record in its source, the first is 1."""

BATCH_ROWS = 100_000
"""Rows of a batch: what is held in memory at a time."""

MOST_REJECTS = 10_000
"""Rejected records that an account holds before it hands them on."""

PARQUET_MAGIC, FEATHER_MAGIC = b"PAR1", b"ARROW1"

TRANSLATED = "translated into rows"
"""Outcome of records that became canonical rows."""
APPLIED = "applied to a book"
"""Outcome of records that changed a book from which rows are taken."""
MERGED = "merged into a row with others"
"""Outcome of records of which several make one row."""
NO_SNAPSHOT = "without a book: no snapshot it follows"
"""Outcome of updates that came before any snapshot, or before one that could be joined."""
AFTER_HOLE = "without a book: after a hole in the sequence"
"""Outcome of updates after a hole, up to the next snapshot."""

HOLE = "hole in the sequence"
"""Event: an update does not follow the one before."""
ROWS_BEYOND = "rows beyond one a message"
"""Event: a message that carries several rows is one record, and this counts the others."""
CLOCK_BEHIND = "received before the venue's time"
"""Event: a message arrived before it was sent, so the recorder's clock was behind the venue's."""

_DELIMITERS = (",", ";", "\t", "|")


@dataclass(frozen=True)
class Options:
    """How books are built from updates.

    Attributes:
        book_every: at most one book is written in each such interval, its last; zero writes the
            book after every message.
        book_levels: levels a side.
    """

    book_every: timedelta = timedelta(milliseconds=100)
    book_levels: int = 20


@dataclass(frozen=True)
class Match:
    """A source recognised as one of a format.

    Attributes:
        table: canonical table the source holds, or the main one of several.
        venue: where it was traded, in Tardis' names (``binance-futures``).
        symbol: contract; None where the records say it.
        details: what the reader needs to know of what was recognised.
        options: how to read.
    """

    table: str
    venue: str
    symbol: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    options: Options = Options()


@dataclass(frozen=True)
class Hints:
    """What the user says about sources; None leaves it to recognition.

    Raises:
        InputError: there is no such table, or a name says nothing.
    """

    table: str | None = None
    venue: str | None = None
    symbol: str | None = None

    def __post_init__(self) -> None:
        """Refuse what no source could be read by, before any is."""
        if self.table is not None and self.table not in SCHEMAS:
            schema_of(self.table)
        for what, name in (("venue", self.venue), ("symbol", self.symbol)):
            if name is not None and name.strip() in ("", ".", ".."):
                raise InputError(
                    f"a {what} cannot be called {name!r}; give its name, or leave the {what} out "
                    "where the sources say it"
                )

    def applied_to(self, match: Match) -> Match:
        """Let the user's word stand over what was recognised."""
        return replace(
            match,
            venue=self.venue or match.venue,
            symbol=self.symbol or match.symbol,
        )


@dataclass(frozen=True)
class Sample:
    """The beginning of a source, from which its kind is recognised.

    Attributes:
        source: the source.
        head: its first expanded bytes, at most 64 KiB.
        hints: what the user says about it.

    Raises:
        InputError: the first bytes are those of something no format reads, such as text in UTF-16
            or an archive under the name of a text; says what they are.
    """

    source: Source
    head: bytes
    hints: Hints = Hints()

    def __post_init__(self) -> None:
        """Refuse what no format can know."""
        foreign = foreign_content(self.head)
        if foreign:
            raise InputError(f"{self.source} {foreign}")

    @cached_property
    def lines(self) -> list[str]:
        """Whole lines of the head as text; the byte-order mark and line ends are taken off."""
        text = self.head.decode("utf-8-sig", errors="replace")
        lines = text.splitlines()
        cut_short = len(self.head) >= HEAD_BYTES and not text.endswith(("\n", "\r"))
        if len(lines) > 1 and cut_short:
            lines.pop()
        return lines

    @cached_property
    def delimiter(self) -> str:
        """Field separator of the first line: the commonest of comma, semicolon, tab and bar."""
        first = self.lines[0] if self.lines else ""
        return max(_DELIMITERS, key=first.count)

    @cached_property
    def header(self) -> tuple[str, ...]:
        """Fields of the first line."""
        if not self.lines:
            return ()
        return tuple(name.strip().strip('"') for name in self.lines[0].split(self.delimiter))

    @cached_property
    def columns(self) -> Mapping[str, str]:
        """Column names and types of a Parquet or Feather file; empty for anything else.

        Raises:
            InputError: the file has the mark of such a file but cannot be read as one.
        """
        return {name: str(kind) for name, kind in arrow_schema(self.source, self.head).items()}

    def lacks(self, *names: str) -> str:
        """Say which of these columns the header lacks; empty if it has all."""
        missing = [name for name in names if name not in self.header]
        return f"the header has no column {', '.join(missing)}" if missing else ""


def arrow_schema(source: Source, head: bytes) -> dict[str, pa.DataType]:
    """Return the columns of a Parquet or Feather file; empty for anything else.

    Raises:
        InputError: the file has the mark of such a file but cannot be read as one.
    """
    if not head.startswith((PARQUET_MAGIC, FEATHER_MAGIC)):
        return {}
    if not source.is_plain:
        raise InputError(f"{source} is a compressed table file; unpack it and give the file itself")
    try:
        if head.startswith(PARQUET_MAGIC):
            schema = pq.read_schema(source.path)
        else:
            with pa.memory_map(str(source.path)) as mapped:
                schema = pa.ipc.open_file(mapped).schema
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(
            f"{source} cannot be read: {error}; fetch or write the file again"
        ) from None
    return {column.name: column.type for column in schema}


@dataclass(frozen=True)
class Batch:
    """Rows of one canonical table.

    Attributes:
        table: name of the table, a key of :data:`margincast.data.schemas.SCHEMAS` (with the
            interval appended where its rows cover one: ``bars_1h``).
        venue: where it was traded.
        frame: canonical columns with ``symbol`` (text) and ``ts`` (UTC, microseconds), the
            source's further columns, and :data:`ROW`.
    """

    table: str
    venue: str
    frame: pl.DataFrame


@dataclass(frozen=True)
class Reject:
    """A record that could not be translated: its number, why, and what it says."""

    row: int
    reason: str
    text: str


class Account:
    """Counts what became of every record of one source.

    With a sink rejects are handed to it as soon as there are :data:`MOST_REJECTS`, so that a source
    of which nothing can be read takes no more memory than any other.

    Args:
        sink: takes rejected records, or raises an InputError; without one all are kept until they
            are drained.

    Attributes:
        outcomes: number of records by outcome; rejected ones are not among them.
        rejects: rejected records not yet handed on.
        rejected: number of rejected records, by reason.
        events: what else happened (holes in a sequence, books invalidated), by name.
    """

    def __init__(self, sink: Callable[[list[Reject]], None] | None = None) -> None:
        self._sink = sink
        self._listeners: list[Callable[[Reject], None]] = []
        self.outcomes: Counter[str] = Counter()
        self.rejects: list[Reject] = []
        self.rejected: Counter[str] = Counter()
        self.events: Counter[str] = Counter()

    @property
    def records(self) -> int:
        """Records seen so far."""
        return self.outcomes.total() + self.rejected.total()

    def count(self, outcome: str, records: int = 1) -> None:
        """Say what became of records."""
        if records:
            self.outcomes[outcome] += records

    def reject(self, row: int, reason: str, text: str) -> None:
        """Reject a record; ``reason`` is a kind of fault, the same for all records that have it."""
        self.rejected[reason] += 1
        reject = Reject(row, reason, text)
        self.rejects.append(reject)
        for told in self._listeners:
            told(reject)
        if self._sink is not None and len(self.rejects) >= MOST_REJECTS:
            self._sink(self.drain())

    def listen(self, told: Callable[[Reject], None]) -> None:
        """Tell a reader of each reject as it happens: :attr:`rejects` may have been handed on."""
        self._listeners.append(told)

    def note(self, event: str, times: int = 1) -> None:
        """Count an event that is not the fate of a record."""
        if times:
            self.events[event] += times

    def drain(self) -> list[Reject]:
        """Hand over the rejects collected so far."""
        taken, self.rejects = self.rejects, []
        return taken


def no_companions(_source: Source, _match: Match) -> tuple[Path, ...]:
    """Most formats need no other file."""
    return ()


@dataclass(frozen=True)
class Format:
    """A file format.

    Attributes:
        name: venue or vendor and kind, as users call it.
        match: recognises a sample, or says in a few words why it is not of this format.
        read: translates the records of a recognised source in batches, so that memory does not
            grow with the file, and accounts for every one.
        companions: other files that must be read together with the source.
    """

    name: str
    match: Callable[[Sample], Match | str]
    read: Callable[[Source, Match, Account], Iterator[Batch]]
    companions: Callable[[Source, Match], tuple[Path, ...]] = no_companions
