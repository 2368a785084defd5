"""Binance USD-M leverage brackets: the maintenance margin ``notional x rate - cum`` of a position.

Sources: "Notional and Leverage Brackets", ``GET /fapi/v1/leverageBracket``
(developers.binance.com/docs/derivatives/usds-margined-futures/account/rest-api/
Notional-and-Leverage-Brackets), for the keys; binance.com/en/futures/trading-rules/perpetual/
portfolio-margin/notional-limit for the formula. ``cum`` is the maintenance amount.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction

from margincast.core.errors import InputError
from margincast.margin.rounding import exact
from margincast.margin.venues.imported import (
    USD_LIKE,
    Collected,
    Imported,
    ReadOptions,
    VenueMargin,
    rate_of_leverage,
    require_amount,
)
from margincast.margin.venues.record import Record
from margincast.margin.venues.tiers import (
    ExactTiers,
    Tiers,
    TiersBySymbol,
    checked_tiers,
)

_USD_QUOTED = re.compile(rf".+({'|'.join(USD_LIKE)})(_\d{{6}})?")
_UNIFIED = re.compile(r"(?P<base>[^/]+)/(?P<quote>[^:]+):(?P<settle>[^-]+)(-(?P<expiry>\d{6}))?")


def read(documents: Sequence[object], options: ReadOptions) -> Imported:
    """Read leverage brackets, as the API or CCXT (``fetch_leverage_tiers``) gives them.

    The initial margin rate is 1 over ``initialLeverage``. ``cum`` is recomputed from rates and
    edges. A contract that no stablecoin or dollar quotes is refused.

    Args:
        documents: one parsed file.
        options: the contracts to read.

    Raises:
        InputError: missing keys, a coin-margined contract, a contract twice, or a ``cum`` that the
            brackets do not give.
        SpecError: gaps, unsorted brackets, or a rate that falls.
    """
    collected = Collected(options)
    for contract, symbol in _contracts(documents[0]):
        where = symbol
        if not collected.wants(symbol, where):
            continue
        if not options.all_usd:
            _require_usd(symbol)
        if "notionalCoef" in contract.raw and contract.number("notionalCoef") != 1:
            collected.remark(
                f"{symbol}: notionalCoef is {float(contract.number('notionalCoef')):g}: these are "
                "the brackets of the account that asked, not the venue's own"
            )
        brackets = list(contract.records("brackets", "bracket"))
        rows = [_row(bracket) for bracket in brackets]
        tiers = checked_tiers(
            [{key: float(value) for key, value in row.items()} for row in rows], where
        )
        for bracket, expected in zip(brackets, ExactTiers.of(tiers).amounts_usd, strict=True):
            require_amount(bracket.number("cum"), expected, bracket.where, "cum")
        collected.add(symbol, tiers, _margin(brackets))
    return collected.finish()


def export(tiers_by_symbol: TiersBySymbol) -> list[dict[str, object]]:
    """Return leverage brackets as the API gives them.

    The maintenance margin is ours to the last digit. Leverage is whole, so ``initialLeverage`` is
    rounded down: the initial margin is never below ours.
    """
    return [
        {"symbol": symbol, "brackets": _brackets(tiers)}
        for symbol, tiers in tiers_by_symbol.items()
    ]


def _brackets(tiers: Tiers) -> list[dict[str, object]]:
    return [
        {
            "bracket": number,
            "initialLeverage": math.floor(1 / exact(tier.imr)),
            "notionalCap": _plain(tier.cap_usd),
            "notionalFloor": _plain(tier.floor_usd),
            "maintMarginRatio": tier.mmr,
            "cum": _not_above(amount),
        }
        for number, (tier, amount) in enumerate(
            zip(tiers, ExactTiers.of(tiers).amounts_usd, strict=True), start=1
        )
    ]


def _not_above(amount: Fraction) -> float:
    """The amount itself, or the largest number below where it has too many digits for one."""
    number = float(amount)
    return number if exact(number) <= amount else math.nextafter(number, 0.0)


def _plain(value: float) -> int | float:
    """Edges are whole numbers in the venue's files, where they are whole."""
    return int(value) if value.is_integer() else value


def _row(bracket: Record) -> dict[str, Fraction]:
    if "qtyCap" in bracket.raw and "notionalCap" not in bracket.raw:
        raise InputError(
            f"{bracket.where}: edges are quantities of coin (qtyCap), so this is a coin-margined "
            "contract; base schedules are in USD notional: use the file of the USD-M contracts"
        )
    leverage = bracket.whole("initialLeverage")
    if leverage < 1:
        raise InputError(f"{bracket.where}: 'initialLeverage' must be at least 1, found {leverage}")
    return {
        "floor_usd": bracket.number("notionalFloor"),
        "cap_usd": bracket.number("notionalCap"),
        "mmr": bracket.number("maintMarginRatio"),
        "imr": exact(rate_of_leverage(leverage)),
    }


def _margin(brackets: Sequence[Record]) -> VenueMargin:
    """The venue's own arithmetic, from the numbers of the file and nothing else."""
    return VenueMargin.of_brackets(
        caps_usd=[bracket.number("notionalCap") for bracket in brackets],
        rates=[bracket.number("maintMarginRatio") for bracket in brackets],
        amounts_usd=[bracket.number("cum") for bracket in brackets],
        initial=[Fraction(1, bracket.whole("initialLeverage")) for bracket in brackets],
    )


def _contracts(document: object) -> Iterator[tuple[Record, str]]:
    """Yield every contract of the file with its symbol as the venue writes it."""
    if isinstance(document, Mapping) and "brackets" not in document and "pair" not in document:
        for name, tiers in document.items():
            yield _of_ccxt(str(name), tiers)
        return
    listed = document if isinstance(document, list) else [document]
    for number, item in enumerate(listed, start=1):
        contract = Record(item, f"contract {number}")
        if "pair" in contract.raw and "symbol" not in contract.raw:
            raise InputError(
                f"{contract.where} is named by 'pair', so these are coin-margined contracts; base "
                "schedules are in USD notional: use the file of the USD-M contracts"
            )
        symbol = contract.text("symbol")
        yield Record(contract.raw, symbol), symbol


def _of_ccxt(name: str, tiers: object) -> tuple[Record, str]:
    parts = _UNIFIED.fullmatch(name)
    if parts is None:
        raise InputError(
            f"{name!r} is no contract: this file is neither a response of leverageBracket nor "
            "tiers by CCXT's unified symbols such as BTC/USDT:USDT"
        )
    if parts["settle"] != parts["quote"]:
        raise InputError(
            f"{name} settles in {parts['settle']}; base schedules are in USD notional, so take "
            "coin-margined contracts out (--symbols names those to read)"
        )
    symbol = parts["base"] + parts["quote"] + (f"_{parts['expiry']}" if parts["expiry"] else "")
    records = Record({"tiers": tiers}, name).records("tiers", "tier")
    return Record({"brackets": [tier.value("info") for tier in records]}, symbol), symbol


def _require_usd(symbol: str) -> None:
    if _USD_QUOTED.fullmatch(symbol) is None:
        raise InputError(
            f"{symbol} is not quoted in USD or one of {', '.join(USD_LIKE[:-1])}, so its brackets "
            "are in another currency; take it out (--symbols names those to read), "
            "or say --usd if they are USD"
        )
