"""How the snapshots of a window become one number: last, means, deviation, minimum, rank.

Snapshots are first summed up interval by interval, and intervals then over windows, so that a
decision needs no snapshot twice. A value that is not known (NaN) counts nowhere.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cached_property

import numpy as np
import numpy.typing as npt
import polars as pl

from margincast.core.errors import InputError
from margincast.features.library import FeatureFunction, Window, look_up, value_label
from margincast.features.order_book.sides import FloatArray
from margincast.features.order_book.snapshots import BOOK_FEATURES, Snapshots
from margincast.specs.features import Feature

WEIGHT_CAP = timedelta(seconds=10)
"""Longest time for which a snapshot stands in a time-weighted mean: a feed that is silent for
longer no longer says what the book is."""

NEEDED = {
    "last": ("last",),
    "mean": ("count", "sum"),
    "deviation": ("count", "sum", "squares"),
    "time_mean": ("weight", "weighted"),
    "minimum": ("minimum",),
    "rank": ("last",),
}
"""Statistics, and the summaries that each reads."""

_WINDOWED = [statistic for statistic in NEEDED if statistic != "last"]
_SUMMARIES = ("last", "minimum", "count", "sum", "squares", "weight", "weighted")

KNOWN_BY = {
    "count": "count",
    "sum": "count",
    "squares": "count",
    "weight": "weight",
    "weighted": "weight",
}
"""Summaries that add up over a window, and the one that is above 0 where each is known."""


@dataclass(frozen=True)
class Intervals:
    """Whole intervals of consecutive snapshots.

    Attributes:
        starts: where each begins.
        ends: where each ends, exclusive.
        seconds: for each snapshot, how long it was the last one known: until the next, or until
            the interval closes, at most ``WEIGHT_CAP``.
    """

    starts: npt.NDArray[np.intp]
    ends: npt.NDArray[np.intp]
    seconds: FloatArray

    @cached_property
    def counts(self) -> FloatArray:
        """Snapshots in each."""
        return (self.ends - self.starts).astype(np.float64)

    @cached_property
    def weights(self) -> FloatArray:
        """Sum of ``seconds`` in each."""
        return np.add.reduceat(self.seconds, self.starts)

    @classmethod
    def of(
        cls, known_at: npt.NDArray[np.int64], opens: npt.NDArray[np.int64], interval: timedelta
    ) -> "Intervals":
        """Cut snapshots where the interval's open (microseconds, as ``known_at``) changes."""
        cuts = np.flatnonzero(np.diff(opens)) + 1
        starts = np.concatenate([[0], cuts])
        ends = np.concatenate([cuts, [len(opens)]])
        until = np.append(known_at[1:], 0)
        until[ends - 1] = opens[ends - 1] + interval // timedelta(microseconds=1)
        seconds = np.minimum(until - known_at, WEIGHT_CAP // timedelta(microseconds=1)) * 1e-6
        return cls(starts, ends, seconds)


@dataclass(frozen=True)
class Signal:
    """One function of a feature set at one value, and the statistics wanted of it."""

    name: str
    function: FeatureFunction
    value: float | None
    statistics: tuple[str, ...]
    windows: tuple[Window, ...]

    def of_snapshots(self, book: Snapshots) -> FloatArray:
        """The function of each snapshot of a block."""
        kernel = BOOK_FEATURES[self.function.name].kernel
        return kernel(book) if self.value is None else kernel(book, self.value)

    @property
    def memory(self) -> timedelta:
        """How far back the function looks, beyond the snapshot before."""
        memory = BOOK_FEATURES[self.function.name].memory
        return timedelta(0) if memory is None or self.value is None else memory(self.value)

    @property
    def summaries(self) -> list[str]:
        """What each interval's snapshots leave behind, as far as the statistics need it."""
        needed = {what for statistic in self.statistics for what in NEEDED[statistic]}
        return [what for what in _SUMMARIES if what in needed]

    def of_intervals(self, values: FloatArray, intervals: Intervals) -> Iterator[FloatArray]:
        """The summaries of each interval, in the order of :attr:`summaries`.

        Args:
            values: the function of each snapshot, NaN where not known.
            intervals: the intervals that the snapshots fill.
        """
        needed, starts = self.summaries, intervals.starts
        if "last" in needed:
            yield values[intervals.ends - 1]
        if "minimum" in needed:
            yield np.fmin.reduceat(values, starts)
        if set(needed) <= {"last", "minimum"}:
            return
        total, count = np.add.reduceat(values, starts), intervals.counts
        weight, seconds = intervals.weights, intervals.seconds
        if np.isnan(total).any():
            unknown = np.isnan(values)
            values, seconds = np.where(unknown, 0.0, values), np.where(unknown, 0.0, seconds)
            count = np.add.reduceat((~unknown).astype(np.float64), starts)
            total, weight = np.add.reduceat(values, starts), np.add.reduceat(seconds, starts)
        if "count" in needed:
            yield count
            yield total
        if "squares" in needed:
            yield np.add.reduceat(values * values, starts)
        if "weight" in needed:
            yield weight
            yield np.add.reduceat(seconds * values, starts)

    @property
    def wanted(self) -> Iterator[tuple[str, Window | None]]:
        """Each statistic with its window, in the order of the columns; ``last`` has none."""
        for statistic in self.statistics:
            windows = (None,) if statistic == "last" else self.windows
            yield from ((statistic, window) for window in windows)

    def columns(self, total: "Total | None" = None) -> list[pl.Expr]:
        """The columns of the feature table, from regular intervals.

        Args:
            total: gives the sum over a window; :func:`rolling_total` if None.
        """
        return [
            pl.col(f"{self.name} last").alias(f"{self.name}_last")
            if window is None
            else self._over(statistic, window, total or rolling_total).alias(
                f"{self.name}_{statistic}_{window.label}"
            )
            for statistic, window in self.wanted
        ]

    def _over(self, statistic: str, window: Window, total: "Total") -> pl.Expr:
        if statistic == "minimum":
            return self._minimum(window)
        if statistic == "rank":
            return self._rank(window)

        def sums(what: str) -> pl.Expr:
            return total(f"{self.name} {what}", f"{self.name} {KNOWN_BY[what]}", window)

        return FORMULAS[statistic](sums)

    def _minimum(self, window: Window) -> pl.Expr:
        least = pl.col(f"{self.name} minimum")
        if window.rows == 1:
            return least
        return least.rolling_min(window.rows, min_samples=window.minimum)

    def _rank(self, window: Window) -> pl.Expr:
        last = pl.col(f"{self.name} last")
        if window.rows == 1:
            return pl.when(last.is_not_null()).then(0.5)
        count = last.is_not_null().cast(pl.Float64).rolling_sum(window.rows, min_samples=1)
        rank = last.rolling_rank(window.rows, "average", min_samples=window.minimum)
        return (rank - 0.5) / count


Total = Callable[[str, str, Window], pl.Expr]
"""From a column, the column that is above 0 where it is known, and a window, to its sum."""


def rolling_total(what: str, known: str, window: Window) -> pl.Expr:
    """Sum of a summary over a window of intervals."""
    there = pl.when(pl.col(known) > 0).then(pl.col(what))
    if window.rows == 1:
        return there
    return there.rolling_sum(window.rows, min_samples=window.minimum)


def _mean(sums: "Sums") -> pl.Expr:
    return sums("sum") / sums("count")


def _deviation(sums: "Sums") -> pl.Expr:
    count = sums("count")
    variance = sums("squares") / count - _mean(sums).pow(2)
    return pl.when(count > 1).then(variance.clip(0).sqrt())


def _time_mean(sums: "Sums") -> pl.Expr:
    return sums("weighted") / sums("weight")


Sums = Callable[[str], pl.Expr]
"""From a summary to its sum over a window."""

FORMULAS: Mapping[str, Callable[[Sums], pl.Expr]] = {
    "mean": _mean,
    "deviation": _deviation,
    "time_mean": _time_mean,
}
"""Statistics that hang on nothing but sums over the window."""


def signals_of(
    entries: Sequence[Feature], interval: timedelta, minimum_present: float
) -> list[Signal]:
    """Read the ``book`` lines of a feature set.

    Raises:
        InputError: an unknown function, or arguments that do not fit it.
    """
    signals = []
    for entry in entries:
        function = look_up("book", entry.function)
        wanted = [statistic for statistic in entry.statistics if statistic != "last"]
        if not entry.statistics or bool(wanted) != bool(entry.windows):
            raise InputError(
                f"feature '{entry.function}' needs statistics ({', '.join(NEEDED)}), and "
                f"windows for {' and '.join(', '.join(_WINDOWED).rsplit(', ', 1))} only; found "
                f"statistics {list(entry.statistics)} and {len(entry.windows)} window(s)"
            )
        if (function.argument == "values") != bool(entry.values):
            rule = "needs values" if function.argument == "values" else "takes no values"
            raise InputError(
                f"feature '{entry.function}' {rule}, and lists "
                f"{', '.join(map(value_label, entry.values)) or 'none'}"
            )
        windows = tuple(Window.over(length, interval, minimum_present) for length in entry.windows)
        signals += [
            Signal(
                entry.function if value is None else f"{entry.function}_{value_label(value)}",
                function,
                value,
                entry.statistics,
                windows,
            )
            for value in (entry.values or (None,))
        ]
    return signals


def distinct_signals(entries: Sequence[Feature], interval: timedelta) -> list[Signal]:
    """The signals of the ``book`` lines, each once, with all statistics that any line wants.

    Raises:
        InputError: see :func:`signals_of`.
    """
    signals: dict[str, Signal] = {}
    for signal in signals_of(entries, interval, 1.0):
        first = signals.setdefault(signal.name, signal)
        signals[signal.name] = replace(first, statistics=first.statistics + signal.statistics)
    return list(signals.values())
