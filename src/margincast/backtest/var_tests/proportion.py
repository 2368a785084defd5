"""Tests of the exceedance count: is the margin exceeded as often as its level promises.

Responsible for Kupiec's proportion of failures, the exact and the normal binomial test, the
interval of the exceedance probability, and the power of a count. All assume decisions whose
outcomes do not overlap: thin first (``dependence``).
"""

from functools import partial
from typing import Literal

import numpy as np
from scipy import special, stats

from margincast.backtest.monte_carlo import SimulatedExceedances
from margincast.backtest.var_tests.judgement import coverage_power, judge, require_counts
from margincast.backtest.var_tests.sequences import require_hits, require_sequences
from margincast.backtest.verdicts import USUAL, Criterion, TestResult, chi_squared_p
from margincast.core.errors import InputError
from margincast.core.types import BoolArray, FloatArray
from margincast.scoring.coverage import require_level

__all__ = [
    "Alternative",
    "coverage_power",
    "exact_binomial",
    "exact_binomial_statistics",
    "exceedance_probability_interval",
    "kupiec",
    "kupiec_statistic",
    "kupiec_statistics",
    "likelihood_ratio",
    "mid_p_binomial",
    "mid_p_binomial_statistics",
    "normal_binomial",
    "normal_binomial_statistics",
]

Alternative = Literal["two-sided", "greater", "less"]


def likelihood_ratio(counts: FloatArray, sizes: FloatArray | float, level: float) -> FloatArray:
    """Return Kupiec's likelihood ratio of counts in samples of given sizes, elementwise.

    Written as twice the relative entropy of observed to expected counts: no power is taken, so
    nothing underflows, and no exceedance (``-2 T log(level)``) or all are ordinary values.

    Args:
        counts: exceedances, any shape.
        sizes: decisions, the same shape or one number.
        level: the share not exceeded, checked.
    """
    hits_part = special.rel_entr(counts, sizes * (1.0 - level))
    quiet_part = special.rel_entr(sizes - counts, sizes * level)
    return np.asarray(np.maximum(0.0, 2.0 * (hits_part + quiet_part)), dtype=np.float64)


def kupiec_statistic(exceedance_count: int, sample_size: int, level: float) -> float:
    """Return Kupiec's likelihood ratio from counts alone, chi-squared with 1 degree of freedom.

    Raises:
        InputError: a count outside 0..T, T below 1, or level outside (0.5, 1).
    """
    level = require_counts(exceedance_count, sample_size, level)
    return float(likelihood_ratio(np.array(float(exceedance_count)), sample_size, level))


def kupiec_statistics(hits: BoolArray, level: float) -> FloatArray:
    """Return Kupiec's ratio of each sequence, shape (replications, T) to (replications,)."""
    hits = require_sequences(hits)
    return likelihood_ratio(_counts(hits), hits.shape[1], require_level(level))


def kupiec(
    hits: BoolArray,
    level: float,
    criterion: Criterion = USUAL,
    *,
    monte_carlo: SimulatedExceedances | None = None,
) -> TestResult:
    """Test the proportion of exceedances (two sided: too many and too few both fail).

    The asymptotic p-value rejects true forecasts 9 % of the time at 0.99 and T = 250 or 500, where
    few exceedances are expected, and 4 to 6 % from T = 1000 on; the Monte-Carlo one 5 %.

    Args:
        hits: exceedances in time order, shape (T,), booleans.
        level: the share not exceeded, in (0.5, 1).
        criterion: what fails, and what has too little power to pass.
        monte_carlo: simulated correct forecasts; adds the p-value that then decides.

    Raises:
        InputError: hits empty, not boolean; level outside (0.5, 1).

    Source: Kupiec (1995), doi:10.3905/jod.1995.407942.
    """
    hits, level = require_hits(hits), require_level(level)
    statistic = kupiec_statistic(int(np.count_nonzero(hits)), hits.size, level)
    return judge(
        "kupiec",
        hits,
        level,
        criterion,
        statistic=statistic,
        p_value=chi_squared_p(statistic, 1),
        degrees_of_freedom=1,
        simulate=partial(kupiec_statistics, level=level),
        monte_carlo=monte_carlo,
    )


def exact_binomial_statistics(
    hits: BoolArray, level: float, alternative: Alternative = "two-sided"
) -> FloatArray:
    """Return what the exact test orders samples by, shape (replications, T) to (replications,).

    The count ("greater"), its negative ("less"), or the negative logarithm of its probability.
    """
    hits, level = require_sequences(hits), require_level(level)
    counts = _counts(hits)
    if alternative == "two-sided":
        return -np.asarray(stats.binom.logpmf(counts, hits.shape[1], 1.0 - level), dtype=np.float64)
    return counts if alternative == "greater" else -counts


def exact_binomial(
    hits: BoolArray,
    level: float,
    criterion: Criterion = USUAL,
    *,
    alternative: Alternative = "two-sided",
    monte_carlo: SimulatedExceedances | None = None,
) -> TestResult:
    """Test the exceedance count against its exact law, valid for any T.

    ``alternative="greater"`` asks only about under-margining, P(X >= count). The two-sided p-value
    adds the probabilities of all counts no more probable than the observed one, the rule of R's
    ``binom.test`` and of scipy. The statistic reported is the count. Its size never exceeds the
    significance but may lie well below it; the Monte-Carlo p-value, which breaks ties at random,
    has the size exactly.

    Other args and errors as :func:`kupiec`.
    """
    hits, level = require_hits(hits), require_level(level)
    count = int(np.count_nonzero(hits))
    test = stats.binomtest(count, hits.size, 1.0 - level, alternative=alternative)
    name = "exact binomial" if alternative == "two-sided" else f"exact binomial, {alternative}"
    return judge(
        name,
        hits,
        level,
        criterion,
        statistic=float(count),
        p_value=float(test.pvalue),
        simulate=partial(exact_binomial_statistics, level=level, alternative=alternative),
        monte_carlo=monte_carlo,
    )


def mid_p_binomial_statistics(hits: BoolArray, level: float) -> FloatArray:
    """Return the exceedances of each sequence, shape (replications, T) to (replications,)."""
    return exact_binomial_statistics(hits, level, "greater")


def mid_p_binomial(
    hits: BoolArray,
    level: float,
    criterion: Criterion = USUAL,
    *,
    monte_carlo: SimulatedExceedances | None = None,
) -> TestResult:
    """Test for under-margining, the observed count with half its weight: P(X > c) + P(X = c) / 2.

    Less timid than the exact binomial: its size is near the significance, on either side of it.

    Args and errors as :func:`kupiec`.

    Source: Lancaster (1961), doi:10.1080/01621459.1961.10482105.
    """
    hits, level = require_hits(hits), require_level(level)
    count = int(np.count_nonzero(hits))
    law = (hits.size, 1.0 - level)
    return judge(
        "mid-p binomial",
        hits,
        level,
        criterion,
        statistic=float(count),
        p_value=float(stats.binom.sf(count, *law) + 0.5 * stats.binom.pmf(count, *law)),
        simulate=partial(mid_p_binomial_statistics, level=level),
        monte_carlo=monte_carlo,
    )


def normal_binomial_statistics(hits: BoolArray, level: float) -> FloatArray:
    """Return the absolute z of each sequence, shape (replications, T) to (replications,)."""
    hits, level = require_sequences(hits), require_level(level)
    return np.abs(_z_scores(_counts(hits), hits.shape[1], level))


def normal_binomial(
    hits: BoolArray,
    level: float,
    criterion: Criterion = USUAL,
    *,
    monte_carlo: SimulatedExceedances | None = None,
) -> TestResult:
    """Test the exceedance count by its normal approximation, without continuity correction.

    The statistic is signed: positive where the margin is exceeded too often. The p-value has two
    tails, as MATLAB's ``bin`` prints it today; its early releases printed one. With ten expected
    exceedances or fewer the approximation is poor: prefer :func:`exact_binomial`.

    Args and errors as :func:`kupiec`.

    Source: Jorion (2006), Value at Risk, ISBN 9780071464956, chapter 6; MATLAB Risk Management
    Toolbox, ``bin``.
    """
    hits, level = require_hits(hits), require_level(level)
    statistic = float(_z_scores(np.array(float(np.count_nonzero(hits))), hits.size, level))
    return judge(
        "normal binomial",
        hits,
        level,
        criterion,
        statistic=statistic,
        p_value=2.0 * float(special.ndtr(-abs(statistic))),
        simulate=partial(normal_binomial_statistics, level=level),
        monte_carlo=monte_carlo,
    )


def exceedance_probability_interval(
    exceedance_count: int, sample_size: int, confidence: float = 0.95
) -> tuple[float, float]:
    """Return the exact (Clopper-Pearson) interval of the exceedance probability.

    Each bound holds alone with confidence ``(1 + confidence) / 2``.

    Raises:
        InputError: a count outside 0..T, T below 1, or confidence outside (0, 1).

    Source: Clopper and Pearson (1934), doi:10.1093/biomet/26.4.404.
    """
    require_counts(exceedance_count, sample_size, 0.99)
    if not 0.0 < confidence < 1.0:
        raise InputError(f"confidence must lie in (0, 1), found {confidence:g}")
    tail, quiet = 0.5 * (1.0 - confidence), sample_size - exceedance_count
    lower, upper = 0.0, 1.0
    if exceedance_count:
        lower = float(special.betaincinv(exceedance_count, quiet + 1, tail))
    if quiet:
        upper = float(special.betaincinv(exceedance_count + 1, quiet, 1.0 - tail))
    return lower, upper


def _counts(hits: BoolArray) -> FloatArray:
    return np.asarray(np.count_nonzero(hits, axis=1), dtype=np.float64)


def _z_scores(counts: FloatArray, sample_size: int, level: float) -> FloatArray:
    expected = sample_size * (1.0 - level)
    return np.asarray((counts - expected) / np.sqrt(expected * level))
