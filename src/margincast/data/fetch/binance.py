"""Which files of the Binance public archive hold the days a user asks for; no network here.

The history behind every margin starts with these files: a day left out of the plan is a day no
model ever sees, so a plan covers each day asked for, or says which files it would have needed.

Source: the README of the repository ``binance/binance-public-data`` (layout, names, intervals,
checksums). That the tables below lack a daily or a monthly edition is seen in the archive's own
listing (data.binance.vision); the tables that ceased, in that repository's issues 334 and 361.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from types import MappingProxyType
from typing import Literal

from margincast.core.errors import InputError, did_you_mean

Market = Literal["um", "cm", "spot"]
Period = Literal["daily", "monthly"]

ADDRESS = "https://data.binance.vision"
FIRST_DAY = date(2017, 1, 1)
"""No file of the archive is older; the venue opened in July 2017."""

_FOLDER: MappingProxyType[str, str] = MappingProxyType(
    {"um": "futures/um", "cm": "futures/cm", "spot": "spot"}
)
_BOTH: tuple[Period, ...] = ("monthly", "daily")
_SPOT: dict[str, tuple[Period, ...]] = {"klines": _BOTH, "aggTrades": _BOTH, "trades": _BOTH}
_FUTURES: dict[str, tuple[Period, ...]] = {
    **_SPOT,
    "markPriceKlines": _BOTH,
    "indexPriceKlines": _BOTH,
    "premiumIndexKlines": _BOTH,
    "bookTicker": _BOTH,
    "fundingRate": ("monthly",),
    "metrics": ("daily",),
    "bookDepth": ("daily",),
    "liquidationSnapshot": ("daily",),
}
PUBLISHED: MappingProxyType[str, dict[str, tuple[Period, ...]]] = MappingProxyType(
    {"um": _FUTURES, "cm": _FUTURES, "spot": _SPOT}
)
"""Tables of each market, and whether the archive has them by day, by month or both."""

CEASED: MappingProxyType[tuple[str, str], str] = MappingProxyType(
    {
        ("um", "bookTicker"): "the archive has it from 2023-05-16 to 2024-03-30 only",
        ("um", "liquidationSnapshot"): "the venue has withdrawn this table from its archive",
        ("cm", "liquidationSnapshot"): "the archive has it from 2023-06-25 to 2024-10-14 only",
    }
)
"""What is known of tables that the venue no longer publishes, by market and table."""

_INTERVALS = ("1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h", "1d")
_LONG_INTERVALS = ("3d", "1w")  # longer than a day: monthly files only; 1mo has no fixed length
# Letters of any script: the venue lists contracts with Chinese names. No dot, slash, percent sign
# or space, so that a symbol can name a folder and a part of an address and nothing else.
_SYMBOL = re.compile(r"[\w-]{2,40}")
_DAY = timedelta(days=1)


@dataclass(frozen=True)
class ArchiveFile:
    """One file of the archive and the days it holds, first and last included."""

    market: str
    table: str
    symbol: str
    """The name in the archive: for index prices the pair (``BTCUSD``), else the contract."""
    interval: str | None
    period: Period
    first: date
    last: date

    @property
    def path(self) -> str:
        """Path below the archive's address, and below the folder it is fetched into."""
        folder = f"data/{_FOLDER[self.market]}/{self.period}/{self.table}/{self.symbol}"
        day = f"{self.first:%Y-%m}" if self.period == "monthly" else f"{self.first:%Y-%m-%d}"
        if self.interval is None:
            return f"{folder}/{self.symbol}-{self.table}-{day}.zip"
        return f"{folder}/{self.interval}/{self.symbol}-{self.interval}-{day}.zip"

    def daily_files(self) -> tuple["ArchiveFile", ...]:
        """The days of a monthly file one by one, where the archive has them so; else nothing."""
        if self.period == "daily" or "daily" not in _periods(
            self.market, self.table, self.interval
        ):
            return ()
        return tuple(
            replace(self, period="daily", first=day, last=day)
            for day in _days(self.first, self.last)
        )


def plan(
    symbols: Sequence[str],
    tables: Sequence[str],
    start: date,
    end: date,
    *,
    market: str,
    interval: str,
    today: date,
) -> tuple[ArchiveFile, ...]:
    """List the files that hold the days asked for.

    Whole months before the current one come from monthly files, other days from daily files. A
    table without daily files (funding rates, bars of three days and longer) comes from the monthly
    files of every month touched, so that days beyond the range come with it.

    Args:
        symbols: contracts or pairs in the venue's spelling (``BTCUSDT``, ``BTCUSD_PERP``).
        tables: names of the archive's tables, a key of ``PUBLISHED[market]`` each.
        start: first day, UTC.
        end: last day, UTC, included.
        market: ``"um"`` (USD-M futures), ``"cm"`` (COIN-M futures) or ``"spot"``.
        interval: bar length of the kline tables, such as ``"1h"``; other tables have none.
        today: the current day, UTC; its month has no monthly file yet.

    Raises:
        InputError: an unknown market, table or interval, a symbol no file can have, or dates that
            are in the wrong order, before the venue opened or in the future.
    """
    _check_dates(start, end, today)
    _check_market_and_tables(market, tables)
    _check_symbols(symbols)
    files: dict[ArchiveFile, None] = {}
    for symbol in symbols:
        for table in tables:
            bars = interval if _is_kline(table) else None
            if bars is not None:
                _check_interval(market, bars)
            name = _archive_symbol(table, symbol)
            found = _files(market, table, name, bars, start=start, end=end, today=today)
            # two contracts of a pair share the files of its index
            files.update(dict.fromkeys(found))
    return tuple(files)


def _files(
    market: str,
    table: str,
    symbol: str,
    interval: str | None,
    *,
    start: date,
    end: date,
    today: date,
) -> Iterable[ArchiveFile]:
    periods = _periods(market, table, interval)
    for first, last in _months(start, end):
        whole = start <= first and last <= end and last < today.replace(day=1)
        if "daily" not in periods or (whole and "monthly" in periods):
            yield ArchiveFile(market, table, symbol, interval, "monthly", first, last)
            continue
        for day in _days(max(first, start), min(last, end)):
            yield ArchiveFile(market, table, symbol, interval, "daily", day, day)


def _periods(market: str, table: str, interval: str | None) -> tuple[Period, ...]:
    return ("monthly",) if interval in _LONG_INTERVALS else PUBLISHED[market][table]


def _is_kline(table: str) -> bool:
    return table.lower().endswith("klines")


def _archive_symbol(table: str, symbol: str) -> str:
    # an index belongs to a pair, not to one of its contracts, and the archive files it so
    return symbol.partition("_")[0] if table == "indexPriceKlines" else symbol


def _months(start: date, end: date) -> Iterable[tuple[date, date]]:
    first = start.replace(day=1)
    while first <= end:
        following = (first + 31 * _DAY).replace(day=1)
        yield first, following - _DAY
        first = following


def _days(first: date, last: date) -> Iterable[date]:
    return (first + count * _DAY for count in range((last - first).days + 1))


def _check_dates(start: date, end: date, today: date) -> None:
    if start > end:
        raise InputError(f"--from {start} lies after --to {end}; swap them")
    if end > today:
        raise InputError(f"--to {end} lies in the future; the newest day to ask for is {today}")
    if start < FIRST_DAY:
        raise InputError(
            f"--from {start} lies before the archive begins; the first day to ask for is "
            f"{FIRST_DAY}"
        )


def _check_market_and_tables(market: str, tables: Sequence[str]) -> None:
    if market not in PUBLISHED:
        raise InputError(
            f"--market {market!r} is not a market of the archive{did_you_mean(market, PUBLISHED)}; "
            "write um (USD-M futures), cm (COIN-M futures) or spot"
        )
    published = PUBLISHED[market]
    if not tables:
        raise InputError(f"no table to fetch; name some with --tables: {', '.join(published)}")
    for table in tables:
        if table not in published:
            raise InputError(
                f"--tables {table!r} is not in the archive of {market}"
                f"{did_you_mean(table, published)}; there are {', '.join(published)}"
            )


def _check_symbols(symbols: Sequence[str]) -> None:
    if not symbols:
        raise InputError("no symbol to fetch; name some with --symbols, for example BTCUSDT")
    for symbol in symbols:
        if _SYMBOL.fullmatch(symbol) is None:
            raise InputError(
                f"--symbols {symbol!r} cannot be a symbol: 2 to 40 letters, digits, '_' or '-' "
                "are allowed"
            )
        if symbol != symbol.upper():
            raise InputError(
                f"--symbols {symbol!r}: the archive spells symbols in capitals"
                f"{did_you_mean(symbol.upper(), [symbol.upper()])}"
            )


def _check_interval(market: str, interval: str) -> None:
    allowed = (*(("1s",) if market == "spot" else ()), *_INTERVALS, *_LONG_INTERVALS)
    if interval not in allowed:
        raise InputError(
            f"--interval {interval!r} is not in the archive of {market}"
            f"{did_you_mean(interval, allowed)}; there are {', '.join(allowed)}"
        )
