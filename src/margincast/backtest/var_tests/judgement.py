"""From a statistic of exceedances to a verdict, the same way in every test.

Responsible for the Monte-Carlo p-value and for the words "no power": whether a sample of this
length could have shown the under-margining it is asked about.
"""

from functools import lru_cache

import numpy as np
from scipy import stats

from margincast.backtest.monte_carlo import HitStatistic, SimulatedExceedances
from margincast.backtest.verdicts import NAN, USUAL, Criterion, TestResult, conclude, undefined
from margincast.core.errors import InputError
from margincast.core.types import BoolArray
from margincast.scoring.coverage import require_level

TOO_FEW_TO_CLUSTER = "fewer than two exceedances say nothing about clustering"


def require_counts(exceedance_count: int, sample_size: int, level: float) -> float:
    """Return the level if it and the counts are possible.

    Raises:
        InputError: a count outside 0..T, T below 1, or level outside (0.5, 1).
    """
    level = require_level(level)
    if sample_size < 1 or not 0 <= exceedance_count <= sample_size:
        raise InputError(
            f"found {exceedance_count} exceedances in {sample_size} decisions; there must be at "
            "least one decision, and from 0 to that many exceedances"
        )
    return level


def coverage_power(sample_size: int, level: float, criterion: Criterion = USUAL) -> float:
    """Return the exact power of the one-sided binomial test against an exceedance ratio.

    Args:
        sample_size: number of decisions T whose outcomes do not overlap.
        level: the share not exceeded, in (0.5, 1).
        criterion: the significance that the test's size may not exceed, and the true exceedance
            ratio (observed / nominal) to detect.

    Returns:
        The probability of rejecting when exceedances happen that many times as often as promised.
        About 0.65 for T = 2190 (two years of 8 h windows), level 0.99 and ratio 1.5.

    Raises:
        InputError: T below 1, level outside (0.5, 1), or a ratio too large for the level.
    """
    level = require_counts(0, sample_size, level)
    truth = criterion.detectable_ratio * (1.0 - level)
    if truth > 1.0:
        raise InputError(
            f"an exceedance ratio of {criterion.detectable_ratio:g} is impossible at level "
            f"{level:g}; it can be at most {1.0 / (1.0 - level):g}"
        )
    return _binomial_power(sample_size, 1.0 - level, truth, criterion.significance)


def too_short(sample_size: int, level: float, criterion: Criterion) -> str:
    """Return why a sample of this size has no power at this level, or an empty string."""
    power = coverage_power(sample_size, level, criterion)
    if power >= criterion.minimum_power:
        return ""
    return (
        f"{sample_size} decisions at level {level:g} show {criterion.detectable_ratio:g} times the "
        f"promised exceedances with probability {power:.2f} only"
    )


def judge(
    name: str,
    hits: BoolArray,
    level: float,
    criterion: Criterion,
    *,
    statistic: float,
    p_value: float,
    degrees_of_freedom: int = 0,
    simulate: HitStatistic,
    monte_carlo: SimulatedExceedances | None,
    powerless: str = "",
) -> TestResult:
    """Make the result of a test of exceedances whose statistic exists.

    Args:
        name: the test, with whatever its statistic hangs on beside the exceedances.
        hits: checked exceedances, shape (T,).
        level: the share not exceeded, checked.
        criterion: what fails, and what has too little power to pass.
        statistic: as published.
        p_value: asymptotic, approximate or exact.
        degrees_of_freedom: of the chi-squared law behind it; 0 for another law.
        simulate: the statistic that is large when forecasts are wrong, of many sequences.
        monte_carlo: simulated sequences; no Monte-Carlo p-value without them.
        powerless: why the test could not have told, where that hangs on more than T.
    """
    simulated_p = NAN
    if monte_carlo is not None:
        simulated_p = monte_carlo.p_value(name, simulate, hits, level)
    return conclude(
        name,
        statistic,
        p_value,
        degrees_of_freedom=degrees_of_freedom,
        monte_carlo_p_value=simulated_p,
        sample_size=hits.size,
        exceedances=int(np.count_nonzero(hits)),
        criterion=criterion,
        powerless=powerless or too_short(hits.size, level, criterion),
    )


def not_defined(name: str, hits: BoolArray, reason: str) -> TestResult:
    """Make the result of a test of exceedances whose statistic does not exist, shape (T,)."""
    return undefined(name, reason, sample_size=hits.size, exceedances=int(np.count_nonzero(hits)))


@lru_cache(maxsize=4096)
def _binomial_power(sample_size: int, promised: float, truth: float, significance: float) -> float:
    # The smallest k with P(X > k) <= significance: the test rejects beyond it.
    largest_accepted = stats.binom.isf(significance, sample_size, promised)
    return float(stats.binom.sf(largest_accepted, sample_size, truth))
