"""What a contract's own history says a margin should be: its long-run and its stressed rate.

Responsible for the two rates that keep a margin from following a calm market all the way down: the
quantile of all outcomes in a long look-back (EMIR RTS 153/2013 article 28(1)(c): the highest
volatility of ten years as a floor), and that of the worst period in it (article 28(1)(b): stressed
observations). Both are computed from outcomes alone, so that they can be checked from bars.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import numpy.typing as npt

from margincast.core.errors import InputError
from margincast.core.types import FloatArray, Times
from margincast.scoring.coverage import require_level

FEWEST_IN_A_PERIOD = 0.5
"""A period counts for the stressed rate where so large a share of it has outcomes."""


@dataclass(frozen=True)
class Outcomes:
    """Realised adverse excursions of one contract and side, in order of time.

    Attributes:
        decided: decision times, increasing, shape (n,).
        known: when each outcome was known, shape (n,).
        values: fractions of the decision price, shape (n,); NaN is left out.
    """

    decided: Times
    known: Times
    values: FloatArray


@dataclass(frozen=True)
class References:
    """Rates of k rows (contracts and sides) at m moments; fractions, shape (m, k).

    Attributes:
        moments: increasing, shape (m,); rates hold from theirs to the next one.
        long_run: NaN where nobody has enough history.
        stressed: likewise.
        borrowed: where a row has too little history of its own and takes the others' median.
    """

    moments: Times
    long_run: FloatArray
    stressed: FloatArray
    borrowed: npt.NDArray[np.bool_]

    def at(self, moments: Times) -> npt.NDArray[np.intp]:
        """Return the place of the rates that hold at each moment; those before the first take it.

        Raises:
            InputError: there are no rates at all.
        """
        if not len(self.moments):
            raise InputError("there are no reference rates: no moment was asked for")
        found = np.searchsorted(self.moments, moments, side="right") - 1
        return np.maximum(found, 0)


def reference_rates(
    history: Sequence[Outcomes],
    moments: Times,
    *,
    level: float,
    window: timedelta,
    period: timedelta,
    minimum_history: timedelta,
) -> References:
    """Return long-run and stressed rates at every moment, from what was known then.

    Args:
        history: outcomes a row (contract and side).
        moments: increasing, UTC.
        level: share of outcomes that a rate covers.
        window: look-back.
        period: length of the worst period; periods follow one another from the start of 1970.
        minimum_history: time between a row's first outcome and the moment below which the row takes
            the median of the rows that have more.

    Raises:
        InputError: a level outside (0.5, 1).
    """
    level = require_level(level)
    shape = (len(moments), len(history))
    long_run, stressed = np.full(shape, np.nan), np.full(shape, np.nan)
    for row, outcomes in enumerate(history):
        there = np.isfinite(outcomes.values)
        decided, known = outcomes.decided[there], outcomes.known[there]
        values = outcomes.values[there]
        number = decided.astype("datetime64[us]").astype(np.int64) // (
            period // timedelta(microseconds=1)
        )
        for i, moment in enumerate(moments):
            end = int(np.searchsorted(known, moment, side="right"))
            start = int(np.searchsorted(decided, moment - np.timedelta64(window), side="right"))
            if end <= start or moment - decided[0] < np.timedelta64(minimum_history):
                continue
            long_run[i, row] = np.quantile(values[start:end], level)
            stressed[i, row] = _worst(values[start:end], number[start:end], level)
    borrowed = np.isnan(long_run)
    return References(
        moments,
        np.where(borrowed, _medians(long_run), long_run),
        np.where(borrowed, _medians(stressed), stressed),
        borrowed,
    )


def _worst(values: FloatArray, period: npt.NDArray[np.int64], level: float) -> float:
    """Return the largest quantile of a period, at least that of the whole."""
    edges = np.flatnonzero(np.diff(period)) + 1
    parts = np.split(values, edges)
    enough = FEWEST_IN_A_PERIOD * max(map(len, parts))
    quantiles = [float(np.quantile(part, level)) for part in parts if len(part) >= enough]
    return max(*quantiles, float(np.quantile(values, level)))


def _medians(rates: FloatArray) -> FloatArray:
    """Return the median of every moment's known rates, shape (m, 1); NaN where there is none."""
    found = np.full((len(rates), 1), np.nan)
    for i, row in enumerate(rates):
        known = row[np.isfinite(row)]
        if known.size:
            found[i] = np.median(known)
    return found
