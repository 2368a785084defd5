"""Bybit risk limits: the maintenance margin ``value x rate - deduction`` of a position.

Sources: "Get Risk Limit", ``GET /v5/market/risk-limit`` (bybit-exchange.github.io/docs/v5/market/
risk-limit), for the keys; bybitglobal.com/en/announcement-info/margin-parameters for the formulas:
deduction of tier n = risk limit of tier n-1 x (rate of n - rate of n-1) + deduction of n-1.
"""

from collections.abc import Sequence
from fractions import Fraction

from margincast.core.errors import InputError
from margincast.margin.venues.imported import (
    Collected,
    Imported,
    ReadOptions,
    VenueMargin,
    require_amount,
)
from margincast.margin.venues.record import Record
from margincast.margin.venues.tiers import ExactTiers, checked_tiers

_LEVERAGE_DIGITS = Fraction(1, 100)
"""``maxLeverage`` has two digits after the point."""


def read(documents: Sequence[object], options: ReadOptions) -> Imported:
    """Read risk limits of linear contracts.

    Rates are fractions, or per cent as in the example of the venue's page: which, the file says
    itself, as ``initialMargin x maxLeverage`` is 1 or 100.

    Args:
        documents: one parsed file: a response, or a list of the responses of all pages.
        options: the contracts to read.

    Raises:
        InputError: missing keys, an inverse contract, a contract twice, a leverage that is not 1
            over the initial margin, or a deduction that the limits do not give.
        SpecError: unsorted limits, or a rate that falls.
    """
    collected = Collected(options)
    rows: dict[str, list[Record]] = {}
    pages = documents[0] if isinstance(documents[0], list) else [documents[0]]
    for number, page in enumerate(pages, start=1):
        result = Record(Record(page, f"page {number}").value("result"), f"page {number}, result")
        _require_linear(result)
        if number == len(pages) and result.raw.get("nextPageCursor"):
            collected.remark(
                "the last page names a next one: contracts may be missing; the venue gives 15 a "
                "page, write all responses into one list"
            )
        for row in result.records("list", "row"):
            rows.setdefault(row.text("symbol"), []).append(row)
    for symbol, limits in rows.items():
        if collected.wants(symbol, symbol):
            _collect(symbol, [Record(row.raw, symbol) for row in limits], collected)
    return collected.finish()


def _collect(symbol: str, limits: list[Record], collected: Collected) -> None:
    named = [
        Record(limit.raw, f"{symbol}, tier {number}") for number, limit in enumerate(limits, 1)
    ]
    unit = _unit_of(named[0])
    floor = Fraction(0)
    rows = []
    for limit in named:
        _require_leverage(limit, unit)
        rows.append(
            {
                "floor_usd": float(floor),
                "cap_usd": float(limit.number("riskLimitValue")),
                "mmr": float(limit.number("maintenanceMargin") / unit),
                "imr": float(limit.number("initialMargin") / unit),
            }
        )
        floor = limit.number("riskLimitValue")
    tiers = checked_tiers(rows, symbol)
    deductions = [_deduction(limit) for limit in named]
    for limit, found, expected in zip(
        named, deductions, ExactTiers.of(tiers).amounts_usd, strict=True
    ):
        require_amount(found, expected, limit.where, "mmDeduction")
    collected.add(symbol, tiers, _margin(named, deductions, unit))


def _margin(limits: list[Record], deductions: list[Fraction], unit: int) -> VenueMargin:
    """The venue's own arithmetic, from the numbers of the file and nothing else."""
    return VenueMargin.of_brackets(
        caps_usd=[limit.number("riskLimitValue") for limit in limits],
        rates=[limit.number("maintenanceMargin") / unit for limit in limits],
        amounts_usd=deductions,
        initial=[limit.number("initialMargin") / unit for limit in limits],
    )


def _deduction(limit: Record) -> Fraction:
    """The first tier's deduction is an empty text in the venue's responses."""
    return Fraction(0) if limit.value("mmDeduction") == "" else limit.number("mmDeduction")


def _unit_of(limit: Record) -> int:
    product = limit.number("initialMargin") * limit.number("maxLeverage")
    return 100 if product > 10 else 1


def _require_leverage(limit: Record, unit: int) -> None:
    rate = limit.number("initialMargin") / unit
    leverage = limit.number("maxLeverage")
    if rate == 0 or abs(1 / rate - leverage) > _LEVERAGE_DIGITS:
        raise InputError(
            f"{limit.where}: an initialMargin of {float(rate):g} goes with a maxLeverage of "
            f"{float(1 / rate) if rate else float('inf'):.2f}, found {float(leverage):g}; the file "
            "was edited, or mixes fractions and per cent: fetch it again"
        )


def _require_linear(result: Record) -> None:
    category = result.text("category")
    if category != "linear":
        raise InputError(
            f"{result.where}: category is {category!r}, whose limits are in coin; base schedules "
            "are in USD notional: ask for category=linear"
        )
