"""Margins of many decisions at once: the same chain as for one, on arrays.

Responsible for replaying years of published margins in seconds. Every number is the one
:func:`~margincast.margin.policy.margin_for_tier` gives, to the last bit; what the chain explains
step by step is left out here.
"""

import numpy as np

from margincast.core.types import FloatArray
from margincast.margin.liquidation_cost import LiquidationCost
from margincast.margin.policy import cost_problem
from margincast.margin.rounding import round_up
from margincast.specs.serving import MarginPolicy, Tier

_NEAR_GRID = 1e-9
"""Distance from a multiple, in steps, within which rounding is done in exact decimals."""


def maintenance_margin_rates(
    forecast: FloatArray, tier: Tier, cost: LiquidationCost, policy: MarginPolicy
) -> FloatArray:
    """Return the maintenance margin rates of one tier for many forecasts.

    Args:
        forecast: quantile forecasts of the side that margins, fractions, any shape; NaN where
            there is none.
        tier: the tier of the base schedule.
        cost: of closing the tier's notional.
        policy: the margin policy.

    Returns:
        Rates of the same shape; NaN where the forecast or the cost cannot be used and the base
        schedule is published instead.
    """
    limits = policy.limits
    usable = (forecast > 0.0) & (forecast <= policy.forecast.largest_plausible)
    if cost_problem(cost, policy) is not None:
        usable = np.zeros_like(usable)
    value = (forecast + cost.rate) * (1.0 + policy.buffer.rate)
    value = np.maximum(value, max(limits.mmr_floor, limits.multiplier_floor * tier.mmr))
    value = np.minimum(value, max(limits.multiplier_cap * tier.mmr, cost.rate))
    value = np.minimum(value, limits.mmr_cap)
    return np.where(usable, rounded_up(value, policy.rounding.mmr_step), np.nan)


def rounded_up(value: FloatArray, step: float) -> FloatArray:
    """Return :func:`~margincast.margin.rounding.round_up` of every value; NaN stays NaN."""
    steps = value / step
    # rarely a value stands on the grid or next to it: there decimals decide, not binary fractions
    close = np.abs(steps - np.rint(steps)) < _NEAR_GRID * np.maximum(steps, 1.0)
    multiple = np.ceil(steps)
    rounded = np.full(value.shape, np.nan)
    whole = multiple[~close & np.isfinite(value)]
    distinct, index = np.unique(whole, return_inverse=True)
    grid = np.array([round_up(number * step - step / 2.0, step) for number in distinct])
    rounded[~close & np.isfinite(value)] = grid[index] if distinct.size else grid
    rounded[close] = [round_up(float(one), step) for one in value[close]]
    return rounded
