"""Sufficiency of one account under stress: what it loses, and whether its equity pays for it.

Responsible for the last lines of the account view. The shocks are those of the stress part of a
report (:data:`~margincast.backtest.stress.scenarios.GRID`), or moves that somebody names. A
haircut is the cushion for a fall of collateral, so liquidation is decided on what counts, and the
loss is paid from all that is there.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from margincast.backtest.stress.shocks import ShockGrid, contract_moves
from margincast.core.errors import InputError
from margincast.core.types import SIDES, BoolArray, FloatArray, Side
from margincast.margin.account import Pool, Position

DEVIATIONS_IN_A_FORECAST = 2.5
"""Standard deviations in a 0.99 quantile forecast: 2.33 of a normal move, more where tails are fat.

Contracts move relative to one another whatever it is; only their own moves are scaled by it."""
OWN_DEVIATIONS = 1.0

Moves = Mapping[tuple[str, Side], FloatArray]
"""Simple moves by contract and side of the position they are against; arrays of one shape."""


@dataclass(frozen=True)
class StressedAccount:
    """An account, and what its stress needs beside its positions.

    Attributes:
        pools: of :func:`~margincast.margin.account.pools_of`.
        forecasts: tail forecast by contract, a fraction: of those that positions are in and
            collateral follows.
        closing_rates: cost of closing by contract and side, a fraction of the notional.
    """

    pools: tuple[Pool, ...]
    forecasts: Mapping[str, float]
    closing_rates: Mapping[tuple[str, Side], float]

    @property
    def contracts(self) -> tuple[str, ...]:
        """Contracts that the account's value hangs on, in order of their names."""
        held = {each.symbol for pool in self.pools for each in pool.positions}
        collateral = [each for pool in self.pools for each in pool.collateral]
        followed = {each.contract for each in collateral if each.contract is not None}
        return tuple(sorted(held | followed))


@dataclass(frozen=True)
class Sufficiency:
    """One scenario.

    Attributes:
        scenario: its name.
        conditions: what else was shocked, at its worst for the account.
        loss_usd: what positions and collateral lose; negative where they gain.
        equity_usd: all that is there after it, without haircuts and before anything is closed.
        closing_cost_usd: of the positions that are liquidated.
        shortfall_usd: what liquidated pools lack when all is closed: somebody else pays.
        liquidated: pools that end below their maintenance requirement.
    """

    scenario: str
    conditions: Mapping[str, float]
    loss_usd: float
    equity_usd: float
    closing_cost_usd: float
    shortfall_usd: float
    liquidated: tuple[str, ...]

    @property
    def is_sufficient(self) -> bool:
        """Whether the account pays for all of it."""
        return self.shortfall_usd == 0.0


def under_shocks(account: StressedAccount, grid: ShockGrid, leader: str) -> list[Sufficiency]:
    """Return a line a price move of the leading contract, the other conditions at their worst.

    Contracts move by their forecasts relative to the leader's times a correlation, and by one
    standard deviation of their own against the position; collateral falls with its contract.
    Closing costs what is published times the volatility factor over the root of the depth left, as
    the square-root law has it.

    Args:
        account: with forecasts of the leader and of all its contracts.
        grid: the shocks.
        leader: the leading contract.

    Raises:
        InputError: a contract without a positive forecast.
    """
    names = account.contracts
    for name in {leader, *names}:
        if not account.forecasts.get(name, 0.0) > 0.0:
            raise InputError(
                f"no forecast of {name}, so that a shock has no size for it; score the contract"
            )
    volatility = np.array([account.forecasts[name] for name in names]) / DEVIATIONS_IN_A_FORECAST
    moves: dict[tuple[str, Side], FloatArray] = {}
    for side in SIDES:
        found = contract_moves(
            grid,
            volatility,
            np.full(len(names), side == "long"),
            leader_volatility=account.forecasts[leader] / DEVIATIONS_IN_A_FORECAST,
            own_deviations=OWN_DEVIATIONS,
        )
        moves |= {(name, side): found[..., i] for i, name in enumerate(names)}
    factor = np.reshape(grid.volatility_factors, (1, -1, 1, 1))
    depth = np.reshape(grid.depth_factors, (1, 1, -1, 1))
    shape = tuple(
        len(axis)
        for axis in (
            grid.price_moves,
            grid.volatility_factors,
            grid.depth_factors,
            grid.correlations,
        )
    )
    outcome = _outcome(account, moves, factor / np.sqrt(depth), shape)
    lines = []
    for i, price_move in enumerate(grid.price_moves):
        # the largest shortfall, and where nothing is lacking the least that is left
        left = outcome.equity[i] - outcome.cost[i]
        order = np.lexsort((left.ravel(), -outcome.shortfall[i].ravel()))
        place = np.unravel_index(int(order[0]), left.shape)
        conditions = {
            "volatility_factor": grid.volatility_factors[int(place[0])],
            "depth_factor": grid.depth_factors[int(place[1])],
            "correlation": grid.correlations[int(place[2])],
        }
        name = f"{leader} {price_move:+.0%}"
        lines.append(outcome.line((i, *(int(one) for one in place)), name, conditions))
    return lines


def under_moves(
    account: StressedAccount, scenarios: Mapping[str, Mapping[str, float]]
) -> list[Sufficiency]:
    """Return a line a named scenario; closing costs what is published.

    Args:
        account: its forecasts are not read.
        scenarios: by name, the simple move of every contract the account's value hangs on.

    Raises:
        InputError: a scenario without a move of such a contract, or with one below -1.
    """
    names = account.contracts
    for scenario, given in scenarios.items():
        absent = [name for name in names if name not in given]
        if absent:
            raise InputError(
                f"scenario {scenario!r} has no move of {', '.join(absent)}; give every contract a "
                "move, 0 where it stands still"
            )
        wrong = [name for name in names if not -1.0 <= given[name] < np.inf]
        if wrong:
            raise InputError(
                f"scenario {scenario!r} moves {wrong[0]} by {given[wrong[0]]:g}; a simple move is "
                "-1 or more"
            )
    moves: dict[tuple[str, Side], FloatArray] = {}
    for name in names:
        of_contract = np.array([given[name] for given in scenarios.values()])
        moves |= dict.fromkeys(((name, side) for side in SIDES), of_contract)
    outcome = _outcome(account, moves, np.ones(1), (len(scenarios),))
    return [outcome.line((i,), name, {}) for i, name in enumerate(scenarios)]


@dataclass(frozen=True)
class _Outcome:
    """What becomes of an account; arrays of one shape, USD."""

    loss: FloatArray
    equity: FloatArray
    cost: FloatArray
    shortfall: FloatArray
    liquidated: Mapping[str, BoolArray]

    def line(
        self, place: tuple[int, ...], scenario: str, conditions: Mapping[str, float]
    ) -> Sufficiency:
        return Sufficiency(
            scenario,
            conditions,
            loss_usd=float(self.loss[place]),
            equity_usd=float(self.equity[place]),
            closing_cost_usd=float(self.cost[place]),
            shortfall_usd=float(self.shortfall[place]),
            liquidated=tuple(name for name, there in self.liquidated.items() if there[place]),
        )


def _outcome(
    account: StressedAccount, moves: Moves, cost_factor: FloatArray, shape: tuple[int, ...]
) -> _Outcome:
    nothing = np.zeros(shape)
    loss, equity, cost, shortfall = (nothing.copy() for _ in range(4))
    liquidated: dict[str, BoolArray] = {}
    for pool in account.pools:
        lost, discount, closing, required = (nothing.copy() for _ in range(4))
        for each in pool.collateral:
            move = moves[each.contract, "long"] if each.contract is not None else nothing
            lost -= float(each.value_usd) * move
            discount += float(each.value_usd - each.counted_usd) * (1.0 + move)
        for position in pool.positions:
            move = moves[position.symbol, position.side]
            lost -= float(position.signed_usd) * move
            notional = float(position.notional_usd) * (1.0 + move)
            required += _maintenance(position, notional)
            rate = account.closing_rates[position.symbol, position.side]
            closing += notional * np.minimum(rate * cost_factor, 1.0)
        held = float(
            pool.equity_usd + sum(each.value_usd - each.counted_usd for each in pool.collateral)
        )
        left = held - lost
        below = left - discount < required
        paid = np.where(below, closing, 0.0)
        loss, equity, cost = loss + lost, equity + left, cost + paid
        shortfall += np.where(below, np.maximum(paid - left, 0.0), 0.0)
        liquidated[pool.name] = np.broadcast_to(below, shape)
    return _Outcome(loss, equity, cost, shortfall, liquidated)


def _maintenance(position: Position, notional_usd: FloatArray) -> FloatArray:
    """Return the maintenance margin of a position at other notionals; the last rate goes on."""
    tiers = position.tiers.maintenance
    caps, rates, amounts = (
        np.array([float(value) for value in values])
        for values in (tiers.caps_usd, tiers.rates, tiers.amounts_usd)
    )
    tier = np.minimum(np.searchsorted(caps, notional_usd, side="left"), len(caps) - 1)
    return np.asarray(notional_usd * rates[tier] - amounts[tier])
