"""Margin levels: the rows a venue publishes, one a contract, side and notional tier.

Responsible for the published margin as a whole: the forecast of the right side, every tier's rates
and maintenance amount, and the base schedule, with status and reason, when no forecast can be used.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from margincast.core.errors import InputError
from margincast.core.time import format_duration
from margincast.core.types import SIDES, Side
from margincast.margin.liquidation_cost import Book, liquidation_costs
from margincast.margin.maintenance import maintenance_amounts, maintenance_margin_usd
from margincast.margin.policy import (
    Rule,
    Step,
    TierMargin,
    cost_problem,
    forecast_problem,
    margin_for_tier,
    percent,
)
from margincast.margin.schedule import require_floors_below_caps, tiers_for
from margincast.specs.serving import BaseSchedule, MarginPolicy, Tier

Status = Literal["ok", "fallback"]


@dataclass(frozen=True)
class MarginLevel:
    """One published row: the margin of a contract's side in one notional tier.

    Attributes:
        symbol: the contract.
        side: side of the position that is margined.
        tier: number of the tier, from 1.
        tier_floor_usd: notional above which the tier applies, USD.
        tier_cap_usd: notional up to which it applies, USD.
        mmr: maintenance margin rate, a fraction.
        imr: initial margin rate, a fraction.
        maintenance_amount: USD; margin = notional x ``mmr`` - ``maintenance_amount``.
        multiplier: ``mmr`` over the base schedule's MMR.
        forecast: quantile forecast that was used or refused, a fraction; NaN when not known.
        liquidation_cost: cost of closing the tier's notional, a fraction; NaN in a fallback.
        binding_rule: the rule that set ``mmr``.
        status: ``ok``, or ``fallback`` when the base schedule stands in for the forecast.
        reason: why the number is what it is, in words.
        imr_reason: what set the initial margin rate.
        steps: the chain of steps from zero to ``mmr``.
    """

    symbol: str
    side: Side
    tier: int
    tier_floor_usd: float
    tier_cap_usd: float
    mmr: float
    imr: float
    maintenance_amount: float
    multiplier: float
    forecast: float
    liquidation_cost: float
    binding_rule: Rule
    status: Status
    reason: str
    imr_reason: str
    steps: tuple[Step, ...]

    @property
    def max_leverage(self) -> float:
        """Largest leverage at which a position may be opened, ``1 / imr``."""
        return 1.0 / self.imr


def margin_levels_for(
    symbol: str,
    side: Side,
    forecasts: Mapping[Side, float],
    schedule: BaseSchedule,
    policy: MarginPolicy,
    *,
    data_age: timedelta,
    book: Book | None = None,
) -> tuple[MarginLevel, ...]:
    """Return the margin levels of every tier of one contract and side.

    Rates never fall from tier to tier: base rates and liquidation costs do not, and every step of
    the chain keeps that order.

    Args:
        symbol: the contract.
        side: side of the position that is margined.
        forecasts: quantile forecasts at the policy's level and horizon by side, fractions; a side
            that is absent or NaN is not known.
        schedule: the base schedule.
        policy: the margin policy.
        data_age: time between the newest data behind the forecast and the moment of use.
        book: latest order book; read only by a policy that walks the book.

    Returns:
        One level a tier, from the lowest; all ``ok``, or all ``fallback`` when the data is too
        old, the forecast unusable, or the cost of liquidation above the cap.

    Raises:
        InputError: the contract has no tiers, or the policy contradicts itself on one of them.
    """
    tiers = tiers_for(schedule, symbol)
    require_floors_below_caps(policy, tiers, symbol)
    needed = needed_forecasts(forecasts, side, policy)
    forecast = needed[side]
    problem = _age_problem(data_age, policy) or _forecasts_problem(needed, policy)
    if problem is not None:
        return fallback_levels(symbol, side, schedule, problem, forecast=forecast)
    forecast = max(needed.values())
    costs = liquidation_costs(tiers, side, policy.liquidation, book)
    problem = cost_problem(costs[-1], policy)
    if problem is not None:
        return fallback_levels(symbol, side, schedule, problem, forecast=forecast)
    source = _describe(needed, policy)
    margins = [
        margin_for_tier(forecast, tier, cost, policy, source=source)
        for tier, cost in zip(tiers, costs, strict=True)
    ]
    rates = [cost.rate for cost in costs]
    return _levels(
        symbol, side, tiers, margins=margins, status="ok", forecast=forecast, cost_rates=rates
    )


def fallback_levels(
    symbol: str,
    side: Side,
    schedule: BaseSchedule,
    reason: str,
    *,
    forecast: float = math.nan,
) -> tuple[MarginLevel, ...]:
    """Return the base schedule exactly as it stands, with status ``fallback`` and the reason.

    Args:
        symbol: the contract.
        side: side of the position that is margined.
        schedule: the base schedule.
        reason: why no forecast could be used.
        forecast: the forecast that was refused, for the record; NaN when there was none.

    Raises:
        InputError: the contract has no tiers.
    """
    tiers = tiers_for(schedule, symbol)
    text = f"base schedule in force: {reason}"
    margins = [
        TierMargin(
            mmr=tier.mmr,
            imr=tier.imr,
            multiplier=1.0,
            binding_rule="base schedule",
            reason=text,
            imr_reason=text,
            steps=(Step("base schedule", 0.0, tier.mmr, text),),
        )
        for tier in tiers
    ]
    unknown = [math.nan] * len(tiers)
    return _levels(
        symbol,
        side,
        tiers,
        margins=margins,
        status="fallback",
        forecast=forecast,
        cost_rates=unknown,
    )


def needed_forecasts(
    forecasts: Mapping[Side, float], side: Side, policy: MarginPolicy
) -> dict[Side, float]:
    """Return the forecasts whose largest margins a side: its own, or those of both sides.

    Args:
        forecasts: quantile forecasts by side, fractions.
        side: side of the position that is margined.
        policy: says in ``forecast.sides`` which are needed.

    Returns:
        At least the side's own; NaN where a needed forecast is absent.
    """
    sides = SIDES if policy.forecast.sides == "larger" else (side,)
    return {name: float(forecasts.get(name, math.nan)) for name in sides}


def position_margin_usd(notional_usd: float, levels: tuple[MarginLevel, ...]) -> float:
    """Return the maintenance margin of a position under published levels, USD.

    Args:
        notional_usd: notional of the position, USD.
        levels: all levels of the position's contract and side, from the lowest tier.

    Raises:
        InputError: the notional is negative, not a number, or above the last tier; or the levels
            are none or those of several contracts or sides.
    """
    if len({(level.symbol, level.side) for level in levels}) != 1:
        raise InputError("a position's margin needs the levels of one contract and side")
    return maintenance_margin_usd(
        notional_usd,
        [level.tier_cap_usd for level in levels],
        [level.mmr for level in levels],
        [level.maintenance_amount for level in levels],
    )


def _age_problem(data_age: timedelta, policy: MarginPolicy) -> str | None:
    allowed = policy.staleness.max_data_age
    if timedelta(0) <= data_age <= allowed:
        return None
    if data_age < timedelta(0):
        return f"data from the future: its time lies {-data_age} ahead of the moment of use"
    rounded = timedelta(seconds=round(data_age.total_seconds()))
    return f"stale data: {rounded} old, allowed {format_duration(allowed)}"


def _forecasts_problem(needed: Mapping[Side, float], policy: MarginPolicy) -> str | None:
    for name, value in needed.items():
        problem = forecast_problem(value, policy)
        if problem is not None:
            return f"{name} {problem}"
    return None


def _describe(needed: Mapping[Side, float], policy: MarginPolicy) -> str:
    level, horizon = policy.model.level, format_duration(policy.model.horizon)
    what = f"{level:g} quantile of the adverse excursion over {horizon}"
    if len(needed) == 1:
        return f"{what}, {next(iter(needed))}"
    text = ", ".join(f"{name} {percent(value)}" for name, value in needed.items())
    return f"{what}, larger of {text}"


def _levels(
    symbol: str,
    side: Side,
    tiers: tuple[Tier, ...],
    *,
    margins: list[TierMargin],
    status: Status,
    forecast: float,
    cost_rates: list[float],
) -> tuple[MarginLevel, ...]:
    amounts = maintenance_amounts(
        [tier.floor_usd for tier in tiers], [margin.mmr for margin in margins]
    )
    return tuple(
        MarginLevel(
            symbol=symbol,
            side=side,
            tier=number,
            tier_floor_usd=tier.floor_usd,
            tier_cap_usd=tier.cap_usd,
            mmr=margin.mmr,
            imr=margin.imr,
            maintenance_amount=amount,
            multiplier=margin.multiplier,
            forecast=forecast,
            liquidation_cost=cost_rate,
            binding_rule=margin.binding_rule,
            status=status,
            reason=margin.reason,
            imr_reason=margin.imr_reason,
            steps=margin.steps,
        )
        for number, (tier, margin, amount, cost_rate) in enumerate(
            zip(tiers, margins, amounts, cost_rates, strict=True), start=1
        )
    )
