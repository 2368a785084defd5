"""Winkler's interval score: one number for the margins of both sides of a contract.

Responsible for judging a long and a short margin together: between them they promise that the price
stays in an interval, and the score charges its width and what happens outside.
"""

import numpy as np

from margincast.core.errors import InputError
from margincast.core.types import FloatArray
from margincast.scoring.coverage import require_level, require_pairs


def interval_score(
    outcome: FloatArray, lower: FloatArray, upper: FloatArray, level: float
) -> FloatArray:
    """Return ``(u - l) + max(0, l - y) / (1 - level) + max(0, y - u) / (1 - level)``.

    ``level`` is that of each bound, as everywhere here: the share of outcomes not beyond it. The
    interval then holds ``2 level - 1`` of them; scoringrules and others name the share outside
    instead, ``alpha = 2 (1 - level)``. With terminal returns y, a long margin f and a short margin
    g the interval is [-f, g].

    Args:
        outcome: realised values, for example returns over the horizon as simple fractions, any
            shape.
        lower: forecast of their quantile at 1 - level, the same shape.
        upper: forecast of their quantile at level, the same shape, nowhere below ``lower``.
        level: the share of outcomes not beyond each bound, in (0.5, 1).

    Returns:
        Scores of that shape, in the outcome's unit: the pinball losses of both bounds divided by
        1 - level. Smaller is better; the true quantiles have the smallest mean.

    Raises:
        InputError: level outside (0.5, 1); shapes differ; empty, NaN, infinite or in per cent; a
            lower bound above its upper bound.

    Source: Winkler (1972), doi:10.1080/01621459.1972.10481224; Gneiting and Raftery (2007),
    doi:10.1198/016214506000001437, section 6.2.
    """
    level = require_level(level)
    outcome, lower = require_pairs(outcome, lower)
    outcome, upper = require_pairs(outcome, upper)
    crossed = int(np.count_nonzero(lower > upper))
    if crossed:
        raise InputError(
            f"{crossed} of {lower.size} intervals have a lower bound above the upper one; a long "
            "margin f bounds the return from below at -f, a short margin g from above at g"
        )
    outside = np.maximum(lower - outcome, 0.0) + np.maximum(outcome - upper, 0.0)
    return (upper - lower) + outside / (1.0 - level)
