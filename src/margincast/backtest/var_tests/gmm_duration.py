"""The GMM duration tests: do times between exceedances follow the geometric law of the level.

Responsible for the tests of Candelon, Colletaz, Hurlin and Tokpavi of unconditional coverage,
independence and conditional coverage, on moments of the spells that need no estimation by
likelihood and so exist in small samples.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np

from margincast.backtest.monte_carlo import SimulatedExceedances
from margincast.backtest.var_tests.judgement import TOO_FEW_TO_CLUSTER, judge, not_defined
from margincast.backtest.var_tests.sequences import Spells, require_hits, spells, sum_by_row
from margincast.backtest.verdicts import USUAL, Criterion, TestResult, chi_squared_p
from margincast.core.errors import InputError
from margincast.core.types import BoolArray, FloatArray
from margincast.scoring.coverage import require_level

USUAL_MOMENTS = 3
"""With which the paper finds the most power for conditional coverage (its tables 2 and 3)."""


def geometric_polynomials(lengths: FloatArray, probability: FloatArray, count: int) -> FloatArray:
    """Return the polynomials orthonormal under the geometric law on 1, 2, ...

    Each has mean 0, variance 1 and no correlation with the others where lengths are geometric.

    Args:
        lengths: spells, shape (n,).
        probability: of an exceedance, in (0, 1), shape (n,).
        count: number of polynomials p, degrees 1 to p.

    Returns:
        Values, shape (p, n).

    Source: Candelon et al. (2011), doi:10.1093/jjfinec/nbq025, definition 1 (Meixner polynomials).
    """
    scale = np.sqrt(1.0 - probability)
    before, current = np.zeros_like(lengths), np.ones_like(lengths)
    values = []
    for degree in range(count):
        slope = (1.0 - probability) * (2 * degree + 1) + probability * (degree - lengths + 1.0)
        following = (slope / scale * current - degree * before) / (degree + 1)
        before, current = current, following
        values.append(current)
    return np.array(values)


def gmm_unconditional_coverage_statistics(hits: BoolArray, level: float) -> FloatArray:
    """Return J with one moment of each sequence, shape (replications, T) to (replications,)."""
    found = spells(hits)
    return _joint(found, np.full(found.counts.size, 1.0 - require_level(level)), degrees=[1])


def gmm_unconditional_coverage(
    hits: BoolArray,
    level: float,
    criterion: Criterion = USUAL,
    *,
    monte_carlo: SimulatedExceedances | None = None,
) -> TestResult:
    """Test the mean spell, chi-squared with 1 degree of freedom.

    The spell left open by the end of the sample is closed by an exceedance imagined right after
    it: all spells then have one law, sum to T + 1, and exist without an exceedance too, so that
    this test, as all tests of one mean, sees the count alone. The authors' program takes the open
    spell, and the first, one decision shorter.

    Args:
        hits: exceedances in time order, shape (T,), booleans.
        level: the share not exceeded, in (0.5, 1).
        criterion: what fails, and what has too little power to pass.
        monte_carlo: simulated correct forecasts; adds the p-value that then decides.

    Raises:
        InputError: hits empty, not boolean; level outside (0.5, 1).

    Source: Candelon et al. (2011), doi:10.1093/jjfinec/nbq025.
    """
    hits, level = require_hits(hits), require_level(level)
    statistic = float(gmm_unconditional_coverage_statistics(hits[np.newaxis, :], level)[0])
    return judge(
        "gmm unconditional coverage",
        hits,
        level,
        criterion,
        statistic=statistic,
        p_value=chi_squared_p(statistic, 1),
        degrees_of_freedom=1,
        simulate=partial(gmm_unconditional_coverage_statistics, level=level),
        monte_carlo=monte_carlo,
    )


def gmm_independence_statistics(
    hits: BoolArray, level: float, moments: int = USUAL_MOMENTS
) -> FloatArray:
    """Return J of moments 2 to ``moments``, shape (replications, T) to (replications,).

    NaN without or with only exceedances; ``level`` is checked, J does not hang on it.
    """
    require_level(level)
    found = spells(hits)
    rate: FloatArray = (found.counts + 1.0) / (found.sample_size + 1.0)
    rate[(found.counts == 0) | (found.counts == found.sample_size)] = np.nan
    return _joint(found, rate, degrees=range(2, _require_moments(moments) + 1))


def gmm_independence(
    hits: BoolArray,
    level: float,
    criterion: Criterion = USUAL,
    *,
    moments: int = USUAL_MOMENTS,
    monte_carlo: SimulatedExceedances | None = None,
) -> TestResult:
    """Test whether spells are geometric with any probability, chi-squared(``moments`` - 1).

    The probability is estimated by the mean spell, which makes the first moment zero; the others
    are orthogonal to it, so estimation does not change their law. The authors' program estimates by
    the share of exceedances and takes ``moments`` degrees of freedom.
    The asymptotic p-value is timid: below fifty expected exceedances it rejects true forecasts 0.3
    to 2 % of the time.

    Args:
        hits: exceedances in time order, shape (T,), booleans.
        level: the share not exceeded, in (0.5, 1); decides power and simulation only.
        criterion: what fails, and what has too little power to pass.
        moments: number of polynomials, 2 or more.
        monte_carlo: simulated correct forecasts; adds the p-value that then decides.

    Raises:
        InputError: hits empty, not boolean; level outside (0.5, 1); fewer than 2 moments.

    Source: Candelon et al. (2011), doi:10.1093/jjfinec/nbq025.
    """
    hits, level = require_hits(hits), require_level(level)
    name = f"gmm independence, {_require_moments(moments)} moments"
    count = np.count_nonzero(hits)
    if count < 2:
        return not_defined(name, hits, TOO_FEW_TO_CLUSTER)
    if count == hits.size:
        return not_defined(name, hits, "every decision is an exceedance: nothing can cluster")
    statistic = float(gmm_independence_statistics(hits[np.newaxis, :], level, moments)[0])
    return judge(
        name,
        hits,
        level,
        criterion,
        statistic=statistic,
        p_value=chi_squared_p(statistic, moments - 1),
        degrees_of_freedom=moments - 1,
        simulate=partial(gmm_independence_statistics, level=level, moments=moments),
        monte_carlo=monte_carlo,
    )


def gmm_conditional_coverage_statistics(
    hits: BoolArray, level: float, moments: int = USUAL_MOMENTS
) -> FloatArray:
    """Return J of moments 1 to ``moments``, shape (replications, T) to (replications,)."""
    found = spells(hits)
    probability = np.full(found.counts.size, 1.0 - require_level(level))
    return _joint(found, probability, degrees=range(1, _require_moments(moments) + 1))


def gmm_conditional_coverage(
    hits: BoolArray,
    level: float,
    criterion: Criterion = USUAL,
    *,
    moments: int = USUAL_MOMENTS,
    monte_carlo: SimulatedExceedances | None = None,
) -> TestResult:
    """Test whether spells are geometric with probability 1 - level, chi-squared(``moments``).

    Higher moments of few spells are far from normal: the asymptotic p-value rejects true forecasts
    0.6 % of the time with 2.5 expected exceedances, 3 % with ten and 5 % with 250, and the paper
    too lets the Monte-Carlo one decide. Spells as in :func:`gmm_unconditional_coverage`.

    Other args and errors as :func:`gmm_independence`.

    Source: Candelon et al. (2011), doi:10.1093/jjfinec/nbq025.
    """
    hits, level = require_hits(hits), require_level(level)
    statistic = float(gmm_conditional_coverage_statistics(hits[np.newaxis, :], level, moments)[0])
    return judge(
        f"gmm conditional coverage, {moments} moments",
        hits,
        level,
        criterion,
        statistic=statistic,
        p_value=chi_squared_p(statistic, moments),
        degrees_of_freedom=moments,
        simulate=partial(gmm_conditional_coverage_statistics, level=level, moments=moments),
        monte_carlo=monte_carlo,
    )


def _joint(found: Spells, probability: FloatArray, degrees: Sequence[int]) -> FloatArray:
    """Add up n times the squared means of the polynomials of these degrees, shape (R,)."""
    replications = found.counts.size
    rows = np.concatenate([found.rows, np.arange(replications)])
    closing = found.sample_size + 1.0 - found.last_hits
    lengths = np.concatenate([found.lengths, closing])
    values = geometric_polynomials(lengths, probability[rows], max(degrees))
    joint = np.zeros(replications)
    for degree in degrees:
        joint += sum_by_row(rows, values[degree - 1], replications) ** 2
    return joint / (found.counts + 1.0)


def _require_moments(moments: int) -> int:
    if moments < 2:
        raise InputError(
            f"moments must be at least 2, found {moments}; the first one alone sees the count, "
            "which gmm_unconditional_coverage tests"
        )
    return moments
