"""Total variance of an expiry as a function of log-moneyness: raw SVI, fitted free of arbitrage.

What option markets charge for a tail is read off a smile, not off single quotes. Raw SVI is
w(k) = a + b (rho (k - m) + sqrt((k - m)^2 + sigma^2)), k the log of strike over forward, w the
implied variance times the time to expiry.

Sources: Gatheral and Jacquier (2014) doi:10.1080/14697688.2013.819986 (SVI, Durrleman's condition,
calendar spreads); De Marco and Martini (2009), Quasi-explicit calibration of Gatheral's SVI model,
Zeliade Systems (with m and sigma given the rest is linear); Lee (2004)
doi:10.1111/j.0960-1627.2004.00200.x (wings are no steeper than 2).
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.optimize import leastsq

from margincast.core.types import BoolArray, FloatArray

FAR = 2.0
"""Log-moneyness from the vertex to which Durrleman's condition is checked: strikes of an eighth of
the forward to seven times it; beyond, the wings' slope decides."""

_COARSE = 11
_FINE = 5
_ROUNDS = 10
_SHRINK = 0.4
"""The grid of m and log sigma: its first size, then rounds around the best point, ever smaller."""

_CHECKED = 161
_PENALISED = 41
"""Points at which g is checked, and those at which a fit is penalised."""

_PENALTIES = (1e1, 1e3, 1e5)
_DENSITY_MARGIN = 1e-2
_CALENDAR_MARGIN = 1e-3
"""Penalties begin this far inside of what is allowed, so that a soft one already ends there."""

_PRECISION = 3e-5
_MOST_EVALUATIONS = 60
_TOLERANCE = 1e-9
_LEAST_VARIANCE = 1e-12


@dataclass(frozen=True)
class RawSVI:
    """Raw parameters of several smiles, each of shape (smiles,)."""

    a: FloatArray
    b: FloatArray
    rho: FloatArray
    m: FloatArray
    sigma: FloatArray

    def __getitem__(self, chosen: BoolArray | slice) -> "RawSVI":
        """Some of the smiles."""
        return RawSVI(*(values[chosen] for values in self.as_rows()))

    def as_rows(self) -> FloatArray:
        """The five parameters, shape (5, smiles)."""
        return np.stack([self.a, self.b, self.rho, self.m, self.sigma])

    def total_variance(self, log_moneyness: FloatArray) -> FloatArray:
        """Total variance w(k); k and the result have shape (smiles, points)."""
        a, b, rho, m, sigma = self.as_rows()[:, :, None]
        x = log_moneyness - m
        return np.asarray(a + b * (rho * x + np.sqrt(x * x + sigma * sigma)))

    def durrleman(self, log_moneyness: FloatArray) -> FloatArray:
        """Durrleman's g(k); the density of the terminal price has its sign.

        g = (1 - k w' / (2 w))^2 - w'^2 / 4 (1 / w + 1 / 4) + w'' / 2, Gatheral and Jacquier
        (2014). Minus infinity where total variance is not above zero.
        """
        _, b, rho, m, sigma = self.as_rows()[:, :, None]
        x = log_moneyness - m
        root = np.sqrt(x * x + sigma * sigma)
        w = self.total_variance(log_moneyness)
        slope = b * (rho + x / root)
        curvature = b * sigma * sigma / root**3
        return np.where(w > 0, _durrleman(log_moneyness, w, slope, curvature), -np.inf)

    def wide_grid(self, points: int = _CHECKED) -> FloatArray:
        """Log-moneyness to ``FAR`` on both sides of the vertex, dense around it."""
        m, sigma = self.m[:, None], self.sigma[:, None]
        return m + sigma * np.sinh(np.arcsinh(FAR / sigma) * np.linspace(-1, 1, points))

    def butterfly_free(self) -> BoolArray:
        """Whether no butterfly has a negative price: g >= 0 and wings no steeper than 2."""
        grid = self.wide_grid()
        least = np.minimum(self.durrleman(grid), self.durrleman(np.zeros_like(grid))).min(axis=1)
        gentle = self.b * (1 + np.abs(self.rho)) <= 2 + _TOLERANCE
        return np.asarray((least >= -_TOLERANCE) & gentle)


def fit_smiles(log_moneyness: FloatArray, total_variance: FloatArray, weight: FloatArray) -> RawSVI:
    """Fit smiles by least squares, wings no steeper than 2 and variance not below zero.

    With m and sigma given, w = a + p (s + y) + q (s - y), y = (k - m) / sigma, s = sqrt(y^2 + 1): a
    linear problem whose bounds are 0 <= p, q <= sigma (p and q are half the wings' slopes times
    sigma), solved exactly. m and sigma are searched on a grid, refined around its best point.

    Args:
        log_moneyness: shape (smiles, quotes).
        total_variance: the same.
        weight: of the squared errors, the same shape; 0 fills up smiles of fewer quotes.
    """
    share = weight / weight.sum(axis=1, keepdims=True)
    used = weight > 0
    lowest = np.where(used, log_moneyness, np.inf).min(axis=1)
    highest = np.where(used, log_moneyness, -np.inf).max(axis=1)
    span = highest - lowest
    center = np.stack([(lowest + highest) / 2, np.log(span / 10)])
    reach = np.stack([0.6 * span, np.full_like(span, math.log(30))])
    best, _ = _searched(
        log_moneyness, total_variance, share, center=center, reach=reach, size=_COARSE
    )
    reach = reach * 2 / _COARSE
    for _ in range(_ROUNDS):
        center = np.stack([best[3], np.log(best[4])])
        best, at_border = _searched(
            log_moneyness, total_variance, share, center=center, reach=reach, size=_FINE
        )
        # in a narrow valley the grid walks before it closes in
        reach = np.where(at_border, reach, reach * _SHRINK)
    a, p, q, m, sigma = best
    both = p + q
    rho = np.divide(p - q, both, out=np.zeros_like(both), where=both > 0)
    return RawSVI(a, both / sigma, rho, m, sigma)


def _searched(
    k: FloatArray,
    w: FloatArray,
    share: FloatArray,
    *,
    center: FloatArray,
    reach: FloatArray,
    size: int,
) -> tuple[FloatArray, BoolArray]:
    """Best of a grid of (m, log sigma) for each smile: a, p, q, m, sigma, shape (5, smiles).

    Also whether it lies at the border of the grid.
    """
    steps = np.linspace(-1, 1, size)
    m = (center[0][:, None] + reach[0][:, None] * np.repeat(steps, size))[:, :, None]
    sigma = np.exp(center[1][:, None] + reach[1][:, None] * np.tile(steps, size))[:, :, None]
    y = (k[:, None, :] - m) / sigma
    s = np.sqrt(y * y + 1)
    y_mean, s_mean = (np.einsum("sn,sgn->sg", share, of) for of in (y, s))
    w_mean = np.sum(share * w, axis=1)[:, None]
    y_off, s_off = y - y_mean[:, :, None], s - s_mean[:, :, None]
    y_weighted, s_weighted = share[:, None, :] * y_off, share[:, None, :] * s_off
    yy = np.einsum("sgn,sgn->sg", y_weighted, y_off)
    ys = np.einsum("sgn,sgn->sg", y_weighted, s_off)
    ss = np.einsum("sgn,sgn->sg", s_weighted, s_off)
    yw, sw = (np.einsum("sgn,sn->sg", of, w - w_mean) for of in (y_weighted, s_weighted))
    limit = sigma[:, :, 0]
    p, q = _in_box(yy, ys, ss, yw=yw, sw=sw, limit=limit)
    a = w_mean - p * (s_mean + y_mean) - q * (s_mean - y_mean)
    # the least total variance is a + 2 sqrt(p q)
    a = np.maximum(a, -2 * np.sqrt(p * q))
    error = w[:, None, :] - a[:, :, None] - (p + q)[:, :, None] * s - (p - q)[:, :, None] * y
    cost = np.einsum("sn,sgn->sg", share, error * error)
    chosen = np.argmin(cost, axis=1)[:, None]
    found = (a, p, q, m[:, :, 0], limit)
    best = np.stack([np.take_along_axis(values, chosen, axis=1)[:, 0] for values in found])
    of_m, of_sigma = np.divmod(chosen[:, 0], size)
    at_border = (of_m % (size - 1) == 0) | (of_sigma % (size - 1) == 0)
    return best, at_border


def _in_box(
    yy: FloatArray,
    ys: FloatArray,
    ss: FloatArray,
    *,
    yw: FloatArray,
    sw: FloatArray,
    limit: FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """Least squares of two coefficients between 0 and a limit: inside, or on the best edge."""
    pp, qq, pq = yy + 2 * ys + ss, yy - 2 * ys + ss, ss - yy
    pw, qw = sw + yw, sw - yw
    tiny = 1e-300
    determinant = np.maximum(4 * (yy * ss - ys * ys), tiny)
    inner_p, inner_q = (qq * pw - pq * qw) / determinant, (pp * qw - pq * pw) / determinant
    inside = (inner_p >= 0) & (inner_p <= limit) & (inner_q >= 0) & (inner_q <= limit)
    best_p, best_q = np.where(inside, inner_p, 0.0), np.where(inside, inner_q, 0.0)
    best = np.where(inside, -np.inf, np.inf)
    for edge in (np.zeros_like(limit), limit):
        free_q = np.clip((qw - edge * pq) / np.maximum(qq, tiny), 0, limit)
        free_p = np.clip((pw - edge * pq) / np.maximum(pp, tiny), 0, limit)
        for p, q in ((edge, free_q), (free_p, edge)):
            cost = p * p * pp + 2 * p * q * pq + q * q * qq - 2 * (p * pw + q * qw)
            better = cost < best
            best = np.where(better, cost, best)
            best_p, best_q = np.where(better, p, best_p), np.where(better, q, best_q)
    return best_p, best_q


def without_arbitrage(
    smile: RawSVI,
    log_moneyness: FloatArray,
    total_variance: FloatArray,
    weight: FloatArray,
    *,
    floor_at: FloatArray,
    floor: FloatArray,
) -> RawSVI | None:
    """Fit one smile again, butterfly-free and nowhere below a floor.

    Least squares on all five parameters with penalties on Durrleman's g below zero and on total
    variance below the floor, made heavier until both hold.

    Args:
        smile: where to start, one smile.
        log_moneyness: of the quotes, shape (quotes,).
        total_variance: the same shape.
        weight: of the squared errors, the same shape.
        floor_at: log-moneyness at which the floor is given; empty without one.
        floor: least total variance there, that of the expiry before.

    Returns:
        One smile; None where none was found.
    """
    found = _lifted(smile, floor_at, floor * (1 + _CALENDAR_MARGIN))
    for penalty in _PENALTIES:
        task = _Penalised(
            log_moneyness,
            total_variance,
            np.sqrt(weight / weight.sum()),
            density_at=np.append(found.wide_grid(_PENALISED)[0], 0.0),
            floor_at=floor_at,
            floor=floor * (1 + _CALENDAR_MARGIN),
            penalty=math.sqrt(penalty / _PENALISED),
        )
        free, *_ = leastsq(
            task.residuals,
            _unbounded(found),
            Dfun=task.jacobian,
            xtol=_PRECISION,
            ftol=_PRECISION,
            maxfev=_MOST_EVALUATIONS,
            full_output=True,
        )
        found = _smile(free)
        if found.butterfly_free()[0] and above_floor(found, floor_at, floor):
            return found
    return None


def _lifted(smile: RawSVI, floor_at: FloatArray, floor: FloatArray) -> RawSVI:
    """Raise one smile to a floor as it is: where a better one is searched from."""
    missing = np.max(floor - smile.total_variance(floor_at[None])[0], initial=0.0)
    return RawSVI(smile.a + missing, smile.b, smile.rho, smile.m, smile.sigma)


def above_floor(smile: RawSVI, floor_at: FloatArray, floor: FloatArray) -> bool:
    """Whether one smile's total variance is nowhere below a floor: no calendar spread is free."""
    variance = smile.total_variance(floor_at[None])[0]
    return bool(np.all(variance >= floor * (1 - _TOLERANCE)))


class _Penalised:
    """Residuals of one smile and their derivatives.

    Free parameters: a, the logits of half the right and half the left wing's slope, m and the log
    of sigma; w = a + right (r + x) + left (r - x), x = k - m, r = sqrt(x^2 + sigma^2).
    """

    def __init__(
        self,
        k: FloatArray,
        w: FloatArray,
        share: FloatArray,
        *,
        density_at: FloatArray,
        floor_at: FloatArray,
        floor: FloatArray,
        penalty: float,
    ) -> None:
        self._k = np.concatenate([k, density_at, floor_at])
        self._quotes = slice(0, len(k))
        self._density = slice(len(k), len(k) + len(density_at))
        self._floor = slice(len(k) + len(density_at), None)
        self._wanted = w
        self._least = floor
        scale = float(np.sum(share * share * w))
        self._share = share / scale
        self._penalty = penalty
        self._floor_penalty = penalty / scale

        self._at: bytes = b""
        self._found = (np.empty(0), np.empty((0, 5)))

    def residuals(self, free: FloatArray) -> FloatArray:
        """Errors of total variance over its mean, and both penalties."""
        return self._evaluated(free)[0]

    def jacobian(self, free: FloatArray) -> FloatArray:
        """Derivatives of the residuals, shape (residuals, 5)."""
        return self._evaluated(free)[1]

    def _evaluated(self, free: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Both, kept for the question that follows: they are made of the same terms."""
        if free.tobytes() == self._at:
            return self._found
        a, right, left, m, sigma = _natural(free)
        both, square = right + left, sigma * sigma
        by_right, by_left = right * (1 - right), left * (1 - left)
        x = self._k - m
        r = np.sqrt(x * x + square)
        lean = x / r
        w = a + right * (r + x) + left * (r - x)
        of_w = np.empty((5, len(x)))
        of_w[0] = 1
        of_w[1] = (r + x) * by_right
        of_w[2] = (r - x) * by_left
        of_w[3] = -(both * lean + (right - left))
        of_w[4] = both * square / r
        k, inside, lean = self._k[self._density], w[self._density], lean[self._density]
        slope = -of_w[3, self._density]
        inverse = 1 / r[self._density]
        bend = square * inverse * inverse * inverse
        curvature = both * bend
        fade = 3 * curvature * lean * inverse
        above = np.maximum(inside, _LEAST_VARIANCE)
        u = 1 - k * slope / (2 * above)
        wrong = np.maximum(_DENSITY_MARGIN - _durrleman(k, inside, slope, curvature), 0)
        below = np.maximum(self._least - w[self._floor], 0)
        of_g = of_w[:, self._density] * ((u * k * slope + slope * slope / 4) / (above * above))
        by_slope = -u * k / above - slope / 2 * (1 / above + 0.25)
        of_g[1] += by_slope * (lean + 1) * by_right + bend * (by_right / 2)
        of_g[2] += by_slope * (lean - 1) * by_left + bend * (by_left / 2)
        of_g[3] += fade / 2 - by_slope * curvature
        of_g[4] += (
            curvature * (1 - 1.5 * square * inverse * inverse)
            - by_slope * curvature * (x[self._density])
        )
        residuals = np.concatenate(
            [
                self._share * (w[self._quotes] - self._wanted),
                self._penalty * wrong,
                self._floor_penalty * below,
            ]
        )
        jacobian = np.concatenate(
            [
                self._share * of_w[:, self._quotes],
                (-self._penalty * (wrong > 0)) * of_g,
                (-self._floor_penalty * (below > 0)) * of_w[:, self._floor],
            ],
            axis=1,
        ).T
        self._at, self._found = free.tobytes(), (residuals, jacobian)
        return self._found


def _durrleman(
    k: FloatArray, w: FloatArray, slope: FloatArray, curvature: FloatArray
) -> FloatArray:
    above = np.maximum(w, _LEAST_VARIANCE)
    u = 1 - k * slope / (2 * above)
    return np.asarray(u * u - slope * slope / 4 * (1 / above + 0.25) + curvature / 2)


def _unbounded(smile: RawSVI) -> FloatArray:
    """Free parameters of one smile; wings a hair inside of their bounds, variance above zero."""
    a, b, rho, m, sigma = (float(values[0]) for values in smile.as_rows())
    slopes = np.clip([b * (1 + rho) / 2, b * (1 - rho) / 2], 1e-4, 1 - 1e-4)
    a = max(a, 1e-6 - 2 * sigma * math.sqrt(slopes[0] * slopes[1]))
    return np.array([a, *np.log(slopes / (1 - slopes)), m, math.log(sigma)])


def _natural(free: FloatArray) -> tuple[float, float, float, float, float]:
    """a, half the wings' slopes (right, left), m and sigma."""
    a, right, left, m, log_sigma = free.tolist()
    right, left = (1 / (1 + math.exp(-min(max(z, -40.0), 40.0))) for z in (right, left))
    return a, right, left, m, math.exp(min(max(log_sigma, -20.0), 5.0))


def _smile(free: FloatArray) -> RawSVI:
    a, right, left, m, sigma = _natural(free)
    values = (a, right + left, (right - left) / (right + left), m, sigma)
    return RawSVI(*(np.array([value]) for value in values))
