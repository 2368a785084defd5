"""From snapshots to intervals: the book features of a set, computed as the book streams by.

Each block of snapshots is small enough for the processor's cache, every feature of the set is
computed while it is there, and only their values are kept until their interval is complete.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import numpy.typing as npt
import polars as pl

from margincast.data.intervals import bar_open
from margincast.data.schemas import book_columns
from margincast.features.order_book.sides import FloatArray, Scratch
from margincast.features.order_book.snapshots import Snapshots, as_arrays
from margincast.features.order_book.statistics import Intervals, distinct_signals
from margincast.specs.features import Feature

BLOCK_ROWS = 4_096
"""Snapshots computed together: 20 levels of them take 2.6 MB, and stay in cache."""

HELD_ROWS = 8_192
"""Snapshots whose values are held before they are summed up; more where an interval has more."""

_MICROSECOND = timedelta(microseconds=1)
_Times = npt.NDArray[np.int64]


@dataclass(frozen=True)
class _Stretch:
    """Consecutive snapshots: times, level columns, and whether no level is missing."""

    ts: _Times
    columns: list[FloatArray]
    complete: bool

    def first_remembered(self, row: int, memory: int) -> int:
        """First snapshot that a function may look back to from a row on; the one before at least.

        Args:
            row: the row.
            memory: how far functions look back, in microseconds.
        """
        if not row:
            return 0
        return min(int(np.searchsorted(self.ts, self.ts[row - 1] - memory)), row - 1)

    def after(self, first: int) -> "_Stretch":
        """Copy the snapshots from one on, so that the others can be forgotten."""
        return _Stretch(
            self.ts[first:].copy(), [one[first:].copy() for one in self.columns], self.complete
        )

    def joined_to(self, other: "_Stretch", count: int) -> "_Stretch":
        """Append the first snapshots of another stretch."""
        return _Stretch(
            np.concatenate([self.ts, other.ts[:count]]),
            [
                np.concatenate([one, more[:count]])
                for one, more in zip(self.columns, other.columns, strict=True)
            ],
            self.complete and other.complete,
        )


class BookSummary:
    """The summaries of a book's intervals, from snapshots that come in batches of any size.

    A row is that of :func:`margincast.features.order_book.summarise_book`. Memory is bounded by a
    batch, by the values of ``HELD_ROWS`` snapshots or of the longest interval, and by the rows
    made.
    """

    def __init__(self, levels: int, entries: Sequence[Feature], interval: timedelta) -> None:
        """Start before the first snapshot.

        Args:
            levels: book levels on each side.
            entries: the ``book`` lines of a feature set.
            interval: length of an interval.

        Raises:
            InputError: an unknown function, or arguments that do not fit it.
        """
        self._interval = interval
        self._names = book_columns(levels)
        self._signals = distinct_signals(entries, interval)
        self._memory = memory_of(entries, interval) // _MICROSECOND
        self._scratch = Scratch()
        self._before: _Stretch | None = None
        self._known_at, self._opens = np.empty((2, HELD_ROWS + BLOCK_ROWS), dtype=np.int64)
        self._values = np.empty((len(self._signals), HELD_ROWS + BLOCK_ROWS))
        self._held = 0
        self._rows: list[FloatArray] = []
        self._row_opens: list[_Times] = []

    def add(self, snapshots: pl.DataFrame) -> None:
        """Take in the next snapshots.

        Args:
            snapshots: ``ts``, ``known_at`` and the level columns of a mended book, sorted.

        Raises:
            InputError: the book has fewer levels than a feature needs.
        """
        if snapshots.is_empty():
            return
        stamped = snapshots.select("ts", "known_at", bar_open(self._interval).alias("open"))
        ts, known_at, opens = (one.to_physical().to_numpy() for one in stamped)
        columns, complete = as_arrays(snapshots, self._names)
        batch = _Stretch(ts, columns, complete)
        head = 0
        if self._before is not None:
            # Only the rows that look back into the batch before are copied together with it.
            reach = int(np.searchsorted(ts, ts[0] + self._memory, side="right")) + 1
            head = min(max(reach, BLOCK_ROWS), len(ts))
            joined = self._before.joined_to(batch, head)
            self._compute(joined, len(self._before.ts), known_at[:head], opens[:head])
            self._before = joined
        if head < len(ts):
            self._compute(batch, head, known_at[head:], opens[head:])
            self._before = batch
        self._forget()

    def finish(self) -> pl.DataFrame:
        """Sum up the last interval too, and return the row of each."""
        self._sum_up(self._held)
        names = [
            f"{signal.name} {summary}" for signal in self._signals for summary in signal.summaries
        ]
        opens = np.concatenate([np.empty(0, dtype=np.int64), *self._row_opens])
        rows = np.hstack([np.empty((len(names), 0)), *self._rows])
        ts = pl.Series("ts", opens).cast(pl.Datetime("us", "UTC")).set_sorted()
        return pl.DataFrame(
            [
                ts,
                *(pl.Series(*column, nan_to_null=True) for column in zip(names, rows, strict=True)),
            ]
        )

    def _compute(self, stretch: "_Stretch", begin: int, known_at: _Times, opens: _Times) -> None:
        """Take in the snapshots of a stretch from one on, block by block."""
        for start in range(begin, len(stretch.ts), BLOCK_ROWS):
            stop = min(start + BLOCK_ROWS, len(stretch.ts))
            first = stretch.first_remembered(start, self._memory)
            columns = [column[first:stop] for column in stretch.columns]
            self._scratch.reuse()
            block = Snapshots(
                stretch.ts[first:stop], columns, self._scratch, complete=stretch.complete
            )
            values = self._room_for(stop - start)
            with np.errstate(divide="ignore", invalid="ignore"):
                for row, signal in zip(values, self._signals, strict=True):
                    row[:] = signal.of_snapshots(block)[start - first :]
            new, held = (
                slice(start - begin, stop - begin),
                slice(self._held, self._held + stop - start),
            )
            self._held = held.stop
            self._known_at[held], self._opens[held] = known_at[new], opens[new]
            if self._held >= HELD_ROWS:
                last = self._opens[self._held - 1]
                self._sum_up(int(np.searchsorted(self._opens[: self._held], last)))

    def _forget(self) -> None:
        """Keep of the snapshots what a function may look back to from the next one on."""
        if self._before is not None:
            count = len(self._before.ts)
            self._before = self._before.after(self._before.first_remembered(count, self._memory))

    def _room_for(self, count: int) -> FloatArray:
        """Values x signals of the next snapshots, to be filled."""
        stop = self._held + count
        while stop > len(self._opens):
            self._known_at, self._opens = (
                np.concatenate([one, one]) for one in (self._known_at, self._opens)
            )
            self._values = np.hstack([self._values, np.empty_like(self._values)])
        return self._values[:, self._held : stop]

    def _sum_up(self, count: int) -> None:
        """Reduce the first values held, whole intervals, to rows."""
        if not count:
            return
        opens = self._opens[:count]
        intervals = Intervals.of(self._known_at[:count], opens, self._interval)
        self._rows.append(
            np.stack(
                [
                    row
                    for signal, values in zip(self._signals, self._values, strict=True)
                    for row in signal.of_intervals(values[:count], intervals)
                ]
            )
        )
        self._row_opens.append(opens[intervals.starts])
        rest, kept = slice(count, self._held), slice(0, self._held - count)
        for held in (self._known_at, self._opens, *self._values):
            held[kept] = held[rest]
        self._held -= count


def memory_of(entries: Sequence[Feature], interval: timedelta) -> timedelta:
    """How far before a snapshot the lines of a feature set look back, beyond the one before it.

    Raises:
        InputError: an unknown function, or arguments that do not fit it.
    """
    signals = distinct_signals(entries, interval)
    return max((signal.memory for signal in signals), default=timedelta(0))
