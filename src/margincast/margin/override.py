"""Overrides: the margin an operator sets by hand, on the record and for a time.

Responsible for the last step of the chain, and the only one that may take a rate above its speed
limit. Even by hand no rate falls below the floors or what closing costs, rises above the cap, or
falls from tier to tier.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd

from margincast.core.types import SIDES, FloatArray, Side
from margincast.margin.chain import STEPS, Chain
from margincast.margin.rounding import rounded_up
from margincast.margin.tier_rows import Numbers, TierRows
from margincast.specs.serving import MarginPolicy

Action = Literal["raise", "fix", "lift"]
"""``raise``: at least a rate; ``fix``: that rate; ``lift``: no speed limit on rises."""
ACTIONS: tuple[Action, ...] = get_args(Action)


@dataclass(frozen=True)
class Override:
    """A margin set by hand.

    Attributes:
        line: of the ledger that records it.
        action: what is done.
        mmr: the rate, a fraction; NaN where the speed limit is lifted.
        symbol: contract it is for; None for all.
        side: side it is for; None for both.
        tier: tier it is for, from 1; None for all.
        reason: why.
        approver: who answers for it.
        begins: when it was set, UTC.
        expires: when it ends by itself, UTC.
    """

    line: int
    action: Action
    mmr: float
    symbol: str | None
    side: Side | None
    tier: int | None
    reason: str
    approver: str
    begins: datetime
    expires: datetime

    @property
    def text(self) -> str:
        """What is done, in words."""
        if self.action == "lift":
            return "lift the speed limit"
        return f"{'raise to' if self.action == 'raise' else 'fix at'} {100.0 * self.mmr:.4g} %"

    @property
    def sentence(self) -> str:
        """What is done, by whom and why, in words."""
        return sentence_of(
            self.text,
            line=self.line,
            approver=self.approver,
            expires=self.expires,
            reason=self.reason,
        )

    @property
    def subject(self) -> str:
        """What it is for, in words."""
        return " ".join(
            (
                self.symbol or "all contracts",
                self.side or "both sides",
                "all tiers" if self.tier is None else f"tier {self.tier}",
            )
        )


def sentence_of(text: str, *, line: int, approver: str, expires: datetime, reason: str) -> str:
    """Say by whom and why a margin was set by hand."""
    return (
        f"{text}, by override (line {line} of the ledger) approved by {approver} until "
        f"{expires:%F %H:%M} UTC: {reason}"
    )


def columns_of(overrides: Sequence[Override], behind: Numbers) -> Mapping[str, Any]:
    """Return what a table says of the override behind each row; missing where there is none.

    Args:
        overrides: those in force.
        behind: the place of the one behind each row, -1 where there is none, shape (k,).
    """
    return _said(overrides, behind) if overrides else _nothing_said(len(behind))


@lru_cache(maxsize=16)
def _nothing_said(rows: int) -> Mapping[str, Any]:
    """Return the columns where nothing was set by hand: of most tables, most of the time."""
    return _said((), np.full(rows, -1, dtype=np.intp))


def _said(overrides: Sequence[Override], behind: Numbers) -> Mapping[str, Any]:
    def column(values: Sequence[object], dtype: str) -> object:
        return pd.Series(np.array([*values, None], dtype=object)[behind], dtype=dtype)

    return {
        "override": column([one.text for one in overrides], "str"),
        "override_line": column([one.line for one in overrides], "Int64"),
        "override_approver": column([one.approver for one in overrides], "str"),
        "override_reason": column([one.reason for one in overrides], "str"),
        "override_expires": column([one.expires for one in overrides], "datetime64[us, UTC]"),
    }


def covering(rows: TierRows, overrides: Sequence[Override]) -> Numbers:
    """Return the override of each row, shape (k,): the place of the newest, -1 where none is.

    Args:
        rows: contracts, sides and tiers.
        overrides: those in force, oldest first.
    """
    found = np.full(len(rows), -1, dtype=np.intp)
    for place, one in enumerate(overrides):
        own = np.ones(len(rows), dtype=bool)
        if one.symbol is not None:
            own &= np.array([symbol == one.symbol for symbol in rows.symbols])[rows.contract]
        if one.side is not None:
            own &= rows.side == SIDES.index(one.side)
        if one.tier is not None:
            own &= rows.tier == one.tier
        found[own] = place
    return found


def least_rates(base_mmr: FloatArray, cost: FloatArray, policy: MarginPolicy) -> FloatArray:
    """Return the least rates an override may set, on the publication grid, shape (k,).

    Args:
        base_mmr: the base schedule's rates.
        cost: of liquidation; NaN where it is not known, and the fees alone count.
        policy: the margin policy.
    """
    liquidation, limits = policy.liquidation, policy.limits
    fees = liquidation.taker_fee_rate + liquidation.liquidation_fee_rate
    floor = np.maximum(limits.mmr_floor, limits.multiplier_floor * base_mmr)
    return rounded_up(np.fmax(np.maximum(floor, fees), cost), policy.rounding.mmr_step)


def overridden(
    rows: TierRows,
    chain: Chain,
    cost: FloatArray,
    policy: MarginPolicy,
    overrides: Sequence[Override],
) -> tuple[FloatArray, Numbers]:
    """Apply overrides to the rates that a chain made.

    Args:
        rows: contracts, sides and tiers.
        chain: their margins.
        cost: of liquidation; NaN where it is not known.
        policy: the margin policy.
        overrides: those in force, oldest first; of several for a row the newest counts.

    Returns:
        The rates, and the override behind each: its place, -1 where there is none. A tier that
        would lie below one under it gets that one's rate, and its override.
    """
    mmr, place = chain.mmr, covering(rows, overrides)
    touched = place >= 0
    if not touched.any():
        return mmr, place
    actions = np.array([ACTIONS.index(one.action) for one in overrides])[place]
    asked = np.minimum(np.array([one.mmr for one in overrides])[place], policy.limits.mmr_cap)
    # NaN in a fallback, which has no speed limit
    unlimited = rounded_up(chain.values[STEPS.index("cap")], policy.rounding.mmr_step)  # noqa: PD011  # an array of the chain
    wanted = np.select(
        [actions == ACTIONS.index("raise"), actions == ACTIONS.index("fix")],
        [np.fmax(mmr, asked), np.maximum(asked, least_rates(rows.base_mmr, cost, policy))],
        np.fmax(mmr, unlimited),
    )
    made, behind = np.where(touched, wanted, mmr), place.copy()
    concerned = np.isin(rows.group, rows.group[touched])
    for tier in range(2, int(rows.tier.max()) + 1):
        now = np.flatnonzero((rows.tier == tier) & concerned)
        low = now[made[now] < made[now - 1]]
        made[low] = made[low - 1]
        behind[low] = np.where(behind[low] < 0, behind[low - 1], behind[low])
    return made, behind
