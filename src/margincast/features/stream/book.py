"""The book's part of a decision: new snapshots summed up by interval, windows over intervals.

Only the sums of the intervals are kept, and the few snapshots that later ones look back to.
"""

from datetime import timedelta

import numpy as np
import numpy.typing as npt
import polars as pl

from margincast.data.schemas import TIMESTAMP
from margincast.features.order_book import memory_of, over_windows, summarise_snapshots
from margincast.features.stream.clock import instant, microseconds
from margincast.features.stream.snapshots import Known
from margincast.specs.features import FeatureSet


class Book:
    """Interval sums of one contract's book, as many as windows look back to."""

    def __init__(self, feature_set: FeatureSet, rows: int) -> None:
        """Start without any.

        Args:
            feature_set: which features.
            rows: intervals to keep.
        """
        self._entries = feature_set.book
        self._interval = feature_set.grid.interval
        self._minimum_present = feature_set.grid.minimum_present
        self._rows = rows
        self._memory_us = microseconds(memory_of(self._entries, self._interval))
        self._before: Known | None = None
        self._held: pl.DataFrame | None = None

    def add(self, new: Known) -> None:
        """Sum up snapshots, of whole intervals."""
        if not self._entries or not len(new):
            return
        whole = new if self._before is None else self._before.and_then(new)
        remembered = len(whole) - len(new)
        # the last one at least: order flow is what changed since
        oldest = int(np.searchsorted(whole.ts, whole.ts[-1] - self._memory_us))
        self._before = whole.after(min(oldest, len(whole) - 1))
        summed = summarise_snapshots(
            whole.frame(), remembered, whole.levels, self._entries, self._interval
        )
        held = summed if self._held is None else pl.concat([self._held, summed], rechunk=True)
        self._held = last_intervals(held, self._rows, self._interval)

    def columns(self, decided_us: int, rows: int) -> pl.DataFrame | None:
        """Give the book's columns at the last decisions; None before the first snapshot.

        Returns:
            ``ts`` (decision time) and the columns, null where not known; at most ``rows`` rows, the
            last one at the decision.
        """
        if self._held is None:
            return None
        held = until(self._held, instant(decided_us) - self._interval)
        return over_windows(held, self._entries, self._interval, self._minimum_present).tail(rows)


def opens_of(known_at: npt.NDArray[np.int64], interval: timedelta) -> npt.NDArray[np.int64]:
    """Open of the bar at whose close a row is first known, as ``data.intervals.bar_open``."""
    step = microseconds(interval)
    return (known_at - 1) // step * step


def last_intervals(intervals: pl.DataFrame, rows: int, interval: timedelta) -> pl.DataFrame:
    """Keep the intervals at most so many before the last one."""
    return intervals.filter(pl.col("ts") >= intervals["ts"][-1] - (rows - 1) * interval)


def until(intervals: pl.DataFrame, last: object) -> pl.DataFrame:
    """Add a row of nulls for the last interval, where it left nothing behind."""
    if intervals["ts"][-1] == last:
        return intervals
    end = pl.DataFrame({"ts": [last]}, schema={"ts": TIMESTAMP})
    return pl.concat([intervals, end], how="diagonal")
