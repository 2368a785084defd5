"""The policy chain: from a forecast to one tier's MMR and IMR, a recorded step at a time.

Responsible for the order of operations: forecast, liquidation cost, buffer, floors and caps,
rounding up; then the initial margin rate. Every step is a pure function that returns what it found,
what it made of it and why.
"""

import math
from dataclasses import dataclass
from typing import Literal

from margincast.core.errors import InputError
from margincast.margin.liquidation_cost import LiquidationCost
from margincast.margin.rounding import exact, round_up
from margincast.specs.serving import Limits, MarginPolicy, Tier

Rule = Literal[
    "forecast",
    "liquidation cost",
    "buffer",
    "floor",
    "base schedule",
    "multiplier cap",
    "cap",
    "rounding",
]
_LIMITS: tuple[Rule, ...] = ("floor", "base schedule", "multiplier cap", "cap")


@dataclass(frozen=True)
class Step:
    """One step of the chain; values are maintenance margin rates, fractions."""

    name: Rule
    value_before: float
    value_after: float
    reason: str


@dataclass(frozen=True)
class TierMargin:
    """The margin of one tier and the chain that made it.

    Attributes:
        mmr: published maintenance margin rate, a fraction.
        imr: published initial margin rate, a fraction above ``mmr`` and at most 1.
        multiplier: ``mmr`` over the tier's base MMR.
        binding_rule: the rule that set the number: the last floor or cap that changed it ("floor",
            "base schedule", "multiplier cap" or "cap"), else "forecast" (with cost and buffer).
        reason: the binding rule's reason.
        imr_reason: what set the initial margin rate.
        steps: the chain; each step starts where the one before it ended, the first at zero.
    """

    mmr: float
    imr: float
    multiplier: float
    binding_rule: Rule
    reason: str
    imr_reason: str
    steps: tuple[Step, ...]


def percent(rate: float) -> str:
    """Write a fraction for a reader, with four significant digits.

    >>> percent(0.04587)
    '4.587 %'
    """
    return f"{100.0 * rate:.4g} %"


def add_forecast(forecast: float, source: str) -> Step:
    """Start the chain with the forecast adverse excursion."""
    return Step("forecast", 0.0, forecast, f"{source}: {percent(forecast)}")


def add_liquidation_cost(value: float, cost: LiquidationCost) -> Step:
    """Add what closing the position costs."""
    return Step(
        "liquidation cost", value, value + cost.rate, f"{cost.reason}: {percent(cost.rate)}"
    )


def apply_buffer(value: float, rate: float) -> Step:
    """Multiply by one plus the buffer rate."""
    return Step("buffer", value, value * (1.0 + rate), f"buffer of {percent(rate)}")


def apply_limits(value: float, tier: Tier, cost: LiquidationCost, limits: Limits) -> list[Step]:
    """Apply both floors and both caps, each as a step of its own.

    The order of the four does not matter, because no floor lies above a cap. Only the multiplier
    cap yields to the cost of liquidation: a margin that cannot pay for closing is none.
    """
    base_value = limits.multiplier_floor * tier.mmr
    floor = _raise_to("floor", value, limits.mmr_floor, f"floor of {percent(limits.mmr_floor)}")
    base = _raise_to(
        "base schedule",
        floor.value_after,
        base_value,
        f"{limits.multiplier_floor:g} x base MMR {percent(tier.mmr)} = {percent(base_value)}",
    )
    cap_value = limits.multiplier_cap * tier.mmr
    text = f"{limits.multiplier_cap:g} x base MMR {percent(tier.mmr)} = {percent(cap_value)}"
    if cap_value < cost.rate:
        text += f", lifted to the cost of liquidation {percent(cost.rate)}"
    multiplier_cap = _lower_to("multiplier cap", base.value_after, max(cap_value, cost.rate), text)
    cap = _lower_to(
        "cap", multiplier_cap.value_after, limits.mmr_cap, f"cap of {percent(limits.mmr_cap)}"
    )
    return [floor, base, multiplier_cap, cap]


def round_to_grid(value: float, step: float) -> Step:
    """Round up to the publication grid."""
    rounded = round_up(value, step)
    return Step("rounding", value, rounded, f"rounded up to a multiple of {percent(step)}")


def initial_margin_rate(mmr: float, tier: Tier, policy: MarginPolicy) -> tuple[float, str]:
    """Return the initial margin rate and its reason.

    The policy's ratio times the MMR, never below the tier's base IMR, rounded up to its grid, at
    most 1. It lies above any MMR below 1, because the ratio is above 1.
    """
    ratio, step = policy.initial.imr_over_mmr, policy.rounding.imr_step
    wanted, base = exact(ratio) * exact(mmr), exact(tier.imr)
    if wanted >= base:
        reason = f"{ratio:g} x MMR {percent(mmr)}"
    else:
        reason = f"base IMR {percent(tier.imr)}"
    # Validation has it that the step divides 1, so a rate up to 1 stays up to 1 when rounded.
    return round_up(min(max(wanted, base), exact(1.0)), step), reason


def margin_for_tier(
    forecast: float,
    tier: Tier,
    liquidation_cost: LiquidationCost,
    policy: MarginPolicy,
    *,
    source: str = "forecast",
) -> TierMargin:
    """Turn a forecast into the margin of one tier.

    By hand: forecast 4 %, liquidation cost 0.17 %, buffer 10 %: 4.17 % x 1.1 = 4.587 %, between
    the floors and the caps, rounded up to a multiple of 0.05 %: MMR 4.6 %. On a base MMR of 0.4 %
    that is a multiplier of 11.5; with a ratio of 1.5 the IMR is 6.9 %.

    Args:
        forecast: quantile forecast of the adverse excursion, a fraction, positive.
        tier: the tier of the base schedule.
        liquidation_cost: cost of closing the tier's notional.
        policy: the margin policy.
        source: what the forecast is, for the first step's reason.

    Raises:
        InputError: the forecast is not within (0, ``forecast.largest_plausible``], or the cost is
            not within [0, ``limits.mmr_cap``]; callers publish the base schedule instead.
    """
    problem = forecast_problem(forecast, policy) or cost_problem(liquidation_cost, policy)
    if problem is not None:
        raise InputError(f"{problem}; publish the base schedule instead (fallback_levels)")
    steps = [add_forecast(forecast, source)]
    steps.append(add_liquidation_cost(steps[-1].value_after, liquidation_cost))
    steps.append(apply_buffer(steps[-1].value_after, policy.buffer.rate))
    steps += apply_limits(steps[-1].value_after, tier, liquidation_cost, policy.limits)
    binding_rule, reason = _binding(steps)
    steps.append(round_to_grid(steps[-1].value_after, policy.rounding.mmr_step))
    mmr = steps[-1].value_after
    imr, imr_reason = initial_margin_rate(mmr, tier, policy)
    return TierMargin(mmr, imr, mmr / tier.mmr, binding_rule, reason, imr_reason, tuple(steps))


def forecast_problem(forecast: float, policy: MarginPolicy) -> str | None:
    """Say why a forecast cannot be used, or None when it can."""
    largest = policy.forecast.largest_plausible
    if 0.0 < forecast <= largest:
        return None
    if math.isnan(forecast):
        return "forecast not known (NaN)"
    return f"forecast {forecast:g} is not above 0 and at most {largest:g}"


def cost_problem(cost: LiquidationCost, policy: MarginPolicy) -> str | None:
    """Say why a liquidation cost cannot be margined, or None when it can."""
    cap = policy.limits.mmr_cap
    if 0.0 <= cost.rate <= cap:
        return None
    return f"liquidation cost {cost.rate:g} is not between 0 and limits.mmr_cap = {cap:g}"


def _raise_to(name: Rule, value: float, least: float, text: str) -> Step:
    if value < least:
        return Step(name, value, least, f"raised to {text}")
    return Step(name, value, value, f"not binding: {text}")


def _lower_to(name: Rule, value: float, most: float, text: str) -> Step:
    if value > most:
        return Step(name, value, most, f"lowered to {text}")
    return Step(name, value, value, f"not binding: {text}")


def _binding(steps: list[Step]) -> tuple[Rule, str]:
    for step in reversed(steps):
        if step.name in _LIMITS and step.value_after != step.value_before:
            return step.name, step.reason
    return "forecast", steps[0].reason
