"""What a contract's own history says a margin should be: its long-run and its stressed rate.

Responsible for the two rates that keep a margin from following a calm market all the way down: the
quantile of all outcomes in a long look-back (EMIR RTS 153/2013 article 28(1)(c): the highest
volatility of ten years as a floor), and that of the worst period in it (article 28(1)(b): stressed
observations). Both are computed from outcomes alone, so that they can be checked from bars.

A contract listed in a calm year has seen little. What it has not lived through is taken from the
contracts that have: its own rate is multiplied by what the missing years did to theirs (the ratio
estimator of short histories), and the shorter its history the more the others' median counts.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import numpy.typing as npt

from margincast.core.errors import InputError
from margincast.core.types import FloatArray, Side, Times
from margincast.scoring.coverage import require_level

FEWEST_BEYOND = 10
"""Outcomes to be expected beyond a rate before a contract's own history says anything of it."""
FEWEST_IN_A_PERIOD = 0.5
"""A period counts for the stressed rate where so large a share of it has outcomes."""


@dataclass(frozen=True)
class Outcomes:
    """Realised adverse excursions of one contract and side, in order of time.

    Attributes:
        side: long histories of the same side complete short ones.
        decided: decision times, increasing, shape (n,).
        known: when each outcome was known, shape (n,).
        values: fractions of the decision price, shape (n,); NaN is left out.
    """

    side: Side
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
        own_weight: weight of a row's own rate, 0 where it has too little history; the rest is that
            of the others' median.
    """

    moments: Times
    long_run: FloatArray
    stressed: FloatArray
    own_weight: FloatArray

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
    period: timedelta | None,
    minimum_history: timedelta,
) -> References:
    """Return long-run and stressed rates at every moment, from what was known then.

    Of a row with history since ``a``, the rate is ``exp(w log(r f) + (1 - w) log m)``: r its own; f
    the median, over rows of its side with at least ``minimum_history`` more, of their rate in the
    window over their rate since ``a``; m the median of r f over rows of ``minimum_history`` or
    more; w = age / (age + minimum_history), 0 where fewer than :data:`FEWEST_BEYOND` of its
    outcomes are to be expected beyond the rate.

    Args:
        history: outcomes a row (contract and side).
        moments: increasing, UTC.
        level: share of outcomes that a rate covers.
        window: look-back.
        period: length of the worst period; periods follow one another from the start of 1970.
            Without one there are no stressed rates (NaN).
        minimum_history: see above.

    Raises:
        InputError: a level outside (0.5, 1).
    """
    level = require_level(level)
    known = [_Known.of(outcomes) for outcomes in history]

    def plain(one: "_Known", rows: slice) -> float:
        values = one.values[rows]
        return float(np.quantile(values, level)) if len(values) else math.nan

    fewest = math.ceil(FEWEST_BEYOND / (1.0 - level) - 1e-9)
    if period is not None:
        length = period // timedelta(microseconds=1)

        def worst(one: "_Known", rows: slice) -> float:
            number = one.decided[rows].astype("datetime64[us]").astype(np.int64) // length
            return _worst(one.values[rows], number, level)

    shape = (len(moments), len(history))
    long_run, stressed, weight = np.full(shape, np.nan), np.full(shape, np.nan), np.zeros(shape)
    for i, moment in enumerate(moments):
        since = [one.since(moment - np.timedelta64(window)) for one in known]
        until = [one.until(moment) for one in known]
        enough = np.array([end - start >= fewest for start, end in zip(since, until, strict=True)])
        firsts = [max(one.first, moment - np.timedelta64(window)) for one in known]
        ages = np.array([(moment - first) / np.timedelta64(minimum_history) for first in firsts])
        ages[~enough] = 0.0
        weight[i] = ages / (ages + 1.0)
        long_run[i] = _completed(known, plain, since, until, ages)
        if period is not None:
            stressed[i] = _completed(known, worst, since, until, ages)
    return References(moments, _pooled(long_run, weight), _pooled(stressed, weight), weight)


@dataclass(frozen=True)
class _Known:
    """Outcomes of a row that are numbers."""

    side: Side
    decided: Times
    known: Times
    values: FloatArray

    @classmethod
    def of(cls, outcomes: Outcomes) -> "_Known":
        there = np.isfinite(outcomes.values)
        return cls(
            outcomes.side, outcomes.decided[there], outcomes.known[there], outcomes.values[there]
        )

    @property
    def first(self) -> np.datetime64:
        return self.decided[0] if len(self.decided) else np.datetime64("NaT", "us")

    def since(self, moment: np.datetime64) -> int:
        return int(np.searchsorted(self.decided, moment, side="right"))

    def until(self, moment: np.datetime64) -> int:
        return int(np.searchsorted(self.known, moment, side="right"))


def _completed(
    known: Sequence[_Known],
    statistic: Callable[[_Known, slice], float],
    since: Sequence[int],
    until: Sequence[int],
    ages: FloatArray,
) -> FloatArray:
    """Return each row's own rate times what its missing years did to its elders' rates.

    Args:
        known: outcomes a row.
        statistic: the rate of some of a row's outcomes.
        since: first of each row's outcomes in the window.
        until: the first that is not known yet.
        ages: lengths of history in ``minimum_history``; 0 where there is too little.
    """
    rates = np.full(len(known), np.nan)
    for row in np.flatnonzero(ages > 0.0).tolist():
        rates[row] = statistic(known[row], slice(since[row], until[row]))
    completed = rates.copy()
    # contracts listed together ask their elders the same
    part: dict[tuple[int, np.datetime64], float] = {}
    for row in np.flatnonzero(ages > 0.0).tolist():
        elders = [
            other
            for other in np.flatnonzero(ages >= ages[row] + 1.0).tolist()
            if known[other].side == known[row].side
        ]
        start = known[row].decided[since[row]]
        ratios = []
        for other in elders:
            key = (other, start)
            if key not in part:
                first = int(np.searchsorted(known[other].decided, start))
                part[key] = statistic(known[other], slice(first, until[other]))
            if part[key] > 0.0:
                ratios.append(rates[other] / part[key])
        if ratios:
            completed[row] *= np.median(ratios)
    return completed


def _pooled(rates: FloatArray, weight: FloatArray) -> FloatArray:
    """Return rates drawn to the others' median, the more so the younger; NaN where nobody has one.

    Args:
        rates: shape (m, k), NaN where a row has none.
        weight: of each, 0.5 from ``minimum_history`` on.
    """
    pooled = np.full(rates.shape, np.nan)
    for i, row in enumerate(rates):
        grown = row[(weight[i] >= 0.5) & (row > 0.0)]
        if not grown.size:
            continue
        middle = np.log(np.median(grown))
        own = np.log(np.where(row > 0.0, row, 1.0))
        share = np.where(row > 0.0, weight[i], 0.0)
        pooled[i] = np.exp(share * own + (1.0 - share) * middle)
    return pooled


def _worst(values: FloatArray, period: npt.NDArray[np.int64], level: float) -> float:
    """Return the largest quantile of a period, at least that of the whole."""
    if not len(values):
        return math.nan
    edges = np.flatnonzero(np.diff(period)) + 1
    parts = np.split(values, edges)
    enough = FEWEST_IN_A_PERIOD * max(map(len, parts))
    quantiles = [float(np.quantile(part, level)) for part in parts if len(part) >= enough]
    return max(*quantiles, float(np.quantile(values, level)))
