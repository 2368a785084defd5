"""Decomposition of the pinball loss: what recalibration could save, and what the forecasts know.

Responsible for saying why a margin model loses: because its numbers are wrong for what it knows
(miscalibration, which a monotone correction removes) or because it cannot tell calm from danger
(lack of discrimination, which only better inputs cure).
"""

import heapq
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from margincast.core.types import FloatArray
from margincast.scoring.coverage import require_level, require_pairs
from margincast.scoring.pinball import mean_pinball

FINEST_LEVEL = 10**6
"""Levels are taken as fractions with at most this denominator, so that weights are integers."""


@dataclass(frozen=True)
class ScoreDecomposition:
    """``score = miscalibration - discrimination + uncertainty``, all in the outcome's unit.

    Attributes:
        score: mean pinball loss of the forecasts.
        miscalibration: what the best monotone correction of the forecasts would save, at least 0.
        discrimination: what the corrected forecasts save against the best constant, at least 0.
        uncertainty: mean pinball loss of the best constant, the sample quantile.
    """

    score: float
    miscalibration: float
    discrimination: float
    uncertainty: float


def decompose_pinball(
    outcome: FloatArray, forecast: FloatArray, level: float
) -> ScoreDecomposition:
    """Split the mean pinball loss into miscalibration, discrimination and uncertainty.

    The forecasts are recalibrated in sample by isotonic quantile regression (the CORP approach:
    consistent, optimally binned, reproducible, by pool-adjacent-violators). All parts are
    losses at an optimum, so they are unique where the recalibrated forecasts are not.

    Args:
        outcome: realised adverse excursions, simple fractions, shape (n,).
        forecast: quantile forecasts at ``level``, simple fractions, shape (n,).
        level: the share not exceeded, in (0.5, 1).

    Raises:
        InputError: level outside (0.5, 1); shapes differ; empty, NaN, infinite or in per cent.

    Source: Gneiting, Wolffram, Resin, Kraus, Bracher, Dimitriadis, Hagenmeyer, Jordan, Lerch,
    Phipps and Schienle (2023), doi:10.1146/annurev-statistics-032921-020240; Dimitriadis,
    Gneiting and Jordan (2021), doi:10.1073/pnas.2016191118.
    """
    level = require_level(level)
    outcome, forecast = require_pairs(outcome, forecast)
    constant = np.full_like(outcome, np.quantile(outcome, level, method="inverted_cdf"))
    score = mean_pinball(outcome, forecast, level)
    recalibrated = mean_pinball(outcome, isotonic_quantile(outcome, forecast, level), level)
    uncertainty = mean_pinball(outcome, constant, level)
    return ScoreDecomposition(
        score=score,
        miscalibration=max(0.0, score - recalibrated),
        discrimination=max(0.0, uncertainty - recalibrated),
        uncertainty=uncertainty,
    )


def isotonic_quantile(outcome: FloatArray, forecast: FloatArray, level: float) -> FloatArray:
    """Return the non-decreasing function of the forecast with the least mean pinball loss.

    Plotted against the forecast it is the reliability curve: above the diagonal the margin was too
    small. Exact, in O(n log n): the least loss of all forecasts up to the i-th, as a function of
    the i-th value, is convex and piecewise linear; its kinks are kept in a heap with integer
    weights, and what slopes upwards is cut off.

    Args:
        outcome: see :func:`decompose_pinball`.
        forecast: see :func:`decompose_pinball`; equal forecasts get equal values.
        level: see :func:`decompose_pinball`.

    Returns:
        Recalibrated forecasts in the order given, shape (n,). Every value is one of the outcomes;
        where several are optimal, the smallest.

    Raises:
        InputError: as :func:`decompose_pinball`.

    Source: Robertson, Wright and Dykstra (1988), Order Restricted Statistical Inference, ISBN
    9780471917878; Jordan, Muehlemann and Ziegel (2022), doi:10.1007/s10463-021-00808-0. The
    recursion is that of Rote (2019), doi:10.4230/OASIcs.SOSA.2019.1.
    """
    level = require_level(level)
    outcome, forecast = require_pairs(outcome, forecast)
    distinct, group = np.unique(forecast, return_inverse=True)
    ends = np.cumsum(np.bincount(group.ravel(), minlength=distinct.size)).tolist()
    # the heap holds places in the order of falling outcomes: the first is the largest outcome
    falling = np.argsort(-outcome, axis=None)
    places = np.empty_like(falling)
    places[falling] = np.arange(falling.size)
    waiting = places[np.argsort(forecast, axis=None, kind="stable")].tolist()
    share = Fraction(level).limit_denominator(FINEST_LEVEL)
    # slopes in units of 1/denominator: what an outcome adds at its kink, and to its right
    kinks = [share.denominator] * len(waiting)
    rise = share.denominator - share.numerator
    heap: list[int] = []
    lowest: list[int] = []
    begin = 0
    for end in ends:
        for place in waiting[begin:end]:
            heapq.heappush(heap, place)
        upwards = rise * (end - begin)
        begin = end
        while upwards >= kinks[heap[0]]:
            upwards -= kinks[heapq.heappop(heap)]
        kinks[heap[0]] -= upwards
        lowest.append(heap[0])
    # from the last forecast down, each takes its own optimum unless its successor's is smaller
    values = np.minimum.accumulate(outcome.ravel()[falling[lowest]][::-1])[::-1]
    return np.asarray(values[group].reshape(forecast.shape))
