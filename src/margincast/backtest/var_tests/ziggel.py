"""The tests of Ziggel, Berens, Weiss and Wied: too many exceedances, or exceedances in clusters.

Responsible for their unconditional coverage, independence (i.i.d.) and conditional coverage tests.
The paper takes all p-values from simulation; here the law of the first is exact and that of the
other two known closely enough to stand without, and simulation is there for those who ask.
"""

from functools import partial

import numpy as np
from scipy import stats

from margincast.backtest.monte_carlo import SimulatedExceedances
from margincast.backtest.var_tests.judgement import TOO_FEW_TO_CLUSTER, judge, not_defined
from margincast.backtest.var_tests.proportion import Alternative
from margincast.backtest.var_tests.sequences import Spells, require_hits, spells
from margincast.backtest.var_tests.spacings import squared_spacing_moments, squared_spacing_tail
from margincast.backtest.verdicts import USUAL, Criterion, TestResult
from margincast.core.errors import InputError
from margincast.core.types import BoolArray, FloatArray
from margincast.scoring.coverage import require_level

WEIGHT_OF_COVERAGE = 0.5
"""Of the count against the clusters in the joint statistic, the paper's choice."""

_ROUNDING = 1e-12


def ziggel_unconditional_coverage_statistics(
    hits: BoolArray, level: float, alternative: Alternative = "two-sided"
) -> FloatArray:
    """Return the excess of exceedances of each sequence, (replications, T) to (replications,).

    Observed less expected over expected; its absolute value, or its negative ("less").
    """
    found = spells(hits)
    excess = _excess(found.counts, found.sample_size, require_level(level))
    if alternative == "two-sided":
        return np.abs(excess)
    return excess if alternative == "greater" else -excess


def ziggel_unconditional_coverage(
    hits: BoolArray,
    level: float,
    criterion: Criterion = USUAL,
    *,
    alternative: Alternative = "two-sided",
    monte_carlo: SimulatedExceedances | None = None,
) -> TestResult:
    """Test the exceedance count by its distance from the expected one.

    The p-value is exact, from the binomial law; two-sided it is the probability of a count at least
    as far from the expected one on either side (Kupiec and the exact binomial order counts by
    likelihood instead). The statistic reported is the count. The paper adds a small random number
    to break ties, which the Monte-Carlo p-value does too.

    Args:
        hits: exceedances in time order, shape (T,), booleans.
        level: the share not exceeded, in (0.5, 1).
        criterion: what fails, and what has too little power to pass.
        alternative: "greater" asks about under-margining only, "less" about over-margining.
        monte_carlo: simulated correct forecasts; adds the p-value that then decides.

    Raises:
        InputError: hits empty, not boolean; level outside (0.5, 1).

    Source: Ziggel, Berens, Weiss and Wied (2014), doi:10.1016/j.jbankfin.2014.07.005.
    """
    hits, level = require_hits(hits), require_level(level)
    count = int(np.count_nonzero(hits))
    below, above = float(count), float(count)
    if alternative == "two-sided":
        expected = hits.size * (1.0 - level)
        # a count as far on the other side, up to rounding, belongs to the tail
        distance = abs(count - expected) * (1.0 - _ROUNDING)
        below, above = np.floor(expected - distance), np.ceil(expected + distance)
    p_value = 0.0
    if alternative != "greater":
        p_value += float(stats.binom.cdf(below, hits.size, 1.0 - level))
    if alternative != "less":
        p_value += float(stats.binom.sf(above - 1.0, hits.size, 1.0 - level))
    name = "ziggel unconditional coverage"
    return judge(
        name if alternative == "two-sided" else f"{name}, {alternative}",
        hits,
        level,
        criterion,
        statistic=float(count),
        p_value=min(1.0, p_value),
        simulate=partial(
            ziggel_unconditional_coverage_statistics, level=level, alternative=alternative
        ),
        monte_carlo=monte_carlo,
    )


def ziggel_independence_statistics(hits: BoolArray, level: float) -> FloatArray:
    """Return how unusual the squared spells are, shape (replications, T) to (replications,).

    Less the probability of as large a sum given the count: sums at different counts cannot be
    compared. NaN with fewer than two exceedances; ``level`` is checked, not used.
    """
    require_level(level)
    found = spells(hits)
    tail = squared_spacing_tail(_squared_spells(found), found.counts, found.sample_size)
    return np.where(found.counts > 1, -tail, np.nan)


def ziggel_independence(
    hits: BoolArray,
    level: float,
    criterion: Criterion = USUAL,
    *,
    monte_carlo: SimulatedExceedances | None = None,
) -> TestResult:
    """Test whether exceedances come in clusters, given their number (one sided).

    The statistic is the sum of squared spells, ``t_1^2 + sum (t_i - t_(i-1))^2 + (T - t_m)^2``,
    smallest when exceedances are evenly spaced. Its law given m does not hang on the exceedance
    probability, so this test keeps its size where coverage is wrong. The p-value is that of a gamma
    law with the exact first three moments.

    Args:
        hits: exceedances in time order, shape (T,), booleans.
        level: the share not exceeded, in (0.5, 1); decides power and simulation only.
        criterion: what fails, and what has too little power to pass.
        monte_carlo: simulated correct forecasts; adds the p-value that then decides.

    Raises:
        InputError: hits empty, not boolean; level outside (0.5, 1).

    Source: Ziggel, Berens, Weiss and Wied (2014), doi:10.1016/j.jbankfin.2014.07.005.
    """
    hits, level = require_hits(hits), require_level(level)
    found = spells(hits[np.newaxis, :])
    if found.counts[0] < 2:
        return not_defined("ziggel independence", hits, TOO_FEW_TO_CLUSTER)
    statistic = _squared_spells(found)
    return judge(
        "ziggel independence",
        hits,
        level,
        criterion,
        statistic=float(statistic[0]),
        p_value=float(squared_spacing_tail(statistic, found.counts, hits.size)[0]),
        simulate=partial(ziggel_independence_statistics, level=level),
        monte_carlo=monte_carlo,
    )


def ziggel_conditional_coverage_statistics(
    hits: BoolArray, level: float, weight: float = WEIGHT_OF_COVERAGE
) -> FloatArray:
    """Return the joint statistic of each sequence, (replications, T) to (replications,)."""
    found = spells(hits)
    count_part = np.abs(_excess(found.counts, found.sample_size, require_level(level)))
    expected: FloatArray = squared_spacing_moments(found.counts, found.sample_size)[0]
    cluster_part = np.maximum(0.0, _squared_spells(found) / expected - 1.0)
    return weight * count_part + (1.0 - weight) * cluster_part


def ziggel_conditional_coverage(
    hits: BoolArray,
    level: float,
    criterion: Criterion = USUAL,
    *,
    weight: float = WEIGHT_OF_COVERAGE,
    monte_carlo: SimulatedExceedances | None = None,
) -> TestResult:
    """Test coverage and clusters together, with a weight of one against the other.

    The statistic is ``a |count / expected - 1| + (1 - a) max(0, squares / expected - 1)``, where
    the squares are those of :func:`ziggel_independence` and expected given the count, by formula
    (the paper simulates that expectation). The p-value mixes the law of the squares over the
    binomial law of the count.

    Args:
        hits: exceedances in time order, shape (T,), booleans.
        level: the share not exceeded, in (0.5, 1).
        criterion: what fails, and what has too little power to pass.
        weight: a, of the count, in [0, 1).
        monte_carlo: simulated correct forecasts; adds the p-value that then decides.

    Raises:
        InputError: hits empty, not boolean; level outside (0.5, 1); weight outside [0, 1).

    Source: Ziggel, Berens, Weiss and Wied (2014), doi:10.1016/j.jbankfin.2014.07.005.
    """
    hits, level = require_hits(hits), require_level(level)
    statistics = partial(
        ziggel_conditional_coverage_statistics, level=level, weight=_require_weight(weight)
    )
    statistic = float(statistics(hits[np.newaxis, :])[0])
    name = "ziggel conditional coverage"
    return judge(
        name if weight == WEIGHT_OF_COVERAGE else f"{name}, weight {weight:g}",
        hits,
        level,
        criterion,
        statistic=statistic,
        p_value=_joint_tail(statistic, hits.size, level, weight),
        simulate=statistics,
        monte_carlo=monte_carlo,
    )


def _joint_tail(statistic: float, sample_size: int, level: float, weight: float) -> float:
    law = (sample_size, 1.0 - level)
    counts = np.arange(stats.binom.ppf(_ROUNDING, *law), stats.binom.isf(_ROUNDING, *law) + 1.0)
    count_part = weight * np.abs(_excess(counts, sample_size, level))
    needed = (statistic - count_part) / (1.0 - weight)
    expected = squared_spacing_moments(counts, sample_size)[0]
    tail = squared_spacing_tail(expected * (1.0 + needed), counts, sample_size)
    # counts that are far enough without a cluster, up to rounding
    tail[needed <= _ROUNDING] = 1.0
    return min(1.0, float(stats.binom.pmf(counts, *law) @ tail))


def _excess(counts: FloatArray, sample_size: int, level: float) -> FloatArray:
    return counts / (sample_size * (1.0 - level)) - 1.0


def _squared_spells(found: Spells) -> FloatArray:
    closing = found.sample_size - found.last_hits
    return found.sums(found.lengths**2) + closing**2


def _require_weight(weight: float) -> float:
    if not 0.0 <= weight < 1.0:
        raise InputError(f"weight must lie in [0, 1), found {weight:g}")
    return weight
