"""The policy chain: from forecasts to published maintenance margin rates, a step at a time.

Responsible for the order of operations between a forecast and the rate a venue publishes, for any
number of rows (contracts, sides, tiers) at once. :func:`advance` is the one place where a margin is
made: serving calls it for the moment it publishes, a backtest calls it decision after decision, so
that what is judged is what is published. What a policy must remember from one moment to the next
(buffer, speed limits, hold) is a value that goes in and comes out.

Sources: EMIR RTS 153/2013 article 28 (buffer of 25 % that may be exhausted while requirements
rise, 25 % weight for stressed observations, floor from a long look-back); Murphy, Vasios and Vause
(2016), Bank of England Staff Working Paper 597, on speed limits and floors as such tools.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

import numpy as np
import numpy.typing as npt

from margincast.core.errors import InputError
from margincast.core.types import BoolArray, FloatArray, Times
from margincast.margin.parameters import Parameters
from margincast.margin.rounding import rounded_up

Rule = Literal[
    "forecast",
    "elasticity",
    "liquidation cost",
    "buffer",
    "stress",
    "long-run floor",
    "long-run cap",
    "floor",
    "base schedule",
    "multiplier cap",
    "cap",
    "speed limit",
    "rounding",
    "hold",
    "fallback",
    "override",
]
STEPS: tuple[Rule, ...] = (
    "forecast",
    "elasticity",
    "liquidation cost",
    "buffer",
    "stress",
    "long-run cap",
    "long-run floor",
    "floor",
    "base schedule",
    "multiplier cap",
    "cap",
    "speed limit",
    "rounding",
    "hold",
)
"""In the order in which a margin passes them; each starts where the one before it ended."""
RULES: tuple[Rule, ...] = (*STEPS, "fallback", "override")
"""What can set a rate; an override comes after the chain (:mod:`~margincast.margin.override`)."""
BINDING: tuple[Rule, ...] = (
    "stress",
    "long-run cap",
    "long-run floor",
    "floor",
    "base schedule",
    "multiplier cap",
    "cap",
    "speed limit",
    "hold",
)
"""Steps that set a number when they change it; the last of them that does is the binding rule."""
DAY = timedelta(days=1)
_DAY_AT_LEAST = DAY - timedelta(minutes=10)
"""What was published so long ago counts as a day ago: a nightly job does not start at the same
second every night, and yesterday's rate must not be taken for one of today. The rise over an hour
limits what that may add."""
_HOUR = timedelta(hours=1)
_NO_LIMIT = 50.0
"""A rise by its exponential holds nothing back, and is a number still."""


@dataclass(frozen=True)
class Inputs:
    """What a margin is made of at one moment, a row a contract, side and tier; shape (k,) each.

    Attributes:
        forecast: quantile forecast that margins the side, a fraction; NaN where there is none.
        cost: of closing the tier's notional, a fraction.
        base_mmr: the base schedule's rate of the tier.
        long_run: long-run rate of the contract's side (:mod:`~margincast.margin.reference`); NaN
            where it is not known, and then what needs it is left out.
        stressed: rate of its worst period; NaN likewise.
    """

    forecast: FloatArray
    cost: FloatArray
    base_mmr: FloatArray
    long_run: FloatArray
    stressed: FloatArray


@dataclass(frozen=True)
class Memory:
    """What a policy remembers of its rows from the last publication; shape (k,) each.

    Attributes:
        at: the moment of the last publication, UTC; None before the first.
        buffer: share of the buffer that is there, 0 to 1.
        limited: last rate made of a forecast, before rounding; NaN where there has been none.
        limited_at: when it was made; NaT likewise.
        published: the rate published last, fallbacks included; NaN before the first.
        recent: moments and rates before rounding since a day before ``at``, oldest first; the
            first is the one that was in force then. Empty where no rise over a day is limited.
    """

    at: np.datetime64 | None
    buffer: FloatArray
    limited: FloatArray
    limited_at: Times
    published: FloatArray
    recent: tuple[tuple[np.datetime64, FloatArray], ...]

    @classmethod
    def blank(cls, rows: int) -> "Memory":
        """Return the memory of rows that have never been published: a full buffer, no rate."""
        unknown = np.full(rows, np.nan)
        never = np.full(rows, np.datetime64("NaT", "us"))
        return cls(None, np.ones(rows), unknown, never, unknown, ())

    def rows(self, chosen: npt.NDArray[np.intp]) -> "Memory":
        """Return the memory of some rows."""
        return Memory(
            self.at,
            self.buffer[chosen],
            self.limited[chosen],
            self.limited_at[chosen],
            self.published[chosen],
            tuple((at, rates[chosen]) for at, rates in self.recent),
        )


@dataclass(frozen=True)
class Chain:
    """The margins of one moment and the steps that made them.

    Attributes:
        values: rate after each of :data:`STEPS`, shape (steps, k); NaN in a fallback.
        fallback: rows without a usable forecast or cost, shape (k,).
        mmr: the published rate, shape (k,).
        buffer: share of the buffer that was there, shape (k,).
    """

    values: FloatArray
    fallback: BoolArray
    mmr: FloatArray
    buffer: FloatArray

    def binding(self) -> tuple[Rule, ...]:
        """Return the rule that set each rate: the last one that changed it, else "forecast"."""
        return tuple(RULES[number] for number in self.rules())

    def rules(self) -> npt.NDArray[np.intp]:
        """Return the same as numbers of :data:`RULES`, shape (k,)."""
        found = np.zeros(len(self.mmr), dtype=np.intp)
        for name in BINDING:
            step = STEPS.index(name)
            found[self.values[step] != self.values[step - 1]] = step
        found[self.fallback] = len(STEPS)
        return found


def usable(forecast: FloatArray, cost: FloatArray, policy: Parameters) -> BoolArray:
    """Return where a margin may be made of a forecast and a cost, shape (k,)."""
    return np.asarray(
        (forecast > 0.0)
        & (forecast <= policy.largest_plausible)
        & (cost >= 0.0)
        & (cost <= policy.mmr_cap)
    )


def advance(
    memory: Memory,
    inputs: Inputs,
    at: np.datetime64,
    policy: Parameters,
    *,
    under: npt.NDArray[np.intp] | None = None,
) -> tuple[Memory, Chain]:
    """Make the margins of one moment.

    Where a forecast or cost cannot be used the rate is the larger of the base schedule's and the
    one published last, with status ``fallback``.

    Args:
        memory: of the moment before.
        inputs: of this moment.
        at: this moment, UTC, after ``memory.at``.
        policy: numbers of the margin policy, or of one a row.
        under: place of the row of the tier below each row, -1 where there is none, shape (k,);
            without it no row has one.

    Returns:
        The memory for the next moment, and the margins.

    Raises:
        InputError: ``at`` is not after the moment before.
    """
    if memory.at is not None and at <= memory.at:
        raise InputError(f"margins of {at} cannot follow those of {memory.at}: time goes forward")
    good = usable(inputs.forecast, inputs.cost, policy)
    forecast = np.where(good, inputs.forecast, np.nan)
    cost = np.where(good, inputs.cost, np.nan)
    buffer = _buffer(memory, forecast / inputs.long_run, at, policy)
    leaned = _leaned(forecast, inputs.long_run, policy)
    values = [forecast, leaned, leaned + cost]
    values.append(values[-1] * (1.0 + policy.buffer_rate * buffer))
    values += _references(values[-1], cost, inputs, policy)
    values += _limits(values[-1], cost, inputs.base_mmr, policy)
    # a floor raised since holds at once, and so does what closing costs
    least = np.maximum(policy.mmr_floor, policy.multiplier_floor * inputs.base_mmr)
    least = np.maximum(least, cost)
    values.append(np.maximum(_speed(values[-1], memory, at, policy), least))
    limited = values[-1]
    values.append(rounded_up(limited, policy.mmr_step))
    values.append(_in_order(_held(values[-1], memory.published, policy), under))
    mmr = np.where(good, values[-1], np.fmax(inputs.base_mmr, memory.published))
    # a fallback is no forecast: limits go on from the last margin that was made of one
    limited = np.where(good, limited, memory.limited)
    limited_at = np.where(good, at, memory.limited_at)
    recent = memory.recent
    if np.isfinite(policy.rise_per_day).any():
        recent = _last_day((*recent, (at, limited)), at)
    chain = Chain(np.array(values), ~good, mmr, buffer)
    return Memory(at, buffer, limited, limited_at, mmr, recent), chain


def _leaned(forecast: FloatArray, long_run: FloatArray, policy: Parameters) -> FloatArray:
    """Return L (f / L)^elasticity, L the long-run rate; the forecast itself where L is not known.

    Above 1 a turbulent market is charged more than its quantile and a calm one less. At the same
    number of exceedances that loses less, because what lies beyond a margin grows with the margin.
    """
    leaned = long_run * (forecast / long_run) ** policy.elasticity
    # an elasticity of 1 must change no bit
    stays = np.isnan(leaned) | (policy.elasticity == 1.0)
    return np.asarray(np.where(stays, forecast, leaned))


def _buffer(memory: Memory, need: FloatArray, at: np.datetime64, policy: Parameters) -> FloatArray:
    """Return the share of the buffer that is there: used at once, rebuilt slowly, in [0, 1].

    ``need`` is the forecast over the long-run rate; where it is not known the buffer is not used.
    """
    rebuilt = memory.buffer
    if memory.at is not None:
        hours = float((at - memory.at) / np.timedelta64(_HOUR))
        rebuilt = np.minimum(1.0, rebuilt + hours * policy.rebuild_per_hour)
    left = np.clip(1.0 - (need - policy.drawdown_starts_at) / policy.drawdown_span, 0.0, 1.0)
    return np.asarray(np.fmin(rebuilt, left))


def _references(
    value: FloatArray, cost: FloatArray, inputs: Inputs, policy: Parameters
) -> list[FloatArray]:
    """Blend with stressed observations, then keep within the long-run band."""
    weight = policy.stress_weight
    # weight on stress adds to a calm margin; it never takes from a stressed one
    stressed = np.fmax(value, (1.0 - weight) * value + weight * (inputs.stressed + cost))
    # fmin and fmax: where the long-run rate is not known there is no band
    capped = np.fmin(stressed, policy.long_run_cap * inputs.long_run + cost)
    floored = np.fmax(capped, policy.long_run_floor * inputs.long_run + cost)
    unknown = np.isnan(value)
    return [np.where(unknown, np.nan, one) for one in (stressed, capped, floored)]


def _limits(
    value: FloatArray, cost: FloatArray, base_mmr: FloatArray, policy: Parameters
) -> list[FloatArray]:
    """Apply both floors and both caps; their order does not matter, no floor lies above a cap.

    Only the multiplier cap yields to the cost of liquidation: a margin that cannot pay for closing
    is none.
    """
    floor = np.maximum(value, policy.mmr_floor)
    base = np.maximum(floor, policy.multiplier_floor * base_mmr)
    multiplier_cap = np.minimum(base, np.maximum(policy.multiplier_cap * base_mmr, cost))
    return [floor, base, multiplier_cap, np.minimum(multiplier_cap, policy.mmr_cap)]


def _speed(value: FloatArray, memory: Memory, at: np.datetime64, policy: Parameters) -> FloatArray:
    """Keep a rate within what it may rise and fall since the last one, before rounding.

    A rise over a day counts from the rate of 24 hours before (ten minutes less will do), or from
    the first there is.
    """
    if memory.at is None:
        return value
    hours = (at - memory.limited_at) / np.timedelta64(_HOUR)
    lowest = memory.limited * np.exp(-hours * policy.fall_per_hour)
    rise = np.minimum(hours * np.log1p(policy.rise_per_hour), _NO_LIMIT)
    highest = memory.limited * np.exp(rise)
    if memory.recent:
        day_before, *since = (rates for _, rates in _last_day(memory.recent, at))
        never = np.isnan(memory.limited)
        for rates in since:
            if (never | ~np.isnan(day_before)).all():
                break
            day_before = np.where(np.isnan(day_before), rates, day_before)
        highest = np.fmin(highest, day_before * (1.0 + policy.rise_per_day))
    # fmin and fmax: a row that has no rate yet has no limit
    limited = np.fmin(np.fmax(value, lowest), highest)
    return np.where(np.isnan(value), np.nan, limited)


def _held(value: FloatArray, published: FloatArray, policy: Parameters) -> FloatArray:
    """Keep a published rate that would fall by a little only."""
    small = (value < published) & (value >= published * (1.0 - policy.hold))
    return np.where(small, published, value)


def _in_order(value: FloatArray, under: npt.NDArray[np.intp] | None) -> FloatArray:
    """Raise what lies below the tier under it: one tier may be held while the next one falls."""
    if under is None:
        return value
    while True:
        below = np.where(under >= 0, value[under], np.nan)
        low = value < below  # False for NaN
        if not low.any():
            return value
        value = np.where(low, below, value)


def _last_day(
    recent: tuple[tuple[np.datetime64, FloatArray], ...], at: np.datetime64
) -> tuple[tuple[np.datetime64, FloatArray], ...]:
    """Drop what is older than the newest that is a day old."""
    first = 0
    while first + 1 < len(recent) and at - recent[first + 1][0] >= np.timedelta64(_DAY_AT_LEAST):
        first += 1
    return recent[first:]
