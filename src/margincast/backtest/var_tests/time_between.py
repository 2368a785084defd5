"""Tests of the decisions between exceedances: too soon, too late, or too irregular.

Responsible for Kupiec's time until the first failure and for Haas's time between failures, alone
and together with the proportion. Each spell is held against the level by Kupiec's ratio of one
exceedance in so many decisions.
"""

from functools import lru_cache, partial

import numpy as np

from margincast.backtest.monte_carlo import SimulatedExceedances
from margincast.backtest.var_tests.judgement import judge, not_defined
from margincast.backtest.var_tests.proportion import (
    kupiec_statistic,
    kupiec_statistics,
    likelihood_ratio,
)
from margincast.backtest.var_tests.sequences import Spells, require_hits, spells
from margincast.backtest.verdicts import USUAL, Criterion, TestResult, chi_squared_p
from margincast.core.types import BoolArray, FloatArray
from margincast.scoring.coverage import require_level

NONE_YET = "no exceedance yet, and too few decisions for that to be unusual"


def tuff_statistics(hits: BoolArray, level: float) -> FloatArray:
    """Return the first spell's ratio of each sequence, shape (replications, T) to (replications,).

    NaN as :func:`tuff` says.
    """
    return _first_ratio(spells(hits), require_level(level))


def tuff(
    hits: BoolArray,
    level: float,
    criterion: Criterion = USUAL,
    *,
    monte_carlo: SimulatedExceedances | None = None,
) -> TestResult:
    """Test the time until the first failure, chi-squared with 1 degree of freedom.

    Two sided: the first exceedance may come too early or too late. One spell is all the test sees,
    so its power is low however long the sample, and its asymptotic p-value stays approximate for
    any T. Without an exceedance the ratio is that of one right after the sample, from which it can
    only grow: it exists where T > 1 / (1 - level), and is undefined before. MATLAB reports it in
    the same case, and only when it fails.

    Args:
        hits: exceedances in time order, shape (T,), booleans.
        level: the share not exceeded, in (0.5, 1).
        criterion: what fails, and what has too little power to pass.
        monte_carlo: simulated correct forecasts; adds the p-value that then decides.

    Raises:
        InputError: hits empty, not boolean; level outside (0.5, 1).

    Source: Kupiec (1995), doi:10.3905/jod.1995.407942; MATLAB Risk Management Toolbox, ``tuff``.
    """
    hits, level = require_hits(hits), require_level(level)
    statistic = float(tuff_statistics(hits[np.newaxis, :], level)[0])
    if np.isnan(statistic):
        return not_defined("tuff", hits, NONE_YET)
    return judge(
        "tuff",
        hits,
        level,
        criterion,
        statistic=statistic,
        p_value=chi_squared_p(statistic, 1),
        degrees_of_freedom=1,
        simulate=partial(tuff_statistics, level=level),
        monte_carlo=monte_carlo,
    )


def tbfi_statistics(hits: BoolArray, level: float) -> FloatArray:
    """Return the standardised sum of ratios, shape (replications, T) to (replications,).

    ``(sum - x mean) / (sd sqrt(x))`` for x exceedances, with mean and standard deviation of the
    ratio of one geometric spell: sums of different numbers of spells cannot be compared.
    """
    found, level = spells(hits), require_level(level)
    mean, variance = _ratio_moments(level)
    count = np.maximum(found.counts, 1)
    return (_sum_of_ratios(found, level) - count * mean) / np.sqrt(count * variance)


def tbfi(
    hits: BoolArray,
    level: float,
    criterion: Criterion = USUAL,
    *,
    monte_carlo: SimulatedExceedances | None = None,
) -> TestResult:
    """Test all times between failures, chi-squared with as many degrees of freedom as exceedances.

    The sum of :func:`tuff`'s ratio over all spells, the first one included and the open one after
    the last exceedance left out; without an exceedance, ``tuff`` itself. The chi-squared law is
    wrong for any T: the ratio of one spell has mean 2 x 0.577 (Euler's constant, exact for
    exponential spells), not 1, so true forecasts fail more often the longer the sample: 6 % of the
    time with 2.5 expected exceedances, 18 % with 50, 47 % with 250. The Monte-Carlo p-value holds
    its size; without it, do not let this test decide alone.

    Args and errors as :func:`tuff`.

    Source: Haas (2001), New methods in backtesting, Research Center Caesar, Bonn; MATLAB Risk
    Management Toolbox, ``tbfi``.
    """
    hits, level = require_hits(hits), require_level(level)
    found = spells(hits[np.newaxis, :])
    statistic = float(_sum_of_ratios(found, level)[0])
    if np.isnan(statistic):
        return not_defined("tbfi", hits, NONE_YET)
    degrees_of_freedom = max(1, int(found.counts[0]))
    return judge(
        "tbfi",
        hits,
        level,
        criterion,
        statistic=statistic,
        p_value=chi_squared_p(statistic, degrees_of_freedom),
        degrees_of_freedom=degrees_of_freedom,
        simulate=partial(tbfi_statistics, level=level),
        monte_carlo=monte_carlo,
    )


def tbf_statistics(hits: BoolArray, level: float) -> FloatArray:
    """Return the standardised joint ratio, shape (replications, T) to (replications,).

    As :func:`tbfi_statistics`, Kupiec's ratio added with the mean 1 and variance 2 of its law.
    """
    found, level = spells(hits), require_level(level)
    mean, variance = _ratio_moments(level)
    count = np.maximum(found.counts, 1)
    joint = kupiec_statistics(hits, level) + _sum_of_ratios(found, level)
    return (joint - 1.0 - count * mean) / np.sqrt(2.0 + count * variance)


def tbf(
    hits: BoolArray,
    level: float,
    criterion: Criterion = USUAL,
    *,
    monte_carlo: SimulatedExceedances | None = None,
) -> TestResult:
    """Test proportion and times between failures together: Kupiec's ratio plus :func:`tbfi`'s.

    Chi-squared with one degree of freedom more than exceedances, as MATLAB has it; the same
    warning as for :func:`tbfi` holds. Without an exceedance the open spell counts as one, which
    makes 13 % of true forecasts fail at 0.99 and T = 250 (MATLAB then reports no ratio and lets the
    two parts decide); by Monte Carlo 5 % do.

    Args and errors as :func:`tuff`.

    Source: Haas (2001), New methods in backtesting, Research Center Caesar, Bonn; MATLAB Risk
    Management Toolbox, ``tbf``.
    """
    hits, level = require_hits(hits), require_level(level)
    found = spells(hits[np.newaxis, :])
    between = float(_sum_of_ratios(found, level)[0])
    if np.isnan(between):
        return not_defined("tbf", hits, NONE_YET)
    statistic = between + kupiec_statistic(int(found.counts[0]), hits.size, level)
    degrees_of_freedom = 1 + max(1, int(found.counts[0]))
    return judge(
        "tbf",
        hits,
        level,
        criterion,
        statistic=statistic,
        p_value=chi_squared_p(statistic, degrees_of_freedom),
        degrees_of_freedom=degrees_of_freedom,
        simulate=partial(tbf_statistics, level=level),
        monte_carlo=monte_carlo,
    )


def _first_ratio(found: Spells, level: float) -> FloatArray:
    first = found.firsts()
    if found.sample_size * (1.0 - level) > 1.0:
        first[found.counts == 0] = found.sample_size + 1.0
    return likelihood_ratio(np.ones_like(first), first, level)


def _sum_of_ratios(found: Spells, level: float) -> FloatArray:
    """Return the sum over finished spells; without one, :func:`tuff`'s ratio; shape (R,)."""
    total = found.sums(likelihood_ratio(np.ones_like(found.lengths), found.lengths, level))
    return np.where(found.counts > 0, total, _first_ratio(found, level))


@lru_cache(maxsize=64)
def _ratio_moments(level: float) -> tuple[float, float]:
    """Return mean and variance of the ratio of one geometric spell."""
    # longer spells than fifty times the expected one have probability exp(-50)
    lengths = np.arange(1.0, np.ceil(50.0 / (1.0 - level)) + 1.0)
    probability = (1.0 - level) * np.power(level, lengths - 1.0)
    ratio = likelihood_ratio(np.ones_like(lengths), lengths, level)
    mean = float(probability @ ratio)
    return mean, float(probability @ (ratio - mean) ** 2)
