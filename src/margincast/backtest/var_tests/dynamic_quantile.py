"""Dynamic quantile test: can an exceedance be predicted from what was known before it.

Responsible for catching margins that are right on average and wrong when it matters: exceedances
after exceedances, or mostly where the forecast is low. Assumes outcomes that do not overlap.
"""

from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import sparse

from margincast.backtest.monte_carlo import SimulatedExceedances, luck_of, rank_p_value
from margincast.backtest.var_tests.forecast_series import require_series
from margincast.backtest.var_tests.judgement import too_short
from margincast.backtest.verdicts import (
    NAN,
    USUAL,
    Criterion,
    TestResult,
    chi_squared_p,
    conclude,
    undefined,
)
from margincast.core.errors import InputError
from margincast.core.types import FloatArray

NAME = "dynamic quantile"

Regressors = Literal["usual", "squared outcome"]
"""The usual set of Engle and Manganelli, or that of R's GAS, which adds a column."""

COLLINEAR = 1e-10
"""Directions with a smaller share of a column's variance are not told apart from none."""


def dynamic_quantile(
    outcome: FloatArray,
    forecast: FloatArray,
    level: float,
    criterion: Criterion = USUAL,
    *,
    lags: int = 4,
    regressors: Regressors = "usual",
    monte_carlo: SimulatedExceedances | None = None,
) -> TestResult:
    """Regress centred exceedances on what was known, and test that nothing explains them.

    With ``hit = 1{outcome > forecast} - (1 - level)`` and X the regressors at the T - lags
    decisions that have all of them, it is ``hit'X (X'X)^-1 X'hit / (level (1 - level))``. The
    usual X is a constant, the forecast of the same decision and the last ``lags`` hits (degrees of
    freedom lags + 2). R's GAS adds the squared last outcome (lags + 3), which makes it another
    test: for daily BTCUSDT at 0.99 it flips the verdict on historical simulation. Columns that
    repeat others (a constant margin, no exceedance among the lags) add nothing to the statistic;
    the degrees of freedom still count them, as in GAS, so that the p-value errs upwards.

    The asymptotic p-value rejects true forecasts too often where few exceedances are expected: in
    10, 17, 10 and 8 % of samples at level 0.99 and T = 250, 500, 1000 and 5000 (5 to 7 % at 0.95),
    because one exceedance soon after another weighs so much. The Monte-Carlo p-value is exact for
    forecasts that do not react to exceedances: it holds the forecasts fixed and draws exceedances
    anew.

    Args:
        outcome: realised adverse excursions in time order, simple fractions, shape (T,).
        forecast: quantile forecasts at ``level``, simple fractions, shape (T,).
        level: the share not exceeded, in (0.5, 1).
        criterion: what fails, and what has too little power to pass.
        lags: number of earlier hits among the regressors, at least 1.
        regressors: "usual", or "squared outcome" as in GAS.
        monte_carlo: simulated correct forecasts; adds the p-value that then decides, for the usual
            regressors only (the law of the squared outcome is not known).

    Returns:
        The result; undefined where T - lags does not exceed the number of regressors.

    Raises:
        InputError: lags below 1; level outside (0.5, 1); shapes differ or are not (T,); empty,
            NaN, infinite or in per cent.

    Source: Engle and Manganelli (2004), doi:10.1198/073500104000000370.
    """
    outcome, forecast, level = require_series(outcome, forecast, level)
    if lags < 1:
        raise InputError(f"lags must be at least 1, found {lags}")
    hits = outcome > forecast
    counts = {"sample_size": hits.size, "exceedances": int(np.count_nonzero(hits))}
    degrees_of_freedom = lags + (2 if regressors == "usual" else 3)
    if hits.size - lags <= degrees_of_freedom:
        reason = f"{hits.size} decisions are too few for {degrees_of_freedom} regressors"
        return undefined(NAME, reason, **counts)
    known = [_centred(forecast[lags:])]
    if regressors == "squared outcome":
        known.append(_centred(outcome[lags - 1 : -1] ** 2))
    statistic = _statistic(hits, np.array(known), level, lags)
    simulated_p = NAN
    if monte_carlo is not None and regressors == "usual":
        drawn = _drawn(monte_carlo.replications, monte_carlo.seed, hits.size, level, lags)
        generator = np.random.default_rng((monte_carlo.seed, luck_of(hits)))
        simulated_p = rank_p_value(statistic, drawn.statistics(known[0], level), generator)
    return conclude(
        NAME,
        statistic,
        chi_squared_p(statistic, degrees_of_freedom),
        degrees_of_freedom=degrees_of_freedom,
        monte_carlo_p_value=simulated_p,
        criterion=criterion,
        powerless=too_short(hits.size, level, criterion),
        **counts,
    )


def _centred(values: FloatArray) -> FloatArray:
    """Subtract the mean; a constant becomes exact zeros."""
    deviation = values - values.mean()
    if np.max(np.abs(deviation)) <= COLLINEAR * np.max(np.abs(values)):
        return np.zeros_like(deviation)
    return np.asarray(deviation)


def _statistic(hits: npt.NDArray[np.bool_], known: FloatArray, level: float, lags: int) -> float:
    """Return the statistic of one sequence, by its definition; ``known`` has shape (m, T - lags).

    Lagged hits enter as 0 and 1: with the constant they span the same space.
    """
    size = hits.size - lags
    lagged = np.array([hits[lags - shift : hits.size - shift] for shift in range(lags + 1)])
    indicators = lagged.astype(np.float64)
    shares = indicators.mean(axis=1)
    indicators -= shares[:, np.newaxis]
    columns = np.vstack([known, indicators[1:]])
    moments, gram = columns @ indicators[0], columns @ columns.T
    excess = shares[0] - (1.0 - level)
    explained = size * excess**2 + _projected(moments[np.newaxis], gram[np.newaxis])[0]
    return float(explained / (level * (1.0 - level)))


def _projected(moments: FloatArray, gram: FloatArray) -> FloatArray:
    """Return ``m' G^+ m`` for each of R moments, shape (R, k), and Gram matrices, (R, k, k)."""
    variances = np.diagonal(gram, axis1=1, axis2=2)
    scale = 1.0 / np.sqrt(np.where(variances > 0.0, variances, np.inf))
    values, vectors = np.linalg.eigh(gram * scale[:, :, np.newaxis] * scale[:, np.newaxis, :])
    shares = np.einsum("rij,ri->rj", vectors, moments * scale)
    inverse = np.zeros_like(values)
    np.divide(1.0, values, where=values > COLLINEAR, out=inverse)
    return np.asarray(np.sum(shares**2 * inverse, axis=1))


@dataclass(frozen=True)
class _DrawnHits:
    """Simulated hits as positions, and all their moments that hang on no forecast.

    Column i is the hits i decisions earlier, i = 0..lags, at the T - lags decisions with all lags.
    """

    positions: sparse.csr_array
    counts: FloatArray
    products: FloatArray

    def statistics(self, known: FloatArray, level: float) -> FloatArray:
        """Return the statistics with these forecasts, centred, shape (T - lags,)."""
        lags, size = self.counts.shape[1] - 1, known.size
        shifted = np.zeros((size + lags, lags + 1))
        for shift in range(lags + 1):
            shifted[lags - shift : size + lags - shift, shift] = known
        with_known = self.positions @ shifted
        centred = self.products - self.counts[:, :, np.newaxis] * self.counts[:, np.newaxis] / size
        gram = np.empty((len(self.counts), lags + 1, lags + 1))
        gram[:, 0, 0] = known @ known
        gram[:, 0, 1:] = gram[:, 1:, 0] = with_known[:, 1:]
        gram[:, 1:, 1:] = centred[:, 1:, 1:]
        moments = np.column_stack([with_known[:, 0], centred[:, 0, 1:]])
        excess = self.counts[:, 0] / size - (1.0 - level)
        explained = size * excess**2 + _projected(moments, gram)
        return np.asarray(explained / (level * (1.0 - level)))


@lru_cache(maxsize=4)
def _drawn(replications: int, seed: int, sample_size: int, level: float, lags: int) -> _DrawnHits:
    """Draw hits once for all series of a length, and count what their gaps say."""
    hits = SimulatedExceedances(replications, seed).sequences(sample_size, level)
    rows, times = np.divmod(np.flatnonzero(hits), sample_size)
    products = np.zeros((replications, lags + 1, lags + 1))
    for shift in range(lags + 1):
        inside = (times >= lags - shift) & (times < sample_size - shift)
        products[:, shift, shift] = np.bincount(rows[inside], minlength=replications)
    for late, early in combinations(range(lags + 1), 2):
        # a hit `early` decisions ago, and another one `late` decisions ago
        inside = (times >= lags - early) & (times < sample_size - early)
        both = inside.copy()
        both[inside] = hits[rows[inside], times[inside] + early - late]
        pairs = np.bincount(rows[both], minlength=replications)
        products[:, late, early] = products[:, early, late] = pairs
    ones = np.ones(rows.size)
    positions = sparse.csr_array((ones, (rows, times)), shape=hits.shape)
    counts = np.diagonal(products, axis1=1, axis2=2).astype(np.float64)
    return _DrawnHits(positions, counts, products)
