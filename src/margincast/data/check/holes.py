"""Holes that come again and again: a recorder that stops for the same few seconds every minute.

Thousands of single gaps hide that; one line that gives their length and period shows it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np

FEWEST_HOLES = 20
"""Fewer gaps than this have no period."""

PERIOD_TOLERANCE = 0.1
"""Two distances between holes are the same period if they differ by at most this share."""

PERIODIC_SHARE = 0.5
"""Holes are periodic if at least this share of their distances is the period."""

LONGEST_RATIO = 3.0
"""A gap of more than this many median lengths is no hole of the period but one by itself."""


@dataclass(frozen=True)
class Holes:
    """Holes with a period.

    Attributes:
        lengths: lower quartile, median and upper quartile of the step from the last row before a
            hole to the first after it.
        period: median distance between the beginnings of two holes.
        members: which gaps they are.
    """

    lengths: tuple[timedelta, timedelta, timedelta]
    period: timedelta
    members: tuple[int, ...]

    def words(self) -> str:
        """Describe them."""
        low, median, high = (seconds_text(length) for length in self.lengths)
        span = median if low == high else f"{low} to {high} (median {median})"
        return f"holes of {span} about every {seconds_text(self.period)}"


def periodic_holes(gaps: Sequence[tuple[datetime, timedelta]]) -> Holes | None:
    """Recognise gaps with a period.

    Args:
        gaps: start and length of each, in the order of time.

    Returns:
        The holes, or None where the gaps have no period.
    """
    if len(gaps) < FEWEST_HOLES:
        return None
    lengths = np.array([length.total_seconds() for _, length in gaps])
    starts = np.array([start.timestamp() for start, _ in gaps])
    members = np.flatnonzero(lengths <= LONGEST_RATIO * np.median(lengths))
    distances = np.diff(starts[members])
    if len(distances) < FEWEST_HOLES - 1:
        return None
    period = float(np.median(distances))
    alike = np.abs(distances - period) <= PERIOD_TOLERANCE * period
    if alike.mean() < PERIODIC_SHARE:
        return None
    low, median, high = np.quantile(lengths[members], (0.25, 0.5, 0.75))
    return Holes(
        (_seconds(low), _seconds(median), _seconds(high)),
        _seconds(period),
        tuple(members.tolist()),
    )


def seconds_text(length: timedelta) -> str:
    """Write a length of time as a person reads it: ``250 ms``, ``85 min``, ``5 h``, ``1,620 d``.

    >>> seconds_text(timedelta(seconds=108))
    '108 s'
    >>> seconds_text(timedelta(hours=1)), seconds_text(timedelta(hours=5))
    ('1 h', '5 h')
    """
    seconds = length.total_seconds()
    if seconds < 0:
        return f"-{seconds_text(-length)}"
    for unit, size in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 3 * size or (seconds >= size and seconds % size == 0):
            return f"{_short(seconds / size)} {unit}"
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.4g} {unit}"
    return f"{1e6 * seconds:.0f} \N{MICRO SIGN}s" if seconds else "0 s"


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _seconds(value: float) -> timedelta:
    return timedelta(seconds=float(value))
