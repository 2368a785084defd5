"""Volatility of the simulated market: the size of ordinary moves, on which every margin rests.

log v is the sum of a slow and a fast Ornstein-Uhlenbeck process common to all contracts, a slow
and a fast one of the contract, a step up while the whole market is turbulent (a two-state Markov
chain: Hamilton 1989, doi:10.2307/1912559) and a fixed pattern over the week.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.signal import lfilter

from margincast.core.types import FloatArray
from margincast.data.simulated.contracts import ContractParameters
from margincast.data.simulated.parameters import MarketParameters

MINUTES_PER_DAY = 1440
_EPOCH_WEEKDAY = 3  # 1970-01-01 was a Thursday; Monday is 0


@dataclass(frozen=True)
class VolatilityState:
    """The parts of log-volatility that decide, with the clock, how large the next moves are.

    Attributes:
        regime: 0 calm, 1 turbulent; shape (paths, 1, ...), common to all contracts.
        slow_common: shape (paths, 1, ...), common to all contracts.
        fast_common: shape (paths, 1, ...), common to all contracts.
        slow_own: shape (paths, contracts, ...).
        fast_own: shape (paths, contracts, ...).
    """

    regime: FloatArray
    slow_common: FloatArray
    fast_common: FloatArray
    slow_own: FloatArray
    fast_own: FloatArray


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


def stationary_volatility(
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
        regime=(generator.random(common) < parameters.turbulent_share).astype(np.float64),
        slow_common=parameters.common_slow_deviation * generator.standard_normal(common),
        fast_common=parameters.common_fast_deviation * generator.standard_normal(common),
        slow_own=parameters.own_slow_deviation * scale * generator.standard_normal(own),
        fast_own=parameters.own_fast_deviation * scale * generator.standard_normal(own),
    )


def simulate_volatility(
    parameters: MarketParameters,
    contracts: tuple[ContractParameters, ...],
    initial: VolatilityState,
    factor_shock: FloatArray,
    generator: np.random.Generator,
) -> VolatilityState:
    """Run log-volatility on from a state.

    Args:
        parameters: the market.
        contracts: the contracts to follow.
        initial: each part of shape (paths, contracts or 1).
        factor_shock: the market factor's standard normal shock in each minute, with which the
            common fast part is correlated; shape (paths, 1, minutes).
        generator: the source of randomness.

    Returns:
        Each part of shape (paths, contracts or 1, minutes + 1): entry m is in force during minute
        m and known at its open; entry 0 is ``initial``.
    """
    path_count, _, minute_count = factor_shock.shape
    own_shape = (path_count, len(contracts), minute_count)
    leverage = parameters.leverage_correlation
    fast_common_shock = leverage * factor_shock + math.sqrt(
        1.0 - leverage**2
    ) * generator.standard_normal(factor_shock.shape)
    scale = _own_scale(contracts)[:, np.newaxis]
    slow, fast = parameters.slow_half_life_minutes, parameters.fast_half_life_minutes
    return VolatilityState(
        regime=_regimes(parameters, initial.regime, minute_count, generator),
        slow_common=_mean_reverting(
            initial.slow_common,
            parameters.common_slow_deviation * generator.standard_normal(factor_shock.shape),
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
    mean_square = log_mean_power(parameters, contracts, 2.0)
    centred = contract_log_volatility(parameters, state) - 0.5 * mean_square[:, np.newaxis]
    volatility: FloatArray = base[:, np.newaxis] * np.exp(centred + log_season(parameters, minutes))
    return volatility


def common_log_volatility(parameters: MarketParameters, state: VolatilityState) -> FloatArray:
    """Return the part of log-volatility all contracts share, shape (paths, 1, ...)."""
    return (
        parameters.turbulent_log_volatility * state.regime + state.slow_common + state.fast_common
    )


def contract_log_volatility(parameters: MarketParameters, state: VolatilityState) -> FloatArray:
    """Return log-volatility, seasonality and level apart, shape (paths, contracts, ...)."""
    return common_log_volatility(parameters, state) + state.slow_own + state.fast_own


def log_mean_power(
    parameters: MarketParameters, contracts: tuple[ContractParameters, ...], power: float
) -> FloatArray:
    """Return log E[exp(power x)] of the stationary log-volatility x.

    Args:
        parameters: the market.
        contracts: the contracts; none gives the law of the common part alone.
        power: the power.

    Returns:
        Shape (contracts,), or (1,) where there are none.
    """
    variance = parameters.common_slow_deviation**2 + parameters.common_fast_deviation**2
    own = parameters.own_slow_deviation**2 + parameters.own_fast_deviation**2
    scale = _own_scale(contracts) if contracts else np.zeros(1)
    share = parameters.turbulent_share
    regime = math.log(1.0 - share + share * math.exp(power * parameters.turbulent_log_volatility))
    result: FloatArray = 0.5 * power**2 * (variance + own * scale**2) + regime
    return result


def _own_scale(contracts: tuple[ContractParameters, ...]) -> FloatArray:
    return np.array([contract.own_volatility_scale for contract in contracts])


def _regimes(
    parameters: MarketParameters,
    initial: FloatArray,
    minute_count: int,
    generator: np.random.Generator,
) -> FloatArray:
    """Run the Markov chain; the initial state comes first."""
    uniform = generator.random((*initial.shape, minute_count))
    # A small number means "turbulent from here", a large one "calm from here", whatever the state:
    # each then leaves its state with the right probability, and the state is the last call made.
    call = np.where(uniform < 1.0 / parameters.calm_minutes, 1.0, np.nan)
    call[uniform > 1.0 - 1.0 / parameters.turbulent_minutes] = 0.0
    states = np.concatenate([initial[..., np.newaxis], call], axis=-1)
    position = np.where(np.isnan(states), 0, np.arange(minute_count + 1))
    np.maximum.accumulate(position, axis=-1, out=position)
    return np.take_along_axis(states, position, axis=-1)


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
