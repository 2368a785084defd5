"""Generalised Pareto tail: levels too extreme for trees, and the loss beyond a level.

Above an intermediate quantile u(x) the relative excess y / u(x) - 1 is taken as generalised
Pareto (peaks over threshold: McNeil and Frey 2000, doi:10.1016/S0927-5398(00)00012-8). The margin
at 0.999 and every expected shortfall come from here.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar

from margincast.core.errors import InsufficientHistoryError
from margincast.core.types import FloatArray

MINIMUM_EXCEEDANCES = 50
"""Fewer excesses than this leave the shape's standard error, (1 + shape) / sqrt(n), above 0.15."""

LARGEST_SHAPE = 0.9
"""At a shape of 1 the expected shortfall is infinite; a fit beyond this is held here."""


@dataclass(frozen=True)
class GeneralisedPareto:
    """Tail of excesses x >= 0: P(X > x) = (1 + shape x / scale)^(-1 / shape).

    Attributes:
        shape: tail index (0: exponential; 0.33: as heavy as Student's t with 3 degrees).
        scale: positive, in the unit of the excesses.
        exceedances: excesses it was fitted to.
    """

    shape: float
    scale: float
    exceedances: int

    def excess_quantile(self, survival: float) -> float:
        """Return the excess that is exceeded with probability ``survival`` in (0, 1]."""
        if abs(self.shape) < 1e-9:
            return -self.scale * math.log(survival)
        return float(self.scale / self.shape * (survival**-self.shape - 1.0))

    def mean_excess_beyond(self, excess: float) -> float:
        """Return E[X - excess | X > excess], finite for shape < 1."""
        return (self.scale + self.shape * excess) / (1.0 - self.shape)


def profile_log_likelihood(theta: float, excesses: FloatArray) -> tuple[float, float, float]:
    """Return log-likelihood, shape and scale at theta = shape / scale (Grimshaw 1993).

    For given theta the likelihood is maximal at shape = mean(log(1 + theta x)).
    Grimshaw: doi:10.2307/1269663.
    """
    if theta == 0.0:
        scale = float(excesses.mean())
        return -len(excesses) * (math.log(scale) + 1.0), 0.0, scale
    shape = float(np.log1p(theta * excesses).mean())
    if shape == 0.0 or shape / theta <= 0.0:
        return -math.inf, shape, math.nan
    scale = shape / theta
    return -len(excesses) * (math.log(scale) + shape + 1.0), shape, scale


def fit_generalised_pareto(excesses: FloatArray) -> GeneralisedPareto:
    """Fit by maximum likelihood, profiled to one dimension.

    Args:
        excesses: positive excesses over the threshold, shape (n,).

    Raises:
        InsufficientHistoryError: fewer than :data:`MINIMUM_EXCEEDANCES` excesses.
    """
    count = len(excesses)
    if count < MINIMUM_EXCEEDANCES:
        raise InsufficientHistoryError(
            f"a generalised Pareto tail needs at least {MINIMUM_EXCEEDANCES} exceedances of its "
            f"threshold, found {count}; use a longer history or a lower model.tail.threshold_level"
        )
    mean, top = float(excesses.mean()), float(excesses.max())
    # theta > -1 / max; the grid covers thin to very heavy tails before the fine search
    grid = np.concatenate([-np.geomspace(0.999, 1e-3, 25) / top, np.geomspace(1e-3, 50, 60) / mean])
    values = [profile_log_likelihood(float(theta), excesses)[0] for theta in grid]
    best = int(np.argmax(values))
    low, high = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
    found = minimize_scalar(
        lambda theta: -profile_log_likelihood(float(theta), excesses)[0],
        bounds=(low, high),
        method="bounded",
        options={"xatol": 1e-12 * max(abs(low), abs(high))},
    )
    _, shape, scale = profile_log_likelihood(float(found.x), excesses)
    if shape > LARGEST_SHAPE:
        # keep the fitted mean of log(1 + theta x) consistent: scale re-estimated at the held shape
        shape, scale = LARGEST_SHAPE, _scale_at(LARGEST_SHAPE, excesses)
    return GeneralisedPareto(shape, scale, count)


def _scale_at(shape: float, excesses: FloatArray) -> float:
    def negative(log_scale: float) -> float:
        return len(excesses) * log_scale + (1 + 1 / shape) * float(
            np.log1p(shape * excesses / math.exp(log_scale)).sum()
        )

    centre = math.log(float(np.median(excesses)))
    return math.exp(minimize_scalar(negative, bounds=(centre - 6, centre + 6), method="bounded").x)
