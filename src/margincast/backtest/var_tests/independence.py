"""Tests of clustering by neighbours: does an exceedance make the next one more likely.

Responsible for Christoffersen's independence and conditional coverage, which see only pairs of
neighbouring decisions; clusters with gaps are for the duration tests. Decisions whose outcomes
overlap cluster by construction: thin first (``dependence``).
"""

from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
from scipy import special

from margincast.backtest.monte_carlo import SimulatedExceedances
from margincast.backtest.var_tests.judgement import TOO_FEW_TO_CLUSTER, judge
from margincast.backtest.var_tests.proportion import kupiec_statistic, kupiec_statistics
from margincast.backtest.var_tests.sequences import require_hits, require_sequences
from margincast.backtest.verdicts import USUAL, Criterion, TestResult, chi_squared_p
from margincast.core.types import BoolArray, FloatArray
from margincast.scoring.coverage import require_level


@dataclass(frozen=True)
class Transitions:
    """Counts over the T - 1 neighbouring pairs; ``quiet_hit``: no exceedance, then one."""

    quiet_quiet: int
    quiet_hit: int
    hit_quiet: int
    hit_hit: int


def transitions(hits: BoolArray) -> Transitions:
    """Count the four kinds of neighbouring pairs in a sequence of exceedances, shape (T,)."""
    counts = _pair_counts(require_hits(hits)[np.newaxis, :])[:, 0]
    return Transitions(*(int(count) for count in counts))


def independence_statistic(counts: Transitions) -> float:
    """Return Christoffersen's independence ratio, chi-squared with 1 degree of freedom.

    The likelihood of a first-order Markov chain against that of one exceedance probability, on the
    T - 1 pairs. Where a state was never left (no or only exceedances) the ratio is 0.
    """
    pairs = [counts.quiet_quiet, counts.quiet_hit, counts.hit_quiet, counts.hit_hit]
    return float(_markov_ratio(np.array(pairs)[:, np.newaxis])[0])


def christoffersen_independence_statistics(hits: BoolArray, level: float) -> FloatArray:
    """Return the independence ratio of each sequence, (replications, T) to (replications,).

    ``level`` is checked, the ratio does not hang on it.
    """
    require_level(level)
    return _markov_ratio(_pair_counts(require_sequences(hits)))


def christoffersen_independence(
    hits: BoolArray,
    level: float,
    criterion: Criterion = USUAL,
    *,
    monte_carlo: SimulatedExceedances | None = None,
) -> TestResult:
    """Test whether an exceedance makes the next one more (or less) likely.

    The statistic does not use ``level``; the verdict does. With fewer than two exceedances nothing
    can be said of clustering, and the verdict is "no power" whatever the ratio. Two exceedances in
    a row are rare at high levels, so the ratio has few values and its chi-squared p-value no
    reliable size: up to T = 5000 it rejects true forecasts 1 to 2 % of the time at 0.99, and 1 to
    9 % at 0.95.

    Args:
        hits: exceedances in time order, shape (T,), booleans.
        level: the share not exceeded, in (0.5, 1).
        criterion: what fails, and what has too little power to pass.
        monte_carlo: simulated correct forecasts; adds the p-value that then decides.

    Raises:
        InputError: hits empty, not boolean; level outside (0.5, 1).

    Source: Christoffersen (1998), doi:10.2307/2527341.
    """
    hits, level = require_hits(hits), require_level(level)
    statistic = independence_statistic(transitions(hits))
    return judge(
        "independence",
        hits,
        level,
        criterion,
        statistic=statistic,
        p_value=chi_squared_p(statistic, 1),
        degrees_of_freedom=1,
        simulate=partial(christoffersen_independence_statistics, level=level),
        monte_carlo=monte_carlo,
        powerless=TOO_FEW_TO_CLUSTER if np.count_nonzero(hits) < 2 else "",
    )


def christoffersen_conditional_coverage_statistics(hits: BoolArray, level: float) -> FloatArray:
    """Return the joint ratio of each sequence, shape (replications, T) to (replications,)."""
    return kupiec_statistics(hits, level) + christoffersen_independence_statistics(hits, level)


def christoffersen_conditional_coverage(
    hits: BoolArray,
    level: float,
    criterion: Criterion = USUAL,
    *,
    monte_carlo: SimulatedExceedances | None = None,
) -> TestResult:
    """Test proportion and independence together, chi-squared with 2 degrees of freedom.

    The sum of Kupiec's ratio on T decisions and the independence ratio on T - 1 pairs, as rugarch,
    GAS and MATLAB compute it; the paper's likelihoods both leave the first decision out.

    Args and errors as :func:`christoffersen_independence`.

    Source: Christoffersen (1998), doi:10.2307/2527341.
    """
    hits, level = require_hits(hits), require_level(level)
    statistic = kupiec_statistic(int(np.count_nonzero(hits)), hits.size, level)
    statistic += independence_statistic(transitions(hits))
    return judge(
        "conditional coverage",
        hits,
        level,
        criterion,
        statistic=statistic,
        p_value=chi_squared_p(statistic, 2),
        degrees_of_freedom=2,
        simulate=partial(christoffersen_conditional_coverage_statistics, level=level),
        monte_carlo=monte_carlo,
    )


def _pair_counts(hits: BoolArray) -> npt.NDArray[np.intp]:
    """Count quiet-quiet, quiet-hit, hit-quiet and hit-hit, shape (R, T) to (4, R)."""
    before = np.count_nonzero(hits[:, :-1], axis=1)
    after = np.count_nonzero(hits[:, 1:], axis=1)
    both = np.count_nonzero(hits[:, :-1] & hits[:, 1:], axis=1)
    quiet = hits.shape[1] - 1 - before - after + both
    return np.stack([quiet, after - both, before - both, both])


def _markov_ratio(pairs: npt.NDArray[np.intp]) -> FloatArray:
    """Return the ratio of pair counts, shape (4, R) to (R,)."""
    observed = pairs.reshape(2, 2, -1).astype(np.float64)
    total = np.maximum(observed.sum(axis=(0, 1)), 1.0)
    expected = observed.sum(axis=1, keepdims=True) * observed.sum(axis=0, keepdims=True) / total
    ratio = 2.0 * special.rel_entr(observed, expected).sum(axis=(0, 1))
    return np.asarray(np.maximum(0.0, ratio), dtype=np.float64)
