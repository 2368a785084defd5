"""Collateral haircuts: the share of an asset's value that does not count as margin.

Responsible for the chain from an asset's long-side tail forecast to its published haircut, for the
add-on where an asset falls when the position behind it loses (wrong-way risk), and for what an
account's collateral counts for. Collateral is sold when its owner is liquidated, so a haircut is
a quantile of its fall over the time that selling takes.

Sources: EMIR RTS 153/2013 article 41 (liquidation in stressed conditions, the time it takes,
volatility, bid/ask spreads, wrong-way risk, conservative against procyclicality) and CPMI-IOSCO
PFMI principle 5; for conditioning on another's loss Adrian and Brunnermeier (2016), CoVaR,
doi:10.1257/aer.20120555, with the tail event "beyond", as in Girardi and Ergun (2013),
doi:10.1016/j.jbankfin.2013.02.027.
"""

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np

from margincast.core.errors import InputError
from margincast.core.types import BoolArray, FloatArray
from margincast.margin.rounding import rounded_up

HaircutStep = Literal[
    "forecast", "cost", "long-run floor", "depeg floor", "floor", "cap", "rounding", "fallback"
]
HAIRCUT_STEPS: tuple[HaircutStep, ...] = (
    "forecast",
    "cost",
    "long-run floor",
    "depeg floor",
    "floor",
    "cap",
    "rounding",
)
"""In the order in which a haircut passes them; each starts where the one before it ended."""


@dataclass(frozen=True)
class HaircutInputs:
    """What haircuts are made of, an asset a row; fractions, shape (n,) each.

    Attributes:
        forecast: fall that is exceeded with probability 1 - level over the asset's horizon; 0 where
            the asset has no market risk, NaN where it has and nothing is known.
        cost: of selling it.
        long_run: the same quantile of its history times the policy's share; NaN where not known.
        depeg_floor: least haircut of a stablecoin; 0 of other assets.
        fallback: haircut without a usable forecast; NaN where none is needed.
    """

    forecast: FloatArray
    cost: FloatArray
    long_run: FloatArray
    depeg_floor: FloatArray
    fallback: FloatArray


@dataclass(frozen=True)
class Haircuts:
    """Haircuts and the steps that made them.

    Attributes:
        values: after each of :data:`HAIRCUT_STEPS`, shape (steps, n); NaN in a fallback.
        fallback: without a usable forecast, shape (n,).
        haircut: the published share, shape (n,).
    """

    values: FloatArray
    fallback: BoolArray
    haircut: FloatArray

    def binding(self) -> tuple[HaircutStep, ...]:
        """Return what set each haircut: the last step before rounding that changed it."""
        found: list[HaircutStep] = []
        for row, fell_back in enumerate(self.fallback):
            own = self.values[:-1, row]
            changed = np.flatnonzero(own[1:] != own[:-1])
            last = HAIRCUT_STEPS[int(changed[-1]) + 1] if changed.size else "forecast"
            found.append("fallback" if fell_back else "forecast" if last == "cost" else last)
        return tuple(found)


def haircuts(inputs: HaircutInputs, *, floor: float, cap: float, step: float) -> Haircuts:
    """Make haircuts.

    ``1 - (1 - forecast)(1 - cost)``: what is left after the fall is sold at a discount. Then at
    least the floors, at most the cap, rounded up to the grid. A forecast is usable from 0 up to,
    but not including, 1: an asset that may be worth nothing is none. A fallback is the larger of
    the asset's own and the floors.

    Args:
        inputs: an asset a row.
        floor: least haircut; floor and cap lie on the grid.
        cap: largest haircut.
        step: of the grid.
    """
    usable = (inputs.forecast >= 0.0) & (inputs.forecast < 1.0)
    forecast = np.where(usable, inputs.forecast, np.nan)
    # written so that neither a fall nor a cost of nothing leaves a trace of rounding
    values = [forecast, forecast + inputs.cost * (1.0 - forecast)]
    values.append(np.where(usable, np.fmax(values[-1], inputs.long_run), np.nan))
    values.append(np.maximum(values[-1], inputs.depeg_floor))
    values.append(np.maximum(values[-1], floor))
    values.append(np.minimum(values[-1], cap))
    values.append(np.minimum(rounded_up(values[-1], step), cap))
    spare = np.maximum(np.maximum(inputs.fallback, inputs.depeg_floor), floor)
    safe = np.minimum(rounded_up(np.minimum(spare, cap), step), cap)
    return Haircuts(np.array(values), ~usable, np.where(usable, values[-1], safe))


def wrong_way_exceedance(level: float, joint_tail: FloatArray | float) -> FloatArray:
    """Return the probability with which an asset may exceed a haircut that holds in a liquidation.

    A haircut of level tau is exceeded with probability 1 - tau over all times. It is needed when a
    position is beyond its own forecast of that level, and then the asset is beyond its own with
    probability chi, the joint tail. For the haircut to hold with tau in that event too, it must
    be the quantile that is exceeded with

        p = (1 - tau)^2 / chi,

    if the asset's tail beyond the quantile is the same in that event. Without dependence chi is
    1 - tau, and p as well; chi = 1 (the asset is the position's own) makes p = (1 - tau)^2.

    Args:
        level: tau.
        joint_tail: chi; less than independence is taken for independence.
    """
    beyond = 1.0 - level
    return np.asarray(beyond**2 / np.clip(joint_tail, beyond, 1.0))


def tail_quantile(
    forecast: FloatArray,
    tail_forecast: FloatArray,
    exceedance: FloatArray,
    *,
    level: float,
    tail_level: float,
) -> FloatArray:
    """Return a quantile beyond two forecast ones, as a power law continues them.

    ``q(p) = q1 (q2 / q1) ** (log(p1 / p) / log(p1 / p2))``: a Pareto tail through both
    (Weissman 1978, doi:10.1080/01621459.1978.10480104, with the index that the two imply).

    Args:
        forecast: q1, at ``level``, shape (n,).
        tail_forecast: q2, at ``tail_level``, not below q1.
        exceedance: p, at most 1 - level.
        level: of q1.
        tail_level: of q2, above it.

    Returns:
        NaN where a forecast is not known or q2 lies below q1; 0 where both are 0.
    """
    good = (forecast >= 0.0) & (tail_forecast >= forecast)
    ratio = np.where(
        good & (forecast > 0.0), tail_forecast / np.where(forecast > 0.0, forecast, 1.0), 1.0
    )
    steps = np.log((1.0 - level) / exceedance) / np.log((1.0 - level) / (1.0 - tail_level))
    return np.asarray(np.where(good, forecast * ratio**steps, np.nan))


def joint_tail_share(position_exceeds: BoolArray, asset_exceeds: BoolArray) -> float:
    """Return chi as a history of exceedances has it: how often the asset is beyond, of the times
    the position is.

    Args:
        position_exceeds: whether the position's outcome went beyond its forecast, shape (n,).
        asset_exceeds: whether the asset's fall did at the same decisions.

    Raises:
        InputError: shapes differ, or the position never went beyond.
    """  # noqa: D205  # the first sentence takes two lines
    if position_exceeds.shape != asset_exceeds.shape or not position_exceeds.any():
        raise InputError(
            "a joint tail needs one entry a decision for both, and an exceedance of the position; "
            f"found shapes {position_exceeds.shape} and {asset_exceeds.shape} with "
            f"{int(position_exceeds.sum())} exceedances"
        )
    return float(asset_exceeds[position_exceeds].mean())


def account_haircut(
    value_usd: Fraction,
    own_long_usd: Fraction,
    other_long_usd: Fraction,
    *,
    haircut: Fraction,
    own_haircut: Fraction,
    other_haircut: Fraction,
) -> Fraction:
    """Return the haircut of an asset in one account, with the wrong-way add-on where it is due.

    Collateral up to the notional of the account's net long in the asset's own contract is taken at
    ``own_haircut``, up to its other net longs at ``other_haircut``, and the rest at ``haircut``: no
    more of it is sold because of them.

    Args:
        value_usd: of the asset in the account, positive.
        own_long_usd: net long notional in the contract that the asset follows, zero or more.
        other_long_usd: net long notional in all other contracts, those net short not subtracted.
        haircut: plain.
        own_haircut: in a liquidation of a long in its own contract.
        other_haircut: of a long in another.
    """
    own = min(value_usd, own_long_usd)
    other = min(value_usd - own, other_long_usd)
    rest = value_usd - own - other
    return (own * own_haircut + other * other_haircut + rest * haircut) / value_usd
