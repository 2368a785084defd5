"""The law of one hour's adverse excursion, in units of that hour's volatility.

Everything the oracle says comes from here. Within an hour the log price is ``sigma`` times a unit
path of :data:`SUBSTEPS` steps: Gaussian, Gaussian times a random volatility (Student's t), or
Gaussian with jumps. The log excursion of a side is then ``sigma`` times the unit path's, whose
law is tabulated once. What is known at a decision is a mixture of such laws (:class:`Truth`): the
chance of each regime or number of jumps, and the volatility each comes with.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.stats import chi2

from margincast.core.types import SIDES, BoolArray, FloatArray, Side

SUBSTEPS: Final = 30
"""Steps of an hour: extremes between them do not count, in bars and in laws alike."""

PATHS: Final = 500_000
"""Unit paths a law is tabulated from: at 0.999 they give the quantile to about 0.3 %."""

GRID: Final = np.concatenate([np.linspace(0.0, 8.0, 1601), np.geomspace(8.0, 400.0, 800)[1:]])
"""Excursions at which laws are tabulated, in volatilities of the hour; linear in between."""

AT_A_TIME: Final = 50_000


@dataclass(frozen=True)
class Extremes:
    """What a bar shows of unit paths: arrays of one shape, in volatilities of the hour.

    Attributes:
        high: highest point, at least 0 (the path starts there).
        low: lowest point, at most 0.
        end: last point.
    """

    high: FloatArray
    low: FloatArray
    end: FloatArray

    @classmethod
    def joined(cls, parts: Sequence["Extremes"]) -> "Extremes":
        """Put parts one after another along the first axis."""
        return cls(
            np.concatenate([part.high for part in parts]),
            np.concatenate([part.low for part in parts]),
            np.concatenate([part.end for part in parts]),
        )

    @property
    def spread(self) -> FloatArray:
        """High less low."""
        return np.asarray(self.high - self.low)


@dataclass(frozen=True)
class UnitLaw:
    """Law of both sides' excursions of a unit path.

    Attributes:
        survival: per side, P(excursion > u) for u on :data:`GRID`.
        beyond: per side, E[(excursion - u)+] for u on :data:`GRID`.
    """

    survival: Mapping[Side, FloatArray]
    beyond: Mapping[Side, FloatArray]

    @classmethod
    def of_survival(cls, survival: Mapping[Side, FloatArray]) -> "UnitLaw":
        """Integrate survival functions from the right."""
        beyond = {}
        for side, values in survival.items():
            areas = np.diff(GRID) * (values[1:] + values[:-1]) / 2
            beyond[side] = np.append(np.cumsum(areas[::-1])[::-1], 0.0)
        return cls(survival, beyond)

    @classmethod
    def of_sample(cls, extremes: Extremes) -> "UnitLaw":
        """Tabulate a sample of unit paths."""
        samples: dict[Side, FloatArray] = {"long": -extremes.low, "short": extremes.high}
        return cls.of_survival({side: _share_beyond(values) for side, values in samples.items()})


@dataclass(frozen=True)
class Truth:
    """Conditional law of the log excursions that follow n decisions: a mixture of K unit laws.

    Log excursions are ``-log(1 - y)`` of a long's and ``log(1 + y)`` of a short's simple fraction
    y: in them the law is exactly a volatility times a unit law.

    Attributes:
        laws: the K unit laws.
        weights: chance of each, shape (n, K), rows sum to 1.
        scales: volatility of the hour under each, shape (n, K).
    """

    laws: tuple[UnitLaw, ...]
    weights: FloatArray
    scales: FloatArray

    def rows(self, keep: BoolArray | npt.NDArray[np.intp]) -> "Truth":
        """Return the truth of some decisions."""
        return Truth(self.laws, self.weights[keep], self.scales[keep])

    def survival(self, side: Side, log_excursion: FloatArray) -> FloatArray:
        """P(log excursion > x), shape (n,)."""
        share = np.zeros(len(log_excursion))
        for law, weight, scale in self._parts():
            share += weight * np.interp(log_excursion / scale, GRID, law.survival[side])
        return share

    def expected_pinball(self, side: Side, level: float, log_forecast: FloatArray) -> FloatArray:
        """Mean pinball loss of a forecast under the true law, in log excursions, shape (n,).

        The outcome is integrated out, so a difference between two forecasts has no noise of the
        few outcomes that exceeded either.
        """
        beyond, mean = np.zeros(len(log_forecast)), np.zeros(len(log_forecast))
        for law, weight, scale in self._parts():
            beyond += weight * scale * np.interp(log_forecast / scale, GRID, law.beyond[side])
            mean += weight * scale * law.beyond[side][0]
        return np.asarray((1 - level) * (log_forecast - mean) + beyond)

    def quantile(self, side: Side, level: float) -> FloatArray:
        """Quantile of the log excursion, shape (n,), by bisection to a millionth of the scale."""
        low = np.zeros(len(self.weights))
        high = self.scales.max(axis=1) * GRID[-1]
        for _ in range(30):
            middle = (low + high) / 2
            exceeded = self.survival(side, middle) > 1 - level
            low, high = np.where(exceeded, middle, low), np.where(exceeded, high, middle)
        return np.asarray((low + high) / 2)

    def _parts(self) -> "zip[tuple[UnitLaw, FloatArray, FloatArray]]":
        return zip(self.laws, self.weights.T, self.scales.T, strict=True)


def to_log(side: Side, fraction: FloatArray) -> FloatArray:
    """Turn excursions (simple fractions) into log excursions; a long cannot lose more than all."""
    if side == "long":
        return np.asarray(-np.log1p(-np.minimum(fraction, 1 - 1e-9)))
    return np.asarray(np.log1p(fraction))


def to_fraction(side: Side, log_excursion: FloatArray) -> FloatArray:
    """Turn log excursions into simple fractions of the decision price."""
    return np.asarray(-np.expm1(-log_excursion) if side == "long" else np.expm1(log_excursion))


def extremes_of(increments: FloatArray) -> Extremes:
    """Extremes of paths given by their increments along the last axis."""
    path = np.cumsum(increments, axis=-1)
    return Extremes(
        np.maximum(path.max(axis=-1), 0.0), np.minimum(path.min(axis=-1), 0.0), path[..., -1]
    )


def jump_increments(
    generator: np.random.Generator, shape: tuple[int, ...], mean: float, deviation: float
) -> FloatArray:
    """Increments of one normal jump at a random step of each path, shape (*shape, SUBSTEPS)."""
    increments = np.zeros((*shape, SUBSTEPS))
    step = generator.integers(SUBSTEPS, size=(*shape, 1))
    size = generator.normal(mean, deviation, (*shape, 1))
    np.put_along_axis(increments, step, size, axis=-1)
    return increments


@lru_cache
def brownian_sample() -> Extremes:
    """Extremes of :data:`PATHS` Gaussian unit paths."""
    generator = np.random.default_rng(1)
    parts = [
        extremes_of(generator.standard_normal((AT_A_TIME, SUBSTEPS)) / np.sqrt(SUBSTEPS))
        for _ in range(PATHS // AT_A_TIME)
    ]
    return Extremes.joined(parts)


@lru_cache
def gaussian_law() -> UnitLaw:
    """Gaussian unit paths; both sides share the mirrored sample."""
    sample = brownian_sample()
    share = _share_beyond(np.concatenate([sample.high, -sample.low]))
    return UnitLaw.of_survival(dict.fromkeys(SIDES, share))


@lru_cache
def student_law(degrees: float) -> UnitLaw:
    """Gaussian unit paths times one random volatility an hour: Student's t hourly returns.

    The squared volatility is (degrees - 2) / chi-squared(degrees), of mean 1. It is integrated out
    on quantiles that grow dense where it is large, so the far tail hangs on no draw.
    """
    edges = np.concatenate([[0.0], np.geomspace(1e-10, 0.5, 600), np.linspace(0.5, 1, 200)[1:]])
    weights = np.diff(edges)
    volatility = np.sqrt((degrees - 2) / chi2.ppf((edges[1:] + edges[:-1]) / 2, degrees))
    gaussian = gaussian_law().survival["long"]
    share = np.zeros(len(GRID))
    for weight, times in zip(weights, volatility, strict=True):
        share += weight * np.interp(GRID / times, GRID, gaussian)
    return UnitLaw.of_survival(dict.fromkeys(SIDES, share))


@lru_cache
def jump_law(count: int, mean: float, deviation: float) -> UnitLaw:
    """Gaussian unit paths with ``count`` normal jumps at random steps."""
    generator = np.random.default_rng(2 + count)
    parts = []
    for _ in range(PATHS // AT_A_TIME):
        increments = generator.standard_normal((AT_A_TIME, SUBSTEPS)) / np.sqrt(SUBSTEPS)
        for _ in range(count):
            increments += jump_increments(generator, (AT_A_TIME,), mean, deviation)
        parts.append(extremes_of(increments))
    return UnitLaw.of_sample(Extremes.joined(parts))


@lru_cache
def mean_squared_spread() -> float:
    """E[spread squared] of Gaussian unit paths: what makes a squared range a variance."""
    return float(np.mean(brownian_sample().spread ** 2))


@lru_cache
def mean_log_spread() -> float:
    """E[log spread] of Gaussian unit paths."""
    return float(np.mean(np.log(brownian_sample().spread)))


def _share_beyond(sample: FloatArray) -> FloatArray:
    """Share of a sample beyond each point of :data:`GRID`."""
    return 1.0 - np.searchsorted(np.sort(sample), GRID, side="right") / len(sample)
