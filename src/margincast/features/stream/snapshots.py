"""Snapshots of one contract's book that no decision has known yet, judged as a file's are.

The rules are those of :mod:`margincast.data.book`, row by row as they come. Two hang on what came
first: a snapshot out of order is put in its place as long as no later one was decided on; after
that it says nothing new of the book, and is dropped.
"""

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from margincast.core.errors import InputError
from margincast.core.types import FloatArray
from margincast.data.schemas import TIMESTAMP, book_columns
from margincast.features.stream.clock import (
    NEVER_US,
    instant,
    known_time,
    microseconds,
    time_of,
)
from margincast.features.stream.counts import Counts

_DROPPED = "dropped"
_TimesUs = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Known:
    """Snapshots in order of time.

    Attributes:
        ts: microseconds, shape (n,).
        known_at: microseconds, shape (n,), never falling.
        values: the columns of :func:`margincast.data.schemas.book_columns`, shape (4 levels, n);
            NaN at levels that hold nothing.
    """

    ts: _TimesUs
    known_at: _TimesUs
    values: FloatArray

    def __len__(self) -> int:
        return len(self.ts)

    @property
    def levels(self) -> int:
        """Book levels on each side."""
        return len(self.values) // 4

    def frame(self, levels: int | None = None) -> pl.DataFrame:
        """Give them as a book's table, of the best levels."""
        names = book_columns(levels or self.levels)
        values = self.values[: len(names)]
        missing = bool(np.isnan(values).any())
        return pl.DataFrame(
            [
                *(
                    pl.Series(name, times).cast(TIMESTAMP)
                    for name, times in (("ts", self.ts), ("known_at", self.known_at))
                ),
                *(
                    pl.Series(name, row, nan_to_null=missing)
                    for name, row in zip(names, values, strict=True)
                ),
            ]
        )

    def after(self, first: int) -> "Known":
        """Leave out the first ones."""
        return Known(self.ts[first:], self.known_at[first:], self.values[:, first:])

    def and_then(self, more: "Known") -> "Known":
        """Put later ones behind these."""
        if not len(self):
            return more
        return Known(
            np.concatenate([self.ts, more.ts]),
            np.concatenate([self.known_at, more.known_at]),
            np.hstack([self.values, more.values]),
        )


@dataclass
class _Waiting:
    known_us: int
    values: FloatArray
    fault: str | None


class Snapshots:
    """Snapshots given and not known to a decision yet."""

    def __init__(self, symbol: str, levels: int, known_after: timedelta, counts: Counts) -> None:
        """Start without any.

        Args:
            symbol: the contract.
            levels: book levels on each side.
            known_after: time from a snapshot's ``ts`` until it can have been known, where it does
                not say when it was received.
            counts: where irregular snapshots are counted.
        """
        self.levels = levels
        self._symbol = symbol
        self._known_after_us = microseconds(known_after)
        self._counts = counts
        self._names = book_columns(levels)
        self._times: list[int] = []
        self._waiting: list[_Waiting] = []
        self._newest_taken_us = NEVER_US
        self._last_known_us = NEVER_US

    def add(self, snapshot: Mapping[str, Any], decided_us: int) -> None:
        """Take a snapshot in.

        Raises:
            InputError: it has no time.
        """
        what = f"snapshot of {self._symbol}"
        ts = time_of(snapshot, "ts", what)
        known = known_time(snapshot, ts, self._known_after_us, decided_us, what)
        self._counts.row("book", self._symbol)
        if ts <= self._newest_taken_us:
            self._meet("not newer than a snapshot decided on", _DROPPED, ts)
            return
        try:
            values = np.array([snapshot.get(name) for name in self._names], dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise InputError(
                f"{what} at {snapshot['ts']}: prices and sizes must be numbers: {error}"
            ) from None
        fault = _mend(values, snapshot.get("is_valid", True))
        row = _Waiting(known, values, fault)
        place = bisect_left(self._times, ts)
        if place < len(self._times) and self._times[place] == ts:
            self._meet("several rows of the same time", "the last one given is kept", ts)
            self._waiting[place] = row
            return
        if place < len(self._times):
            self._meet("out-of-order rows", "sorted by time", ts)
        self._times.insert(place, ts)
        self._waiting.insert(place, row)

    def take(self, decided_us: int) -> Known:
        """Hand over what is known at a decision; it is not held any longer.

        A snapshot overtaken by a later one counts as known with it.
        """
        taken: list[int] = []
        known_at: list[int] = []
        count = 0
        for ts, row in zip(self._times, self._waiting, strict=True):
            known = max(self._last_known_us, row.known_us)
            if known > decided_us:
                break
            count += 1
            if row.fault is not None:
                self._meet(row.fault, _DROPPED, ts)
                continue
            self._last_known_us = known
            taken.append(count - 1)
            known_at.append(known)
        ts_taken = np.array([self._times[place] for place in taken], dtype=np.int64)
        rows = [self._waiting[place].values for place in taken]
        values = np.ascontiguousarray(np.array(rows).T) if rows else np.empty((4 * self.levels, 0))
        if count:
            self._newest_taken_us = self._times[count - 1]
            del self._times[:count], self._waiting[:count]
        return Known(ts_taken, np.array(known_at, dtype=np.int64), values)

    def go_on_after(self, known: Known) -> None:
        """Say what was known before the first update."""
        self._newest_taken_us = int(known.ts[-1])
        self._last_known_us = int(known.known_at[-1])

    def _meet(self, what: str, action: str, ts_us: int) -> None:
        self._counts.meet("book", self._symbol, what, action, instant(ts_us))


def levels_of(snapshot: Mapping[str, Any], what: str) -> int:
    """Count the book levels of a snapshot.

    Raises:
        InputError: there is not even the best one.
    """
    levels = 0
    while f"bid_price_{levels}" in snapshot:
        levels += 1
    if not levels:
        raise InputError(
            f"{what}: no bid_price_0; a snapshot has bid_price_0, bid_size_0, ask_price_0, "
            "ask_size_0 and so on, best first"
        )
    return levels


def _mend(values: FloatArray, valid: object) -> str | None:
    """Null the levels that hold nothing, in place, and say which fault there is, if any."""
    sides = values.reshape(-1, 2, 2)  # level, side, price and size
    nothing = np.logical_not(np.all(np.isfinite(sides) & (sides > 0), axis=2))
    sides[nothing] = np.nan
    if valid is not True:
        return "is_valid not true"
    if nothing[0].any():
        return "empty side (best price or size missing or not above 0)"
    bid, ask = sides[:, 0, 0], sides[:, 1, 0]
    if (bid[1:] > bid[:-1]).any() or (ask[1:] < ask[:-1]).any():
        return "levels not best first"
    if bid[0] > ask[0]:
        return "crossed (best bid > best ask)"
    return None
