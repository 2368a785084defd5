"""Murphy diagrams: is one margin model better under every score, or only under ours.

Responsible for rankings that do not hang on the choice of a loss. Every score that a true quantile
minimises is a mixture of elementary scores, one for each threshold; a model whose elementary scores
are nowhere larger is better whatever the users' costs are.
"""

from dataclasses import dataclass

import numpy as np

from margincast.core.types import FloatArray
from margincast.scoring.coverage import require_finite, require_level, require_pairs


@dataclass(frozen=True)
class Dominance:
    """Two models' Murphy diagrams, compared at every threshold where either changes.

    Attributes:
        first_dominates: the first model's mean elementary score is nowhere larger.
        second_dominates: the second's is nowhere larger; both hold for equal diagrams.
        largest_advantage: most by which the first model's score is smaller, at least 0.
        largest_disadvantage: most by which it is larger, at least 0.
    """

    first_dominates: bool
    second_dominates: bool
    largest_advantage: float
    largest_disadvantage: float


def elementary_score(
    outcome: FloatArray, forecast: FloatArray, level: float, threshold: float
) -> FloatArray:
    """Return the elementary quantile score of a threshold.

    ``level`` where forecast <= threshold < outcome (the margin was thought enough at this
    threshold, and was not), ``1 - level`` where outcome <= threshold < forecast (margin held for
    nothing), else 0. Its integral over all thresholds is the pinball loss.

    Args:
        outcome: realised adverse excursions, simple fractions, any shape.
        forecast: quantile forecasts at ``level``, simple fractions, the same shape.
        level: the share not exceeded, in (0.5, 1).
        threshold: in the outcome's unit.

    Returns:
        Scores of that shape, without unit.

    Raises:
        InputError: level outside (0.5, 1); shapes differ; empty, NaN, infinite or in per cent.

    Source: Ehm, Gneiting, Jordan and Krueger (2016), doi:10.1111/rssb.12154, theorem 1a.
    """
    level = require_level(level)
    outcome, forecast = require_pairs(outcome, forecast)
    too_small = (forecast <= threshold) & (threshold < outcome)
    too_large = (outcome <= threshold) & (threshold < forecast)
    return level * too_small + (1.0 - level) * too_large


def murphy_diagram(
    outcome: FloatArray, forecast: FloatArray, level: float, thresholds: FloatArray
) -> FloatArray:
    """Return the mean elementary score at each threshold.

    By counting in sorted arrays, so that all thresholds together cost one sort.

    Args:
        outcome: see :func:`elementary_score`.
        forecast: see :func:`elementary_score`.
        level: see :func:`elementary_score`.
        thresholds: in the outcome's unit, shape (m,), any order.

    Returns:
        Mean scores, shape (m,).

    Raises:
        InputError: as :func:`elementary_score`; thresholds empty, NaN or infinite.
    """
    level = require_level(level)
    outcome, forecast = require_pairs(outcome, forecast)
    thresholds = require_finite(thresholds, "thresholds")
    beyond = outcome > forecast
    short = _between(forecast[beyond], outcome[beyond], thresholds)
    idle = _between(outcome[~beyond], forecast[~beyond], thresholds)
    return (level * short + (1.0 - level) * idle) / outcome.size


def dominance(
    outcome: FloatArray, forecast_first: FloatArray, forecast_second: FloatArray, level: float
) -> Dominance:
    """Compare two models under all consistent scores of the quantile, on the same decisions.

    Exact: mean elementary scores are step functions of the threshold, which change at outcomes and
    forecasts only. It describes the sample and is no test.

    Args:
        outcome: see :func:`elementary_score`.
        forecast_first: forecasts of the first model, the same shape.
        forecast_second: forecasts of the second model, the same shape.
        level: see :func:`elementary_score`.

    Raises:
        InputError: as :func:`elementary_score`.
    """
    thresholds = np.unique(np.concatenate([outcome, forecast_first, forecast_second], axis=None))
    first = murphy_diagram(outcome, forecast_first, level, thresholds)
    difference = first - murphy_diagram(outcome, forecast_second, level, thresholds)
    # counts are whole numbers: what is smaller than this share of one is rounding
    noise = 1e-6 * (1.0 - level) / np.size(outcome)
    lowest, highest = float(difference.min()), float(difference.max())
    return Dominance(
        first_dominates=highest <= noise,
        second_dominates=lowest >= -noise,
        largest_advantage=max(0.0, -lowest),
        largest_disadvantage=max(0.0, highest),
    )


def _between(low: FloatArray, high: FloatArray, thresholds: FloatArray) -> FloatArray:
    """Count the pairs with ``low <= threshold < high``, for each threshold."""
    begun = np.searchsorted(np.sort(low), thresholds, side="right")
    ended = np.searchsorted(np.sort(high), thresholds, side="right")
    return (begun - ended).astype(np.float64)
