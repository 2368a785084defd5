"""The law of simulated prices: the one function that both the market and its oracle draw from.

The true quantile of an adverse excursion is exact only if it comes from the very process that
made the bars; so there is one process, vectorised over paths and contracts.

A contract's log price moves, in a minute with volatility v, by v times a normal shock (part market
factor, part its own) plus jumps; both are compensated, so that the price without liquidations is a
martingale. On top lies the pressure of liquidations. Volatility, jumps and positions each have a
module of their own; here they are put together.
"""

import math
from dataclasses import dataclass

import numpy as np

from margincast.core.types import FloatArray
from margincast.core.units import BPS
from margincast.data.simulated.contracts import ContractParameters, minute_of
from margincast.data.simulated.jumps import HawkesKernel, Jumps, simulate_jumps
from margincast.data.simulated.parameters import MarketParameters
from margincast.data.simulated.positions import (
    IntArray,
    Liquidations,
    PositionLaw,
    PositionState,
    run_positions,
)
from margincast.data.simulated.volatility import (
    MINUTES_PER_DAY,
    VolatilityState,
    common_log_volatility,
    contract_log_volatility,
    log_mean_power,
    simulate_volatility,
    stationary_volatility,
    volatility_of_state,
)

DEPTH_ELASTICITY = 1.0
"""Depth is inversely proportional to volatility: tenfold volatility takes nine tenths of it."""

_BURN_IN_MINUTES = MINUTES_PER_DAY


@dataclass(frozen=True)
class MarketState:
    """All that decides, with the clock, the law of what follows; rows are paths x contracts.

    Attributes:
        log_price: log of the price, USD, shape (paths, contracts, ...).
        volatility: the parts of log-volatility.
        common_excitation: intensity of common jumps above its baseline, jumps per minute, shape
            (paths, 1, ...).
        own_excitation: the same, of own jumps, shape (paths, contracts, ...).
        positions: leveraged positions and liquidation pressure, rows on the first axis.
    """

    log_price: FloatArray
    volatility: VolatilityState
    common_excitation: FloatArray
    own_excitation: FloatArray
    positions: PositionState


@dataclass(frozen=True)
class SimulatedPaths:
    """Simulated paths, and the state behind them.

    Attributes:
        log_price: shape (paths, contracts, minutes, substeps); the last substep of a minute is
            its close.
        volatility: per square root of a minute, shape (paths, contracts, minutes + 1); entry m is
            in force during minute m and known at its open.
        states: each part with a last axis of length minutes + 1, entries as in ``volatility``;
            positions only at the end (length 1) where states were not kept.
        jump_counts: own and common jumps in each minute, shape (paths, contracts, minutes).
        liquidations: liquidation orders, where states were kept.
    """

    log_price: FloatArray
    volatility: FloatArray
    states: MarketState
    jump_counts: FloatArray
    liquidations: Liquidations

    def state_at_the_end(self) -> MarketState:
        """Return the state from which the paths could be run on."""
        states, volatility, positions = self.states, self.states.volatility, self.states.positions
        return MarketState(
            states.log_price[..., -1],
            VolatilityState(
                regime=volatility.regime[..., -1],
                slow_common=volatility.slow_common[..., -1],
                fast_common=volatility.fast_common[..., -1],
                slow_own=volatility.slow_own[..., -1],
                fast_own=volatility.fast_own[..., -1],
            ),
            states.common_excitation[..., -1],
            states.own_excitation[..., -1],
            PositionState(
                positions.pressure[..., -1], positions.size[..., -1], positions.edge[..., -1]
            ),
        )


def settled_state(
    parameters: MarketParameters,
    contracts: tuple[ContractParameters, ...],
    path_count: int,
    *,
    first_minute: int,
    generator: np.random.Generator,
) -> MarketState:
    """Draw states: stationary volatility, mean excitation, all positions at the start price.

    Returns:
        States at the open of ``first_minute``; contracts listed later have no positions.
    """
    shape = (path_count, len(contracts))
    start = np.log(np.array([contract.start_price_usd for contract in contracts]))
    log_price = np.broadcast_to(start, shape).copy()
    branching = parameters.jump_branching
    own = np.array([contract.own_jumps_per_day for contract in contracts])
    law = PositionLaw(parameters, contracts, path_count)
    listed = _listed(contracts, path_count, np.array([first_minute]))[:, 0]
    return MarketState(
        log_price,
        stationary_volatility(parameters, contracts, path_count, generator),
        np.full((path_count, 1), branching * parameters.common_jumps_per_day / MINUTES_PER_DAY),
        np.broadcast_to(branching * own / MINUTES_PER_DAY, shape).copy(),
        law.settled(log_price.ravel(), listed),
    )


def burnt_in_state(
    parameters: MarketParameters,
    contracts: tuple[ContractParameters, ...],
    *,
    first_minute: int,
    generator: np.random.Generator,
) -> MarketState:
    """Draw one state in which positions and jumps have a past: a settled one, run for a day.

    Returns:
        The state at the open of ``first_minute``, at start prices, without pressure.
    """
    before = first_minute - _BURN_IN_MINUTES
    settled = settled_state(parameters, contracts, 1, first_minute=before, generator=generator)
    state = simulate_paths(
        parameters,
        contracts,
        settled,
        first_minute=before,
        minute_count=_BURN_IN_MINUTES,
        generator=generator,
    ).state_at_the_end()
    shift = settled.log_price - state.log_price
    positions = PositionState(
        np.zeros_like(state.positions.pressure),
        state.positions.size,
        state.positions.edge + shift.reshape(-1, 1, 1),
    )
    return MarketState(
        settled.log_price,
        state.volatility,
        state.common_excitation,
        state.own_excitation,
        positions,
    )


def simulate_paths(
    parameters: MarketParameters,
    contracts: tuple[ContractParameters, ...],
    initial: MarketState,
    *,
    first_minute: int,
    minute_count: int,
    generator: np.random.Generator,
    keep: bool = False,
) -> SimulatedPaths:
    """Draw price paths of some contracts that start from a given state.

    A contract listed within the paths has its start price at the open of its first minute; its
    price before is the part of the law nobody sees.

    Args:
        parameters: the market.
        contracts: the contracts to follow; all paths of one row share a market factor.
        initial: the state at the start, each part of shape (paths, contracts or 1).
        first_minute: open of the first minute, in minutes since 1970-01-01 UTC.
        minute_count: length of the paths, minutes, at least 1.
        generator: the source of randomness.
        keep: whether to keep positions at every minute and liquidation orders.

    Returns:
        The paths, one set for each row of ``initial``.
    """
    path_count, contract_count = initial.log_price.shape
    substeps = parameters.substeps_per_minute
    common_normals = generator.standard_normal((path_count, 1, minute_count, substeps))
    own_normals = generator.standard_normal((path_count, contract_count, minute_count, substeps))
    factor_shock = common_normals.sum(axis=-1) / math.sqrt(substeps)
    log_volatility = simulate_volatility(
        parameters, contracts, initial.volatility, factor_shock, generator
    )
    minutes = first_minute + np.arange(minute_count + 1, dtype=np.int64)
    volatility = volatility_of_state(parameters, contracts, log_volatility, minutes)

    current = volatility[..., :-1, np.newaxis]
    correlation = np.array([contract.market_correlation for contract in contracts])
    loading = correlation[:, np.newaxis, np.newaxis]
    shocks = loading * common_normals + np.sqrt(1.0 - loading**2) * own_normals
    steps = current * shocks / math.sqrt(substeps) - 0.5 * current**2 / substeps
    common, own = _jumps(parameters, contracts, initial, log_volatility, generator)
    steps += _compensated(parameters, contracts, common, own, steps.shape)

    rows = path_count * contract_count
    moves = steps.reshape(path_count, contract_count, -1).cumsum(axis=-1)
    pressure = initial.positions.pressure.reshape(path_count, contract_count)
    start = _start(contracts, initial.log_price, moves, first_minute, substeps)
    unpressed = (start - pressure)[..., np.newaxis] + moves
    ordinary = np.array([contract.minute_volatility for contract in contracts])
    calm_impact = parameters.liquidation_impact * np.array(
        [contract.spread_bps * BPS / contract.depth_usd for contract in contracts]
    )
    impact = (
        calm_impact[:, np.newaxis]
        * (volatility[..., :-1] / ordinary[:, np.newaxis]) ** DEPTH_ELASTICITY
    )
    pressed = run_positions(
        PositionLaw(parameters, contracts, path_count),
        initial.positions,
        unpressed.reshape(rows, minute_count, substeps),
        impact.reshape(rows, minute_count),
        _listed(contracts, path_count, minutes[:-1]),
        keep=keep,
    )
    log_price = pressed.log_price.reshape(steps.shape)
    states = MarketState(
        np.concatenate([start[..., np.newaxis], log_price[..., -1]], axis=-1),
        log_volatility,
        common.excitation.reshape(path_count, 1, -1),
        own.excitation.reshape(path_count, contract_count, -1),
        pressed.states,
    )
    jump_counts = (
        common.counts.reshape(path_count, 1, minute_count, substeps)
        + own.counts.reshape(steps.shape)
    ).sum(axis=-1)
    return SimulatedPaths(log_price, volatility, states, jump_counts, pressed.liquidations)


def _listed(
    contracts: tuple[ContractParameters, ...], path_count: int, minutes: IntArray
) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    """Return which contracts are listed in which minutes, shape (rows, minutes)."""
    listed = np.ones((len(contracts), len(minutes)), bool)
    for index, contract in enumerate(contracts):
        if contract.listed_at is not None:
            listed[index] = minutes >= minute_of(contract.listed_at)
    return np.tile(listed, (path_count, 1))


def _start(
    contracts: tuple[ContractParameters, ...],
    log_price: FloatArray,
    moves: FloatArray,
    first_minute: int,
    substeps: int,
) -> FloatArray:
    """Return the log price at the start, moved so that a listing takes place at the start price."""
    start = log_price.copy()
    for index, contract in enumerate(contracts):
        if contract.listed_at is None:
            continue
        ahead = (minute_of(contract.listed_at) - first_minute) * substeps
        if 0 < ahead <= moves.shape[-1]:
            start[:, index] = math.log(contract.start_price_usd) - moves[:, index, ahead - 1]
    return start


def _jumps(
    parameters: MarketParameters,
    contracts: tuple[ContractParameters, ...],
    initial: MarketState,
    log_volatility: VolatilityState,
    generator: np.random.Generator,
) -> tuple[Jumps, Jumps]:
    """Draw the jumps all contracts share, rows of paths, and own ones, rows of paths x contracts.

    Of the stated mean number, the share ``jump_branching`` is set off by other jumps; the rest
    comes at a rate that follows volatility.
    """
    power = parameters.jump_volatility_power
    kernel = HawkesKernel(parameters.jump_branching, parameters.jump_half_life_minutes)
    unprompted = (1.0 - parameters.jump_branching) / MINUTES_PER_DAY
    common_log = common_log_volatility(parameters, log_volatility)[..., :-1]
    own_log = contract_log_volatility(parameters, log_volatility)[..., :-1]
    own_rate = np.array([contract.own_jumps_per_day for contract in contracts])[:, np.newaxis]
    common_rate = parameters.common_jumps_per_day
    common_mean = log_mean_power(parameters, (), power)[:, np.newaxis]
    own_mean = log_mean_power(parameters, contracts, power)[:, np.newaxis]
    minute_count = own_log.shape[-1]
    streams = (
        (common_rate * np.exp(power * common_log - common_mean), initial.common_excitation),
        (own_rate * np.exp(power * own_log - own_mean), initial.own_excitation),
    )
    common, own = (
        simulate_jumps(
            (unprompted * rate).reshape(-1, minute_count),
            excitation.ravel(),
            kernel,
            downward_share=parameters.downward_jump_share,
            substeps=parameters.substeps_per_minute,
            generator=generator,
        )
        for rate, excitation in streams
    )
    return common, own


def _compensated(
    parameters: MarketParameters,
    contracts: tuple[ContractParameters, ...],
    common: Jumps,
    own: Jumps,
    shape: tuple[int, ...],
) -> FloatArray:
    """Return jumps less what they add to the price on average, (paths, contracts, minutes, sub)."""
    down = parameters.downward_jump_share
    size = np.array([contract.jump_size for contract in contracts])[:, np.newaxis, np.newaxis]
    growth = down / (1.0 + size) + (1.0 - down) / (1.0 - size) - 1.0
    shared = (shape[0], 1, *shape[2:])
    units = common.unit_sizes.reshape(shared) + own.unit_sizes.reshape(shape)
    expected = common.expected.reshape(shared) + own.expected.reshape(shape)
    compensated: FloatArray = size * units - growth * expected
    return compensated
