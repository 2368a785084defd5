"""Variance of a mean of dependent days, honest with few of them: equal-weighted cosines.

Responsible for error bars where a test period may have two weeks or ten years of days: the fewer
days, the fewer degrees of freedom, where a Bartlett window with a normal law is too sure.
"""

import math

import numpy as np

from margincast.core.errors import InputError
from margincast.core.types import FloatArray
from margincast.scoring.coverage import require_finite


def cosine_long_run_variance(values: FloatArray, observed: int | None = None) -> tuple[float, int]:
    """Return the long-run variance of a series, n times that of its mean, and its freedom.

    ``sum_{j=1..B} L_j^2 / B`` with ``L_j = sqrt(2 / n) sum_t cos(pi j (t - 1/2) / n) x_t``: cosines
    of the B longest periods, each an independent look at the variance, so that the mean over its
    standard error is Student's t with B degrees of freedom. ``B = 0.4 n^(2/3)``, at least 1: the
    authors' recommendation. Cosines sum to zero, so the mean needs not be taken away.

    Args:
        values: one series in time order, shape (n,).
        observed: of them those with an observation, which B counts; zeros stand for the rest. All
            by default.

    Returns:
        The variance and B; NaN and 0 with fewer than two observations, which tell nothing.

    Raises:
        InputError: empty, NaN, infinite or not one-dimensional; more observations than values.

    Source: Lazarus, Lewis, Stock and Watson (2018), doi:10.1080/07350015.2018.1506926.
    """
    series = require_finite(values, "values")
    count = series.size if observed is None else observed
    if series.ndim != 1 or not 0 <= count <= series.size:
        raise InputError(
            f"values has shape {series.shape} and {count} observations; expected one dimension and "
            "at most as many observations as values"
        )
    if count < 2:
        return math.nan, 0
    degrees = max(1, int(0.4 * count ** (2.0 / 3.0)))
    position = np.pi * (np.arange(series.size) + 0.5) / series.size
    cosines = np.cos(np.outer(np.arange(1, degrees + 1), position))
    looks = math.sqrt(2.0 / series.size) * (cosines @ series)
    return float(looks @ looks) / degrees, degrees
