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

NO_SHAPE = 1e-9
"""A shape this near to 0 is taken as the exponential, its limit."""

SMALLEST_SHAPE, LARGEST_SHAPE = -0.5, 0.9
"""At a shape of 1 the expected shortfall is infinite; a fit beyond the largest is held there. Below
-0.5 maximum likelihood loses its usual properties (Smith 1985, doi:10.1093/biomet/72.1.67), so a
shape that is shrunk is not looked for there."""


@dataclass(frozen=True)
class ShapePrior:
    """Normal prior of the shape: what is known of tails before any excess is seen.

    Attributes:
        mean: where the shape is pulled to.
        deviation: standard deviation, positive.
    """

    mean: float
    deviation: float


RESIDUAL_SHAPE = ShapePrior(mean=0.2, deviation=0.1)
"""Of standardised outcomes: as heavy as Student's t with 5 degrees, 3.3 to 10 within a deviation.
Nearly as wide as the prior that is usual for extremes (Martins and Stedinger 2000,
doi:10.1029/1999WR900330: deviation 0.12), and centred where financial residuals lie (McNeil and
Frey 2000). What it does out of sample is in docs/method/tail.md."""


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
        if abs(self.shape) < NO_SHAPE:
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
    count = _enough(excesses)
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


def fit_shrunken_pareto(
    excesses: FloatArray, independent: float, prior: ShapePrior = RESIDUAL_SHAPE
) -> GeneralisedPareto:
    """Fit by penalised maximum likelihood: the shape is pulled towards a prior.

    Contracts fall together and horizons overlap, so thousands of excesses may come from a few
    dozen events. The log-likelihood counts as much as ``independent`` excesses would; the scale is
    not penalised. (Penalised likelihood for the shape: Coles and Dixon 1999,
    doi:10.1023/A:1009905222644.)

    Args:
        excesses: positive excesses over the threshold, shape (n,).
        independent: excesses the sample is worth, for example the distinct days they happened on;
            above n it counts as n.
        prior: of the shape.

    Raises:
        InsufficientHistoryError: fewer than :data:`MINIMUM_EXCEEDANCES` excesses.
    """
    count = _enough(excesses)
    weight = min(1.0, independent / count)

    def objective(shape: float) -> float:
        likelihood = log_likelihood(shape, _scale_at(shape, excesses), excesses)
        return 0.5 * ((shape - prior.mean) / prior.deviation) ** 2 - weight * likelihood

    grid = np.linspace(SMALLEST_SHAPE, LARGEST_SHAPE, 15)
    best = int(np.argmin([objective(float(shape)) for shape in grid]))
    bounds = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
    found = minimize_scalar(objective, bounds=bounds, method="bounded", options={"xatol": 1e-8})
    shape = float(found.x)
    return GeneralisedPareto(shape, _scale_at(shape, excesses), count)


def log_likelihood(shape: float, scale: float, excesses: FloatArray) -> float:
    """Return the log-likelihood of excesses, shape (n,); -inf where one lies beyond the support."""
    if abs(shape) < NO_SHAPE:
        return -len(excesses) * math.log(scale) - float(excesses.sum()) / scale
    argument = shape / scale * excesses
    if argument.min() <= -1.0:
        return -math.inf
    logs = float(np.log1p(argument).sum())
    return -len(excesses) * math.log(scale) - (1.0 + 1.0 / shape) * logs


def _enough(excesses: FloatArray) -> int:
    count = len(excesses)
    if count < MINIMUM_EXCEEDANCES:
        raise InsufficientHistoryError(
            f"a generalised Pareto tail needs at least {MINIMUM_EXCEEDANCES} exceedances of its "
            f"threshold, found {count}; use a longer history or a lower model.tail.threshold_level"
        )
    return count


def _scale_at(shape: float, excesses: FloatArray) -> float:
    """Most likely scale for a given shape, shape (n,) excesses."""
    mean = float(excesses.mean())
    if abs(shape) < NO_SHAPE:
        return mean
    low, high = math.log(mean) - 6.0, math.log(mean) + 3.0
    if shape < 0.0:
        low = max(low, math.log(-shape * float(excesses.max())) + 1e-9)
        high = max(high, low + 3.0)
    return math.exp(
        minimize_scalar(
            lambda log_scale: -log_likelihood(shape, math.exp(log_scale), excesses),
            bounds=(low, high),
            method="bounded",
            options={"xatol": 1e-9},
        ).x
    )
