"""The duration test: do exceedances come in clusters of any width, not only on neighbours.

Responsible for Christoffersen and Pelletier's Weibull test: the time to the next exceedance must
not depend on the time since the last one. A shape below 1 means clusters, above 1 regular spacing.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np

from margincast.backtest.monte_carlo import SimulatedExceedances
from margincast.backtest.var_tests.judgement import TOO_FEW_TO_CLUSTER, judge, not_defined
from margincast.backtest.var_tests.sequences import (
    Spells,
    require_hits,
    require_sequences,
    spells,
    sum_by_row,
)
from margincast.backtest.verdicts import USUAL, Criterion, TestResult, chi_squared_p
from margincast.core.types import BoolArray, FloatArray
from margincast.scoring.coverage import require_level

LARGEST_SHAPE = 10.0
"""Regular spacing of few exceedances has no finite estimate; rugarch and vartests stop here too."""

_SMALLEST_SHAPE = 1e-3
_ITERATIONS = 60
_TOLERANCE = 1e-10


@dataclass(frozen=True)
class WeibullFit:
    """The estimate of each sequence, shape (replications,); NaN with fewer than two exceedances.

    Attributes:
        shape: in [0.001, 10]; 1 is no memory.
        log_likelihood: at that shape.
        memoryless_log_likelihood: at shape 1, the exponential law.
    """

    shape: FloatArray
    log_likelihood: FloatArray
    memoryless_log_likelihood: FloatArray


def fit_weibull(hits: BoolArray) -> WeibullFit:
    """Fit a Weibull law to the spells between exceedances by maximum likelihood.

    Spells between two exceedances enter with their density ``a^b b d^(b-1) exp(-(a d)^b)``. The
    first and the last spell are censored and enter with their survival ``exp(-(a d)^b)``; where the
    sample begins, or ends, on an exceedance there is no such spell (rugarch's and vartests'
    convention). The rate ``a`` is solved for, so that one concave function of the shape ``b`` is
    maximised, by Newton's method on all sequences at once.

    Args:
        hits: shape (replications, T).

    Raises:
        InputError: hits empty, not boolean, not a matrix.

    Source: Christoffersen and Pelletier (2004), doi:10.1093/jjfinec/nbh004.
    """
    enough = np.count_nonzero(require_sequences(hits), axis=1) > 1
    fitted = np.full((3, enough.size), np.nan)
    if enough.any():
        likelihood = _ProfileLikelihood(spells(hits[enough]))
        shape = likelihood.maximise()
        fitted[:, enough] = shape, likelihood(shape), likelihood(np.ones_like(shape))
    return WeibullFit(*fitted)


def weibull_duration_statistics(hits: BoolArray, level: float) -> FloatArray:
    """Return the likelihood ratio of each sequence, shape (replications, T) to (replications,).

    NaN with fewer than two exceedances; ``level`` is checked, the ratio does not hang on it.
    """
    require_level(level)
    fit = fit_weibull(hits)
    return np.maximum(0.0, 2.0 * (fit.log_likelihood - fit.memoryless_log_likelihood))


def weibull_duration(
    hits: BoolArray,
    level: float,
    criterion: Criterion = USUAL,
    *,
    monte_carlo: SimulatedExceedances | None = None,
) -> TestResult:
    """Test whether times between exceedances have no memory, chi-squared with 1 degree of freedom.

    Undefined with fewer than two exceedances, where rugarch returns its starting value and p = 1.
    With a handful the shape may run to its bound of 10, and the asymptotic p-value rejects true
    forecasts 13 to 16 % of the time (0.99, T = 250 and 500). And spells are counted in whole
    decisions, which a continuous law takes for regular spacing where exceedances are many: 30 % at
    0.95 and T = 5000. The Monte-Carlo p-value has neither fault.

    Args:
        hits: exceedances in time order, shape (T,), booleans.
        level: the share not exceeded, in (0.5, 1); decides power and simulation only.
        criterion: what fails, and what has too little power to pass.
        monte_carlo: simulated correct forecasts; adds the p-value that then decides.

    Raises:
        InputError: hits empty, not boolean; level outside (0.5, 1).

    Source: Christoffersen and Pelletier (2004), doi:10.1093/jjfinec/nbh004.
    """
    hits, level = require_hits(hits), require_level(level)
    if np.count_nonzero(hits) < 2:
        return not_defined("weibull duration", hits, TOO_FEW_TO_CLUSTER)
    statistic = float(weibull_duration_statistics(hits[np.newaxis, :], level)[0])
    return judge(
        "weibull duration",
        hits,
        level,
        criterion,
        statistic=statistic,
        p_value=chi_squared_p(statistic, 1),
        degrees_of_freedom=1,
        simulate=partial(weibull_duration_statistics, level=level),
        monte_carlo=monte_carlo,
    )


class _ProfileLikelihood:
    """Log-likelihood of the shape, the rate solved for, of sequences with two exceedances each."""

    def __init__(self, found: Spells) -> None:
        finished = ~found.is_first
        opening = found.is_first & (found.lengths > 1.0)
        closing = found.sample_size - found.last_hits
        open_rows = np.flatnonzero(closing)
        rows = np.concatenate([found.rows[finished], found.rows[opening], open_rows])
        lengths = np.concatenate(
            [found.lengths[finished], found.lengths[opening], closing[open_rows]]
        )
        # equal spells of a sequence are one row with its number: a tenth of the work at level 0.95
        longest = found.sample_size + 1
        keys, repeats = np.unique(rows * longest + lengths.astype(np.intp), return_counts=True)
        self._rows = keys // longest
        self._log_lengths = np.log(keys % longest)
        self._log_repeats = np.log(repeats)
        self._uncensored = found.counts - 1.0
        self._sum_of_logs = sum_by_row(
            found.rows[finished], np.log(found.lengths[finished]), found.counts.size
        )

    def __call__(self, shape: FloatArray) -> FloatArray:
        """Return the log-likelihood at one shape a sequence."""
        log_rate = np.log(shape * self._uncensored / self._power_sums(shape, moments=1)[0])
        return self._uncensored * (log_rate - 1.0) + (shape - 1.0) * self._sum_of_logs

    def maximise(self) -> FloatArray:
        """Return the best shape of every sequence, by Newton's method within brackets."""
        low = np.full(self._uncensored.shape, _SMALLEST_SHAPE)
        high = np.full(self._uncensored.shape, LARGEST_SHAPE)
        at_bound = self._slope_and_curvature(high)[0] >= 0.0
        shape: FloatArray = np.where(at_bound, LARGEST_SHAPE, 1.0)
        for _ in range(_ITERATIONS):
            slope, curvature = self._slope_and_curvature(shape)
            low, high = np.where(slope > 0.0, shape, low), np.where(slope > 0.0, high, shape)
            newton = shape - slope / curvature
            # a concave function: the root lies between low and high, and so must the next guess
            inside = (newton >= low) & (newton <= high)
            following = np.where(inside, newton, 0.5 * (low + high))
            following[at_bound] = LARGEST_SHAPE
            step, shape = np.abs(following - shape), following
            if np.all(step <= _TOLERANCE * shape):
                break
        return shape

    def _slope_and_curvature(self, shape: FloatArray) -> tuple[FloatArray, FloatArray]:
        total, first, second = self._power_sums(shape, moments=3)
        mean = first / total
        slope = self._uncensored * (1.0 / shape - mean) + self._sum_of_logs
        spread = np.maximum(second / total - mean**2, 0.0)
        return slope, -self._uncensored * (1.0 / shape**2 + spread)

    def _power_sums(self, shape: FloatArray, moments: int) -> list[FloatArray]:
        """Return the sums of d^b, d^b log d, ... of each sequence, shape (R,) each."""
        powers: FloatArray = np.exp(shape[self._rows] * self._log_lengths + self._log_repeats)
        return [
            sum_by_row(self._rows, powers * self._log_lengths**moment, shape.size)
            for moment in range(moments)
        ]
