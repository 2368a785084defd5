"""Positions under stress: what stands at its margin in each contract when the shock comes.

Responsible for the loss beyond margin of such positions under given moves: the draw that
hypothetical, scaled historical and reverse stress all ask for.
"""

from dataclasses import dataclass

import numpy as np

from margincast.backtest.stress.impact import ImpactLaw
from margincast.core.errors import InputError
from margincast.core.types import BoolArray, FloatArray
from margincast.scoring.coverage import require_finite


@dataclass(frozen=True, eq=False)
class StressedPositions:
    """Positions, one a row; contracts may have several, of both sides.

    Attributes:
        names: what each is called, usually contract and side.
        notional_usd: signed, USD: above zero long, below zero short; shape (positions,).
        margin: maintenance margin rates, fractions of the notional, shape (positions,), positive.
        volatility: standard deviation of the contract's move over the horizon, a fraction, shape
            (positions,), positive.
        depth_usd: depth of its book that the impact law refers to, USD, shape (positions,),
            positive.

    Raises:
        InputError: shapes that differ, no position, a notional of zero, or a value out of range.
    """

    names: tuple[str, ...]
    notional_usd: FloatArray
    margin: FloatArray
    volatility: FloatArray
    depth_usd: FloatArray

    def __post_init__(self) -> None:
        shape = (len(self.names),)
        for name in ("notional_usd", "margin", "volatility", "depth_usd"):
            values = require_finite(getattr(self, name), name)
            if values.shape != shape:
                raise InputError(
                    f"{name} has shape {values.shape} for {len(self.names)} positions; "
                    "give one value a position"
                )
            if name != "notional_usd" and values.min() <= 0.0:
                raise InputError(f"{name} must be positive, found {values.min():g}")
        if np.any(self.notional_usd == 0.0):
            raise InputError("a notional of zero is no position; leave it out")
        if self.margin.max() >= 1.0:
            raise InputError(
                f"margin must be below 1, found {self.margin.max():g}; "
                "give fractions of the notional (divide per cents by 100)"
            )

    @property
    def is_long(self) -> BoolArray:
        """Whether each is long, shape (positions,)."""
        long: BoolArray = self.notional_usd > 0.0
        return long


def shortfall_usd(
    positions: StressedPositions,
    move: FloatArray,
    impact: ImpactLaw,
    *,
    depth_factor: FloatArray | float = 1.0,
    impact_factor: FloatArray | float = 1.0,
) -> FloatArray:
    """Return each position's loss beyond its margin, USD, after a move and its liquidation.

    ``notional * max(0, adverse move + impact cost - margin)``: positions are isolated, what others
    win helps nobody. The cost is paid only where the move is adverse: others are not closed. No
    long loses more than its notional to the move.

    Args:
        positions: what stands at its margin.
        move: simple moves of the positions' prices, fractions, shape (..., positions).
        impact: law of the liquidation cost; the whole position is closed at once.
        depth_factor: depth left, on the depths of the positions, broadcast over ``move``.
        impact_factor: factor on the impact's coefficient, broadcast over ``move``.

    Returns:
        Shape of ``move`` and the factors, broadcast.
    """
    size = np.abs(positions.notional_usd)
    adverse = np.where(positions.is_long, np.minimum(-move, 1.0), move)
    cost = impact_factor * impact.cost(size, positions.depth_usd * depth_factor)
    lost: FloatArray = size * np.where(
        adverse > 0.0, np.maximum(adverse + cost - positions.margin, 0.0), 0.0
    )
    return lost
