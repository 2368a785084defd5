"""The rows of a table of margin levels: every notional tier of both sides of some contracts.

Responsible for the order in which margins are computed and published, contract by contract, side by
side, tier by tier, so that the arithmetic can take all of them at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from margincast.core.types import SIDES, BoolArray, FloatArray
from margincast.margin.schedule import require_floors_below_caps, tiers_for
from margincast.specs.schedule import BaseSchedule, Tier
from margincast.specs.serving import MarginPolicy

Numbers = npt.NDArray[np.intp]


@dataclass(frozen=True)
class TierRows:
    """Every tier of both sides of C contracts; shape (k,) each, sorted by contract, side, tier.

    Attributes:
        symbols: the C contracts.
        tiers: tiers of each of them.
        contract: number of the row's contract.
        side: number of its side, in the order of ``SIDES``.
        tier: number of its tier, from 1.
        floor_usd: notional above which the tier applies, USD.
        cap_usd: notional up to which it applies, USD.
        base_mmr: maintenance margin rate of the base schedule.
        base_imr: its initial margin rate.
    """

    symbols: tuple[str, ...]
    tiers: tuple[tuple[Tier, ...], ...]
    contract: Numbers
    side: Numbers
    tier: Numbers
    floor_usd: FloatArray
    cap_usd: FloatArray
    base_mmr: FloatArray
    base_imr: FloatArray

    def __len__(self) -> int:
        return len(self.tier)

    @property
    def group(self) -> Numbers:
        """Number of a contract's side, 0 to 2 C - 1: rows whose tiers follow one another."""
        return self.contract * len(SIDES) + self.side

    @property
    def first(self) -> BoolArray:
        """Rows of first tiers."""
        return np.asarray(self.tier == 1)

    @property
    def under(self) -> Numbers:
        """Place of the tier below each row, -1 for first tiers."""
        return np.where(self.first, -1, np.arange(len(self)) - 1)

    @property
    def last(self) -> BoolArray:
        """Rows of last tiers: as many as there are contracts' sides, in their order."""
        return np.append(self.first[1:], True)[: len(self)]


def tier_rows(symbols: Sequence[str], schedule: BaseSchedule, policy: MarginPolicy) -> TierRows:
    """Return the rows of some contracts.

    Args:
        symbols: contracts, in the order of their rows.
        schedule: the base schedule.
        policy: the margin policy that is to fit it.

    Raises:
        InputError: a contract has no tiers, or the policy contradicts itself on one of them.
    """
    tiers = tuple(tiers_for(schedule, symbol) for symbol in symbols)
    columns: dict[int, FloatArray] = {}
    for symbol, own in zip(symbols, tiers, strict=True):
        if id(own) not in columns:
            require_floors_below_caps(policy, own, symbol)
            columns[id(own)] = np.array([(t.floor_usd, t.cap_usd, t.mmr, t.imr) for t in own]).T
    both = [columns[id(own)] for own in tiers for _ in SIDES]
    depths = np.array([one.shape[1] for one in both], dtype=np.intp)
    values = np.concatenate(both, axis=1) if both else np.empty((4, 0))
    group = np.repeat(np.arange(len(both)), depths)
    start = np.repeat(np.cumsum(depths) - depths, depths)
    return TierRows(
        tuple(symbols),
        tiers,
        group // len(SIDES),
        group % len(SIDES),
        np.arange(len(group)) - start + 1,
        *values,
    )


def places_in(earlier: TierRows, rows: TierRows) -> Numbers:
    """Return where every row was among those of an earlier table, shape (k,).

    Tiers may have changed since: a row was where the first dollar above its floor was, above the
    last tier in that.

    Args:
        earlier: rows of the earlier table.
        rows: of this one.

    Returns:
        Places, -1 where the contract had no rows.
    """
    start = np.flatnonzero(earlier.first)
    group_of = {symbol: number * len(SIDES) for number, symbol in enumerate(earlier.symbols)}
    found = np.full(len(rows), -1, dtype=np.intp)
    at = 0
    for symbol, tiers in zip(rows.symbols, rows.tiers, strict=True):
        group = group_of.get(symbol)
        if group is not None:
            caps = [tier.cap_usd for tier in earlier.tiers[group // len(SIDES)][:-1]]
            own = np.searchsorted(caps, [tier.floor_usd for tier in tiers], side="right")
            for side in range(len(SIDES)):
                first = at + side * len(tiers)
                found[first : first + len(tiers)] = start[group + side] + own
        at += len(SIDES) * len(tiers)
    return found
