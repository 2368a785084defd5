"""The fee multiplier: trading and liquidation dearer when a market moves more than it usually does.

Responsible for the multiplier on a contract's taker and liquidation fees, from its forecast over
its long-run rate. It steps and waits, so that a fee does not change with every tick.

Fees that follow volatility between a floor and a cap are usual on automated market makers, for
example ``fee = min(fee_max, fee_base + volatility component)`` (Molten, "Dynamic/Adaptive Fee").
"""

import numpy as np

from margincast.core.types import FloatArray
from margincast.margin.rounding import rounded_up
from margincast.specs.beside_maintenance import Fees

USUAL = 1.0
"""Multiplier of a market that moves as it does in the long run."""


def fee_need(forecast: FloatArray, long_run: FloatArray) -> FloatArray:
    """Return forecast over long-run rate, the larger of the sides; NaN where no side is known.

    Args:
        forecast: that margins each side, shape (S, C); NaN where it is not used.
        long_run: shape (S, C); NaN where it is not known.
    """
    return np.asarray(np.fmax.reduce(forecast / long_run, axis=0))


def fee_multipliers(need: FloatArray, published: FloatArray, fees: Fees) -> FloatArray:
    """Return the multipliers to publish.

    ``need ** exponent`` between floor and cap, rounded up to the grid; one that lies within
    ``hold`` of the multiplier in force leaves it there. Where the need is not known the
    multiplier in force stays, and without one it is 1, within floor and cap.

    Args:
        need: forecast over long-run rate, the larger of both sides, shape (k,); NaN: not known.
        published: multipliers in force, shape (k,); NaN before the first.
        fees: the policy's section.
    """
    usual = np.clip(USUAL, fees.floor, fees.cap)
    before = np.where(np.isnan(published), usual, published)
    good = need > 0.0
    wanted = np.where(good, need, 1.0) ** fees.exponent
    rounded = np.minimum(rounded_up(np.clip(wanted, fees.floor, fees.cap), fees.step), fees.cap)
    # in a storm nothing waits: the cap is reached at once
    small = (np.abs(rounded - published) <= fees.hold * published) & (rounded != fees.cap)
    return np.where(good & ~small, rounded, before)
