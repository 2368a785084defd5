"""Rebuild order books from incremental updates: what closing a position would have met.

Venues publish one full book and then what changed in it. The liquidation cost and the order-book
features of a margin need the book as it stood, never with a change that came later and never
across a change that is missing.

The work on levels is that of :mod:`margincast.data.book_replay`; messages, intervals and what is
known when are kept here.
"""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl

from margincast.core.errors import InputError
from margincast.data.book_replay import NO_LEVELS, IntArray, SideReplay, SideUpdates
from margincast.data.formats.format import ROW
from margincast.data.schemas import TIMESTAMP, book_columns

UPDATE_COLUMNS: dict[str, pl.DataType] = {
    ROW: pl.Int64(),
    "message": pl.Int64(),
    "ts": TIMESTAMP,
    "received_at": TIMESTAMP,
    "sequence": pl.Int64(),
    "is_snapshot": pl.Boolean(),
    "is_bid": pl.Boolean(),
    "price": pl.Float64(),
    "size": pl.Float64(),
}
"""Columns of updates, a row a level.

``_row`` is the number of the record in its source. Updates of one ``message`` (a number that never
decreases) are applied together. ``is_snapshot`` says that the message is a full book that replaces
what was there. A ``size`` of zero deletes the level; a snapshot of nothing else is an empty book.
:data:`OPTIONAL_COLUMNS` may be absent.
"""

OPTIONAL_COLUMNS = ("received_at", "sequence")
"""Columns of updates that a source may not have; they may hold nulls."""

_NULLABLE = (*OPTIONAL_COLUMNS, "price", "size")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_UNKNOWN_TIME = np.iinfo(np.int64).min


class BookBuilder:
    """The book of one contract, kept up to date and written down at most once an interval.

    Every message makes a state, also one that changes nothing in the first ``levels`` levels. Of
    the states in one interval of ``ts`` (aligned to the epoch) the last is returned, as soon as a
    message of another interval shows that it was the last; intervals without a message have no
    book. With ``every`` of zero each state is returned.

    The ``ts`` (and ``received_at``) of a book is the latest among the messages it was made from
    since its snapshot. Where times never run backwards, that is the last message's; where they do,
    the book is not dated before a change it contains. Only after a hole, or where a snapshot is
    dated before the message ahead of it, can an interval have a second book.

    A crossed book is returned as it is: what happens to it is decided where books are read. A size
    that is not a number is a level whose size is not known (null).

    Attributes:
        snapshots: messages that were a full book.
        updates_applied: updates that came while the book was known, or were part of a snapshot.
        updates_without_book: updates that came while no book was known; they were not applied.
        deletes_of_absent_levels: deletes, among those applied, of levels that were not there.
        late_messages: messages applied whose ``ts`` is before that of the book they changed.
        invalidations: how often a known book became unknown.
        time_unknown: from each invalidation to the snapshot that ended it.
    """

    def __init__(self, symbol: str, *, levels: int, every: timedelta) -> None:
        if levels < 1:
            raise ValueError(f"a book needs at least one level, found levels={levels}")
        if every < timedelta(0):
            raise ValueError(f"books cannot be written every {every}; zero writes every state")
        self._symbol, self._levels = symbol, levels
        self._every_us = every // _MICROSECOND
        self._bids = self._asks = NO_LEVELS
        self._known = False
        self._unknown_since_us: int | None = None
        self._last_message: int | None = None
        self._optional: tuple[str, ...] | None = None
        self._latest_us: dict[str, int] = {}
        self._pending: pl.DataFrame | None = None
        self._pending_interval = 0
        self.snapshots = 0
        self.updates_applied = 0
        self.updates_without_book = 0
        self.deletes_of_absent_levels = 0
        self.late_messages = 0
        self.invalidations = 0
        self.time_unknown = timedelta(0)

    def apply(self, updates: pl.DataFrame) -> pl.DataFrame:
        """Apply whole messages in their order.

        Args:
            updates: :data:`UPDATE_COLUMNS`; the last of several updates of one level in a message
                stands.

        Returns:
            The books that became final: ``symbol``, ``ts``, the optional columns that the updates
            have, the columns of :func:`margincast.data.schemas.book_columns` (null where there is
            no level) and ``_row``, that of the last update in the book.

        Raises:
            ValueError: a column is missing or of another type, a message continues one of an
                earlier call, is partly a snapshot, or comes after one of a higher number.
            InputError: an update has no price.
        """
        self._check(updates)
        if updates.is_empty():
            return self._no_books()
        started = self._first_usable(updates)
        self.updates_without_book += started
        if started == len(updates):
            return self._no_books()
        return self._finish(*self._books(updates[started:]))

    def invalidate(self, at: datetime | None = None) -> pl.DataFrame:
        """Forget the book after a hole in the sequence; it is unknown until the next snapshot.

        Args:
            at: when the hole was noticed; by default the time of the last message.

        Returns:
            The book that was held back, which was true before the hole: one row or none.
        """
        if self._known:
            self.invalidations += 1
            self._unknown_since_us = self._latest_us["ts"]
            if at is not None:
                self._unknown_since_us = (at - _EPOCH) // _MICROSECOND
        self._known = False
        self._bids = self._asks = NO_LEVELS
        return self.flush()

    def flush(self) -> pl.DataFrame:
        """Return the book that was held back, at the end of the source: one row or none."""
        held, self._pending = self._pending, None
        return self._no_books() if held is None else held

    def _check(self, updates: pl.DataFrame) -> None:
        optional = tuple(name for name in OPTIONAL_COLUMNS if name in updates.columns)
        for name, dtype in UPDATE_COLUMNS.items():
            if name in OPTIONAL_COLUMNS and name not in optional:
                continue
            if updates.schema.get(name) != dtype:
                raise ValueError(
                    f"column {name} of updates must be {dtype}, found {updates.schema}"
                )
            if name not in _NULLABLE and updates[name].null_count():
                raise ValueError(f"column {name} of updates has nulls")
        if self._optional not in (None, optional):
            raise ValueError(f"updates had the columns {self._optional}, now {optional}")
        self._optional = optional
        if not updates.is_empty():
            self._check_messages(updates)
            self._check_prices(updates)

    def _check_messages(self, updates: pl.DataFrame) -> None:
        message = updates["message"].to_numpy()
        is_snapshot = updates["is_snapshot"].to_numpy()
        step = np.diff(message)
        if (step < 0).any():
            raise ValueError("the messages of updates are not in the order of their numbers")
        if self._last_message is not None and message[0] <= self._last_message:
            raise ValueError(
                f"message {message[0]} continues or precedes message {self._last_message} of an "
                "earlier call; messages must be whole and in order"
            )
        if ((step == 0) & (is_snapshot[1:] != is_snapshot[:-1])).any():
            raise ValueError("a message is partly a snapshot; give the parts different numbers")
        self._last_message = int(message[-1])

    def _check_prices(self, updates: pl.DataFrame) -> None:
        unplaced = np.flatnonzero(np.isnan(updates["price"].to_numpy()))
        if len(unplaced):
            first = updates.row(int(unplaced[0]), named=True)
            raise InputError(
                f"{self._symbol}: {len(unplaced)} book update(s) have no price, first in record "
                f"{first[ROW]} ({first['ts']}); a price must be a number; correct or remove the "
                "record"
            )

    def _first_usable(self, updates: pl.DataFrame) -> int:
        """Index of the first update that can be applied; all of them where there is none."""
        if self._known:
            return 0
        if not updates["is_snapshot"].any():
            return len(updates)
        first = updates["is_snapshot"].arg_max() or 0
        if self._unknown_since_us is not None:
            snapshot_us = (updates["ts"][first] - _EPOCH) // _MICROSECOND
            self.time_unknown += max(0, snapshot_us - self._unknown_since_us) * _MICROSECOND
        self._known, self._unknown_since_us = True, None
        return first

    def _books(self, updates: pl.DataFrame) -> tuple[pl.DataFrame, IntArray]:
        """Books after the last message of each interval, and the number of each interval."""
        message = updates["message"].to_numpy()
        first = np.flatnonzero(np.r_[True, message[1:] != message[:-1]])
        last = np.r_[first[1:], len(message)] - 1
        lengths = last - first + 1
        snapshot = updates["is_snapshot"].to_numpy()[first]
        epoch = np.cumsum(snapshot)
        self.snapshots += int(epoch[-1])
        self.updates_applied += len(message)

        times = {
            name: self._latest(updates[name], first, epoch)
            for name in ("ts", "received_at")
            if name in updates.columns
        }
        ts = times["ts"].to_physical().to_numpy()
        message_ts = np.maximum.reduceat(updates["ts"].to_physical().to_numpy(), first)
        self.late_messages += int(np.count_nonzero(message_ts < ts))
        interval = ts // self._every_us if self._every_us else np.arange(len(ts))
        final = np.flatnonzero(np.r_[interval[1:] != interval[:-1], True])
        book = np.repeat(np.arange(len(final)), np.diff(final, prepend=-1))

        columns = [pl.repeat(self._symbol, len(final), dtype=pl.String, eager=True).alias("symbol")]
        columns += [series.gather(final) for series in times.values()]
        if "sequence" in updates.columns:
            columns.append(updates["sequence"].gather(last[final]))
        update = SideUpdates(
            updates["price"].to_numpy(),
            updates["size"].to_numpy(),
            np.repeat(book, lengths),
            np.repeat(epoch, lengths),
        )
        is_bid = updates["is_bid"].to_numpy()
        bids = SideReplay(self._bids, update.only(is_bid), best_is_highest=True)
        asks = SideReplay(self._asks, update.only(~is_bid), best_is_highest=False)
        tops = np.stack(
            [*bids.tops(epoch[final], self._levels), *asks.tops(epoch[final], self._levels)], axis=1
        )
        # cut from one series: in small batches a series a column would take most of the time
        values = pl.Series(tops.ravel(), nan_to_null=True)
        columns += [
            values.slice(number * len(final), len(final)).alias(name)
            for number, name in enumerate(book_columns(self._levels))
        ]
        columns.append(updates[ROW].gather(last[final]))
        for side in (bids, asks):
            self.deletes_of_absent_levels += side.count_deletes_of_absent_levels()
        self._bids, self._asks = (side.levels_after(int(epoch[-1])) for side in (bids, asks))
        return pl.DataFrame(columns), interval[final]

    def _latest(self, times: pl.Series, first: IntArray, epoch: IntArray) -> pl.Series:
        """Latest time of the messages since the snapshot, after each message."""
        of_message = np.maximum.reduceat(
            times.to_physical().fill_null(_UNKNOWN_TIME).to_numpy(), first
        )
        carried = self._latest_us.get(times.name, _UNKNOWN_TIME)
        time, epoch = np.r_[carried, of_message], np.r_[0, epoch]
        self._latest_us[times.name] = int(time[epoch == epoch[-1]].max())
        latest = pl.DataFrame({"epoch": epoch, times.name: time}).select(
            pl.col(times.name).replace(_UNKNOWN_TIME, None).cum_max().over("epoch").cast(TIMESTAMP)
        )
        return latest.to_series()[1:]

    def _finish(self, books: pl.DataFrame, interval: IntArray) -> pl.DataFrame:
        """Hold the last book back where a later message may still belong to its interval."""
        if not self._every_us:
            return books
        if self._pending is not None and self._pending_interval != interval[0]:
            books = pl.concat([self._pending, books])
        self._pending, self._pending_interval = books[-1:], int(interval[-1])
        return books[:-1]

    def _no_books(self) -> pl.DataFrame:
        columns: dict[str, pl.DataType] = {"symbol": pl.String(), "ts": TIMESTAMP}
        columns |= {name: UPDATE_COLUMNS[name] for name in self._optional or ()}
        columns |= dict.fromkeys(book_columns(self._levels), pl.Float64())
        return pl.DataFrame(schema=columns | {ROW: pl.Int64()})
