"""Simulated margins of one contract, and what happened to them: true ones and wrong ones.

Outcomes are a volatility times a shock. The volatility follows a GARCH(1,1), so that a true
forecast reacts to what happened; a shock is uniform below its 0.9 quantile and Pareto beyond, so
that all quantiles and expected shortfalls are known, and the unit excess beyond each is
``margincast.backtest.es_tests.tail_law.USUAL_TAIL``.
"""

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from scipy import special

from margincast.backtest.es_tests.tail_law import USUAL_TAIL
from margincast.core.types import BoolArray, FloatArray

Truth = Literal["true margin", "1.5x exceedances", "2x exceedances", "clusters", "deeper"]

RATIO: Final[dict[Truth, float]] = {"1.5x exceedances": 1.5, "2x exceedances": 2.0}
"""True exceedances over promised ones, at every level; 1 for the other truths."""

FOLLOWED: Final = 0.2
"""Chance that an exceedance follows an exceedance in clusters; their share is as promised."""

DEPTH: Final = 1.5
"""Excesses over the margin, as a multiple of promised ones, of "deeper"; their number is right."""

TAIL_FROM: Final = 0.9
"""Level from which a shock is Pareto."""

PERSISTENCE: Final = 0.98
NEWS: Final = 0.1
USUAL_VOLATILITY: Final = 0.01
"""Of the GARCH(1,1): weight of a squared outcome, sum of both weights, and root mean square."""

MEAN_SQUARE: Final = TAIL_FROM / 3.0 + (1.0 - TAIL_FROM) / (1.0 - 2.0 * USUAL_TAIL.shape)
"""Of a shock."""

TAIL_SHARES: Final = (1.0, 0.5, 0.2, 0.1)
"""Chances of exceeding the levels of a test of several, as multiples of that of the first."""


@dataclass(frozen=True)
class Series:
    """T decisions of one contract.

    Attributes:
        level: of the margin that is tested.
        levels: increasing from it, L of them.
        outcome: shape (T,).
        forecasts: of all levels, shape (T, L).
        expected_shortfall: of the first level, shape (T,).
        scores: normal scores of the outcomes under the forecast law, shape (T,).
    """

    level: float
    levels: tuple[float, ...]
    outcome: FloatArray
    forecasts: FloatArray
    expected_shortfall: FloatArray
    scores: FloatArray

    @property
    def forecast(self) -> FloatArray:
        """Quantile forecasts of the level that is tested, shape (T,)."""
        return self.forecasts[:, 0]

    @property
    def hits(self) -> BoolArray:
        """Exceedances, shape (T,)."""
        return self.outcome > self.forecast


def shock_quantile(beyond: FloatArray) -> FloatArray:
    """Return the shock that is exceeded with these probabilities, each in (0, 1]."""
    tail = 1.0 - TAIL_FROM
    body = np.minimum((1.0 - beyond) / TAIL_FROM, 1.0)
    return np.asarray(body * (np.minimum(beyond, tail) / tail) ** -USUAL_TAIL.shape)


def levels_of(level: float) -> tuple[float, ...]:
    """Return the levels of a test of several that begins with this one."""
    return tuple(1.0 - share * (1.0 - level) for share in TAIL_SHARES)


def draw_hits(
    shape: tuple[int, int], level: float, truth: Truth, generator: np.random.Generator
) -> BoolArray:
    """Draw sequences of exceedances of a margin at a level, one a row.

    Args:
        shape: (sequences, T).
        level: that the margin promises.
        truth: which margin.
        generator: of the draws.
    """
    probability = RATIO.get(truth, 1.0) * (1.0 - level)
    draws = generator.random(shape)
    if truth != "clusters":
        return draws < probability
    # in and out of exceedance equally often: the stationary share is as promised
    first = probability * (1.0 - FOLLOWED) / (1.0 - probability)
    hits = np.empty(shape, dtype=np.bool_)
    hits[:, 0] = draws[:, 0] < probability
    for step in range(1, shape[1]):
        hits[:, step] = draws[:, step] < np.where(hits[:, step - 1], FOLLOWED, first)
    return hits


def draw_series(
    count: int, sample_size: int, level: float, truth: Truth, generator: np.random.Generator
) -> list[Series]:
    """Draw series whose forecasts are those of the true margin.

    Args:
        count: of the series.
        sample_size: decisions T.
        level: of the margin, 0.9 or more.
        truth: what the outcomes do to it.
        generator: of the draws.
    """
    hits = draw_hits((count, sample_size), level, truth, generator)
    tail = 1.0 - level
    share = 1.0 - generator.random(hits.shape)
    beyond = np.where(hits, tail * share, 1.0 - level * share)
    shocks = shock_quantile(beyond)
    promised = shock_quantile(np.array([1.0 - each for each in levels_of(level)]))
    if truth == "deeper":
        shocks[hits] = promised[0] + DEPTH * (shocks[hits] - promised[0])
        beyond[hits] = tail * (shocks[hits] / promised[0]) ** (-1.0 / USUAL_TAIL.shape)
    volatility = _volatility(shocks)
    scores = -special.ndtri(beyond)
    return [
        Series(
            level,
            levels_of(level),
            volatility[row] * shocks[row],
            np.outer(volatility[row], promised),
            volatility[row] * promised[0] / (1.0 - USUAL_TAIL.shape),
            scores[row],
        )
        for row in range(count)
    ]


def _volatility(shocks: FloatArray) -> FloatArray:
    """Return the GARCH(1,1) volatility before each shock, shape (R, T)."""
    variance = np.empty_like(shocks)
    variance[:, 0] = USUAL_VOLATILITY**2
    floor = (1.0 - PERSISTENCE) * USUAL_VOLATILITY**2
    weights = PERSISTENCE - NEWS * MEAN_SQUARE + NEWS * shocks**2
    for step in range(1, shocks.shape[1]):
        variance[:, step] = floor + weights[:, step - 1] * variance[:, step - 1]
    return np.sqrt(variance)
