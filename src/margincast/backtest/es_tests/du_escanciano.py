"""Du and Escanciano's tests of cumulative violations: deep enough on average, and not clustered.

Responsible for the dependence of losses beyond the margin: severities that come one after another
mean that the margin answered too late, even where their mean is right.
"""

import numpy as np
from scipy import special

from margincast.backtest.es_tests.costanzino_curran import severity_moments
from margincast.backtest.es_tests.severity import require_severity
from margincast.backtest.es_tests.simulated_tails import SimulatedTails, TailDraws
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
from margincast.scoring.coverage import require_level

CHUNK = 2_000_000
"""Simulated severities held at once."""

FEWER_THAN_TWO = "fewer than two exceedances say nothing about clustering"


def du_escanciano_unconditional(
    severity: FloatArray,
    level: float,
    criterion: Criterion = USUAL,
    *,
    monte_carlo: SimulatedTails | None = None,
) -> TestResult:
    """Test whether the mean severity is (1 - level) / 2, two sided.

    The statistic is the mean severity, as tstests and MATLAB's "unconditionalDE" give it; the
    asymptotic p-value is normal with :func:`severity_moments`. At few expected exceedances it
    rejects skewed: use the Monte-Carlo p-value, or the exact one of
    :func:`~margincast.backtest.es_tests.costanzino_curran.costanzino_curran`.

    Args:
        severity: in [0, 1], 0 without exceedance, shape (T,), in time order, one series whose
            outcomes do not overlap; see :mod:`~margincast.backtest.es_tests.severity`.
        level: of the quantile, in (0.5, 1).
        criterion: what fails, and what has too little power to pass.
        monte_carlo: adds the p-value under simulated correct forecasts.

    Raises:
        InputError: severities outside [0, 1], NaN, empty, not (T,); level outside (0.5, 1).

    Source: Du and Escanciano (2017), doi:10.1287/mnsc.2015.2342.
    """
    name = "du-escanciano unconditional"
    level = require_level(level)
    severity = require_severity(severity)
    size = severity.size
    mean, deviation = severity_moments(size, level)
    statistic = float(severity.mean())
    simulated_p = NAN
    if monte_carlo is not None:
        simulated_p = monte_carlo.p_value(
            name,
            lambda draws: np.abs(draws.total(1.0 - draws.share) / size - mean),
            abs(statistic - mean),
            size,
            level,
        )
    return conclude(
        name,
        statistic,
        2.0 * float(special.ndtr(-abs(statistic - mean) / deviation)),
        monte_carlo_p_value=simulated_p,
        sample_size=size,
        exceedances=int(np.count_nonzero(severity)),
        criterion=criterion,
        powerless=too_short(size, level, criterion),
    )


def du_escanciano_conditional(
    severity: FloatArray,
    level: float,
    criterion: Criterion = USUAL,
    *,
    lags: int = 5,
    monte_carlo: SimulatedTails | None = None,
) -> TestResult:
    """Test whether severities are uncorrelated at lags 1 to ``lags``, a Box-Pierce statistic.

    ``T sum_j rho_j^2``, autocovariances about the promised mean (1 - level) / 2 and divided by T -
    j, as in the paper and tstests; asymptotically chi-squared with ``lags`` degrees of freedom.
    Neighbouring severities are almost never both positive at far levels: at 5 % the chi-squared law
    rejects 11 % of correct forecasts at 0.99 and 7 % at 0.95; the Monte-Carlo p-value is exact.

    Args:
        severity: see :func:`du_escanciano_unconditional`, as the other arguments.
        level: see there.
        criterion: see there.
        lags: number of autocorrelations, at least 1.
        monte_carlo: see there.

    Raises:
        InputError: as there; lags below 1.

    Source: Du and Escanciano (2017), doi:10.1287/mnsc.2015.2342.
    """
    name = f"du-escanciano conditional, lags {lags}"
    level = require_level(level)
    severity = require_severity(severity)
    if lags < 1:
        raise InputError(f"lags must be at least 1, found {lags}")
    size, exceedances = severity.size, int(np.count_nonzero(severity))
    reason = FEWER_THAN_TWO if exceedances < 2 else ""
    if size <= lags:
        reason = f"{size} decisions have no autocorrelation at lag {lags}"
    if reason:
        return undefined(name, reason, sample_size=size, exceedances=exceedances)
    statistic = float(_box_pierce(severity[np.newaxis, :], level, lags)[0])
    simulated_p = NAN
    if monte_carlo is not None:
        simulated_p = monte_carlo.p_value(
            name, lambda draws: _simulated(draws, level, lags), statistic, size, level
        )
    return conclude(
        name,
        statistic,
        chi_squared_p(statistic, lags),
        degrees_of_freedom=lags,
        monte_carlo_p_value=simulated_p,
        sample_size=size,
        exceedances=exceedances,
        criterion=criterion,
        powerless=too_short(size, level, criterion),
    )


def _box_pierce(severities: FloatArray, level: float, lags: int) -> FloatArray:
    """Return the statistic of every row, shape (R, T) to (R,)."""
    size = severities.shape[1]
    deviation = severities - (1.0 - level) / 2.0
    variance = np.einsum("rt,rt->r", deviation, deviation) / size
    total = np.zeros(len(severities))
    for lag in range(1, lags + 1):
        products = np.einsum("rt,rt->r", deviation[:, lag:], deviation[:, :-lag])
        total += (products / (size - lag) / variance) ** 2
    return np.asarray(size * total)


def _simulated(draws: TailDraws, level: float, lags: int) -> FloatArray:
    """Return the statistics of simulated series, some at a time, shape (R,)."""
    statistics = np.empty(draws.replications)
    step = max(1, CHUNK // draws.sample_size)
    for start in range(0, draws.replications, step):
        stop = min(start + step, draws.replications)
        first, last = np.searchsorted(draws.series, (start, stop))
        severities = np.zeros((stop - start, draws.sample_size))
        chosen = slice(first, last)
        rows = draws.series[chosen] - start
        severities[rows, draws.position[chosen]] = 1.0 - draws.share[chosen]
        statistics[start:stop] = _box_pierce(severities, level, lags)
    return np.where(draws.counts > 1.0, statistics, np.nan)
