"""Margin levels: the rows a venue publishes, one a contract, side and notional tier.

Responsible for the published margin as a whole: the forecast of the right side, every tier's rates
and maintenance amount, and the base schedule, with status and reason, when no forecast can be used.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal, NamedTuple

import numpy as np

from margincast.core.errors import InputError
from margincast.core.time import format_duration
from margincast.core.types import SIDES, FloatArray, Side
from margincast.margin.chain import Inputs, Memory, Rule, advance
from margincast.margin.explanation import Circumstances, Step, binding_reason, percent, steps_of
from margincast.margin.liquidation_cost import Book, liquidation_costs
from margincast.margin.maintenance import maintenance_amounts, maintenance_margin_usd
from margincast.margin.parameters import Parameters
from margincast.margin.policy import (
    cost_problem,
    forecast_problem,
    initial_margin_rate,
    source_of,
)
from margincast.margin.schedule import require_floors_below_caps, tiers_for
from margincast.specs.schedule import BaseSchedule, Tier
from margincast.specs.serving import MarginPolicy

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
        status: ``ok``, or ``fallback`` when no forecast could be used.
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


@dataclass(frozen=True)
class Background:
    """What a contract's side brings along to the moment its margin is made.

    Attributes:
        at: the moment, UTC.
        memory: what the policy remembers of its tiers, a row a tier.
        long_run: its long-run rate; NaN where it is not known.
        stressed: rate of its worst period; NaN likewise.
    """

    at: np.datetime64
    memory: Memory
    long_run: float
    stressed: float

    @classmethod
    def none(cls, tiers: int) -> "Background":
        """Return that of a contract nothing is known of: no memory, no history."""
        return cls(np.datetime64(0, "us"), Memory.blank(tiers), math.nan, math.nan)


def margin_levels_for(
    symbol: str,
    side: Side,
    forecasts: Mapping[Side, float],
    schedule: BaseSchedule,
    policy: MarginPolicy,
    *,
    data_age: timedelta,
    book: Book | None = None,
    background: Background | None = None,
) -> tuple[MarginLevel, ...]:
    """Return the margin levels of every tier of one contract and side.

    By hand: forecast 4 %, liquidation cost 0.17 %, buffer 10 %: 4.17 % x 1.1 = 4.587 %, between
    the floors and the caps, rounded up to a multiple of 0.05 %: MMR 4.6 %. On a base MMR of 0.4 %
    that is a multiplier of 11.5; with a ratio of 1.5 the IMR is 6.9 %.

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
        background: memory and references; without it, those of a contract nothing is known of.

    Returns:
        One level a tier, from the lowest; all ``ok``, or all ``fallback`` when the data is too
        old, the forecast unusable, or the cost of liquidation above the cap.

    Raises:
        InputError: the contract has no tiers, or the policy contradicts itself on one of them.
    """
    tiers = tiers_for(schedule, symbol)
    require_floors_below_caps(policy, tiers, symbol)
    background = background or Background.none(len(tiers))
    needed = needed_forecasts(forecasts, side, policy)
    costs = liquidation_costs(tiers, side, policy.liquidation, book)
    problem = (
        _age_problem(data_age, policy)
        or _forecasts_problem(needed, policy)
        or cost_problem(costs[-1].rate, policy)
    )
    if problem is not None:
        return fallback_levels(
            symbol,
            side,
            schedule,
            problem,
            forecast=needed[side],
            published=background.memory.published,
            policy=policy,
        )
    rates = np.array([cost.rate for cost in costs])
    inputs = Inputs(
        np.full(len(tiers), max(needed.values())),
        rates,
        np.array([tier.mmr for tier in tiers]),
        np.full(len(tiers), background.long_run),
        np.full(len(tiers), background.stressed),
    )
    _, chain = advance(background.memory, inputs, background.at, Parameters.of(policy))
    made = []
    for row, (tier, rule, mmr, cost) in enumerate(
        zip(tiers, chain.binding(), chain.mmr.tolist(), costs, strict=True)
    ):
        said = Circumstances(_describe(needed, policy), cost.reason)
        steps = steps_of(chain, row, inputs, policy, said)
        imr, imr_reason = initial_margin_rate(mmr, tier, policy)
        made.append(_Margin(mmr, imr, rule, binding_reason(steps, rule), imr_reason, steps))
    return _levels(
        symbol,
        side,
        tiers,
        margins=made,
        status="ok",
        forecast=max(needed.values()),
        cost_rates=rates.tolist(),
    )


def fallback_levels(
    symbol: str,
    side: Side,
    schedule: BaseSchedule,
    reason: str,
    *,
    forecast: float = math.nan,
    published: FloatArray | None = None,
    policy: MarginPolicy | None = None,
) -> tuple[MarginLevel, ...]:
    """Return the safe margins: the larger of the base schedule and what was published last.

    Args:
        symbol: the contract.
        side: side of the position that is margined.
        schedule: the base schedule.
        reason: why no forecast could be used.
        forecast: the forecast that was refused, for the record; NaN when there was none.
        published: rates of the tiers published last; NaN, or None, where nothing was.
        policy: the margin policy, where something was published.

    Raises:
        InputError: the contract has no tiers.
    """
    tiers = tiers_for(schedule, symbol)
    before = [math.nan] * len(tiers) if published is None else published.tolist()
    margins = []
    for tier, last in zip(tiers, before, strict=True):
        if policy is not None and last > tier.mmr:
            text = f"last published margin kept: {reason}"
            mmr, (imr, imr_reason) = last, initial_margin_rate(last, tier, policy)
        else:
            text = f"base schedule in force: {reason}"
            mmr, imr, imr_reason = tier.mmr, tier.imr, text
        step = Step("fallback", 0.0, mmr, text)
        margins.append(_Margin(mmr, imr, "fallback", text, imr_reason, (step,)))
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
    what = source_of(policy)
    if len(needed) == 1:
        return f"{what}, {next(iter(needed))}"
    text = ", ".join(f"{name} {percent(value)}" for name, value in needed.items())
    return f"{what}, larger of {text}"


class _Margin(NamedTuple):
    """The margin of one tier, and why."""

    mmr: float
    imr: float
    rule: Rule
    reason: str
    imr_reason: str
    steps: tuple[Step, ...]


def _levels(
    symbol: str,
    side: Side,
    tiers: tuple[Tier, ...],
    *,
    margins: list[_Margin],
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
            multiplier=margin.mmr / tier.mmr,
            forecast=forecast,
            liquidation_cost=cost_rate,
            binding_rule=margin.rule,
            status=status,
            reason=margin.reason,
            imr_reason=margin.imr_reason,
            steps=margin.steps,
        )
        for number, (tier, margin, amount, cost_rate) in enumerate(
            zip(tiers, margins, amounts, cost_rates, strict=True), start=1
        )
    )
