"""Pinball loss: the score that a quantile forecast minimises on average.

Responsible for ranking margin forecasts: of two models at one level, the one with the smaller mean
pinball loss pays less for the same protection.
"""

import numpy as np

from margincast.core.errors import InputError
from margincast.core.types import FloatArray
from margincast.scoring.coverage import require_finite, require_level, require_pairs


def pinball_loss(outcome: FloatArray, forecast: FloatArray, level: float) -> FloatArray:
    """Return ``max(level * (y - f), (level - 1) * (y - f))`` for each outcome y and forecast f.

    Args:
        outcome: realised adverse excursions (or losses), simple fractions, any shape.
        forecast: quantile forecasts at ``level``, simple fractions, the same shape.
        level: the share not exceeded, in (0.5, 1).

    Returns:
        Losses of that shape, in the outcome's unit, never negative. A lower-tail loss of returns
        ``(a - 1{r <= v}) (r - v)`` with a = 1 - level, r = -y, v = -f is the same number.

    Raises:
        InputError: level outside (0.5, 1); shapes differ; empty, NaN, infinite or in per cent.

    Source: Koenker and Bassett (1978), doi:10.2307/1913643; consistency for the quantile:
    Gneiting (2011), doi:10.1198/jasa.2011.r10138.
    """
    level = require_level(level)
    outcome, forecast = require_pairs(outcome, forecast)
    difference = outcome - forecast
    return np.maximum(level * difference, (level - 1.0) * difference)


def mean_pinball(
    outcome: FloatArray,
    forecast: FloatArray,
    level: float,
    weights: FloatArray | None = None,
) -> float:
    """Return the mean pinball loss, weighted when ``weights`` are given.

    Args:
        outcome: see :func:`pinball_loss`.
        forecast: see :func:`pinball_loss`.
        level: see :func:`pinball_loss`.
        weights: non-negative weights of the outcome's shape, in any unit; their sum is divided out.

    Raises:
        InputError: see :func:`pinball_loss`; weights of another shape, negative, NaN or all zero.
    """
    losses = pinball_loss(outcome, forecast, level)
    if weights is None:
        return float(np.mean(losses))
    weights = require_finite(weights, "weights")
    if weights.shape != losses.shape:
        raise InputError(
            f"weights has shape {weights.shape}, the losses {losses.shape}; give one weight a loss"
        )
    if np.min(weights) < 0.0 or not np.any(weights):
        raise InputError(
            f"weights must be non-negative and not all zero, found a smallest of "
            f"{np.min(weights):g} and a sum of {np.sum(weights):g}"
        )
    return float(np.average(losses, weights=weights))
