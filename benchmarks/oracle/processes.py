"""Markets whose next hour has a known law, given what their bars have shown so far.

Ten contracts, hourly decisions, a horizon of one hour. In every market the law of the next hour
is a function of past bars and of the clock, so a forecaster that saw everything could equal the
oracle: what it falls short is its own. Each market's docstring says what drives it and through
which features that can be seen. Parameters of a market are the same for all its contracts (what
pooling is for); only their volatility differs, fourfold from the calmest to the wildest.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import numpy as np
from benchmarks.oracle.dynamics import (
    CONTRACTS,
    jumping_paths,
    linear,
    logarithmic,
    paths,
    scaled,
    student_paths,
    surprise,
)
from benchmarks.oracle.laws import (
    Extremes,
    Truth,
    UnitLaw,
    brownian_sample,
    gaussian_law,
    jump_law,
    mean_squared_spread,
    student_law,
)

from margincast.core.types import BoolArray, FloatArray

USUAL_VOLATILITY: Final = np.geomspace(0.003, 0.012, CONTRACTS)
"""Standard deviation of an hour's log return around which each contract's moves."""

SPREAD_WEIGHT, PERSISTENCE = 0.15, 0.83
LOG_SPREAD_WEIGHT, LOG_PERSISTENCE = 0.15, 0.98
RETURN_WEIGHT, RETURN_PERSISTENCE, GARCH_DEGREES = 0.08, 0.90, 5.0

JUMP_SPREAD_WEIGHT, JUMP_PERSISTENCE = 0.10, 0.82
JUMP_MEAN, JUMP_DEVIATION, MOST_JUMPS = -1.0, 4.0, 2
JUMPS_IN_CALM, JUMPS_IN_STRESS, JUMP_STEEPNESS = 0.004, 0.03, 6.0

STRESS_TIMES = 3.0
INTO_STRESS, OUT_OF_STRESS = 1 / 240, 1 / 48
SPREAD_BINS: Final = 120

DEGREES_OF_DAY: Final = (8.0, 12.0, 12.0, 8.0, 5.0, 3.2, 3.2)
"""Degrees of freedom from Monday to Sunday: tails are heavy when few people watch."""

LISTING_DEGREES = 5.0
LISTED_LATE: Final = (7, 8, 9)
LISTED_DAYS_AFTER_TEST_START: Final = (-12, 20, 120)
JUDGED_DAYS: Final = 60
"""A new listing is judged on its first days of decisions."""


@dataclass(frozen=True)
class Setting:
    """Length of a market and what is done to it.

    Attributes:
        start: open of the first hour, UTC.
        test_hour: first hour that is forecast; earlier ones are history.
        multiplier: factor on every contract's volatility from outside, shape (hours,); the oracle
            knows it, forecasters do not.
    """

    start: datetime
    test_hour: int
    multiplier: FloatArray

    @property
    def hours(self) -> int:
        """Hours in all."""
        return len(self.multiplier)

    @property
    def weekday(self) -> "np.ndarray[tuple[int], np.dtype[np.intp]]":
        """Day of the week of every hour, Monday 0, shape (hours,)."""
        hour = self.start.weekday() * 24 + self.start.hour + np.arange(self.hours)
        return np.asarray(hour // 24 % 7, dtype=np.intp)


@dataclass(frozen=True)
class Market:
    """What happened, and what could have been known about it; T hours, C contracts.

    Attributes:
        moves: extremes of each hour's log price, from the hour's open, shape (T, C).
        truth: law of each hour given all hours before it, rows ordered hour by hour (T x C rows).
        listed: first hour of each contract, shape (C,).
        judged: hours on which forecasts are judged, shape (T, C).
    """

    moves: Extremes
    truth: Truth
    listed: "np.ndarray[tuple[int], np.dtype[np.intp]]"
    judged: BoolArray


Process = Callable[[Setting, np.random.Generator], Market]


def gaussian(setting: Setting, generator: np.random.Generator) -> Market:
    """Gaussian hours whose variance is an average of past squared ranges.

    The variance follows HEAVY / CARR dynamics on the range (Shephard and Sheppard 2010,
    doi:10.1002/jae.1158; Chou 2005, doi:10.1353/mcb.2005.0027): next = (1 - a - b) usual +
    a spread^2 / E[spread^2] + b now. Seen exactly through ranges: Parkinson volatilities.
    """
    unit = paths(generator, setting.hours)
    squared = unit.spread**2 / mean_squared_spread()
    return _market(setting, unit, linear(squared, SPREAD_WEIGHT, PERSISTENCE), gaussian_law())


def garch_t(setting: Setting, generator: np.random.Generator) -> Market:
    """GARCH(1,1) on hourly returns with Student's t innovations (5 degrees).

    Bollerslev (1987), doi:10.2307/1925546. Driven by squared close-to-close returns alone, so of
    an hour's range only the end counts: seen through ``ewma_volatility``, ``realised_volatility``
    and ``log_return``, and through Parkinson volatilities only with noise.
    """
    unit = student_paths(generator, np.full(setting.hours, GARCH_DEGREES))
    volatility = linear(unit.end**2, RETURN_WEIGHT, RETURN_PERSISTENCE)
    return _market(setting, unit, volatility, student_law(GARCH_DEGREES))


def jumps(setting: Setting, generator: np.random.Generator) -> Market:
    """Gaussian hours with rare jumps, mostly down, seven times as frequent in stress as in calm.

    Variance as in ``gaussian`` (a jump's range raises it too); jumps of mean -1 and standard
    deviation 4 volatilities arrive with 0.004 to 0.03 an hour, logistic in the log of volatility
    over the contract's usual one. Seen through Parkinson volatilities of short windows over long.
    """
    hours = setting.hours
    by_count = jumping_paths(generator, hours, MOST_JUMPS, JUMP_MEAN, JUMP_DEVIATION)
    chance = generator.random((hours, CONTRACTS))
    highs, lows, ends = (
        np.stack([getattr(unit, name) for unit in by_count]) for name in ("high", "low", "end")
    )
    own, volatility = np.arange(CONTRACTS), np.ones((hours, CONTRACTS))
    counts = np.zeros((hours, CONTRACTS), dtype=np.intp)
    weights = np.empty((hours, CONTRACTS, MOST_JUMPS + 1))
    variance = np.ones(CONTRACTS)
    for hour in range(hours):
        volatility[hour] = np.sqrt(variance)
        weights[hour] = jump_chances(volatility[hour])
        counts[hour] = (chance[hour, :, None] > weights[hour].cumsum(axis=1)[:, :-1]).sum(axis=1)
        spread = highs[counts[hour], hour, own] - lows[counts[hour], hour, own]
        shown = variance * spread**2 / mean_squared_spread()
        variance = (
            1 - JUMP_SPREAD_WEIGHT - JUMP_PERSISTENCE
            + JUMP_SPREAD_WEIGHT * shown
            + JUMP_PERSISTENCE * variance
        )  # fmt: skip
    every = np.arange(hours)[:, None]
    unit = Extremes(highs[counts, every, own], lows[counts, every, own], ends[counts, every, own])
    scales = _outside(setting, volatility)
    laws = (
        gaussian_law(),
        *(jump_law(n, JUMP_MEAN, JUMP_DEVIATION) for n in range(1, MOST_JUMPS + 1)),
    )
    truth = Truth(
        laws, weights.reshape(-1, len(laws)), np.repeat(scales.reshape(-1, 1), len(laws), axis=1)
    )
    return _of_all(setting, scaled(unit, scales), truth)


def jump_chances(relative_volatility: FloatArray) -> FloatArray:
    """Chances of 0, 1 and more (taken as 2) jumps in an hour, shape (n, 3)."""
    stress = 1 / (1 + relative_volatility**-JUMP_STEEPNESS)
    rate = JUMPS_IN_CALM + (JUMPS_IN_STRESS - JUMPS_IN_CALM) * stress
    none = np.exp(-rate)
    return np.stack([none, rate * none, 1 - none - rate * none], axis=-1)


def regime(setting: Setting, generator: np.random.Generator) -> Market:
    """Two Markov regimes: calm for ten days on average, then threefold volatility for two.

    Hamilton (1989), doi:10.2307/1912559. Nobody is told the regime: the oracle infers it from the
    ranges so far with the exact (Hamilton) filter, whose chance of stress in the next hour makes a
    mixture of two Gaussian hours. Ranges of one to three hours tell nearly all.
    """
    hours = setting.hours
    unit = paths(generator, hours)
    chance = generator.random((hours, CONTRACTS))
    stressed = np.zeros((hours, CONTRACTS), dtype=bool)
    for hour in range(1, hours):
        before = stressed[hour - 1]
        stressed[hour] = chance[hour] < np.where(before, 1 - OUT_OF_STRESS, INTO_STRESS)
    volatility = np.where(stressed, STRESS_TIMES, 1.0)
    stress = stress_chances(np.log(volatility * unit.spread))
    calm_scale = _outside(setting, np.ones((hours, CONTRACTS))).ravel()
    truth = Truth(
        (gaussian_law(), gaussian_law()),
        np.stack([1 - stress.ravel(), stress.ravel()], axis=1),
        np.stack([calm_scale, STRESS_TIMES * calm_scale], axis=1),
    )
    return _of_all(setting, scaled(unit, _outside(setting, volatility)), truth)


def stress_chances(log_spread: FloatArray) -> FloatArray:
    """Chance that each hour is one of stress, given the ranges of the hours before it.

    Ranges are told apart by :data:`SPREAD_BINS` bins, so that the filter is exact.

    Args:
        log_spread: log range in the contract's calm volatilities, shape (T, C).
    """
    sample = np.log(brownian_sample().spread)
    edges = np.linspace(sample.min(), sample.max() + np.log(STRESS_TIMES), SPREAD_BINS + 1)[1:-1]
    likelihood = np.stack(
        [
            np.bincount(np.searchsorted(edges, sample + shift), minlength=SPREAD_BINS) + 0.01
            for shift in (0.0, np.log(STRESS_TIMES))
        ]
    )
    shown = np.searchsorted(edges, log_spread)
    result = np.empty(log_spread.shape)
    expected = np.zeros(log_spread.shape[1])
    for hour, bins in enumerate(shown):
        result[hour] = expected
        in_stress = expected * likelihood[1, bins]
        posterior = in_stress / (in_stress + (1 - expected) * likelihood[0, bins])
        expected = posterior * (1 - OUT_OF_STRESS) + (1 - posterior) * INTO_STRESS
    return result


def tail_index(setting: Setting, generator: np.random.Generator) -> Market:
    """Student's t hours whose degrees of freedom go from 12 in midweek to 3.2 at the weekend.

    Log volatility is an average of past log ranges (range-based EGARCH, Brandt and Jones 2006,
    doi:10.1198/073500106000000206), which a single wild hour hardly moves: the scale is easy, the
    shape of the tail is not. Seen through ``day_of_week``; the 0.99 quantile hardly moves with it,
    that of 0.999 by half.
    """
    degrees = np.array(DEGREES_OF_DAY)[setting.weekday]
    unit = student_paths(generator, degrees)
    scales = _outside(
        setting, logarithmic(surprise(unit, degrees), LOG_SPREAD_WEIGHT, LOG_PERSISTENCE)
    )
    kinds = tuple(sorted(set(DEGREES_OF_DAY)))
    weights = (degrees[:, None] == np.array(kinds)).astype(np.float64)
    truth = Truth(
        tuple(student_law(kind) for kind in kinds),
        np.repeat(weights, CONTRACTS, axis=0),
        np.repeat(scales.reshape(-1, 1), len(kinds), axis=1),
    )
    return _of_all(setting, scaled(unit, scales), truth)


def new_listing(setting: Setting, generator: np.random.Generator) -> Market:
    """Student's t hours (5 degrees); three of the ten contracts are listed around the test.

    Dynamics as in ``tail_index`` with constant degrees. One contract has twelve days of history
    when the first test model is fitted, the other two appear between refits; judged are their
    first 60 days of decisions only. They are the wildest of the ten.
    """
    degrees = np.full(setting.hours, LISTING_DEGREES)
    unit = student_paths(generator, degrees)
    volatility = logarithmic(surprise(unit, degrees), LOG_SPREAD_WEIGHT, LOG_PERSISTENCE)
    market = _market(setting, unit, volatility, student_law(LISTING_DEGREES))
    listed = np.zeros(CONTRACTS, dtype=np.intp)
    judged = np.zeros((setting.hours, CONTRACTS), dtype=bool)
    last = setting.hours - JUDGED_DAYS * 24
    for contract, days in zip(LISTED_LATE, LISTED_DAYS_AFTER_TEST_START, strict=True):
        first = min(setting.test_hour + days * 24, last)
        listed[contract] = first
        # decisions start a week after the listing (warm-up of the features)
        judged[first : first + (7 + JUDGED_DAYS) * 24, contract] = True
    return Market(market.moves, market.truth, listed, judged)


PROCESSES: Final[Mapping[str, Process]] = {
    made.__name__: made for made in (gaussian, garch_t, jumps, regime, tail_index, new_listing)
}


def hour_of(setting: Setting, moment: datetime) -> int:
    """Number of the hour that opens at a moment."""
    return (moment - setting.start) // timedelta(hours=1)


def _outside(setting: Setting, volatility: FloatArray) -> FloatArray:
    """Volatility of every hour: over its usual value, times that, times what comes from outside."""
    return volatility * USUAL_VOLATILITY * setting.multiplier[:, None]


def _market(setting: Setting, unit: Extremes, volatility: FloatArray, law: UnitLaw) -> Market:
    scales = _outside(setting, volatility)
    column = scales.reshape(-1, 1)
    return _of_all(setting, scaled(unit, scales), Truth((law,), np.ones(column.shape), column))


def _of_all(setting: Setting, moves: Extremes, truth: Truth) -> Market:
    judged = np.ones((setting.hours, CONTRACTS), dtype=bool)
    return Market(moves, truth, np.zeros(CONTRACTS, dtype=np.intp), judged)
