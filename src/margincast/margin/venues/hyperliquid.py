"""Hyperliquid margin tables: maintenance is half the initial margin at a tier's largest leverage.

Source: hyperliquid.gitbook.io/hyperliquid-docs/trading/margin-tiers: "maintenance_margin =
notional_position_value * maintenance_margin_rate - maintenance_deduction", rate of a tier =
(1 / maxLeverage) / 2, deduction of tier n = deduction of n-1 + lower bound of n x (rate of n - rate
of n-1); "for IDs less than 50, there is a single tier with max leverage equal to the ID". Keys are
those of the ``meta`` request of the info endpoint.
"""

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from fractions import Fraction
from itertools import pairwise

from margincast.core.errors import InputError
from margincast.margin.rounding import exact
from margincast.margin.venues.imported import (
    Collected,
    Imported,
    ReadOptions,
    VenueMargin,
    rate_of_leverage,
)
from margincast.margin.venues.record import Record
from margincast.margin.venues.tiers import Tiers, TiersBySymbol, checked_tiers

FLAT_TABLES_BELOW = 50
_Steps = tuple[tuple[Fraction, int], ...]
"""Lower bounds, USD, and largest leverages."""


def read(documents: Sequence[object], options: ReadOptions) -> Imported:
    """Read margin tables and the contracts that use them.

    The venue's last tier has no end: ``options.last_cap_usd`` is where ours ends.

    Args:
        documents: one parsed file: the response to ``meta``, or to ``metaAndAssetCtxs``.
        options: the contracts to read, and the largest position.

    Raises:
        InputError: missing keys, a collateral other than USDC, a table that is not there, a
            contract twice, or a leverage that differs between contract and table.
        SpecError: unsorted tiers, or a rate that falls.
    """
    collected = Collected(options)
    first = documents[0]
    meta = Record(first[0] if isinstance(first, list) and first else first, "meta")
    if "collateralToken" in meta.raw and meta.whole("collateralToken") != 0:
        raise InputError(
            f"collateralToken is {meta.whole('collateralToken')}, not 0 (USDC): the tiers' bounds "
            "are in that token; base schedules are in USD notional"
        )
    tables = _tables(meta)
    for contract in meta.records("universe", "contract"):
        symbol = contract.text("name")
        if not collected.wants(symbol, symbol):
            continue
        if contract.raw.get("isDelisted"):
            collected.remark(f"{symbol} is delisted and was left out")
            continue
        steps = _steps_of(contract, symbol, tables)
        caps = [bound for bound, _ in steps[1:]]
        rows = [
            {
                "floor_usd": float(bound),
                "cap_usd": float(cap) if cap is not None else options.last_cap(symbol, bound),
                "mmr": rate_of_leverage(2 * leverage),
                "imr": rate_of_leverage(leverage),
            }
            for (bound, leverage), cap in zip(steps, [*caps, None], strict=True)
        ]
        collected.add(symbol, checked_tiers(rows, symbol), _margin(steps))
    return collected.finish()


def export(tiers_by_symbol: TiersBySymbol) -> dict[str, object]:
    """Return margin tables and the contracts that use them, in the form of ``meta``.

    A tier's leverage is the largest whole number at which neither maintenance, half of 1 over it,
    nor initial margin lies below ours; neighbours of equal leverage become one. The ids of tables
    count from 50, where the venue gives its own.

    Raises:
        InputError: an MMR above 50 %, which the venue cannot ask.
    """
    tables: dict[_Steps, int] = {}
    universe = []
    for symbol, tiers in tiers_by_symbol.items():
        steps = _steps(symbol, tiers)
        flat = len(steps) == 1 and steps[0][1] < FLAT_TABLES_BELOW
        number = steps[0][1] if flat else tables.setdefault(steps, FLAT_TABLES_BELOW + len(tables))
        universe.append({"name": symbol, "maxLeverage": steps[0][1], "marginTableId": number})
    return {
        "universe": universe,
        "marginTables": [[number, _table(steps)] for steps, number in tables.items()],
        "collateralToken": 0,
    }


def _table(steps: _Steps) -> dict[str, object]:
    return {
        "description": f"tiered {steps[0][1]}x",
        "marginTiers": [
            {"lowerBound": repr(float(bound)), "maxLeverage": leverage} for bound, leverage in steps
        ],
    }


def _steps(symbol: str, tiers: Tiers) -> _Steps:
    steps: list[tuple[Fraction, int]] = []
    for number, tier in enumerate(tiers, start=1):
        leverage = min(math.floor(1 / (2 * exact(tier.mmr))), math.floor(1 / exact(tier.imr)))
        if leverage < 1:
            raise InputError(
                f"{symbol} tier {number}: an MMR of {tier.mmr:.2%} lies above 50 %, the most this "
                "venue can ask (half the initial margin at 1x); cut it off with --up-to"
            )
        if not steps or steps[-1][1] != leverage:
            steps.append((exact(tier.floor_usd), leverage))
    return tuple(steps)


def _tables(meta: Record) -> dict[int, _Steps]:
    tables: dict[int, _Steps] = {}
    for number, item in enumerate(
        meta.items("marginTables") if meta.raw.get("marginTables") else []
    ):
        if not isinstance(item, list) or len(item) != 2 or not isinstance(item[0], int):
            raise InputError(
                f"{meta.where}, margin table {number + 1}: a pair of id and table is needed, "
                f"found {str(item)[:60]}"
            )
        table = Record(item[1], f"margin table {item[0]}")
        steps = tuple(
            (tier.number("lowerBound"), _leverage(tier))
            for tier in table.records("marginTiers", "tier")
        )
        if steps[0][0] != 0:
            raise InputError(
                f"{table.where}: the first tier must start at 0, found {float(steps[0][0]):g}"
            )
        tables[item[0]] = steps
    return tables


def _steps_of(contract: Record, symbol: str, tables: Mapping[int, _Steps]) -> _Steps:
    number = contract.whole("marginTableId")
    if number not in tables and not 0 < number < FLAT_TABLES_BELOW:
        known = ", ".join(map(str, sorted(tables))) or "none"
        raise InputError(f"{symbol} uses margin table {number}, which is not there; found: {known}")
    steps = tables.get(number, ((Fraction(0), number),))
    if contract.whole("maxLeverage") != steps[0][1]:
        raise InputError(
            f"{symbol}: maxLeverage is {contract.whole('maxLeverage')}, its margin table {number} "
            f"starts with {steps[0][1]}; the file was edited, fetch it again"
        )
    return steps


def _leverage(tier: Record) -> int:
    leverage = tier.whole("maxLeverage")
    if leverage < 1:
        raise InputError(f"{tier.where}: 'maxLeverage' must be at least 1, found {leverage}")
    return leverage


def _margin(steps: _Steps) -> VenueMargin:
    """The venue's own arithmetic: rates from leverages, deductions from rates."""
    bounds = [bound for bound, _ in steps]
    rates = [Fraction(1, 2 * leverage) for _, leverage in steps]
    deductions = [Fraction(0)]
    for (lower, upper), (bound, _) in zip(pairwise(rates), steps[1:], strict=True):
        deductions.append(deductions[-1] + bound * (upper - lower))

    def tier(notional: Fraction) -> int:
        # "0-150M: 40, >150M: 20": a bound belongs to the tier below
        return max(0, bisect_left(bounds, notional) - 1)

    def maintenance(notional: Fraction) -> Fraction:
        number = tier(notional)
        return notional * rates[number] - deductions[number]

    return VenueMargin(
        len(steps), maintenance, lambda notional: Fraction(1, steps[tier(notional)][1])
    )
