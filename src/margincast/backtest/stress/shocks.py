"""Hypothetical shocks: what is lost beyond margin under moves that have not happened, or not yet.

Responsible for the grid of price x volatility x depth x correlation, and for history's moves made
larger: the extreme but plausible conditions that an insurance fund is sized for (PFMI principle 4).
"""

from dataclasses import dataclass

import numpy as np

from margincast.backtest.stress.impact import ImpactLaw
from margincast.backtest.stress.positions import StressedPositions, shortfall_usd
from margincast.core.errors import InputError
from margincast.core.types import BoolArray, FloatArray
from margincast.scoring.coverage import require_finite


@dataclass(frozen=True)
class ShockGrid:
    """Shocks to combine; every axis has at least one value.

    Attributes:
        price_moves: simple moves of the leading contract, fractions above -1, for example -0.2.
        volatility_factors: on every contract's volatility, above zero; they widen the own moves
            of the contracts and raise the impact of orders in proportion.
        depth_factors: part of the depth that is left, above zero.
        correlations: of every contract with the leading one, in [0, 1].

    Raises:
        InputError: an empty axis or a value out of range.
    """

    price_moves: tuple[float, ...]
    volatility_factors: tuple[float, ...] = (1.0,)
    depth_factors: tuple[float, ...] = (1.0,)
    correlations: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        for name, lowest, highest in (
            ("price_moves", -1.0, np.inf),
            ("volatility_factors", 0.0, np.inf),
            ("depth_factors", 0.0, np.inf),
        ):
            values = require_finite(np.array(getattr(self, name)), name)
            if values.min() <= lowest or values.max() >= highest:
                raise InputError(f"{name} must lie above {lowest:g}, found {values.min():g}")
        values = require_finite(np.array(self.correlations), "correlations")
        if values.min() < 0.0 or values.max() > 1.0:
            raise InputError(f"correlations must lie in [0, 1], found {list(self.correlations)}")


@dataclass(frozen=True, eq=False)
class ShockSurface:
    """Losses beyond margin on a grid, axes price, volatility, depth, correlation.

    Attributes:
        grid: the shocks.
        shortfall_usd: of all positions together, shape (P, V, D, C).
        by_position_usd: of each, shape (P, V, D, C, positions).
    """

    grid: ShockGrid
    shortfall_usd: FloatArray
    by_position_usd: FloatArray

    def worst(self) -> tuple[float, dict[str, float]]:
        """Return the largest loss beyond margin, USD, and the shock that makes it."""
        place = np.unravel_index(int(self.shortfall_usd.argmax()), self.shortfall_usd.shape)
        axes = {
            "price_move": self.grid.price_moves,
            "volatility_factor": self.grid.volatility_factors,
            "depth_factor": self.grid.depth_factors,
            "correlation": self.grid.correlations,
        }
        shock = {name: axis[int(i)] for (name, axis), i in zip(axes.items(), place, strict=True)}
        return float(self.shortfall_usd[place]), shock


def shock_surface(
    positions: StressedPositions,
    grid: ShockGrid,
    impact: ImpactLaw,
    *,
    leader_volatility: float,
    own_deviations: float = 0.0,
) -> ShockSurface:
    """Return what is lost beyond margin under every combination of shocks.

    Prices move as in :func:`contract_moves`. The impact is multiplied by the volatility factor, and
    depth by the depth factor; see :func:`~margincast.backtest.stress.positions.shortfall_usd`.

    Args:
        positions: what stands at its margin.
        grid: the shocks.
        impact: law of the liquidation cost.
        leader_volatility: standard deviation of the leading contract over the horizon.
        own_deviations: k, zero or more.

    Raises:
        InputError: a leader volatility that is not positive, or k below zero.
    """
    move = contract_moves(
        grid,
        positions.volatility,
        positions.is_long,
        leader_volatility=leader_volatility,
        own_deviations=own_deviations,
    )
    factor = np.reshape(grid.volatility_factors, (1, -1, 1, 1, 1))
    depth = np.reshape(grid.depth_factors, (1, 1, -1, 1, 1))
    lost = shortfall_usd(positions, move, impact, depth_factor=depth, impact_factor=factor)
    return ShockSurface(grid, lost.sum(axis=-1), lost)


def contract_moves(
    grid: ShockGrid,
    volatility: FloatArray,
    is_long: BoolArray,
    *,
    leader_volatility: float,
    own_deviations: float,
) -> FloatArray:
    """Return how prices move against positions under every combination of shocks.

    When the leading contract moves by m, contract c moves by its expectation given that and by
    ``own_deviations`` (k) standard deviations of what is its own, against the position:
    ``rho sigma_c / sigma_leader m -+ k sqrt(1 - rho^2) f sigma_c`` with f the volatility factor (it
    leaves the ratio of volatilities as it is).

    Args:
        grid: the shocks.
        volatility: standard deviation of the move of each position's contract over the horizon,
            a fraction, shape (positions,).
        is_long: whether each position loses when the price falls, shape (positions,).
        leader_volatility: that of the leading contract.
        own_deviations: k, zero or more.

    Returns:
        Simple moves, at least -1, shape (P, V, 1, C, positions).

    Raises:
        InputError: a leader volatility that is not positive, or k below zero.
    """
    if not leader_volatility > 0.0 or not own_deviations >= 0.0:
        raise InputError(
            "leader_volatility must be positive and own_deviations zero or more, found "
            f"{leader_volatility:g} and {own_deviations:g}"
        )
    price = np.reshape(grid.price_moves, (-1, 1, 1, 1, 1))
    factor = np.reshape(grid.volatility_factors, (1, -1, 1, 1, 1))
    correlation = np.reshape(grid.correlations, (1, 1, 1, -1, 1))
    common = correlation * volatility / leader_volatility * price
    own = own_deviations * np.sqrt(1.0 - correlation**2) * factor * volatility
    # no price falls below zero
    return np.asarray(np.maximum(common - np.where(is_long, own, -own), -1.0))


def scaled_historical(
    positions: StressedPositions,
    moves: FloatArray,
    factors: FloatArray,
    impact: ImpactLaw,
    *,
    depth_factor: float = 1.0,
) -> FloatArray:
    """Return what today's positions lose beyond margin under history's moves, made larger.

    Moves of a scenario happen together, so its correlations are those that were.

    Args:
        positions: what stands at its margin.
        moves: simple moves of the positions' contracts, shape (scenarios, positions), above -1;
            of a position's own adverse extreme where paths matter.
        factors: on the logs of the prices' ratios, so that twice a fall of 60 per cent is one of
            84 and not of 120; shape (factors,), zero or more.
        impact: law of the liquidation cost.
        depth_factor: part of the depth that is left.

    Returns:
        Losses of all positions together, USD, shape (scenarios, factors).

    Raises:
        InputError: moves of another shape, not finite or not above -1, or negative factors.
    """
    moves, factors = require_finite(moves, "moves"), require_finite(factors, "factors")
    if moves.ndim != 2 or moves.shape[1] != len(positions.names) or moves.min() <= -1.0:
        raise InputError(
            f"moves must be above -1 and of shape (scenarios, {len(positions.names)}), found shape "
            f"{moves.shape} with smallest {moves.min():g}"
        )
    if factors.min() < 0.0 or not depth_factor > 0.0:
        raise InputError("factors must be zero or more and depth_factor positive")
    scaled = np.expm1(np.log1p(moves)[:, np.newaxis, :] * factors[:, np.newaxis])
    lost = shortfall_usd(positions, scaled, impact, depth_factor=depth_factor)
    total: FloatArray = lost.sum(axis=-1)
    return total
