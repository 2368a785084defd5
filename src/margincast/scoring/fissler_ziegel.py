"""Fissler-Ziegel loss: the joint score of a quantile and an expected shortfall.

Responsible for comparing what margin models say about the loss beyond the margin; expected
shortfall has no score of its own, only together with its quantile (Fissler and Ziegel 2016,
doi:10.1214/16-AOS1439).
"""

import numpy as np

from margincast.core.errors import InputError
from margincast.core.types import FloatArray
from margincast.scoring.coverage import require_finite, require_level, require_pairs


def fz0_loss(
    outcome: FloatArray,
    forecast: FloatArray,
    expected_shortfall: FloatArray,
    level: float,
) -> FloatArray:
    """Return the FZ0 loss, the member of the family whose differences are free of scale.

    On the loss side, with outcome y, quantile forecast f and expected shortfall s:

        max(0, y - f) / ((1 - level) s) + f / s + log(s) - 1

    Patton, Ziegel and Chen (2019, doi:10.1016/j.jeconom.2018.10.008) write it for returns:
    ``-1{Y <= v} (v - Y) / (a e) + v / e + log(-e) - 1`` with v and e negative. The mapping
    is Y = -y, v = -f, e = -s, a = 1 - level. The constant -1 is kept as they (and GAS) print it.

    Args:
        outcome: realised adverse excursions (or losses), simple fractions, any shape.
        forecast: quantile forecasts at ``level``, simple fractions, the same shape.
        expected_shortfall: mean outcome beyond the quantile, positive simple fractions, the same
            shape, nowhere below the quantile forecast.
        level: the share not exceeded, in (0.5, 1).

    Returns:
        Losses of that shape, without unit; they may be negative. Multiplying all three inputs by c
        adds log(c) to every loss, so rankings do not change.

    Raises:
        InputError: level outside (0.5, 1); shapes differ; empty, NaN, infinite or in per cent; an
            expected shortfall that is not positive or below its quantile.
    """
    level = require_level(level)
    outcome, forecast = require_pairs(outcome, forecast)
    shortfall = require_finite(expected_shortfall, "expected_shortfall")
    if shortfall.shape != forecast.shape:
        raise InputError(
            f"expected_shortfall has shape {shortfall.shape} and forecast {forecast.shape}; "
            "they must pair one to one"
        )
    unusable = int(np.count_nonzero((shortfall <= 0.0) | (shortfall < forecast)))
    if unusable:
        raise InputError(
            f"{unusable} of {shortfall.size} expected shortfalls are not positive or lie below "
            "their quantile forecast; expected shortfall is a positive loss at least as large as "
            "the quantile (returns-side forecasts must change sign)"
        )
    beyond = np.maximum(outcome - forecast, 0.0) / ((1.0 - level) * shortfall)
    return beyond + forecast / shortfall + np.log(shortfall) - 1.0
