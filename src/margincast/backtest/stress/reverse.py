"""Reverse stress: the smallest move that exhausts the margin, and then the fund.

Responsible for the question put the other way round: not what a given shock costs, but how large
a shock the margin and the insurance fund together withstand (reverse stress
tests of PFMI principle 4).
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np

from margincast.backtest.stress.impact import ImpactLaw
from margincast.backtest.stress.positions import StressedPositions
from margincast.core.errors import InputError
from margincast.core.types import FloatArray


@dataclass(frozen=True)
class ReverseStress:
    """How far the leading contract must move; fractions, positive in the direction asked for.

    Attributes:
        direction: of the move.
        move_exhausting_margin: any larger one takes a position beyond its margin; infinite if none
            does.
        first_to_fail: that position; empty if there is none.
        move_exhausting_fund: any larger one loses more beyond margin than the fund holds; infinite
            if none does.
        positions_failing: beyond their margin at any larger move; at any at all where the fund
            covers all.
        largest_draw_usd: losses beyond margin of the worst move there is, a fall to zero; infinite
            for a rise that anybody loses from.
    """

    direction: Literal["down", "up"]
    move_exhausting_margin: float
    first_to_fail: str
    move_exhausting_fund: float
    positions_failing: tuple[str, ...]
    largest_draw_usd: float


def reverse_stress(
    positions: StressedPositions,
    fund_usd: float,
    impact: ImpactLaw,
    *,
    leader_volatility: float,
    direction: Literal["down", "up"] = "down",
    correlation: float = 1.0,
    concentration: float = 1.0,
    depth_factor: float = 1.0,
) -> ReverseStress:
    """Find the smallest move of the leading contract that exhausts margins, and then the fund.

    A contract moves by ``beta = correlation * volatility / leader_volatility`` times the leader's
    move. Of each losing position the part ``concentration`` stands at its margin in few hands: it
    is liquidated at once, pays the impact of its size, and draws on the fund. The draw is
    piecewise linear in the move, so the answer is exact.

    Args:
        positions: what may stand at its margin; only the side that loses counts.
        fund_usd: the insurance fund, zero or more; at zero both moves agree.
        impact: law of the liquidation cost.
        leader_volatility: standard deviation of the leading contract over the horizon.
        direction: ``down`` hurts longs, ``up`` shorts.
        correlation: of every contract with the leading one, in (0, 1].
        concentration: part of each position liquidated at once, in (0, 1].
        depth_factor: part of the depth that is left, above zero.

    Raises:
        InputError: a value out of range.
    """
    _require(fund_usd, leader_volatility, correlation, concentration, depth_factor)
    losing = positions.is_long if direction == "down" else ~positions.is_long
    names = [name for name, loses in zip(positions.names, losing, strict=True) if loses]
    if not names:
        return ReverseStress(direction, np.inf, "", np.inf, (), 0.0)
    size = concentration * np.abs(positions.notional_usd[losing])
    beta = correlation * positions.volatility[losing] / leader_volatility
    cost = impact.cost(size, positions.depth_usd[losing] * depth_factor)
    margin = positions.margin[losing]
    down = direction == "down"
    # A contract that has fallen to zero loses no more, nor does the leader fall further.
    worst = np.minimum(1.0 / beta, 1.0) if down else np.full_like(beta, np.inf)
    limit = 1.0 if down else np.inf

    def draw_usd(move: float) -> float:
        """Return the draw just beyond a move: where cost exceeds margin, any move will do."""
        beyond = np.maximum(beta * np.minimum(move, worst) + cost - margin, 0.0)
        return float((size * beyond).sum())

    fails_at = np.where(cost > margin, 0.0, (margin - cost) / beta)
    fails_at[fails_at >= worst] = np.inf
    first = int(fails_at.argmin())
    some = bool(np.isfinite(fails_at[first]))
    bends = np.concatenate([[0.0], fails_at, worst])
    bends = np.unique(bends[bends < limit])
    if down:
        bends = np.append(bends, limit)
    # not below the margin's own limit, which rounding of the draw there may suggest
    reached = max(_largest_within(draw_usd, bends, fund_usd), float(fails_at[first]))
    return ReverseStress(
        direction=direction,
        move_exhausting_margin=float(fails_at[first]),
        first_to_fail=names[first] if some else "",
        move_exhausting_fund=reached,
        positions_failing=tuple(
            name
            for name, at in zip(names, fails_at, strict=True)
            if np.isfinite(at) and at <= reached
        ),
        largest_draw_usd=draw_usd(limit) if down else np.inf,
    )


def _largest_within(
    draw_usd: Callable[[float], float], bends: FloatArray, fund_usd: float
) -> float:
    """Return the largest move whose draw the fund covers; infinite if it covers all.

    Args:
        draw_usd: continuous, not falling, and linear between bends and beyond the last one.
        bends: increasing, from zero; the last is the largest move there is, if there is one.
        fund_usd: the fund.
    """
    draws = [draw_usd(float(bend)) for bend in bends]
    if draws[0] > fund_usd:
        return 0.0
    for (move, draw), (next_move, next_draw) in pairwise(zip(bends, draws, strict=True)):
        if next_draw > fund_usd:
            return float(move + (fund_usd - draw) / (next_draw - draw) * (next_move - move))
    # Beyond the last bend: no further loss after a fall to zero, a line for a rise.
    slope = draw_usd(float(bends[-1]) + 1.0) - draws[-1]
    return float(bends[-1] + (fund_usd - draws[-1]) / slope) if slope > 0.0 else np.inf


def _require(
    fund_usd: float,
    leader_volatility: float,
    correlation: float,
    concentration: float,
    depth_factor: float,
) -> None:
    if not 0.0 <= fund_usd < np.inf:
        raise InputError(f"fund_usd must be finite and zero or more, found {fund_usd:g}")
    for name, value, highest in (
        ("leader_volatility", leader_volatility, np.inf),
        ("depth_factor", depth_factor, np.inf),
        ("correlation", correlation, 1.0),
        ("concentration", concentration, 1.0),
    ):
        if not 0.0 < value <= highest or np.isinf(value):
            allowed = "positive" if np.isinf(highest) else f"above 0 and at most {highest:g}"
            raise InputError(f"{name} must be {allowed}, found {value:g}")
