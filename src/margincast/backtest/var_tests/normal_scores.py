"""Likelihoods of normal scores known in part: only their cell, or only where they are far out.

Responsible for the fits behind the tail tests of Berkowitz and of Kratz, Lok and McNeil: mean m and
standard deviation s of scores that would be standard normal under correct forecasts. Many samples
are fitted at once, because Monte-Carlo p-values need a thousand.
"""

from collections.abc import Callable

import numpy as np
from scipy import special

from margincast.core.types import FloatArray

Derivatives = tuple[FloatArray, FloatArray, FloatArray]
"""Values, shape (R,), gradients (R, 2) and Hessians (R, 2, 2)."""

Likelihood = Callable[[FloatArray, FloatArray], Derivatives]
"""From slopes and shifts, each shape (R,)."""

STEPS = 60
"""Newton steps at most: a likelihood without a maximum only creeps up to its limit."""

HALVINGS = 30
"""Of one Newton step, until it gains."""

CONVERGED = 1e-14
"""Relative gain at which a maximum is reached."""

RIDGE = 1e-12
"""Share of the Hessian's trace that keeps it regular."""

SCALE = 1.0 / np.sqrt(2.0 * np.pi)


def grouped_log_likelihood(counts: FloatArray, thresholds: FloatArray) -> FloatArray:
    """Return the largest log-likelihood of cell counts under normal scores.

    Args:
        counts: shape (R, N + 1).
        thresholds: of the scores between the cells, increasing, shape (N,).

    Returns:
        ``max sum_j O_j log(F((z_{j+1} - m) / s) - F((z_j - m) / s))``, shape (R,); the limit where
        no maximum exists (empty cells).
    """

    def likelihood(slope: FloatArray, shift: FloatArray) -> Derivatives:
        points = slope[:, np.newaxis] * thresholds - shift[:, np.newaxis]
        density = SCALE * np.exp(-0.5 * points**2)
        beyond = np.pad(special.ndtr(-points), ((0, 0), (1, 1)), constant_values=((0, 0), (1, 0)))
        shares = beyond[:, :-1] - beyond[:, 1:]
        impossible = (shares <= 0.0) & (counts > 0.0)
        weights = counts / np.where(shares > 0.0, shares, np.inf)
        values = np.sum(special.xlogy(counts, np.where(shares > 0.0, shares, 1.0)), axis=1)
        values[np.any(impossible, axis=1)] = -np.inf
        # derivatives of the thresholds' points: z with the slope, -1 with the shift
        directions = np.stack([thresholds, np.full_like(thresholds, -1.0)])
        first = np.diff(_padded(density[:, np.newaxis] * directions), axis=2)
        squares = directions[:, np.newaxis] * directions
        bend = (-points * density)[:, np.newaxis, np.newaxis]
        second = np.diff(_padded(bend * squares), axis=3)
        gradient = np.einsum("rij,rj->ri", first, weights)
        hessian = np.einsum("rijk,rk->rij", second, weights)
        relative = weights / np.where(shares > 0.0, shares, np.inf)
        hessian -= np.einsum("rik,rjk,rk->rij", first, first, relative)
        return values, gradient, hessian

    return _largest(likelihood, len(counts))


def censored_log_likelihood(
    count: FloatArray,
    total: FloatArray,
    squares: FloatArray,
    censored: FloatArray,
    threshold: float,
) -> FloatArray:
    """Return the largest log-likelihood of normal scores known only beyond a threshold.

    Args:
        count: scores beyond the threshold, shape (R,).
        total: their sums, shape (R,).
        squares: sums of their squares, shape (R,).
        censored: scores known only to be at or below the threshold, shape (R,).
        threshold: the threshold.

    Returns:
        ``max sum log(f((x - m) / s) / s) + censored log F((threshold - m) / s)``, shape (R,); the
        limit 0 where nothing is beyond the threshold.
    """

    def likelihood(slope: FloatArray, shift: FloatArray) -> Derivatives:
        point = slope * threshold - shift
        log_below = special.log_ndtr(point)
        hazard = np.exp(-0.5 * point**2 - log_below) * SCALE
        bend = -hazard * (hazard + point) * censored
        squared = slope**2 * squares - 2.0 * slope * shift * total + shift**2 * count
        values = count * np.log(SCALE * slope) - 0.5 * squared + censored * log_below
        pull = censored * hazard
        gradient = np.stack(
            [
                count / slope - slope * squares + shift * total + pull * threshold,
                slope * total - shift * count - pull,
            ],
            axis=1,
        )
        mixed = total - bend * threshold
        hessian = np.stack(
            [-count / slope**2 - squares + bend * threshold**2, mixed, mixed, bend - count], axis=1
        )
        return values, gradient, hessian.reshape(-1, 2, 2)

    return np.where(count > 0.0, _largest(likelihood, count.size), 0.0)


def _padded(values: FloatArray) -> FloatArray:
    """Put zeros, the derivatives at minus and plus infinity, around the last axis."""
    return np.pad(values, [(0, 0)] * (values.ndim - 1) + [(1, 1)])


def _largest(likelihood: Likelihood, replications: int) -> FloatArray:
    """Return the maxima over slope 1 / s above 0 and shift m / s, in which they are concave.

    Damped Newton from the standard normal law.
    """
    slope, shift = np.ones(replications), np.zeros(replications)
    values, gradient, hessian = likelihood(slope, shift)
    for _ in range(STEPS):
        step = _newton_step(gradient, hessian, slope)
        promised = np.sum(gradient * step, axis=1)
        step[promised <= CONVERGED * (1.0 + np.abs(values))] = 0.0
        if not step.any():
            break
        for _ in range(HALVINGS):
            tried = likelihood(slope + step[:, 0], shift + step[:, 1])
            worse = ~(tried[0] >= values)
            if not worse.any():
                break
            step[worse] *= 0.5
        step[worse] = 0.0
        slope, shift = slope + step[:, 0], shift + step[:, 1]
        values, gradient, hessian = likelihood(slope, shift)
    return values


def _newton_step(gradient: FloatArray, hessian: FloatArray, slope: FloatArray) -> FloatArray:
    """Return Newton's step, shape (R, 2); the slope stays positive.

    Where the step would take more than nine tenths of the slope away it takes just these, and the
    shift that is best then.
    """
    ridge = RIDGE * (1.0 + np.abs(np.trace(hessian, axis1=1, axis2=2)))
    regular = hessian - ridge[:, np.newaxis, np.newaxis] * np.eye(2)
    step = -np.linalg.solve(regular, gradient[:, :, np.newaxis])[:, :, 0]
    most = -0.9 * slope
    shift = -(gradient[:, 1] + regular[:, 0, 1] * most) / regular[:, 1, 1]
    bounded = np.column_stack([most, shift])
    return np.where((step[:, 0] < most)[:, np.newaxis], bounded, step)
