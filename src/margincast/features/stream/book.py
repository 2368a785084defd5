"""The book's part of a decision: new snapshots summed up by interval, windows over intervals.

Only the sums of the intervals are kept, and the few snapshots that later ones look back to.
"""

import numpy as np

from margincast.core.types import FloatArray
from margincast.features.order_book import memory_of
from margincast.features.order_book.sides import Scratch
from margincast.features.order_book.snapshots import Snapshots
from margincast.features.order_book.statistics import Intervals, distinct_signals
from margincast.features.order_book.summary import BLOCK_ROWS
from margincast.features.stream.book_windows import BookWindows
from margincast.features.stream.clock import microseconds
from margincast.features.stream.last_intervals import LastIntervals, TimesUs, opens_of
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
        grid, entries = feature_set.grid, feature_set.book
        self._interval = grid.interval
        self._step = microseconds(grid.interval)
        self._signals = distinct_signals(entries, grid.interval)
        self._windows = BookWindows(entries, grid.interval, grid.minimum_present)
        self._memory_us = microseconds(memory_of(entries, grid.interval))
        self._scratch = Scratch()
        self._before: Known | None = None
        summaries = sum(len(signal.summaries) for signal in self._signals)
        self._held = LastIntervals(summaries, rows, grid.interval)

    def add(self, new: Known) -> None:
        """Sum up snapshots, of whole intervals."""
        if not self._signals or not len(new):
            return
        opens = opens_of(new.known_at, self._interval)
        self._held.go_on_to(int(opens[-1]))
        cuts = [0, *(np.flatnonzero(np.diff(opens)) + 1).tolist(), len(new)]
        start = 0
        for place, stop in enumerate(cuts[1:], start=1):
            # as many whole intervals as are computed well together
            if stop == len(new) or cuts[place + 1] - start > BLOCK_ROWS:
                self._sum_up(new.between(start, stop), opens[start:stop])
                start = stop

    def columns(self, decided_us: int, count: int) -> FloatArray:
        """Give the book's columns at the last decisions.

        Returns:
            Shape (count, columns), the last row at the decision; NaN where not known.
        """
        self._held.go_on_to(decided_us - self._step)
        held = self._held.values
        ends = range(held.shape[1] - count + 1, held.shape[1] + 1)
        return np.array([self._windows.at_end(held[:, :end]) for end in ends])

    def _sum_up(self, new: Known, opens: TimesUs) -> None:
        whole = new if self._before is None else self._before.and_then(new)
        remembered = len(whole) - len(new)
        # the last one at least: order flow is what changed since
        oldest = int(np.searchsorted(whole.ts, whole.ts[-1] - self._memory_us))
        self._before = whole.after(min(oldest, len(whole) - 1))
        intervals = Intervals.of(new.known_at, opens, self._interval)
        self._scratch.reuse()
        complete = not np.isnan(whole.values).any()
        block = Snapshots(whole.ts, list(whole.values), self._scratch, complete=complete)
        with np.errstate(divide="ignore", invalid="ignore"):
            sums = [
                one
                for signal in self._signals
                for one in signal.of_intervals(signal.of_snapshots(block)[remembered:], intervals)
            ]
        self._held.put(opens[intervals.starts], np.array(sums))
