"""The margin curve of a contract: what closing each notional asks for, without any tiers.

Responsible for the curve that a base schedule is made from. A base schedule is in force when there
is no forecast, so the curve starts from the rate that the contract's own history says, or one that
is given, and passes the policy's chain like any forecast, up to its caps.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from margincast.core.errors import InputError
from margincast.core.types import SIDES, FloatArray, Side
from margincast.margin.chain import STEPS, Inputs, Memory, advance, usable
from margincast.margin.liquidation_cost import Book, closing_cost_usd
from margincast.margin.parameters import Parameters
from margincast.margin.tiers import MarginCurve
from margincast.specs.serving import MarginPolicy


@dataclass(frozen=True)
class BaseRates:
    """What the margin of one contract rests on without a forecast, fractions.

    Attributes:
        long_run: adverse excursion that is covered, by side.
        stressed: that of the worst period, by side; NaN where it is not known or not used.
    """

    long_run: Mapping[Side, float]
    stressed: Mapping[Side, float]

    @classmethod
    def given(cls, rate: float) -> "BaseRates":
        """Return one rate for both sides, without a worst period."""
        return cls(dict.fromkeys(SIDES, rate), dict.fromkeys(SIDES, float("nan")))


def margin_curve(
    notional_usd: FloatArray, rates: BaseRates, policy: MarginPolicy, book: Book | None
) -> tuple[MarginCurve, str]:
    """Return the larger margin of both sides at every notional, and where the cost comes from.

    Multiplier and speed limits, rounding and hold are left out: they need what is being made.

    Args:
        notional_usd: rising, above 0, shape (n,), USD.
        rates: what the margin rests on.
        policy: the margin policy.
        book: latest order book, with its history where the policy looks at the horizon; None
            where there is none.

    Raises:
        InputError: a rate cannot be margined, or closing costs more than ``limits.mmr_cap``.
    """
    parameters = replace(
        Parameters.of(policy), multiplier_floor=np.asarray(0.0), multiplier_cap=np.asarray(np.inf)
    )
    fee_rate = policy.liquidation.taker_fee_rate + policy.liquidation.liquidation_fee_rate
    asked, reason = np.zeros(len(notional_usd)), ""
    for side in SIDES:
        trading_usd, reason = closing_cost_usd(notional_usd, side, policy, book)
        every = np.ones(len(notional_usd))
        inputs = Inputs(
            rates.long_run[side] * every,
            trading_usd / notional_usd + fee_rate,
            every,
            rates.long_run[side] * every,
            rates.stressed[side] * every,
        )
        bad = ~usable(inputs.forecast, inputs.cost, parameters)
        if bad.any():
            first = int(np.argmax(bad))
            raise InputError(
                f"a {side} of {notional_usd[first]:,.0f} USD has no margin: its long-run rate "
                f"{rates.long_run[side]:.4g} must lie above 0 and up to forecast.largest_plausible "
                f"= {policy.forecast.largest_plausible:g}, the cost of closing "
                f"{inputs.cost[first]:.4g} up to limits.mmr_cap = {policy.limits.mmr_cap:g}; end "
                "the tiers at a smaller notional or change these"
            )
        blank = Memory.blank(len(every))
        _, chain = advance(blank, inputs, np.datetime64(0, "us"), parameters)
        asked = np.maximum(asked, chain.values[STEPS.index("cap")])
    return MarginCurve(notional_usd, asked * notional_usd), reason
