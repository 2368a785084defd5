"""The law of simulated prices: the one function that both the market and its oracle draw from.

The true quantile of an adverse excursion is exact only if it comes from the very process that
made the bars; so there is one process, vectorised over paths and contracts.

A contract's log price moves, in a minute with volatility v, by v times a normal shock (part market
factor, part its own) plus jumps. log v is the sum of a slow and a fast Ornstein-Uhlenbeck process
common to all contracts, a slow and a fast one of the contract, and a fixed pattern over the week.
Jumps are double exponential (Kou 2002, doi:10.1287/mnsc.48.8.1086.166) and arrive at a rate that
rises with volatility. Drift and jumps are compensated: every price is a martingale.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.signal import lfilter

from margincast.core.types import FloatArray
from margincast.data.simulated_parameters import ContractParameters, MarketParameters

MINUTES_PER_DAY = 1440
_EPOCH_WEEKDAY = 3  # 1970-01-01 was a Thursday; Monday is 0


@dataclass(frozen=True)
class VolatilityState:
    """The four parts of log-volatility that decide, with the clock, the law of what follows.

    Attributes:
        slow_common: shape (paths, 1, ...), common to all contracts.
        fast_common: shape (paths, 1, ...), common to all contracts.
        slow_own: shape (paths, contracts, ...).
        fast_own: shape (paths, contracts, ...).
    """

    slow_common: FloatArray
    fast_common: FloatArray
    slow_own: FloatArray
    fast_own: FloatArray


@dataclass(frozen=True)
class SimulatedPaths:
    """Simulated paths, and the volatility behind them.

    Attributes:
        log_moves: log price less log price at the start, shape (paths, contracts, minutes,
            substeps); the last substep of a minute is its close.
        volatility: per square root of a minute, shape (paths, contracts, minutes + 1); entry m is
            in force during minute m and known at its open.
        state: each part of shape (paths, contracts or 1, minutes + 1), entries as in
            ``volatility``.
    """

    log_moves: FloatArray
    volatility: FloatArray
    state: VolatilityState


def log_season(parameters: MarketParameters, minute: npt.NDArray[np.int64]) -> FloatArray:
    """Return what the clock adds to log-volatility.

    Args:
        parameters: the market.
        minute: minutes since 1970-01-01 UTC, any shape.

    Returns:
        The daily cycle plus the weekend's shift, same shape.
    """
    minute_of_day = minute % MINUTES_PER_DAY
    angle = 2.0 * math.pi * (minute_of_day - parameters.season_peak_minute) / MINUTES_PER_DAY
    weekday = (minute // MINUTES_PER_DAY + _EPOCH_WEEKDAY) % 7
    weekend = np.where(weekday >= 5, parameters.weekend_log_volatility, 0.0)
    season: FloatArray = parameters.season_amplitude * np.cos(angle) + weekend
    return season


def stationary_state(
    parameters: MarketParameters,
    contracts: tuple[ContractParameters, ...],
    path_count: int,
    generator: np.random.Generator,
) -> VolatilityState:
    """Draw log-volatility from its stationary law, each part of shape (paths, contracts or 1)."""
    scale = _own_scale(contracts)
    common = (path_count, 1)
    own = (path_count, len(contracts))
    return VolatilityState(
        slow_common=parameters.common_slow_deviation * generator.standard_normal(common),
        fast_common=parameters.common_fast_deviation * generator.standard_normal(common),
        slow_own=parameters.own_slow_deviation * scale * generator.standard_normal(own),
        fast_own=parameters.own_fast_deviation * scale * generator.standard_normal(own),
    )


def simulate_paths(
    parameters: MarketParameters,
    contracts: tuple[ContractParameters, ...],
    initial: VolatilityState,
    *,
    first_minute: int,
    minute_count: int,
    generator: np.random.Generator,
) -> SimulatedPaths:
    """Draw price paths of some contracts that start from a given state of volatility.

    Args:
        parameters: the market.
        contracts: the contracts to follow; all paths of one row share a market factor.
        initial: log-volatility at the start, each part of shape (paths, contracts or 1).
        first_minute: open of the first minute, in minutes since 1970-01-01 UTC.
        minute_count: length of the paths, minutes, at least 1.
        generator: the source of randomness.

    Returns:
        The paths, one set for each row of ``initial``.
    """
    path_count = len(initial.slow_common)
    substeps = parameters.substeps_per_minute
    common_shape = (path_count, 1, minute_count)
    own_shape = (path_count, len(contracts), minute_count)
    common_normals = generator.standard_normal((*common_shape, substeps))
    own_normals = generator.standard_normal((*own_shape, substeps))

    factor_shock = common_normals.sum(axis=-1) / math.sqrt(substeps)
    leverage = parameters.leverage_correlation
    fast_common_shock = leverage * factor_shock + math.sqrt(
        1.0 - leverage**2
    ) * generator.standard_normal(common_shape)
    scale = _own_scale(contracts)[:, np.newaxis]
    slow, fast = parameters.slow_half_life_minutes, parameters.fast_half_life_minutes
    state = VolatilityState(
        slow_common=_mean_reverting(
            initial.slow_common,
            parameters.common_slow_deviation * generator.standard_normal(common_shape),
            slow,
        ),
        fast_common=_mean_reverting(
            initial.fast_common, parameters.common_fast_deviation * fast_common_shock, fast
        ),
        slow_own=_mean_reverting(
            initial.slow_own,
            parameters.own_slow_deviation * scale * generator.standard_normal(own_shape),
            slow,
        ),
        fast_own=_mean_reverting(
            initial.fast_own,
            parameters.own_fast_deviation * scale * generator.standard_normal(own_shape),
            fast,
        ),
    )

    minutes = first_minute + np.arange(minute_count + 1, dtype=np.int64)
    volatility = volatility_of_state(parameters, contracts, state, minutes)
    current = volatility[..., :-1, np.newaxis]
    correlation = np.array([contract.market_correlation for contract in contracts])
    loading = correlation[:, np.newaxis, np.newaxis]
    shocks = loading * common_normals + np.sqrt(1.0 - loading**2) * own_normals
    steps = current * shocks / math.sqrt(substeps) - 0.5 * current**2 / substeps
    steps += _jumps(parameters, contracts, state, generator)
    log_moves = steps.reshape(path_count, len(contracts), -1).cumsum(axis=-1).reshape(steps.shape)
    return SimulatedPaths(log_moves, volatility, state)


def volatility_of_state(
    parameters: MarketParameters,
    contracts: tuple[ContractParameters, ...],
    state: VolatilityState,
    minutes: npt.NDArray[np.int64],
) -> FloatArray:
    """Return the volatility per square root of a minute in force in the minutes that open here.

    Args:
        parameters: the market.
        contracts: the contracts of the state's second axis.
        state: log-volatility, each part of shape (paths, contracts or 1, minutes).
        minutes: opens of the minutes, in minutes since 1970-01-01 UTC, shape (minutes,).

    Returns:
        Fractions of the price, shape (paths, contracts, minutes); its mean square over the
        stationary law, seasonality apart, is the contract's ``minute_volatility`` squared.
    """
    base = np.array([contract.minute_volatility for contract in contracts])
    variance = _common_variance(parameters) + _own_variance(parameters, contracts)
    log_volatility = state.slow_common + state.fast_common + state.slow_own + state.fast_own
    # E[exp(2x)] = exp(2 var x): taking off var x makes the mean square one.
    centred = log_volatility - variance[:, np.newaxis] + log_season(parameters, minutes)
    volatility: FloatArray = base[:, np.newaxis] * np.exp(centred)
    return volatility


def _own_scale(contracts: tuple[ContractParameters, ...]) -> FloatArray:
    return np.array([contract.own_volatility_scale for contract in contracts])


def _common_variance(parameters: MarketParameters) -> float:
    return parameters.common_slow_deviation**2 + parameters.common_fast_deviation**2


def _own_variance(
    parameters: MarketParameters, contracts: tuple[ContractParameters, ...]
) -> FloatArray:
    variance = parameters.own_slow_deviation**2 + parameters.own_fast_deviation**2
    own: FloatArray = variance * _own_scale(contracts) ** 2
    return own


def _mean_reverting(
    initial: FloatArray, shocks: FloatArray, half_life_minutes: float
) -> FloatArray:
    """Run an Ornstein-Uhlenbeck process sampled each minute; the initial value comes first.

    ``shocks`` have the stationary standard deviation; the recursion shrinks them so that the
    process keeps it.
    """
    decay = 0.5 ** (1.0 / half_life_minutes)
    first = initial[..., np.newaxis]
    innovations = math.sqrt(1.0 - decay**2) * shocks
    values, _ = lfilter([1.0], [1.0, -decay], innovations, axis=-1, zi=decay * first)
    return np.concatenate([first, values], axis=-1)


def _jumps(
    parameters: MarketParameters,
    contracts: tuple[ContractParameters, ...],
    state: VolatilityState,
    generator: np.random.Generator,
) -> FloatArray:
    """Draw shared and own jumps less their compensators, shape (paths, contracts, minutes, sub)."""
    power = parameters.jump_volatility_power
    down = parameters.downward_jump_share
    substeps = parameters.substeps_per_minute
    size = np.array([contract.jump_size for contract in contracts])[:, np.newaxis, np.newaxis]
    common_log = (state.slow_common + state.fast_common)[..., :-1]
    own_log = common_log + (state.slow_own + state.fast_own)[..., :-1]
    common_variance = _common_variance(parameters)
    variance = (common_variance + _own_variance(parameters, contracts))[:, np.newaxis]
    own_rate = np.array([contract.own_jumps_per_day for contract in contracts])[:, np.newaxis]
    # Less power^2 var / 2, the mean intensity over the stationary law is the stated rate.
    common_intensity = (parameters.common_jumps_per_day / MINUTES_PER_DAY) * np.exp(
        power * common_log - 0.5 * power**2 * common_variance
    )
    own_intensity = (own_rate / MINUTES_PER_DAY) * np.exp(
        power * own_log - 0.5 * power**2 * variance
    )
    jumps = _unit_jumps(common_intensity, down, substeps, generator)
    jumps = jumps + _unit_jumps(own_intensity, down, substeps, generator)
    growth = down / (1.0 + size) + (1.0 - down) / (1.0 - size) - 1.0
    compensator = (common_intensity + own_intensity)[..., np.newaxis] * growth / substeps
    compensated: FloatArray = size * jumps - compensator
    return compensated


def _unit_jumps(
    intensity: FloatArray, down: float, substeps: int, generator: np.random.Generator
) -> FloatArray:
    """Sum double-exponential jumps of mean absolute size one into the substeps they fall in.

    Jumps are rare, so they are drawn one by one and scattered, not drawn for every substep.
    """
    counts = generator.poisson(intensity).ravel()
    minute = np.repeat(np.arange(counts.size), counts)
    cell = minute * substeps + generator.integers(substeps, size=minute.size)
    sign = np.where(generator.random(minute.size) < down, -1.0, 1.0)
    sizes = sign * generator.standard_exponential(minute.size)
    summed = np.bincount(cell, weights=sizes, minlength=counts.size * substeps)
    return summed.astype(np.float64).reshape(*intensity.shape, substeps)
