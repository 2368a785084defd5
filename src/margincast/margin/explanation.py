"""Why a margin is what it is: the steps of the chain in words.

Responsible for the text beside every published number. The arithmetic is in
:mod:`~margincast.margin.chain`; here is only said what it did, from a row of the table of margin
levels and the policy that made it.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from margincast.core.time import format_duration
from margincast.margin.chain import RULES, STEPS, Rule
from margincast.margin.override import sentence_of
from margincast.specs.serving import MarginPolicy


@dataclass(frozen=True)
class Step:
    """One step of the chain; values are maintenance margin rates, fractions."""

    name: Rule
    value_before: float
    value_after: float
    reason: str


class Facts(NamedTuple):
    """What a row of the table of margin levels tells beside the value after every step.

    Attributes:
        side: of the position that is margined.
        forecast: that was used, a fraction.
        liquidation_cost: of closing the tier's notional, a fraction.
        liquidation_cost_reason: where it comes from.
        base_mmr: the base schedule's rate.
        long_run_rate: of the contract's side; NaN where it is not known.
        stressed_rate: of its worst period; NaN likewise.
        buffer_share: share of the buffer that is there, 0 to 1.
    """

    side: str
    forecast: float
    liquidation_cost: float
    liquidation_cost_reason: str
    base_mmr: float
    long_run_rate: float
    stressed_rate: float
    buffer_share: float


def percent(rate: float) -> str:
    """Write a fraction for a reader, with four significant digits.

    >>> percent(0.04587)
    '4.587 %'
    """
    return f"{100.0 * rate:.4g} %"


def step_column(step: Rule) -> str:
    """Return the column of the value after a step.

    >>> step_column("long-run cap")
    'step_long_run_cap'
    """
    return "step_" + step.replace(" ", "_").replace("-", "_")


def steps_of(policy: MarginPolicy) -> tuple[Rule, ...]:
    """Return the steps a policy has, in their order."""
    absent: set[Rule] = set()
    if policy.stress is None:
        absent.add("stress")
    if policy.long_run is None:
        absent |= {"elasticity", "long-run cap", "long-run floor"}
    if policy.speed is None:
        absent.add("speed limit")
    if policy.publication is None or policy.publication.hold == 0.0:
        absent.add("hold")
    return tuple(step for step in STEPS if step not in absent)


def values_of(row: Mapping[str, Any]) -> tuple[tuple[Rule, float, float], ...]:
    """Return the steps of a row, each with the rate before and after it.

    Args:
        row: of the table of margin levels.
    """
    found: list[tuple[Rule, float, float]] = []
    before = 0.0
    for step in RULES:
        after = float(row.get(step_column(step), math.nan))
        if not math.isnan(after):
            found.append((step, before, after))
            before = after
    return tuple(found)


def chain_of(row: Mapping[str, Any], policy: MarginPolicy | None) -> tuple[Step, ...]:
    """Return the steps that made one published margin, each from where the one before ended.

    The last is the override where there is one, also where it changed nothing.

    Args:
        row: of the table of margin levels.
        policy: that made it; without it only the step that set the rate has words.
    """
    return tuple(
        Step(step, before, after, _words(step, row, policy, changed=before != after))
        for step, before, after in values_of(row)
    )


def _words(
    step: Rule, row: Mapping[str, Any], policy: MarginPolicy | None, *, changed: bool
) -> str:
    if step == row["binding_rule"]:
        return str(row["reason"])
    if step == "override":
        said = sentence_of(
            str(row["override"]),
            line=int(row["override_line"]),
            approver=str(row["override_approver"]),
            expires=row["override_expires"],
            reason=str(row["override_reason"]),
        )
        return f"not binding: {said}"
    if step == "fallback":
        # what an override says instead stands in its own step
        return "no forecast could be used"
    if policy is None:
        return ""
    facts = Facts(*(row[name] for name in Facts._fields))
    return sentence(step, facts, policy, changed=changed)


def sentence(step: Rule, facts: Facts, policy: MarginPolicy, *, changed: bool) -> str:
    """Say what a step did, or what it would have done where it changed nothing.

    Args:
        step: one the policy has; see :func:`steps_of`.
        facts: of the row.
        policy: the margin policy.
        changed: whether the step changed the rate.
    """
    if step in _ALWAYS:
        return _ALWAYS[step](facts, policy)
    did, what = _LIMITS[step]
    return f"{did if changed else 'not binding:'} {what(facts, policy)}"


def _forecast(facts: Facts, policy: MarginPolicy) -> str:
    level, horizon = policy.model.level, format_duration(policy.model.horizon)
    whose = "larger of both sides" if policy.forecast.sides == "larger" else facts.side
    return (
        f"{level:g} quantile of the adverse excursion over {horizon}, {whose}: "
        f"{percent(facts.forecast)}"
    )


def _elasticity(facts: Facts, policy: MarginPolicy) -> str:
    if policy.long_run is None or math.isnan(facts.long_run_rate):
        return "the contract's history is not known"
    return (
        f"long-run rate {percent(facts.long_run_rate)} x (forecast / long-run rate) ^ "
        f"{policy.long_run.elasticity:g}"
    )


def _cost(facts: Facts, _: MarginPolicy) -> str:
    return f"{facts.liquidation_cost_reason}: {percent(facts.liquidation_cost)}"


def _buffer(facts: Facts, policy: MarginPolicy) -> str:
    text = f"buffer of {percent(policy.buffer.rate)}"
    if facts.buffer_share == 1.0:
        return text
    return (
        f"{text}, of which {percent(facts.buffer_share)} is left: the forecast stands above its "
        "long-run rate, or did so lately"
    )


def _rounding(_: Facts, policy: MarginPolicy) -> str:
    return f"rounded up to a multiple of {percent(policy.rounding.mmr_step)}"


def _stress(facts: Facts, policy: MarginPolicy) -> str:
    if policy.stress is None or math.isnan(facts.stressed_rate):
        return "the contract's history is not known"
    weight = percent(policy.stress.weight)
    return f"{weight} weight on its worst period, {percent(facts.stressed_rate)}"


def _long_run_cap(facts: Facts, policy: MarginPolicy) -> str:
    return _of_long_run(facts, policy.long_run.cap if policy.long_run is not None else math.nan)


def _long_run_floor(facts: Facts, policy: MarginPolicy) -> str:
    return _of_long_run(facts, policy.long_run.floor if policy.long_run is not None else math.nan)


def _of_long_run(facts: Facts, multiple: float) -> str:
    if math.isnan(facts.long_run_rate):
        return "the contract's history is not known"
    return f"{multiple:g} x long-run rate {percent(facts.long_run_rate)}, plus cost"


def _floor(_: Facts, policy: MarginPolicy) -> str:
    return f"floor of {percent(policy.limits.mmr_floor)}"


def _base_schedule(facts: Facts, policy: MarginPolicy) -> str:
    return _of_base(policy.limits.multiplier_floor, facts.base_mmr)


def _multiplier_cap(facts: Facts, policy: MarginPolicy) -> str:
    multiple, cost = policy.limits.multiplier_cap, facts.liquidation_cost
    text = _of_base(multiple, facts.base_mmr)
    if multiple * facts.base_mmr < cost:
        text += f", lifted to the cost of liquidation {percent(cost)}"
    return text


def _of_base(multiple: float, base: float) -> str:
    return f"{multiple:g} x base MMR {percent(base)} = {percent(multiple * base)}"


def _cap(_: Facts, policy: MarginPolicy) -> str:
    return f"cap of {percent(policy.limits.mmr_cap)}"


def _speed(_: Facts, policy: MarginPolicy) -> str:
    speed = policy.speed
    if speed is None:
        return "no limits"
    return (
        f"rises of {percent(speed.rise_per_hour)} an hour and {percent(speed.rise_per_day)} a day, "
        f"falls by half in {format_duration(speed.fall_half_life)}"
    )


def _hold(_: Facts, policy: MarginPolicy) -> str:
    hold = policy.publication.hold if policy.publication is not None else 0.0
    return f"falls by {percent(hold)} or less wait, and those of the tiers above with them"


Words = Callable[[Facts, MarginPolicy], str]
_ALWAYS: Mapping[Rule, Words] = {
    "forecast": _forecast,
    "liquidation cost": _cost,
    "buffer": _buffer,
    "rounding": _rounding,
}
"""Sentences that hold in any case."""
_LIMITS: Mapping[Rule, tuple[str, Words]] = {
    "elasticity": ("leaned to", _elasticity),
    "stress": ("raised by", _stress),
    "long-run cap": ("lowered to", _long_run_cap),
    "long-run floor": ("raised to", _long_run_floor),
    "floor": ("raised to", _floor),
    "base schedule": ("raised to", _base_schedule),
    "multiplier cap": ("lowered to", _multiplier_cap),
    "cap": ("lowered to", _cap),
    "speed limit": ("kept within", _speed),
    "hold": ("kept:", _hold),
}
"""What a step does to a rate, and by which rule."""
