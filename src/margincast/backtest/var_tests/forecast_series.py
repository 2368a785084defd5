"""What tests of forecasts beyond their exceedances read: checked series.

Responsible for one series of margins and what happened, in time order, of one contract, side and
horizon, with outcomes that do not overlap.
"""

import numpy as np

from margincast.core.errors import InputError
from margincast.core.types import FloatArray
from margincast.scoring.coverage import require_finite, require_level, require_pairs


def require_series(
    outcome: FloatArray, forecast: FloatArray, level: float
) -> tuple[FloatArray, FloatArray, float]:
    """Return outcome, forecast and level if they are one series of fractions and a level.

    Raises:
        InputError: level outside (0.5, 1); shapes differ or are not one-dimensional; empty, NaN,
            infinite or in per cent.
    """
    level = require_level(level)
    outcome, forecast = require_pairs(outcome, forecast)
    if outcome.ndim != 1:
        raise InputError(
            f"outcome has shape {outcome.shape}; give one series of shape (T,), one contract, side "
            "and horizon in time order"
        )
    return outcome, forecast, level


def require_levels(
    outcome: FloatArray, forecasts: FloatArray, levels: tuple[float, ...]
) -> tuple[FloatArray, FloatArray]:
    """Return outcome and forecasts of several levels if they belong together.

    Args:
        outcome: shape (T,), simple fractions.
        forecasts: shape (T, N), one column a level, simple fractions.
        levels: of the columns, strictly increasing, each in (0.5, 1).

    Raises:
        InputError: as :func:`require_series`; not one column a level; levels not increasing.
    """
    forecasts = require_finite(forecasts, "forecasts")
    if not levels or forecasts.ndim != 2 or forecasts.shape[1] != len(levels):
        raise InputError(
            f"forecasts has shape {forecasts.shape}; expected (T, {len(levels)}), one column for "
            f"each of the levels {list(levels)}"
        )
    for position, level in enumerate(levels):
        outcome, _, _ = require_series(outcome, forecasts[:, position], level)
    if np.any(np.diff(levels) <= 0.0):
        raise InputError(f"levels must increase strictly, found {list(levels)}; sort the columns")
    return outcome, forecasts
