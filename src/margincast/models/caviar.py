"""CAViaR: the margin's quantile as a recursion on its own past and the newest return.

Conditional autoregressive value at risk (Engle and Manganelli 2004,
doi:10.1198/073500104000000370), here of the adverse excursion over the coming horizon:

    symmetric absolute value   q_t = b0 + b1 q_{t-1} + b2 |r_t|
    asymmetric slope           q_t = b0 + b1 q_{t-1} + b2 max(r_t, 0) + b3 max(-r_t, 0)

Unrolled, q_t = b0 / (1 - b1) + b2 / (1 - b1) m_t (and so on), m_t being the exponential mean, of
persistence b1, of the return's magnitude. At a given persistence the quantile is linear in its
other parameters, so estimation is a convex quantile regression inside a search over one number.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize, minimize_scalar
from scipy.signal import lfilter
from scipy.special import expit

from margincast.core.types import FloatArray

HALF_LIVES = np.geomspace(0.5, 512.0, 11)
"""Half-lives of the exponential mean, in steps, among which the search begins: factors of two."""

SMOOTHING = 0.01
"""Width over which the kink of the pinball loss is rounded, relative to the quantile: the loss has
a gradient then, and the quantile's bias (of the width's square) is far below its standard error."""

NEAR = 0.5
"""Outcomes below this share of the forecast cannot change the fit and are left out, then checked
(the "globbing" of Portnoy and Koenker 1997, doi:10.1214/ss/1030037960)."""


@dataclass(frozen=True)
class Caviar:
    """Parameters of one recursion, in its unrolled form.

    Attributes:
        persistence: b1 in [0, 1).
        constant: b0 / (1 - b1), at least 0, in the unit of the outcomes.
        slopes: b2 / (1 - b1) (symmetric), also b3 / (1 - b1) (asymmetric); at least 0.
    """

    persistence: float
    constant: float
    slopes: tuple[float, ...]

    @property
    def recursion(self) -> tuple[float, ...]:
        """The parameters (b0, b1, b2[, b3]) as published."""
        share = 1.0 - self.persistence
        slopes = (share * slope for slope in self.slopes)
        return (share * self.constant, self.persistence, *slopes)

    def quantile(self, means: FloatArray) -> FloatArray:
        """Return the quantile at exponential means of shape (n, slopes); shape (n,)."""
        # summed one by one: a matrix product may round a row differently in a longer table
        result = np.full(len(means), self.constant)
        for column, slope in enumerate(self.slopes):
            result += slope * means[:, column]
        return result


def magnitudes(returns: FloatArray, *, asymmetric: bool) -> FloatArray:
    """Return what the recursion reacts to: |r|, or max(r, 0) and max(-r, 0).

    Args:
        returns: log returns, shape (n,); NaN stays NaN.
        asymmetric: rises and falls apart.

    Returns:
        Shape (n, 1) or (n, 2).
    """
    if asymmetric:
        return np.column_stack([np.maximum(returns, 0.0), np.maximum(-returns, 0.0)])
    return np.abs(returns)[:, None]


def exponential_means(sizes: FloatArray, persistence: float, start: FloatArray) -> FloatArray:
    """Return m_t = b1 m_{t-1} + (1 - b1) x_t, a linear filter over axis 0.

    Args:
        sizes: x, magnitudes on a regular grid of steps, shape (n, columns).
        persistence: b1 in [0, 1).
        start: mean before the first step, shape (columns,).
    """
    share = 1.0 - persistence
    before = persistence * start[None, :]
    means, _ = lfilter([share], [1.0, -persistence], sizes, axis=0, zi=before)
    return np.asarray(means, dtype=np.float64)


def estimate_caviar(
    means_at: Callable[[float], FloatArray],
    outcomes: FloatArray,
    weights: FloatArray,
    level: float,
) -> Caviar:
    """Estimate a recursion by least weighted pinball loss, 0 <= b1 < 1 and the others >= 0.

    Args:
        means_at: exponential means at the n decisions for a persistence, shape (n, columns); in a
            unit of their own in which they are about 1.
        outcomes: adverse excursions, shape (n,), in any unit.
        weights: positive weights, shape (n,).
        level: of the quantile.
    """
    quantile = float(np.quantile(outcomes, level))
    unit = quantile if quantile > 0 else float(outcomes.max())
    if unit <= 0:
        return Caviar(0.0, 0.0, (0.0,) * means_at(0.0).shape[1])
    scaled, share = outcomes / unit, weights / weights.sum()
    fits: dict[float, tuple[float, FloatArray]] = {}
    newest: FloatArray | None = None

    def loss(log_half_life: float) -> float:
        nonlocal newest
        persistence = float(0.5 ** np.exp(-log_half_life))
        means = means_at(persistence)
        if newest is None:
            columns = means.shape[1] + 1
            newest = np.full(columns, 1.0 / columns)
        # neighbouring half-lives have similar slopes: each fit starts from the one before
        value, newest = _fit_slopes(means, scaled, share, level, newest)
        fits[persistence] = (value, newest)
        return value

    grid = np.log(HALF_LIVES)
    best = int(np.argmin([loss(float(point)) for point in grid]))
    bounds = (grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)])
    minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 0.01})
    persistence = min(fits, key=lambda key: fits[key][0])
    constant, *slopes = (fits[persistence][1] * unit).tolist()
    return Caviar(persistence, constant, tuple(slopes))


def _fit_slopes(
    means: FloatArray,
    outcomes: FloatArray,
    weights: FloatArray,
    level: float,
    start: FloatArray,
) -> tuple[float, FloatArray]:
    """Fit constant and slopes >= 0 of a linear quantile; return the loss and the parameters.

    The loss less its part that no parameter changes is (1 - level) E[q] + E[max(y - q, 0)], the
    maximum rounded to a softplus of width :data:`SMOOTHING`. Outcomes are about 1 at the quantile,
    weights sum to 1.
    """
    design = np.column_stack([np.ones(len(means)), means])
    pull = (1.0 - level) * np.einsum("n,nk->k", weights, design)
    parameters = start
    near = outcomes > NEAR * np.einsum("nk,k->n", design, parameters)
    while True:
        found = minimize(
            _smooth_loss,
            parameters,
            args=(design[near], outcomes[near], weights[near], pull),
            jac=True,
            method="L-BFGS-B",
            bounds=[(0.0, None)] * len(parameters),
            options={"ftol": 1e-13, "gtol": 1e-9, "maxiter": 500},
        )
        parameters = np.asarray(found.x, dtype=np.float64)
        forecast = np.einsum("nk,k->n", design, parameters)
        if not ((outcomes > forecast) & ~near).any():
            return float(found.fun), parameters
        near |= outcomes > NEAR * forecast


def _smooth_loss(
    parameters: FloatArray,
    design: FloatArray,
    outcomes: FloatArray,
    weights: FloatArray,
    pull: FloatArray,
) -> tuple[float, FloatArray]:
    excess = (outcomes - np.einsum("nk,k->n", design, parameters)) / SMOOTHING
    hinge = SMOOTHING * np.einsum("n,n->", weights, np.logaddexp(0.0, excess))
    slope = np.einsum("n,nk->k", weights * expit(excess), design)
    return float(np.einsum("k,k->", pull, parameters) + hinge), pull - slope
