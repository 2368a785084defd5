"""The book's statistics over the windows that end at one decision: what liquidation cost stands on.

Over years they are rolling expressions, column by column (``order_book.statistics``). At one
decision, planning a hundred small expressions takes longer than a service can wait: here the sums
over a window are taken for all columns together, and a formula is run once over all that want it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import numpy.typing as npt
import polars as pl

from margincast.core.types import BoolArray, FloatArray
from margincast.features.order_book.statistics import (
    FORMULAS,
    KNOWN_BY,
    NEEDED,
    distinct_signals,
    signals_of,
)
from margincast.features.sharing import run
from margincast.specs.features import Feature

_Places = npt.NDArray[np.intp]


@dataclass(frozen=True)
class _Columns:
    """Columns of one statistic.

    Attributes:
        places: where they stand among all columns.
        windows: place of each one's window, among the different ones.
        rows: by what the statistic reads, the row of each column's among the summaries.
    """

    places: _Places
    windows: _Places
    rows: dict[str, _Places]


class BookWindows:
    """Columns of the ``book`` lines of a feature set, at one decision."""

    def __init__(
        self, entries: Sequence[Feature], interval: timedelta, minimum_present: float
    ) -> None:
        """Read the lines.

        Args:
            entries: the ``book`` lines of a feature set.
            interval: distance between decisions.
            minimum_present: share of a window's intervals that must hold a known value.

        Raises:
            InputError: an unknown function, or arguments that do not fit it.
        """
        summaries = [
            (signal.name, what)
            for signal in distinct_signals(entries, interval)
            for what in signal.summaries
        ]
        row_of = {key: row for row, key in enumerate(summaries)}
        columns = [
            (signal.name, statistic, (window.rows, window.minimum) if window else (1, 1))
            for signal in signals_of(entries, interval, minimum_present)
            for statistic, window in signal.wanted
        ]
        self._count = len(columns)
        self._windows = list(dict.fromkeys(window for _, _, window in columns))
        self._of: dict[str, _Columns] = {}
        for statistic in dict.fromkeys(statistic for _, statistic, _ in columns):
            places = [place for place, column in enumerate(columns) if column[1] == statistic]
            self._of[statistic] = _Columns(
                np.array(places),
                np.array([self._windows.index(columns[place][2]) for place in places]),
                {
                    what: np.array([row_of[columns[place][0], what] for place in places])
                    for what in NEEDED[statistic]
                },
            )
        # of a summary that does not add up this is itself, and its sums are not read
        self._known_by = np.array(
            [row_of[name, KNOWN_BY.get(what, what)] for name, what in summaries], dtype=np.intp
        )

    def at_end(self, held: FloatArray) -> FloatArray:
        """Take the statistics over the windows that end with the last interval.

        Args:
            held: what the snapshots of regular intervals leave behind, shape (summaries,
                intervals), in the order of ``order_book.summarise_book``; NaN where not known.

        Returns:
            The columns of ``order_book.column_units``, shape (columns,); NaN where not known.
        """
        values = np.full(self._count, np.nan)
        there = held[self._known_by] > 0
        summands = np.where(there, held, 0.0)
        sums = np.array(
            [
                np.where(_enough(there[:, -rows:], least), summands[:, -rows:].sum(axis=1), np.nan)
                for rows, least in self._windows
            ]
        )
        for statistic, columns in self._of.items():
            if statistic in FORMULAS:
                read = {what: sums[columns.windows, rows] for what, rows in columns.rows.items()}
                values[columns.places] = _computed(statistic, read)
                continue
            (rows_of,) = columns.rows.values()
            if statistic == "last":
                values[columns.places] = held[rows_of, -1]
                continue
            over = _rank if statistic == "rank" else _minimum
            for number in np.unique(columns.windows):
                among = columns.windows == number
                rows, least = self._windows[number]
                values[columns.places[among]] = over(held[rows_of[among], -rows:], least)
        return values


def _enough(there: BoolArray, least: int) -> BoolArray:
    return np.asarray(there.sum(axis=1) >= least)


def _computed(statistic: str, sums: dict[str, FloatArray]) -> FloatArray:
    """Run a formula once over the sums of all columns that want it."""
    frame = pl.DataFrame([pl.Series(*one, nan_to_null=True) for one in sums.items()])
    found = run(frame.lazy().select(FORMULAS[statistic](pl.col)))
    return found.to_series().to_numpy()


def _minimum(window: FloatArray, least: int) -> FloatArray:
    return np.where(_enough(~np.isnan(window), least), np.fmin.reduce(window, axis=1), np.nan)


def _rank(window: FloatArray, least: int) -> FloatArray:
    """Share of the window's values below the last one, and half of those equal to it."""
    there, last = ~np.isnan(window), window[:, -1:]
    below, equal = (window < last).sum(axis=1), (window == last).sum(axis=1)
    known = there[:, -1] & _enough(there, least)
    with np.errstate(invalid="ignore"):
        return np.where(known, (below + equal / 2) / there.sum(axis=1), np.nan)
