"""Coverage: how often, and by how much, the adverse excursion went beyond the margin forecast.

Responsible for the first question asked of any margin: was it exceeded as often as its level
promises, and what was lost when it was. Also holds what every score demands of its input: paired,
finite arrays of fractions, and a level between 0.5 and 1.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from margincast.core.errors import InputError
from margincast.core.types import BoolArray, FloatArray

_LARGEST_TYPICAL_FRACTION = 1.0
_NEAR = 0.1


def require_level(level: float) -> float:
    """Return ``level`` if it lies strictly between 0.5 and 1.

    Raises:
        InputError: it does not (NaN included); per cents and lower-tail levels get advice.

    >>> require_level(0.99)
    0.99
    """
    if 0.5 < level < 1.0:
        return level
    hint = ""
    if 50.0 < level < 100.0:
        hint = f"; did you mean {level / 100:g}?"
    elif 0.0 < level < 0.5:
        hint = f"; a level is the share not exceeded: did you mean {1 - level:g}?"
    raise InputError(f"level must lie strictly between 0.5 and 1, found {level:g}{hint}")


def require_finite(values: FloatArray, name: str) -> FloatArray:
    """Return ``values`` as float64 if there is at least one and none is NaN or infinite.

    Raises:
        InputError: the array is empty, or holds NaN or infinite values (says how many).
    """
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0:
        raise InputError(f"{name} is empty; at least one value is needed")
    unusable = int(array.size - np.count_nonzero(np.isfinite(array)))
    if unusable:
        raise InputError(
            f"{name} holds {unusable} NaN or infinite values among {array.size}; "
            "drop these rows and report their number, they cannot be scored"
        )
    return array


def require_pairs(outcome: FloatArray, forecast: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return outcome and forecast as float64 arrays of one shape, finite and in fractions.

    Args:
        outcome: realised adverse excursions, simple fractions, any shape.
        forecast: forecast of the same excursions, simple fractions, the same shape.

    Raises:
        InputError: shapes differ, an array is empty, holds NaN or infinite values (says how many),
            or looks like per cent written for fractions: a median outcome above 1, or a median
            forecast above 1 that no outcome comes near.
    """
    outcome = require_finite(outcome, "outcome")
    forecast = require_finite(forecast, "forecast")
    if outcome.shape != forecast.shape:
        raise InputError(
            f"outcome has shape {outcome.shape} and forecast {forecast.shape}; "
            "they must pair one to one"
        )
    for name, values in (("outcome", outcome), ("forecast", forecast)):
        median = float(np.median(values))
        # a far quantile over days may rightly exceed the price, but then outcomes come near it
        suspicious = name == "outcome" or float(outcome.max()) < _NEAR * median
        if median > _LARGEST_TYPICAL_FRACTION and suspicious:
            raise InputError(
                f"the median {name} is {median:g}, more than the whole price: this looks like "
                "per cent or a standardised value; give fractions of the decision price "
                "(divide per cents by 100)"
            )
    return outcome, forecast


def exceedances(outcome: FloatArray, forecast: FloatArray) -> BoolArray:
    """Say for each pair whether the outcome went strictly beyond the forecast.

    Args:
        outcome: realised adverse excursions, simple fractions, any shape.
        forecast: forecasts, simple fractions, the same shape.

    Returns:
        Booleans of that shape; an outcome equal to its forecast is not an exceedance.

    Raises:
        InputError: see :func:`require_pairs`.
    """
    outcome, forecast = require_pairs(outcome, forecast)
    return outcome > forecast


def coverage(outcome: FloatArray, forecast: FloatArray) -> float:
    """Return the share of outcomes not exceeded, in [0, 1]; its target is the level.

    Raises:
        InputError: see :func:`require_pairs`.
    """
    return 1.0 - float(np.mean(exceedances(outcome, forecast)))


def exceedance_ratio(outcome: FloatArray, forecast: FloatArray, level: float) -> float:
    """Return observed over nominal exceedances, ``mean(outcome > forecast) / (1 - level)``.

    One is exact coverage; two means the margin was exceeded twice as often as promised.

    Raises:
        InputError: level outside (0.5, 1), or see :func:`require_pairs`.
    """
    level = require_level(level)
    return float(np.mean(exceedances(outcome, forecast))) / (1.0 - level)


def shortfall(outcome: FloatArray, forecast: FloatArray) -> FloatArray:
    """Return the loss beyond margin, ``max(0, outcome - forecast)``, elementwise, a fraction.

    Raises:
        InputError: see :func:`require_pairs`.
    """
    outcome, forecast = require_pairs(outcome, forecast)
    return np.maximum(outcome - forecast, 0.0)


def mean_shortfall(outcome: FloatArray, forecast: FloatArray) -> float:
    """Return the mean shortfall per exceedance, a fraction; NaN (not known) without exceedances.

    Raises:
        InputError: see :func:`require_pairs`.
    """
    beyond = shortfall(outcome, forecast)
    beyond = beyond[beyond > 0.0]
    return float(np.mean(beyond)) if beyond.size else float("nan")


def quantile_crossings(forecasts: FloatArray, levels: Sequence[float]) -> int:
    """Count where a higher level's forecast lies below that of the level next to it.

    Args:
        forecasts: shape (n, levels), one column a level, simple fractions.
        levels: the columns' levels, strictly increasing.

    Returns:
        The number of crossed neighbours over all rows, from 0 to ``n * (levels - 1)``; equal
        neighbours do not cross.

    Raises:
        InputError: not a matrix with one column a level, levels not increasing or outside
            (0.5, 1), empty, or NaN or infinite values.

    Source: Chernozhukov, Fernandez-Val and Galichon (2010), doi:10.3982/ECTA7880.
    """
    matrix = require_finite(forecasts, "forecasts")
    if matrix.ndim != 2 or matrix.shape[1] != len(levels):
        raise InputError(
            f"forecasts has shape {matrix.shape}; expected (n, {len(levels)}), one column a level"
        )
    columns = [require_level(level) for level in levels]
    if any(high <= low for low, high in pairwise(columns)):
        raise InputError(f"levels must increase strictly, found {columns}; sort the columns")
    return int(np.count_nonzero(np.diff(matrix, axis=1) < 0.0))
