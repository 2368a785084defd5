"""Notional tiers between our tables and a venue's: the larger of two sides, cut at a notional.

Responsible for the margin that an export has to reproduce: which rate stands for a contract where a
venue has one for long and short, and what a position of a given notional pays by our tiers.
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Literal, get_args

import numpy as np
import pandas as pd

from margincast.core.errors import InputError, did_you_mean
from margincast.margin.maintenance import maintenance_amounts
from margincast.margin.rounding import exact
from margincast.specs.loading import validate_spec
from margincast.specs.schedule import Brackets, Tier

Tiers = tuple[Tier, ...]
TiersBySymbol = Mapping[str, Tiers]
ExportSide = Literal["long", "short", "larger"]
EXPORT_SIDES: tuple[ExportSide, ...] = get_args(ExportSide)

NEEDED = (
    "symbol", "side", "tier", "tier_floor_usd", "tier_cap_usd", "mmr", "imr", "maintenance_amount",
)  # fmt: skip


def amounts_of(tiers: Sequence[Tier]) -> tuple[float, ...]:
    """Return the maintenance amounts of tiers, USD."""
    return maintenance_amounts([tier.floor_usd for tier in tiers], [tier.mmr for tier in tiers])


@dataclass(frozen=True)
class ExactTiers:
    """Tiers as the decimals they are published as; nothing is rounded in between.

    Attributes:
        caps_usd: where the tiers end, USD notional.
        mmrs: maintenance margin rates.
        imrs: initial margin rates.
        amounts_usd: maintenance amounts.
    """

    caps_usd: tuple[Fraction, ...]
    mmrs: tuple[Fraction, ...]
    imrs: tuple[Fraction, ...]
    amounts_usd: tuple[Fraction, ...]

    @classmethod
    def of(cls, tiers: Sequence[Tier]) -> "ExactTiers":
        """Make them of tiers."""
        mmrs = tuple(exact(tier.mmr) for tier in tiers)
        amounts = [Fraction(0)]
        for (lower, upper), tier in zip(pairwise(mmrs), tiers[1:], strict=True):
            amounts.append(amounts[-1] + exact(tier.floor_usd) * (upper - lower))
        return cls(
            tuple(exact(tier.cap_usd) for tier in tiers),
            mmrs,
            tuple(exact(tier.imr) for tier in tiers),
            tuple(amounts),
        )

    def position(self, notional_usd: Fraction) -> int:
        """Return the position of the tier a notional lies in; at a cap it is the tier below.

        Raises:
            InputError: the notional lies above the last tier.
        """
        if notional_usd > self.caps_usd[-1]:
            raise InputError(
                f"a position of {float(notional_usd):,.2f} USD has no tier; the tiers reach to "
                f"{float(self.caps_usd[-1]):,.0f} USD"
            )
        return bisect_left(self.caps_usd, notional_usd)

    def maintenance_usd(self, notional_usd: Fraction) -> Fraction:
        """Return the maintenance margin of a notional, both USD."""
        position = self.position(notional_usd)
        return notional_usd * self.mmrs[position] - self.amounts_usd[position]

    def initial_rate(self, notional_usd: Fraction) -> Fraction:
        """Return the initial margin rate of a notional, USD."""
        return self.imrs[self.position(notional_usd)]


def checked_tiers(rows: Sequence[Mapping[str, object]], where: str) -> Tiers:
    """Make tiers of rows ``floor_usd, cap_usd, mmr, imr``, in order and without gaps.

    Raises:
        SpecError: gaps, unsorted tiers, rates that fall or an MMR not below its IMR; every problem
            with the number of its tier.
    """
    return validate_spec({"tiers": [dict(row) for row in rows]}, Brackets, where).tiers


def tiers_of_levels(levels: pd.DataFrame, side: ExportSide) -> dict[str, Tiers]:
    """Return the tiers that a table of margin levels publishes, by contract.

    With ``larger`` a contract pays, on every stretch of notional, the larger of the rates of both
    sides: its margin is never below either's.

    Args:
        levels: a table as ``margincast score`` writes it; of its columns only :data:`NEEDED` are
            read.
        side: ``long``, ``short`` or ``larger``.

    Raises:
        InputError: a column or side is missing, a row stands twice, or a maintenance amount is not
            what the rates give.
        SpecError: the tiers of a contract contradict each other.
    """
    missing = [name for name in NEEDED if name not in levels]
    if missing:
        raise InputError(
            f"this table has no column {', '.join(missing)}; margin levels as margincast score "
            f"writes them have: {', '.join(NEEDED)}"
        )
    if levels.empty:
        raise InputError("the table of margin levels is empty; nothing can be exported")
    twice = levels.loc[levels.duplicated(["symbol", "side", "tier"])]
    if not twice.empty:
        row = twice.iloc[0]
        raise InputError(
            f"{row['symbol']} {row['side']} tier {row['tier']} stands more than once; export the "
            "levels of one moment"
        )
    sides: dict[str, dict[str, Tiers]] = {}
    ordered = levels.sort_values(["symbol", "side", "tier"])
    for (symbol, of_side), rows in ordered.groupby(["symbol", "side"], sort=False):
        sides.setdefault(str(symbol), {})[str(of_side)] = _tiers_of(rows, f"{symbol} {of_side}")
    wanted = ("long", "short") if side == "larger" else (side,)
    return {
        symbol: _of_sides([_of_side(found, name, symbol) for name in wanted])
        for symbol, found in sides.items()
    }


def up_to(tiers: Tiers, cap_usd: float) -> Tiers:
    """Return the tiers of positions up to a notional, USD; the last ends there.

    Raises:
        InputError: the notional is not positive, or lies above the last tier.
    """
    last = tiers[-1].cap_usd
    if not 0.0 < cap_usd <= last:
        raise InputError(
            f"positions can be exported up to {last:,.0f} USD, where the tiers end, found "
            f"{cap_usd:,.0f} USD"
        )
    kept = [tier for tier in tiers if tier.floor_usd < cap_usd]
    return (*kept[:-1], kept[-1].model_copy(update={"cap_usd": cap_usd}))


def larger_of(first: Tiers, second: Tiers) -> Tiers:
    """Return tiers whose rates are the larger of both on every stretch of notional.

    They end where the shorter of both ends: a larger position has no tier on one side.
    """
    end = min(first[-1].cap_usd, second[-1].cap_usd)
    caps = sorted({tier.cap_usd for tier in (*first, *second) if tier.cap_usd < end} | {end})
    exactly = [(tiers, ExactTiers.of(tiers)) for tiers in (first, second)]
    made: list[Tier] = []
    for floor, cap in zip([0.0, *caps[:-1]], caps, strict=True):
        both = [tiers[one.position(exact(cap))] for tiers, one in exactly]
        mmr, imr = max(tier.mmr for tier in both), max(tier.imr for tier in both)
        if made and (made[-1].mmr, made[-1].imr) == (mmr, imr) and _is_no_edge(floor, both):
            made[-1] = made[-1].model_copy(update={"cap_usd": cap})
        else:
            made.append(Tier(floor_usd=floor, cap_usd=cap, mmr=mmr, imr=imr))
    return tuple(made)


def _is_no_edge(floor: float, both: Sequence[Tier]) -> bool:
    """Whether a stretch begins where only one side has an edge: it can join the one before."""
    return any(tier.floor_usd != floor for tier in both)


def _of_sides(found: Sequence[Tiers]) -> Tiers:
    return found[0] if len(found) == 1 else larger_of(*found)


def _of_side(found: Mapping[str, Tiers], side: str, symbol: str) -> Tiers:
    if side not in found:
        raise InputError(
            f"{symbol} has no {side} levels{did_you_mean(side, found)}; found: "
            f"{', '.join(sorted(found))}"
        )
    return found[side]


def _tiers_of(rows: pd.DataFrame, where: str) -> Tiers:
    columns = ("tier_floor_usd", "tier_cap_usd", "mmr", "imr")
    values = rows[list(columns)].to_numpy(dtype=np.float64).tolist()
    names = ("floor_usd", "cap_usd", "mmr", "imr")
    tiers = checked_tiers([dict(zip(names, row, strict=True)) for row in values], where)
    found = rows["maintenance_amount"].to_numpy(dtype=np.float64).tolist()
    for number, (amount, expected) in enumerate(
        zip(found, amounts_of(tiers), strict=True), start=1
    ):
        if amount != expected:
            raise InputError(
                f"{where} tier {number}: maintenance_amount is {amount!r}, the rates give "
                f"{expected!r}; the table was changed after it was made, score again"
            )
    return tiers
