"""Margin levels: the rows a venue publishes, one a contract, side and notional tier.

Responsible for the published margin as a whole, of all contracts at once: the forecast of the
right side, every tier's rates and maintenance amount, and the safe rates, with status and reason,
where no forecast can be used. The table is its own audit record: it holds the rate after every
step.
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from margincast.core.errors import InputError
from margincast.core.types import SIDES, FloatArray, Side
from margincast.margin.background import Background, Remembered
from margincast.margin.beside_maintenance import (
    BASE_IN_FORCE,
    InitialInputs,
    fee_column,
    initial_rows,
)
from margincast.margin.chain import RULES, STEPS, Chain, Inputs, advance
from margincast.margin.explanation import Facts, sentence, step_column, steps_of
from margincast.margin.level_inputs import LevelInputs, MadeLevels
from margincast.margin.liquidation_cost import Book, liquidation_costs
from margincast.margin.maintenance import maintenance_amounts_of_all, maintenance_margin_usd
from margincast.margin.notice import InForce
from margincast.margin.override import Override, columns_of, overridden
from margincast.margin.parameters import Parameters
from margincast.margin.policy import (
    age_problem,
    cost_problem,
    forecast_problem,
)
from margincast.margin.tier_rows import Numbers, TierRows
from margincast.specs.serving import MarginPolicy

Texts = npt.NDArray[np.object_]
KEPT = "last margin kept: "
"""What a reason begins with where a fallback is the margin of before: published last, or before the
first publication what the forecasts since the model was fitted have led to."""


def margin_levels(
    rows: TierRows,
    forecasts: Mapping[Side, FloatArray],
    policy: MarginPolicy,
    *,
    data_age: npt.NDArray[np.timedelta64],
    books: Mapping[str, Book] | None = None,
    background: Background,
    overrides: Sequence[Override] = (),
    initial: InitialInputs | None = None,
) -> pd.DataFrame:
    """Return the margin levels of every tier and side of some contracts.

    By hand: forecast 4 %, liquidation cost 0.17 %, buffer 10 %: 4.17 % x 1.1 = 4.587 %, between
    the floors and the caps, rounded up to a multiple of 0.05 %: MMR 4.6 %. On a base MMR of 0.4 %
    that is a multiplier of 11.5; with a ratio of 1.5 the IMR is 6.9 %.

    Rates never fall from tier to tier: base rates and liquidation costs do not, every step of the
    chain keeps that order, and a tier is held with the one under it.

    Args:
        rows: of C contracts.
        forecasts: quantile forecasts at the policy's level and horizon by side, fractions, shape
            (C,); a side that is absent or NaN is not known.
        policy: the margin policy.
        data_age: time between the newest data behind the forecasts and the moment of use, shape
            (C,).
        books: latest order books, where there are any; read only by a policy that walks the book.
        background: the moment, memory and references.
        overrides: margins set by hand that are in force, oldest first.
        initial: what ``[initial.forecast]`` and ``[open_interest]`` need; without it, nothing of it
            is known.

    Returns:
        A row a row. A contract's side is all ``ok``, or all ``fallback`` when its data is too old,
        its forecast unusable, or its cost of liquidation above the cap. Columns:

        - ``symbol``, ``side``, ``tier`` (from 1), ``tier_floor_usd``, ``tier_cap_usd``;
        - ``effective_from`` (after its notice) and ``mmr_in_force``, the rate charged until then;
        - ``mmr``, ``imr``, ``max_leverage`` (1 / imr), ``maintenance_amount`` (USD; margin =
          notional x ``mmr`` - ``maintenance_amount``), ``multiplier`` (``mmr`` over ``base_mmr``);
        - ``forecast`` that was used or refused, ``liquidation_cost`` and its reason,
          ``base_mmr``, ``long_run_rate``, ``stressed_rate``, ``buffer_share``, ``mmr_before`` (the
          rate published before): what went in; NaN where it is not known or, in a fallback, not
          used;
        - ``step_...``: the rate after each step the policy has, NaN in a fallback; after
          ``step_fallback``, and after ``step_override``, NaN where there is none;
        - ``override`` and ``override_line``, ``override_approver``, ``override_reason``,
          ``override_expires``: the margin set by hand, if there is one;
        - ``binding_rule``, ``status``, ``reason`` and ``imr_reason``: what set the rates, in words;
        - of a policy that has their sections: ``initial_forecast``, ``open_interest_usd`` and
          ``open_interest_share`` (of the way of the IMR to 1), ``fee_multiplier``.
    """
    unknown = np.full(len(rows.symbols), np.nan)
    costs, cost_reasons = costs_of(rows, policy, books or {})
    inputs = LevelInputs(
        rows.symbols,
        np.stack([forecasts.get(side, unknown) for side in SIDES], axis=1),
        background.at - np.asarray(data_age, dtype="timedelta64[us]"),
        np.full(len(rows.symbols), "", dtype=object),
        costs,
        cost_reasons,
        background,
        initial or InitialInputs.unknown(len(rows.symbols), policy),
    )
    return levels_of(rows, inputs, policy, overrides).table


def fallback_levels(
    rows: TierRows,
    policy: MarginPolicy,
    reasons: Sequence[str],
    background: Background,
    overrides: Sequence[Override] = (),
) -> pd.DataFrame:
    """Return the safe margins: the larger of the base schedule and what was published last.

    Args:
        rows: of C contracts.
        policy: the margin policy.
        reasons: why no forecast could be used, C texts.
        background: the moment, and what was published last.
        overrides: margins set by hand that are in force, oldest first.
    """
    inputs = LevelInputs.unknown(rows, np.array(reasons, dtype=object), background, policy)
    return levels_of(rows, inputs, policy, overrides).table


def levels_of(
    rows: TierRows, inputs: LevelInputs, policy: MarginPolicy, overrides: Sequence[Override]
) -> MadeLevels:
    """Return the margin levels of recorded inputs: the one road to a table, also to an old one.

    Args:
        rows: of the contracts, from the schedule.
        inputs: of the same contracts and rows.
        policy: the margin policy.
        overrides: margins set by hand that are in force, oldest first.

    Returns:
        The table of :func:`margin_levels`, and what it leaves behind.
    """
    by_side = inputs.forecasts
    problems = _problems(rows, inputs, policy)
    wanted = by_side
    if policy.forecast.sides == "larger":
        wanted = np.broadcast_to(by_side.max(axis=1, keepdims=True), by_side.shape)
    return _made(
        rows,
        policy,
        forecast=np.where(problems == "", wanted, by_side).ravel(),
        problems=problems.ravel(),
        inputs=inputs,
        overrides=overrides,
    )


def position_margin_usd(notional_usd: float, levels: pd.DataFrame) -> float:
    """Return the maintenance margin of a position under published levels, USD.

    Args:
        notional_usd: notional of the position, USD.
        levels: all levels of the position's contract and side, from the lowest tier.

    Raises:
        InputError: the notional is negative, not a number, or above the last tier; or the levels
            are none or those of several contracts or sides.
    """
    if len(levels[["symbol", "side"]].drop_duplicates()) != 1:
        raise InputError("a position's margin needs the levels of one contract and side")
    columns = (levels[name].tolist() for name in ("tier_cap_usd", "mmr", "maintenance_amount"))
    return maintenance_margin_usd(notional_usd, *columns)


def costs_of(
    rows: TierRows, policy: MarginPolicy, books: Mapping[str, Book]
) -> tuple[FloatArray, Texts]:
    """Return the liquidation cost of every row, a fraction, and where it comes from.

    Args:
        rows: contracts, sides and tiers.
        policy: the margin policy.
        books: latest order books, where there are any.
    """
    found = [
        cost
        for symbol, tiers in zip(rows.symbols, rows.tiers, strict=True)
        for side in SIDES
        for cost in liquidation_costs(tiers, side, policy, books.get(symbol))
    ]
    return (
        np.array([cost.rate for cost in found]),
        np.array([cost.reason for cost in found], dtype=object),
    )


def _problems(rows: TierRows, inputs: LevelInputs, policy: MarginPolicy) -> Texts:
    """Say why no margin can be made of a contract's side, shape (C, S); empty where one can."""
    by_side = inputs.forecasts
    last_costs = inputs.costs[rows.last].reshape(by_side.shape)
    good = (by_side > 0.0) & (by_side <= policy.forecast.largest_plausible)
    if policy.forecast.sides == "larger":
        good &= good.all(axis=1, keepdims=True)
    age = inputs.background.at - inputs.data_as_of
    good &= ((age >= np.timedelta64(0)) & (age <= np.timedelta64(policy.staleness.max_data_age)))[
        :, None
    ]
    good &= (last_costs >= 0.0) & (last_costs <= policy.limits.mmr_cap)
    problems = np.repeat(inputs.reasons[:, None], len(SIDES), axis=1)
    for contract, number in np.argwhere(~good & (problems == "")).tolist():
        sides = SIDES if policy.forecast.sides == "larger" else (SIDES[number],)
        own = dict(zip(SIDES, by_side[contract].tolist(), strict=True))
        of_forecast = (
            f"{side} {problem}"
            for side in sides
            if (problem := forecast_problem(own[side], policy)) is not None
        )
        old: timedelta = age[contract].item()
        problems[contract, number] = (
            age_problem(old, policy)
            or next(of_forecast, None)
            or cost_problem(float(last_costs[contract, number]), policy)
        )
    return problems


def _made(
    rows: TierRows,
    policy: MarginPolicy,
    *,
    forecast: FloatArray,
    problems: Texts,
    inputs: LevelInputs,
    overrides: Sequence[Override],
) -> MadeLevels:
    """Make the table; forecasts and problems have an entry a contract's side."""
    background = inputs.background
    problem = problems[rows.group]
    fallback = problem != ""
    shown = forecast[rows.group]
    used = np.where(fallback, np.nan, shown)
    of_chain = Inputs(used, inputs.costs, rows.base_mmr, background.long_run, background.stressed)
    memory, chain = advance(
        background.memory, of_chain, background.at, Parameters.of(policy), under=rows.under
    )
    after = dict(zip(STEPS, chain.values, strict=True))  # an array of the chain
    costs = np.where(chain.fallback, np.nan, inputs.costs)
    mmr, behind = overridden(rows, chain, costs, policy, overrides)
    rules = np.array(RULES, dtype=object)[chain.rules()]
    rules[mmr != chain.mmr] = "override"
    kept = chain.fallback & (chain.mmr > rows.base_mmr)
    opening = initial_rows(
        rows,
        mmr,
        (rules == "fallback") & ~kept,
        problem,
        costs=costs,
        initial=inputs.initial,
        policy=policy,
    )
    effective, charged, in_force = _in_force(chain, mmr, behind, background, policy)
    columns: dict[str, Any] = {
        "symbol": np.array(rows.symbols, dtype=object)[rows.contract],
        "side": np.array(SIDES, dtype=object)[rows.side],
        "tier": rows.tier,
        "tier_floor_usd": rows.floor_usd,
        "tier_cap_usd": rows.cap_usd,
        "effective_from": effective,
        "mmr": mmr,
        "mmr_in_force": charged,
        "imr": opening.imr,
        "max_leverage": 1.0 / opening.imr,
        "maintenance_amount": maintenance_amounts_of_all(rows.floor_usd, mmr, rows.first),
        "multiplier": mmr / rows.base_mmr,
        "forecast": shown,
        "liquidation_cost": costs,
        "liquidation_cost_reason": inputs.cost_reasons,
        "base_mmr": rows.base_mmr,
        "long_run_rate": background.long_run,
        "stressed_rate": background.stressed,
        "buffer_share": np.where(chain.fallback, np.nan, chain.buffer),
        "mmr_before": background.memory.published,
    }
    columns |= {step_column(step): after[step] for step in steps_of(policy)}
    columns[step_column("fallback")] = np.where(chain.fallback, chain.mmr, np.nan)
    columns[step_column("override")] = np.where(behind >= 0, mmr, np.nan)
    columns |= columns_of(overrides, behind)
    columns["binding_rule"] = rules
    columns["status"] = np.where(chain.fallback, "fallback", "ok").astype(object)
    reasons = np.where(kept, KEPT + problem, BASE_IN_FORCE + problem)
    made = np.flatnonzero(~chain.fallback & (rules != "override"))
    facts = zip(*(columns[name][made].tolist() for name in Facts._fields), strict=True)
    reasons[made] = [
        sentence(rule, Facts(*one), policy, changed=True)
        for rule, one in zip(rules[made].tolist(), facts, strict=True)
    ]
    by_hand = rules == "override"
    reasons[by_hand] = np.array([one.sentence for one in overrides], dtype=object)[behind[by_hand]]
    columns |= {"reason": reasons, "imr_reason": opening.reason, **opening.columns}
    columns |= fee_column(rows, used, background.long_run, background.fee_multiplier, policy)
    fees = columns.get("fee_multiplier", background.fee_multiplier)
    return MadeLevels(columns, Remembered(memory, in_force, fees))


def _in_force(
    chain: Chain, mmr: FloatArray, behind: Numbers, background: Background, policy: MarginPolicy
) -> tuple[pd.DatetimeIndex, FloatArray, InForce]:
    """Return from when each rate is in force, what is charged at its publication, and the rest.

    A fallback, a contract's first margin and an override wait for nothing.
    """
    at, in_force = background.at, background.in_force
    at_once = chain.fallback | np.isnan(background.memory.limited)
    waits = in_force.waits(chain.mmr, at, policy, at_once=at_once)
    # an override leaves no trace in what is remembered
    after = in_force.publish(chain.mmr, at, policy, at_once=at_once)
    waits[behind >= 0] = 0
    effective = pd.DatetimeIndex((at + waits).astype("datetime64[us]")).tz_localize("UTC")
    return effective, np.where(behind >= 0, mmr, after.mmr), after
