"""Tests of a margin's coverage: is the exceedance count, and its timing, what the level promises.

Responsible for the verdict next to a margin's exceedances: the Basel traffic light, Kupiec's
proportion of failures, Christoffersen's independence and conditional coverage, and the exact
binomial. All assume decisions whose outcomes do not overlap: thin first (``dependence``).
"""

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
from scipy import special, stats

from margincast.core.errors import InputError
from margincast.core.types import BoolArray
from margincast.scoring.coverage import require_level

Verdict = Literal["pass", "fail", "no power"]
Zone = Literal["green", "yellow", "red"]
Alternative = Literal["two-sided", "greater", "less"]

YELLOW_PROBABILITY = 0.95
RED_PROBABILITY = 0.9999
"""Zone limits on P(X <= count): Basel Committee (1996), Supervisory framework for the use of
"backtesting" in conjunction with the internal models approach, section III."""

_PLUS_FACTOR_1996 = {5: 0.40, 6: 0.50, 7: 0.65, 8: 0.75, 9: 0.85}
_MULTIPLIER_MAR99 = {5: 1.70, 6: 1.76, 7: 1.83, 8: 1.88, 9: 1.92}


@dataclass(frozen=True)
class Criterion:
    """When a test fails, and when it may not be called passed.

    Attributes:
        significance: a smaller p-value fails; 0.05 is the convention of every source below.
        detectable_ratio: the under-margining a sample must be able to show, as an exceedance
            ratio: by default half as many exceedances again as promised.
        minimum_power: the least probability of showing it; 0.8 is customary (Cohen 1988,
            ISBN 9780805802832, chapter 2).

    Raises:
        InputError: significance or minimum power outside (0, 1), or a ratio not above 1.
    """

    significance: float = 0.05
    detectable_ratio: float = 1.5
    minimum_power: float = 0.8

    def __post_init__(self) -> None:
        for name in ("significance", "minimum_power"):
            value = getattr(self, name)
            if not 0.0 < value < 1.0:
                raise InputError(f"{name} must lie strictly between 0 and 1, found {value:g}")
        if not self.detectable_ratio > 1.0:
            raise InputError(
                "detectable_ratio must be above 1, which is exact coverage, "
                f"found {self.detectable_ratio:g}"
            )


USUAL = Criterion()


@dataclass(frozen=True)
class TestResult:
    """What one test says of one sequence of exceedances.

    Attributes:
        name: the test.
        statistic: likelihood ratio, or the exceedance count for the exact binomial.
        degrees_of_freedom: of the chi-squared law the p-value comes from; 0 for an exact p-value.
        p_value: probability of at least this much under exact coverage.
        sample_size: number of decisions.
        exceedances: number of exceedances among them.
        verdict: "fail" when p is below the significance; else "no power" when a sample of this
            size would too often miss the ratio the criterion asks it to detect; else "pass".
    """

    # Keeps pytest, which collects classes by this name, from taking it for a test.
    __test__: ClassVar[bool] = False

    name: str
    statistic: float
    degrees_of_freedom: int
    p_value: float
    sample_size: int
    exceedances: int
    verdict: Verdict


@dataclass(frozen=True)
class Transitions:
    """Counts over the T - 1 neighbouring pairs; ``quiet_hit``: no exceedance, then one."""

    quiet_quiet: int
    quiet_hit: int
    hit_quiet: int
    hit_hit: int


@dataclass(frozen=True)
class TrafficLight:
    """The zone of an exceedance count, with the probabilities and limits that decide it.

    ``cumulative_probability`` is P(X <= count), ``tail_probability`` is P(X >= count), which is the
    type I column of the Basel table; yellow and red begin at ``yellow_from`` and ``red_from``.
    """

    zone: Zone
    cumulative_probability: float
    tail_probability: float
    yellow_from: int
    red_from: int


def require_hits(hits: BoolArray) -> BoolArray:
    """Return ``hits`` if it is a non-empty one-dimensional boolean array.

    Raises:
        InputError: it is empty, not one-dimensional, or not boolean (NaN cannot be a boolean).
    """
    hits = np.asarray(hits)
    if hits.ndim != 1 or hits.size == 0 or hits.dtype != np.bool_:
        raise InputError(
            f"hits has shape {hits.shape} and type {hits.dtype}; expected a non-empty "
            "one-dimensional boolean array in time order, as scoring.coverage.exceedances gives it"
        )
    return hits


def transitions(hits: BoolArray) -> Transitions:
    """Count the four kinds of neighbouring pairs in a sequence of exceedances, shape (T,)."""
    hits = require_hits(hits)
    before, after = hits[:-1], hits[1:]
    return Transitions(
        quiet_quiet=int(np.count_nonzero(~before & ~after)),
        quiet_hit=int(np.count_nonzero(~before & after)),
        hit_quiet=int(np.count_nonzero(before & ~after)),
        hit_hit=int(np.count_nonzero(before & after)),
    )


def kupiec_statistic(exceedance_count: int, sample_size: int, level: float) -> float:
    """Return Kupiec's likelihood ratio from counts alone, chi-squared with 1 degree of freedom.

    Written as twice the relative entropy of observed to expected counts: no power is taken, so
    nothing underflows, and no exceedance (``-2 T log(level)``) or all are ordinary values.

    Raises:
        InputError: a count outside 0..T, T below 1, or level outside (0.5, 1).
    """
    level = _require_counts(exceedance_count, sample_size, level)
    expected = sample_size * (1.0 - level)
    quiet = sample_size - exceedance_count
    hits_part = special.rel_entr(exceedance_count, expected)
    quiet_part = special.rel_entr(quiet, sample_size * level)
    return max(0.0, 2.0 * float(hits_part + quiet_part))


def independence_statistic(counts: Transitions) -> float:
    """Return Christoffersen's independence ratio, chi-squared with 1 degree of freedom.

    The likelihood of a first-order Markov chain against that of one exceedance probability, on the
    T - 1 pairs. Where a state was never left (no or only exceedances) the ratio is 0.
    """
    observed = np.array(
        [[counts.quiet_quiet, counts.quiet_hit], [counts.hit_quiet, counts.hit_hit]], dtype=float
    )
    total = observed.sum()
    if total == 0.0:
        return 0.0
    expected = np.outer(observed.sum(axis=1), observed.sum(axis=0)) / total
    return max(0.0, 2.0 * float(np.sum(special.rel_entr(observed, expected))))


def kupiec(hits: BoolArray, level: float, criterion: Criterion = USUAL) -> TestResult:
    """Test the proportion of exceedances (two sided: too many and too few both fail).

    Args:
        hits: exceedances in time order, shape (T,), booleans.
        level: the share not exceeded, in (0.5, 1).
        criterion: what fails, and what has too little power to pass.

    Raises:
        InputError: hits empty, not boolean; level outside (0.5, 1).

    Source: Kupiec (1995), doi:10.3905/jod.1995.407942.
    """
    hits = require_hits(hits)
    statistic = kupiec_statistic(int(np.count_nonzero(hits)), hits.size, level)
    return _result("kupiec", _chi_squared(statistic, 1), hits, level, criterion)


def christoffersen_independence(
    hits: BoolArray, level: float, criterion: Criterion = USUAL
) -> TestResult:
    """Test whether an exceedance makes the next one more (or less) likely.

    The statistic does not use ``level``; the verdict does. With fewer than two exceedances nothing
    can be said of clustering, and the verdict is "no power" whatever the ratio.

    Args and errors as :func:`kupiec`.

    Source: Christoffersen (1998), doi:10.2307/2527341.
    """
    hits = require_hits(hits)
    statistic = independence_statistic(transitions(hits))
    result = _result("independence", _chi_squared(statistic, 1), hits, level, criterion)
    return result if result.exceedances > 1 else replace(result, verdict="no power")


def christoffersen_conditional_coverage(
    hits: BoolArray, level: float, criterion: Criterion = USUAL
) -> TestResult:
    """Test proportion and independence together, chi-squared with 2 degrees of freedom.

    The sum of Kupiec's ratio on T decisions and the independence ratio on T - 1 pairs, as rugarch,
    GAS and MATLAB compute it.

    Args and errors as :func:`kupiec`.

    Source: Christoffersen (1998), doi:10.2307/2527341.
    """
    hits = require_hits(hits)
    statistic = kupiec_statistic(int(np.count_nonzero(hits)), hits.size, level)
    statistic += independence_statistic(transitions(hits))
    return _result("conditional coverage", _chi_squared(statistic, 2), hits, level, criterion)


def exact_binomial(
    hits: BoolArray,
    level: float,
    criterion: Criterion = USUAL,
    *,
    alternative: Alternative = "two-sided",
) -> TestResult:
    """Test the exceedance count against its exact law, valid for any T.

    ``alternative="greater"`` asks only about under-margining, P(X >= count). The two-sided p-value
    adds the probabilities of all counts no more probable than the observed one, the rule of R's
    ``binom.test`` and of scipy.

    Other args and errors as :func:`kupiec`.
    """
    hits = require_hits(hits)
    level = require_level(level)
    count = int(np.count_nonzero(hits))
    test = stats.binomtest(count, hits.size, 1.0 - level, alternative=alternative)
    law = (float(count), 0, float(test.pvalue))
    return _result("exact binomial", law, hits, level, criterion)


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
    level = _require_counts(0, sample_size, level)
    truth = criterion.detectable_ratio * (1.0 - level)
    if truth > 1.0:
        raise InputError(
            f"an exceedance ratio of {criterion.detectable_ratio:g} is impossible at level "
            f"{level:g}; it can be at most {1.0 / (1.0 - level):g}"
        )
    # The smallest k with P(X > k) <= significance: the test rejects beyond it.
    largest_accepted = stats.binom.isf(criterion.significance, sample_size, 1.0 - level)
    return float(stats.binom.sf(largest_accepted, sample_size, truth))


def traffic_light(exceedance_count: int, sample_size: int, level: float) -> TrafficLight:
    """Return the Basel zone of an exceedance count, for any sample size and level.

    Yellow begins at the first count with P(X <= count) >= 0.95, red at the first with >= 0.9999:
    5 and 10 exceedances for 250 decisions at 0.99. Where even no exceedance reaches a limit (very
    short samples at extreme levels) the zone begins at 1: no exceedance is never held against a
    margin.

    Raises:
        InputError: a count outside 0..T, T below 1, or level outside (0.5, 1).

    Source: Basel Committee (1996), table 2; Basel Framework, MAR99.
    """
    level = _require_counts(exceedance_count, sample_size, level)
    law = stats.binom(sample_size, 1.0 - level)
    yellow_from = max(1, int(law.ppf(YELLOW_PROBABILITY)))
    red_from = max(1, int(law.ppf(RED_PROBABILITY)))
    zone: Zone = "green"
    if exceedance_count >= red_from:
        zone = "red"
    elif exceedance_count >= yellow_from:
        zone = "yellow"
    return TrafficLight(
        zone=zone,
        cumulative_probability=float(law.cdf(exceedance_count)),
        tail_probability=float(law.sf(exceedance_count - 1)),
        yellow_from=yellow_from,
        red_from=red_from,
    )


def basel_plus_factor(exceedance_count: int) -> float:
    """Return the 1996 increase of the capital multiplier, for 250 decisions at level 0.99.

    A table, not a formula: Basel Committee (1996), table 2.
    """
    _require_counts(exceedance_count, 250, 0.99)
    return 0.0 if exceedance_count < 5 else _PLUS_FACTOR_1996.get(exceedance_count, 1.0)


def basel_multiplier(exceedance_count: int) -> float:
    """Return the capital multiplier of the current Basel Framework, for 250 decisions at 0.99.

    A table, not a formula: Basel Framework, MAR99.
    """
    _require_counts(exceedance_count, 250, 0.99)
    return 1.5 if exceedance_count < 5 else _MULTIPLIER_MAR99.get(exceedance_count, 2.0)


def _require_counts(exceedance_count: int, sample_size: int, level: float) -> float:
    level = require_level(level)
    if sample_size < 1 or not 0 <= exceedance_count <= sample_size:
        raise InputError(
            f"found {exceedance_count} exceedances in {sample_size} decisions; there must be at "
            "least one decision, and from 0 to that many exceedances"
        )
    return level


def _chi_squared(statistic: float, degrees_of_freedom: int) -> tuple[float, int, float]:
    p_value = float(special.chdtrc(degrees_of_freedom, statistic))
    return statistic, degrees_of_freedom, p_value


def _result(
    name: str, law: tuple[float, int, float], hits: BoolArray, level: float, criterion: Criterion
) -> TestResult:
    level = require_level(level)
    statistic, degrees_of_freedom, p_value = law
    verdict: Verdict = "pass"
    if p_value < criterion.significance:
        verdict = "fail"
    elif coverage_power(hits.size, level, criterion) < criterion.minimum_power:
        verdict = "no power"
    return TestResult(
        name=name,
        statistic=statistic,
        degrees_of_freedom=degrees_of_freedom,
        p_value=p_value,
        sample_size=hits.size,
        exceedances=int(np.count_nonzero(hits)),
        verdict=verdict,
    )
