"""What the last intervals before a decision left behind, as many as windows look back to."""

from datetime import timedelta

import numpy as np
import numpy.typing as npt

from margincast.core.types import FloatArray
from margincast.features.stream.clock import microseconds

TimesUs = npt.NDArray[np.int64]
"""Microseconds since 1970."""


class LastIntervals:
    """Consecutive intervals of a grid.

    Attributes:
        values: shape (columns, rows), the last interval last; NaN where not known.
        last_us: open of the last one.
    """

    def __init__(self, columns: int, rows: int, interval: timedelta) -> None:
        """Start with nothing known.

        Args:
            columns: numbers that an interval leaves behind.
            rows: intervals to keep.
            interval: length of one.
        """
        self.values: FloatArray = np.full((columns, rows), np.nan)
        self._step = microseconds(interval)
        self.last_us = 0

    def go_on_to(self, last_us: int) -> None:
        """Say which interval is the last one; the oldest are let go, the new ones not known yet."""
        by = min((last_us - self.last_us) // self._step, self.values.shape[1])
        if by > 0:
            self.last_us = last_us
            self.values[:, :-by] = self.values[:, by:]
            self.values[:, -by:] = np.nan

    def put(self, opens: TimesUs, values: FloatArray) -> None:
        """Set intervals, as far as they are kept.

        Args:
            opens: shape (n,), none after the last interval.
            values: shape (columns, n).
        """
        behind = (self.last_us - opens) // self._step
        kept = behind < self.values.shape[1]
        self.values[:, -1 - behind[kept]] = values[:, kept]


def opens_of(known_at: TimesUs, interval: timedelta) -> TimesUs:
    """Open of the bar at whose close a row is first known, as ``data.intervals.bar_open``."""
    step = microseconds(interval)
    return (known_at - 1) // step * step
