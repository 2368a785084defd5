"""Conditional predictive ability: can it be known in advance which of two margin models will do.

Responsible for the sentence "this model is better when the market is so": two models may lose the
same on average and still differ in calm and in danger, which the average hides (Giacomini-White).
"""

from dataclasses import dataclass

import numpy as np
from scipy import special

from margincast.core.errors import InputError
from margincast.core.types import FloatArray
from margincast.scoring.coverage import require_finite

SINGULAR = 1e-10
"""Directions of the moments with a smaller share of their variance are not counted."""


@dataclass(frozen=True)
class ConditionalComparison:
    """A Giacomini-White test of equal conditional predictive ability.

    Attributes:
        statistic: 0 where the losses are equal throughout.
        degrees_of_freedom: number of instruments that do not repeat others.
        p_value: chi-squared.
        coefficients: of the regression of the loss difference on the instruments, shape (q,): a
            positive prediction means that the first model will lose more.
        share_second_chosen: share of decisions at which that prediction is positive, so that a user
            of the rule would have taken the second model.
        sample_size: decisions used.
    """

    statistic: float
    degrees_of_freedom: int
    p_value: float
    coefficients: FloatArray
    share_second_chosen: float
    sample_size: int


def conditional_predictive_ability(
    loss_first: FloatArray,
    loss_second: FloatArray,
    instruments: FloatArray | None = None,
    *,
    steps: int = 1,
) -> ConditionalComparison:
    """Test that the loss difference of two models cannot be predicted, not even its mean.

    With instruments h_t known at decision t and the difference d_t of the losses of that decision,
    ``z_t = h_t d_t`` has mean zero under the hypothesis; the statistic is ``n zbar' S^-1 zbar``,
    chi-squared with as many degrees of freedom as instruments. S is ``sum z z' / n``, not centred,
    for outcomes that do not overlap, and with Bartlett weights for ``steps - 1`` lags otherwise, as
    the authors have it. A constant alone gives Diebold and Mariano's hypothesis.

    Unlike Diebold-Mariano this compares forecasting methods as they were run, estimation windows
    and all; the windows must be of bounded length for it to hold.

    Args:
        loss_first: losses of the first model in time order, shape (n,), one unit for both.
        loss_second: losses of the second model at the same decisions, shape (n,).
        instruments: known at each decision, shape (n, q); a constant is a column of ones. By
            default a constant and the last loss difference known, that of ``steps`` decisions
            earlier, whose first ``steps`` decisions are left out.
        steps: decisions to a horizon: 1 where outcomes do not overlap.

    Raises:
        InputError: empty, NaN or infinite values; shapes that do not fit; steps below 1; fewer
            decisions than instruments, steps and one.

    Source: Giacomini and White (2006), doi:10.1111/j.1468-0262.2006.00718.x.
    """
    first = require_finite(loss_first, "loss_first")
    second = require_finite(loss_second, "loss_second")
    if first.ndim != 1 or first.shape != second.shape:
        raise InputError(
            f"loss_first has shape {first.shape} and loss_second {second.shape}; "
            "both must be one-dimensional and of one length"
        )
    if steps < 1:
        raise InputError(f"steps must be at least 1, found {steps}")
    difference = first - second
    if instruments is None:
        known = np.column_stack([np.ones_like(difference[steps:]), difference[:-steps]])
        difference = difference[steps:]
    else:
        known = require_finite(instruments, "instruments")
    size = difference.size
    if known.ndim != 2 or len(known) != size or size <= known.shape[-1] + steps:
        raise InputError(
            f"found {size} decisions and instruments of shape {known.shape}; give one row of "
            "instruments a decision, and more decisions than instruments and steps together"
        )
    known = known / np.maximum(np.abs(known).max(axis=0), np.finfo(np.float64).tiny)
    moments = known * difference[:, np.newaxis]
    coefficients = np.linalg.lstsq(known, difference)[0]
    statistic, rank = _wald(moments, steps - 1)
    return ConditionalComparison(
        statistic=statistic,
        degrees_of_freedom=rank,
        p_value=float(special.chdtrc(rank, statistic)) if rank else 1.0,
        coefficients=coefficients,
        share_second_chosen=float(np.mean(known @ coefficients > 0.0)),
        sample_size=size,
    )


def _wald(moments: FloatArray, lags: int) -> tuple[float, int]:
    """Return ``n mean' S^+ mean`` and the rank of S, the covariance of the moments under zero."""
    size = len(moments)
    scale = np.sqrt(np.mean(moments**2, axis=0))
    scaled = moments / np.where(scale > 0.0, scale, 1.0)
    covariance = scaled.T @ scaled / size
    for lag in range(1, lags + 1):
        cross = scaled[lag:].T @ scaled[:-lag] / size
        covariance = covariance + (1.0 - lag / (lags + 1.0)) * (cross + cross.T)
    values, vectors = np.linalg.eigh(covariance)
    counted = values > SINGULAR
    shares = (vectors.T @ scaled.mean(axis=0))[counted]
    return float(size * np.sum(shares**2 / values[counted])), int(np.count_nonzero(counted))
