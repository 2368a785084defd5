"""Comparison of two margin models: is one's mean loss smaller by more than chance.

Responsible for the sentence "this model beats that one": Diebold-Mariano on loss differentials,
with a standard error that knows of overlapping horizons, and its panel version for many contracts.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

from margincast.backtest.dependence import long_run_variance
from margincast.core.errors import InputError
from margincast.core.types import FloatArray
from margincast.scoring.coverage import require_finite


@dataclass(frozen=True)
class LossComparison:
    """A Diebold-Mariano test; a positive difference means that the first model loses more.

    Attributes:
        mean_difference: mean of first loss - second loss, in the losses' unit.
        standard_error: Bartlett (HAC) standard error of that mean, the same unit.
        statistic: their ratio.
        p_value: two-sided; standard normal, or Student's t where the test says so.
        lag: autocovariances used in the standard error.
        sample_size: number of decision times.
    """

    mean_difference: float
    standard_error: float
    statistic: float
    p_value: float
    lag: int
    sample_size: int


def overlap_lag(horizon_minutes: float, step_minutes: float, sample_size: int) -> int:
    """Return the Bartlett lag for losses whose outcome windows overlap.

    With h decisions to a horizon, neighbours share outcomes up to lag h - 1 and autocorrelations
    fall about linearly; Bartlett weights with m lags then miss the share (h - 1/h) / (3 (m + 1)) of
    the long-run variance: a third at m = h - 1, below a tenth at m = 4 (h - 1) for h >= 3. The lag
    is 4 (h - 1), or the cube root of the sample size if larger (Andrews 1991,
    doi:10.2307/2938229: the rate at which it must grow for clustered volatility), at most n - 1.

    Args:
        horizon_minutes: length of the outcome window, positive.
        step_minutes: time between decisions, positive.
        sample_size: number of decision times n, at least 1.

    Raises:
        InputError: an argument is out of range.

    >>> overlap_lag(480, 60, 17_520)
    28
    """
    if not (horizon_minutes > 0.0 and step_minutes > 0.0 and sample_size >= 1):
        raise InputError(
            "horizon_minutes and step_minutes must be positive and sample_size at least 1, found "
            f"{horizon_minutes:g}, {step_minutes:g} and {sample_size}"
        )
    decisions_per_horizon = math.ceil(horizon_minutes / step_minutes)
    lag = max(4 * (decisions_per_horizon - 1), int(np.cbrt(sample_size)))
    return min(lag, sample_size - 1)


def diebold_mariano(loss_first: FloatArray, loss_second: FloatArray, *, lag: int) -> LossComparison:
    """Test whether two models' mean losses differ, for one series of decisions.

    Bartlett weights, autocovariances divided by n, normal p-value, no small-sample factor: the
    convention of statsmodels (``cov_type="HAC"``, no correction) and sandwich (no prewhitening, no
    adjustment). That of R's ``forecast::dm.test`` is :func:`harvey_leybourne_newbold`.

    Args:
        loss_first: losses of the first model in time order, shape (n,), one unit for both.
        loss_second: losses of the second model at the same decisions, shape (n,).
        lag: autocovariances to use, see :func:`overlap_lag`.

    Returns:
        The comparison; statistic 0 and p-value 1 where the losses are equal throughout.

    Raises:
        InputError: empty, NaN or infinite losses, lengths differ, or lag outside 0..n-1.

    Source: Diebold and Mariano (1995), doi:10.1080/07350015.1995.10524599.
    """
    return _compare(_differential(loss_first, loss_second), lag)


def harvey_leybourne_newbold(
    loss_first: FloatArray, loss_second: FloatArray, *, horizon_decisions: int
) -> LossComparison:
    """Test whether two models' mean losses differ, by the small-sample form of Diebold-Mariano.

    The convention of R's ``forecast::dm.test``: the autocovariances up to lag h - 1 count fully (a
    rectangular window, right where the differential depends on nothing but overlap), the statistic
    is multiplied by ``sqrt((n + 1 - 2 h + h (h - 1) / n) / n)`` and compared with Student's t with
    n - 1 degrees of freedom.

    Args:
        loss_first: see :func:`diebold_mariano`.
        loss_second: see :func:`diebold_mariano`.
        horizon_decisions: decisions to a horizon h; 1 where outcomes do not overlap.

    Returns:
        The comparison, its standard error with the factor. A rectangular window can give a negative
        variance: standard error, statistic and p-value are then NaN (not known); R silently takes
        h = 1 instead. :func:`diebold_mariano` always has an answer.

    Raises:
        InputError: as :func:`diebold_mariano`; a horizon outside 1..n - 1 or, with its factor, too
            long for n.

    Source: Harvey, Leybourne and Newbold (1997), doi:10.1016/S0169-2070(96)00719-4.
    """
    differential = _differential(loss_first, loss_second)
    size, horizon = differential.size, horizon_decisions
    factor = (size + 1 - 2 * horizon + horizon * (horizon - 1) / size) / size
    if not 1 <= horizon < size or not factor > 0.0:
        raise InputError(
            f"horizon_decisions must be at least 1 and well below the {size} decisions, "
            f"found {horizon}"
        )
    deviation = differential - differential.mean()
    variance = float(deviation @ deviation) / size
    for shift in range(1, horizon):
        variance += 2.0 * float(deviation[shift:] @ deviation[:-shift]) / size
    mean = float(differential.mean())
    if variance < 0.0:
        return LossComparison(mean, math.nan, math.nan, math.nan, horizon - 1, size)
    error = math.sqrt(variance / size / factor)
    statistic = _ratio(mean, error)
    return LossComparison(
        mean_difference=mean,
        standard_error=error,
        statistic=statistic,
        p_value=2.0 * float(special.stdtr(size - 1, -abs(statistic))),
        lag=horizon - 1,
        sample_size=size,
    )


def panel_diebold_mariano(
    loss_first: FloatArray,
    loss_second: FloatArray,
    decision_time: npt.NDArray[np.integer | np.datetime64],
    *,
    lag: int,
) -> LossComparison:
    """Test whether two models' mean losses differ over many contracts.

    Contracts fall together, so their losses at one time are not separate evidence: the differential
    is first averaged over the contracts of each decision time, and the series of averages tested.
    Every decision time has the same weight, however many contracts it has.

    Args:
        loss_first: losses of the first model, one row a contract and time, shape (n,), any order.
        loss_second: losses of the second model for the same rows, shape (n,).
        decision_time: decision time of each row, shape (n,), datetime64 or integers.
        lag: autocovariances to use, in decision times, see :func:`overlap_lag`.

    Raises:
        InputError: as :func:`diebold_mariano`, missing times, or times of another length.

    Source: Diebold and Mariano (1995), as above; averaging over the cross-section first as in
    Driscoll and Kraay (1998), doi:10.1162/003465398557825.
    """
    differential = _differential(loss_first, loss_second)
    times = np.asarray(decision_time)
    if times.shape != differential.shape:
        raise InputError(
            f"decision_time has shape {times.shape}, the losses {differential.shape}; "
            "give one time a row"
        )
    if times.dtype.kind == "M" and np.isnat(times).any():
        raise InputError(f"decision_time holds {int(np.isnat(times).sum())} missing times")
    distinct, index = np.unique(times, return_inverse=True)
    sums = np.bincount(index, weights=differential, minlength=distinct.size)
    return _compare(sums / np.bincount(index, minlength=distinct.size), lag)


def _differential(loss_first: FloatArray, loss_second: FloatArray) -> FloatArray:
    first = require_finite(loss_first, "loss_first")
    second = require_finite(loss_second, "loss_second")
    if first.ndim != 1 or first.shape != second.shape:
        raise InputError(
            f"loss_first has shape {first.shape} and loss_second {second.shape}; "
            "both must be one-dimensional and of one length"
        )
    return first - second


def _compare(differential: FloatArray, lag: int) -> LossComparison:
    mean = float(differential.mean())
    error = math.sqrt(long_run_variance(differential, lag) / differential.size)
    statistic = _ratio(mean, error)
    return LossComparison(
        mean_difference=mean,
        standard_error=error,
        statistic=statistic,
        p_value=2.0 * float(special.ndtr(-abs(statistic))),
        lag=lag,
        sample_size=differential.size,
    )


def _ratio(mean: float, error: float) -> float:
    if error > 0.0:
        return mean / error
    return 0.0 if mean == 0.0 else math.copysign(math.inf, mean)
