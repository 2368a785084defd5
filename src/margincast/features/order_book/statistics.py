"""How the snapshots of a window become one number: last, means, deviation, minimum, rank.

Snapshots are first summed up interval by interval, and intervals then over windows, so that a
decision needs no snapshot twice. A value that is not known (NaN) counts nowhere.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import numpy.typing as npt
import polars as pl

from margincast.core.errors import InputError
from margincast.features.library import FeatureFunction, Window, look_up
from margincast.features.order_book.snapshots import BOOK_FEATURES, FloatArray, Snapshots
from margincast.specs.features import Feature

WEIGHT_CAP = timedelta(seconds=10)
"""Longest time for which a snapshot stands in a time-weighted mean: a feed that is silent for
longer no longer says what the book is."""

_NEEDED = {
    "last": ("last",),
    "mean": ("count", "sum"),
    "deviation": ("count", "sum", "squares"),
    "time_mean": ("weight", "weighted"),
    "minimum": ("minimum",),
    "rank": ("last",),
}
_WINDOWED = [statistic for statistic in _NEEDED if statistic != "last"]


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

    def of_intervals(self, values: FloatArray, intervals: Intervals) -> Iterator[pl.Series]:
        """What each interval's snapshots leave behind, as far as the statistics need it."""
        needed = {what for statistic in self.statistics for what in _NEEDED[statistic]}
        starts = intervals.starts
        if "last" in needed:
            yield pl.Series(f"{self.name} last", values[intervals.ends - 1], nan_to_null=True)
        if "minimum" in needed:
            least = np.fmin.reduceat(values, starts)
            yield pl.Series(f"{self.name} minimum", least, nan_to_null=True)
        if needed <= {"last", "minimum"}:
            return
        unknown = np.isnan(values)
        partly = bool(unknown.any())
        if partly:
            values = np.where(unknown, 0.0, values)
        if "count" in needed:
            if partly:
                count = np.add.reduceat((~unknown).astype(np.float64), starts)
            else:
                count = (intervals.ends - starts).astype(np.float64)
            yield pl.Series(f"{self.name} count", count)
            yield pl.Series(f"{self.name} sum", np.add.reduceat(values, starts))
        if "squares" in needed:
            yield pl.Series(f"{self.name} squares", np.add.reduceat(values * values, starts))
        if "weight" in needed:
            seconds = np.where(unknown, 0.0, intervals.seconds)
            yield pl.Series(f"{self.name} weight", np.add.reduceat(seconds, starts))
            yield pl.Series(f"{self.name} weighted", np.add.reduceat(seconds * values, starts))

    def columns(self) -> list[pl.Expr]:
        """The columns of the feature table, from regular intervals."""
        over_window = {
            "mean": self._mean,
            "deviation": self._deviation,
            "time_mean": self._time_mean,
            "minimum": self._minimum,
            "rank": self._rank,
        }
        columns = []
        for statistic in self.statistics:
            if statistic == "last":
                columns.append(pl.col(f"{self.name} last").alias(f"{self.name}_last"))
                continue
            columns += [
                over_window[statistic](window).alias(f"{self.name}_{statistic}_{window.label}")
                for window in self.windows
            ]
        return columns

    def _total(self, what: str, window: Window, measure: str = "count") -> pl.Expr:
        known = pl.when(pl.col(f"{self.name} {measure}") > 0).then(pl.col(f"{self.name} {what}"))
        return known.rolling_sum(window.rows, min_samples=window.minimum)

    def _mean(self, window: Window) -> pl.Expr:
        return self._total("sum", window) / self._total("count", window)

    def _deviation(self, window: Window) -> pl.Expr:
        count = self._total("count", window)
        variance = self._total("squares", window) / count - self._mean(window).pow(2)
        return pl.when(count > 1).then(variance.clip(0).sqrt())

    def _time_mean(self, window: Window) -> pl.Expr:
        return self._total("weighted", window, "weight") / self._total("weight", window, "weight")

    def _minimum(self, window: Window) -> pl.Expr:
        return pl.col(f"{self.name} minimum").rolling_min(window.rows, min_samples=window.minimum)

    def _rank(self, window: Window) -> pl.Expr:
        last = pl.col(f"{self.name} last")
        count = last.is_not_null().cast(pl.Float64).rolling_sum(window.rows, min_samples=1)
        rank = last.rolling_rank(window.rows, "average", min_samples=window.minimum)
        return (rank - 0.5) / count


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
                f"feature '{entry.function}' needs statistics ({', '.join(_NEEDED)}), and "
                f"windows for {' and '.join(', '.join(_WINDOWED).rsplit(', ', 1))} only; found "
                f"statistics {list(entry.statistics)} and {len(entry.windows)} window(s)"
            )
        if (function.argument == "values") != bool(entry.values):
            rule = "needs values" if function.argument == "values" else "takes no values"
            raise InputError(
                f"feature '{entry.function}' {rule}, and lists "
                f"{', '.join(f'{value:g}' for value in entry.values) or 'none'}"
            )
        windows = tuple(Window.over(length, interval, minimum_present) for length in entry.windows)
        signals += [
            Signal(
                entry.function if value is None else f"{entry.function}_{value:g}",
                function,
                value,
                entry.statistics,
                windows,
            )
            for value in (entry.values or (None,))
        ]
    return signals
