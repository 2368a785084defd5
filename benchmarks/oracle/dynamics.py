"""What the simulated markets are made of: correlated paths of an hour, and volatilities that move.

T hours, C contracts; paths in volatilities of the hour, volatilities over their usual value.
"""

from collections.abc import Iterator
from typing import Final

import numpy as np
from benchmarks.oracle.laws import SUBSTEPS, Extremes, extremes_of, jump_increments, mean_log_spread
from scipy.special import digamma

from margincast.core.types import FloatArray

CONTRACTS: Final = 10

SHARED: Final = 0.5
"""Correlation of the Gaussian steps of any two contracts; random volatilities are their own."""

HOURS_AT_A_TIME: Final = 500


def paths(generator: np.random.Generator, hours: int) -> Extremes:
    """Extremes of correlated Gaussian unit paths, shape (hours, contracts)."""
    return Extremes.joined([extremes_of(part) for part in increments(generator, hours)])


def increments(generator: np.random.Generator, hours: int) -> Iterator[FloatArray]:
    """Steps of correlated Gaussian unit paths, some hours at a time."""
    for first in range(0, hours, HOURS_AT_A_TIME):
        count = min(HOURS_AT_A_TIME, hours - first)
        shared = generator.standard_normal((count, 1, SUBSTEPS))
        own = generator.standard_normal((count, CONTRACTS, SUBSTEPS))
        yield (np.sqrt(SHARED) * shared + np.sqrt(1 - SHARED) * own) / np.sqrt(SUBSTEPS)


def jumping_paths(
    generator: np.random.Generator, hours: int, most: int, mean: float, deviation: float
) -> list[Extremes]:
    """The same Gaussian paths with 0, 1, ... ``most`` jumps, each shape (hours, contracts)."""
    by_count: list[list[Extremes]] = [[] for _ in range(most + 1)]
    for part in increments(generator, hours):
        path = part
        for count in range(most + 1):
            if count:
                path = path + jump_increments(generator, path.shape[:-1], mean, deviation)
            by_count[count].append(extremes_of(path))
    return [Extremes.joined(parts) for parts in by_count]


def student_paths(generator: np.random.Generator, degrees: FloatArray) -> Extremes:
    """Gaussian paths times one random volatility an hour and contract; degrees of each hour."""
    gaussian = paths(generator, len(degrees))
    chi_squared = generator.chisquare(degrees[:, None], (len(degrees), CONTRACTS))
    return scaled(gaussian, np.sqrt((degrees[:, None] - 2) / chi_squared))


def linear(driver: FloatArray, weight: float, persistence: float) -> FloatArray:
    """Volatility over its usual value where variance averages a driver of mean 1, shape (T, C)."""
    result, variance = np.empty(driver.shape), np.ones(driver.shape[1])
    for hour, shown in enumerate(driver):
        result[hour] = np.sqrt(variance)
        variance = 1 - weight - persistence + (weight * shown + persistence) * variance
    return result


def surprise(unit: Extremes, degrees: FloatArray) -> FloatArray:
    """Log range of Student paths less its mean, given each hour's degrees, shape (T, C)."""
    mean_log_chi_squared = digamma(degrees / 2) + np.log(2)
    mean = mean_log_spread() + (np.log(degrees - 2) - mean_log_chi_squared) / 2
    return np.asarray(np.log(unit.spread) - mean[:, None])


def logarithmic(driver: FloatArray, weight: float, persistence: float) -> FloatArray:
    """Volatility over its usual value where its log averages a driver of mean 0, shape (T, C)."""
    result, log_volatility = np.empty(driver.shape), np.zeros(driver.shape[1])
    for hour, shown in enumerate(driver):
        result[hour] = np.exp(log_volatility)
        log_volatility = persistence * log_volatility + weight * shown
    return result


def scaled(unit: Extremes, scales: FloatArray) -> Extremes:
    """Multiply paths by a volatility each."""
    return Extremes(unit.high * scales, unit.low * scales, unit.end * scales)
