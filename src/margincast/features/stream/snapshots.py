"""Snapshots of one contract's book that no decision has known yet, judged as a file's are.

The rules are those of :mod:`margincast.data.book`, row by row as they come. What comes only after
a decision that could have known it counts from then on, and is dropped where a later state of the
book was decided on.
"""

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
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
from margincast.features.stream.last_intervals import TimesUs


@dataclass(frozen=True)
class Known:
    """Snapshots in the order in which they were known.

    Attributes:
        ts: microseconds, shape (n,), never falling.
        known_at: microseconds, shape (n,), never falling.
        values: the columns of :func:`margincast.data.schemas.book_columns`, shape (4 levels, n);
            NaN at levels that hold nothing.
    """

    ts: TimesUs
    known_at: TimesUs
    values: FloatArray

    def __len__(self) -> int:
        return len(self.ts)

    @property
    def levels(self) -> int:
        """Book levels on each side."""
        return len(self.values) // 4

    def frame(self) -> pl.DataFrame:
        """Give them as a book's table."""
        names = book_columns(self.levels)
        missing = bool(np.isnan(self.values).any())
        return pl.DataFrame(
            [
                *(
                    pl.Series(name, times).cast(TIMESTAMP)
                    for name, times in (("ts", self.ts), ("known_at", self.known_at))
                ),
                *(
                    pl.Series(name, row, nan_to_null=missing)
                    for name, row in zip(names, self.values, strict=True)
                ),
            ]
        )

    def of_levels(self, levels: int) -> "Known":
        """Give the best levels."""
        return Known(self.ts, self.known_at, self.values[: 4 * levels])

    def between(self, first: int, last: int) -> "Known":
        """Give those from one on, up to another, exclusive."""
        part = slice(first, last)
        return Known(self.ts[part], self.known_at[part], self.values[:, part])

    def after(self, first: int) -> "Known":
        """Copy those from one on, so that the others can be forgotten."""
        return Known(
            self.ts[first:].copy(), self.known_at[first:].copy(), self.values[:, first:].copy()
        )

    def and_then(self, more: "Known") -> "Known":
        """Put later ones behind these."""
        if not len(self):
            return more
        return Known(
            np.concatenate([self.ts, more.ts]),
            np.concatenate([self.known_at, more.known_at]),
            np.hstack([self.values, more.values]),
        )


@dataclass(frozen=True)
class _Waiting:
    ts: int
    known_us: int
    values: FloatArray
    fault: str | None

    def is_of_the_moment(self, other: "_Waiting") -> bool:
        """Whether another is of the same time and was known together with it."""
        return (self.ts, self.known_us) == (other.ts, other.known_us)


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
        # by the time they are known, as they came where it is the same
        self._waiting: list[_Waiting] = []
        self._newest_taken_us = NEVER_US

    def add(self, snapshot: Mapping[str, Any], decided_us: int) -> None:
        """Take a snapshot in.

        Raises:
            InputError: it has no time.
        """
        what = f"snapshot of {self._symbol}"
        ts = time_of(snapshot, "ts", what)
        known = known_time(snapshot, ts, self._known_after_us, decided_us, what)
        self._counts.row("book", self._symbol)
        try:
            values = np.array([snapshot.get(name) for name in self._names], dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise InputError(
                f"{what} at {snapshot['ts']}: prices and sizes must be numbers: {error}"
            ) from None
        row = _Waiting(ts, known, values, _mend(values, snapshot.get("is_valid", True)))
        place = bisect_right(self._waiting, known, key=_known_us)
        if place < len(self._waiting):
            self._meet("out-of-order rows", "sorted by the time they were known", ts)
        self._waiting.insert(place, row)

    def take(self, decided_us: int) -> Known:
        """Hand over what is known at a decision; it is not held any longer."""
        count = bisect_right(self._waiting, decided_us, key=_known_us)
        taken: list[_Waiting] = []
        for row in self._waiting[:count]:
            if row.ts < self._newest_taken_us:
                self._meet(
                    "received after a snapshot of a later time",
                    "dropped: a newer state was known",
                    row.ts,
                )
                continue
            self._newest_taken_us = row.ts
            if taken and row.is_of_the_moment(taken[-1]):
                self._meet_again(taken.pop(), row)
            taken.append(row)
        del self._waiting[:count]
        for row in taken:
            if row.fault is not None:
                self._meet(row.fault, "dropped", row.ts)
        sound = [row for row in taken if row.fault is None]
        times = np.array([(row.ts, row.known_us) for row in sound], dtype=np.int64).reshape(-1, 2)
        values = np.array([row.values for row in sound]).reshape(-1, 4 * self.levels)
        return Known(times[:, 0], times[:, 1], np.ascontiguousarray(values.T))

    def go_on_after(self, known: Known) -> None:
        """Say what was known before the first update."""
        self._newest_taken_us = int(known.ts[-1])

    def _meet_again(self, one: _Waiting, other: _Waiting) -> None:
        if np.array_equal(one.values, other.values, equal_nan=True) and one.fault == other.fault:
            self._meet("equal to the next row of the same time", "dropped", one.ts)
        else:
            self._meet(
                "several rows of the same time, not equal", "the last one given is kept", one.ts
            )

    def _meet(self, what: str, action: str, ts_us: int) -> None:
        self._counts.meet("book", self._symbol, what, action, instant(ts_us))


def _known_us(row: _Waiting) -> int:
    return row.known_us


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
