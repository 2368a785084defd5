"""Why a margin is what it is: the steps of the chain in words.

Responsible for the text beside every published number. The arithmetic is in
:mod:`~margincast.margin.chain`; here is only said what it did.
"""

import math
from dataclasses import dataclass

from margincast.core.time import format_duration
from margincast.margin.chain import STEPS, Chain, Inputs, Rule
from margincast.specs.serving import MarginPolicy


@dataclass(frozen=True)
class Step:
    """One step of the chain; values are maintenance margin rates, fractions."""

    name: Rule
    value_before: float
    value_after: float
    reason: str


@dataclass(frozen=True)
class Circumstances:
    """What the chain does not know but a reader wants to.

    Attributes:
        source: what the forecast is.
        cost: where the liquidation cost comes from.
    """

    source: str
    cost: str


def percent(rate: float) -> str:
    """Write a fraction for a reader, with four significant digits.

    >>> percent(0.04587)
    '4.587 %'
    """
    return f"{100.0 * rate:.4g} %"


def steps_of(
    chain: Chain, row: int, inputs: Inputs, policy: MarginPolicy, circumstances: Circumstances
) -> tuple[Step, ...]:
    """Return the steps of one row that its policy has, each from where the one before ended.

    Args:
        chain: margins of one moment; the row is no fallback.
        row: which.
        inputs: what they were made of.
        policy: the margin policy.
        circumstances: of the row.
    """
    values = [0.0, *chain.values[:, row].tolist()]
    words = _words(chain, row, inputs, policy, circumstances)
    return tuple(
        Step(name, before, after, words[name](before != after))
        for name, before, after in zip(STEPS, values[:-1], values[1:], strict=True)
        if name in words
    )


def binding_reason(steps: tuple[Step, ...], rule: str) -> str:
    """Return the reason of the step that set the number."""
    return next(step.reason for step in steps if step.name == rule)


class _Words:
    """A sentence for a step that did something, and one for a step that did not."""

    def __init__(self, did: str, what: str) -> None:
        self.did = did
        self.what = what

    def __call__(self, changed: bool) -> str:
        return f"{self.did} {self.what}" if changed else f"not binding: {self.what}"


class _Always:
    """A sentence that holds in any case."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __call__(self, changed: bool) -> str:  # noqa: ARG002  # said in any case
        return self.text


def _words(
    chain: Chain, row: int, inputs: Inputs, policy: MarginPolicy, circumstances: Circumstances
) -> dict[Rule, _Words | _Always]:
    forecast, cost = float(inputs.forecast[row]), float(inputs.cost[row])
    base = float(inputs.base_mmr[row])
    limits = policy.limits
    words: dict[Rule, _Words | _Always] = {
        "forecast": _Always(f"{circumstances.source}: {percent(forecast)}"),
        "liquidation cost": _Always(f"{circumstances.cost}: {percent(cost)}"),
        "buffer": _Always(_buffer(float(chain.buffer[row]), policy)),
    }
    words |= _reference_words(float(inputs.long_run[row]), float(inputs.stressed[row]), policy)
    capped = limits.multiplier_cap * base
    multiplier_cap = f"{limits.multiplier_cap:g} x base MMR {percent(base)} = {percent(capped)}"
    if capped < cost:
        multiplier_cap += f", lifted to the cost of liquidation {percent(cost)}"
    least = limits.multiplier_floor * base
    words |= {
        "floor": _Words("raised to", f"floor of {percent(limits.mmr_floor)}"),
        "base schedule": _Words(
            "raised to",
            f"{limits.multiplier_floor:g} x base MMR {percent(base)} = {percent(least)}",
        ),
        "multiplier cap": _Words("lowered to", multiplier_cap),
        "cap": _Words("lowered to", f"cap of {percent(limits.mmr_cap)}"),
    }
    if policy.speed is not None:
        speed = policy.speed
        words["speed limit"] = _Words(
            "kept within",
            f"rises of {percent(speed.rise_per_hour)} an hour and {percent(speed.rise_per_day)} a "
            f"day, falls by half in {format_duration(speed.fall_half_life)}",
        )
    words["rounding"] = _Always(f"rounded up to a multiple of {percent(policy.rounding.mmr_step)}")
    if policy.publication is not None and policy.publication.hold > 0.0:
        words["hold"] = _Words(
            "kept as published:", f"falls by {percent(policy.publication.hold)} or less wait"
        )
    return words


def _buffer(share: float, policy: MarginPolicy) -> str:
    rate = policy.buffer.rate
    if share == 1.0:
        return f"buffer of {percent(rate)}"
    return (
        f"buffer of {percent(rate)}, of which {percent(share)} is left: the forecast stands above "
        "its long-run rate, or did so lately"
    )


def _reference_words(
    long_run: float, stressed: float, policy: MarginPolicy
) -> dict[Rule, _Words | _Always]:
    band, stress = policy.long_run, policy.stress
    words: dict[Rule, _Words | _Always] = {}
    unknown = "the contract's history is not known"
    if stress is not None:
        text = f"{percent(stress.weight)} weight on its worst period, {percent(stressed)}"
        words["stress"] = _Words("raised by", unknown if math.isnan(stressed) else text)
    if band is not None:
        known = not math.isnan(long_run)
        rate = f"x long-run rate {percent(long_run)}, plus cost"
        cap, floor = f"{band.cap:g} {rate}", f"{band.floor:g} {rate}"
        words["long-run cap"] = _Words("lowered to", cap if known else unknown)
        words["long-run floor"] = _Words("raised to", floor if known else unknown)
    return words
