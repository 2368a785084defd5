"""Know a file of the Binance public archive: which table, market, contract and bar length it holds.

The files say little of themselves (no symbol, no market, often no header). A spot price taken for a
perpetual's, or a mark price for a traded one, would be a wrong margin, so what a file is comes from
its name, its folders and its records, and a file that leaves a doubt is refused.
"""

import re
from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from pathlib import PurePosixPath

from margincast.core.time import format_duration, parse_duration
from margincast.data.formats.binance.archive_columns import (
    COIN_M,
    KLINES,
    LAYOUTS,
    PRICE_KLINES,
    Layout,
    fits,
    is_heading,
)
from margincast.data.formats.format import Match, Sample
from margincast.data.formats.source import Source
from margincast.data.schemas import stored_name

_SPOT, _USD_M = "binance", "binance-futures"
_VENUE_OF_FOLDERS = ((("futures", "um"), _USD_M), (("futures", "cm"), COIN_M), (("spot",), _SPOT))
_INTERVALS = (
    *("1s", "1m", "3m", "5m", "15m", "30m"),
    *("1h", "2h", "4h", "6h", "8h", "12h", "1d", "3d", "1w"),
)
_MONTH = "1mo"
_TOKENS = "|".join((*_INTERVALS, _MONTH, *PRICE_KLINES, *(layout.name for layout in LAYOUTS)))
_NAME = re.compile(rf"(?P<symbol>.+?)-(?P<token>{_TOKENS})-\d{{4}}-\d{{2}}(-\d{{2}})?")
# BTCBUSD_210129 was a USD-M contract: its quote currency is BUSD, not USD
_COIN_M_PAIR = r"(.*(?<!B)USD|BNBUSD)"
_COIN_M_CONTRACT = re.compile(rf".+_PERP|{_COIN_M_PAIR}_\d{{6}}")
_COIN_M_INDEX = re.compile(_COIN_M_PAIR)
_EIGHT_DECIMALS = re.compile(r"\d+\.\d{8}")
_MICROSECONDS = 10**14
"""Numbers from here on are times in microseconds, below in milliseconds."""
_SAMPLED_LINES = 500

_NO_SYMBOL = (
    "neither the file's name (SYMBOL-TABLE-DATE) nor a column says the symbol; "
    "give it with --symbol"
)
_NO_VOLUME = (
    "bars without volume, of a mark price, an index price or a premium; say which with "
    "--table mark_bars, index_bars or premium_bars, or keep the archive's folders"
)


@dataclass(frozen=True)
class _Head:
    """The columns of a file and its first records."""

    names: tuple[str, ...]
    has_header: bool
    rows: tuple[dict[str, str], ...]


def match_archive(layout: Layout, sample: Sample) -> Match | str:
    """Know a file of one table of the archive.

    ``details`` hold the names of the columns where the file has no header (``header``), its
    ``delimiter``, the ``interval`` of bars, and by what the market was told (``venue_from``).

    Returns:
        The match, or why the file is none of this table.
    """
    name = _name_of(sample.source)
    token = name["token"] if name else ""
    head = _head_of(layout, sample, token)
    if isinstance(head, str):
        return head
    symbol = name["symbol"] if name else None
    if symbol is None and sample.hints.symbol is None and "symbol" not in head.names:
        return _NO_SYMBOL
    venue, venue_from = _venue(layout, sample, head, symbol)
    details: dict[str, object] = {
        "header": None if head.has_header else head.names,
        "delimiter": sample.delimiter,
        "venue_from": venue_from,
    }
    if layout is not KLINES:
        return Match(layout.table, venue, symbol, details)
    interval = _interval(head, token)
    if isinstance(interval, str):
        return interval
    table, doubt = _table_of_bars(sample, head)
    if doubt:
        return doubt
    return Match(stored_name(table, interval), venue, symbol, {**details, "interval": interval})


def _name_of(source: Source) -> re.Match[str] | None:
    # a member may have lost the name that its archive still has
    return _NAME.fullmatch(source.stem) or _NAME.fullmatch(source.path.stem)


def _folders(source: Source) -> tuple[str, ...]:
    inner = () if source.member is None else PurePosixPath(source.member).parts[:-1]
    return (*source.folders, *inner)


def _head_of(layout: Layout, sample: Sample, token: str) -> _Head | str:
    lines = sample.lines[: _SAMPLED_LINES + 1]
    split = [tuple(cell.strip(' "') for cell in line.split(sample.delimiter)) for line in lines]
    lacking = sample.lacks(*layout.needed)
    if not lacking:
        return _head(sample.header, split[1:], has_header=True)
    if not split or is_heading(split[0]):
        return lacking
    for names in layout.headerless:
        fitting = [cells for cells in split if fits(cells, names, layout)]
        if 2 * len(fitting) > len(split):
            if layout.is_plain or token == layout.name:
                return _head(names, fitting, has_header=False)
            return f"neither a header nor the file's name says that it is {layout.name}"
    return f"it has no header, and its lines are none of {layout.name}"


def _head(names: tuple[str, ...], lines: list[tuple[str, ...]], *, has_header: bool) -> _Head:
    whole = [cells for cells in lines if len(cells) == len(names)]
    return _Head(names, has_header, tuple(dict(zip(names, cells, strict=True)) for cells in whole))


def _venue(layout: Layout, sample: Sample, head: _Head, symbol: str | None) -> tuple[str, str]:
    """Return the market, and by what it was told."""
    if sample.hints.venue is not None:
        return sample.hints.venue, "said by the user"
    folders = _folders(sample.source)
    for parts, venue in _VENUE_OF_FOLDERS:
        if any(folders[at : at + len(parts)] == parts for at in range(len(folders))):
            return venue, f"folder {'/'.join(parts)}"
    recorded = next((row["symbol"] for row in head.rows if "symbol" in row), "")
    named = sample.hints.symbol or symbol or recorded
    if _COIN_M_CONTRACT.fullmatch(named):
        return COIN_M, f"symbol {named} is one of COIN-M futures"
    if layout is KLINES:
        return _venue_of_klines(head, named)
    rules = (
        ("base_qty" in head.names, COIN_M, "column base_qty"),
        (layout.futures_only, _USD_M, f"only futures have {layout.name}"),
        (_is_fine(head, layout), _SPOT, "times in microseconds, in spot files since 2025"),
        ("is_best_match" in head.names, _SPOT, "column of best matches, in spot files only"),
        (head.has_header, _USD_M, "a header, which spot files do not have"),
    )
    told = [(venue, sign) for holds, venue, sign in rules if holds]
    return told[0] if told else (_USD_M, "no column of best matches, which spot files have")


def _venue_of_klines(head: _Head, symbol: str) -> tuple[str, str]:
    priced = _has_no_volume(head)
    decimals = [_EIGHT_DECIMALS.fullmatch(row["close"]) is not None for row in head.rows]
    rules = (
        (
            priced and _COIN_M_INDEX.fullmatch(symbol) is not None,
            COIN_M,
            f"{symbol} is the index of COIN-M futures",
        ),
        (priced, _USD_M, "prices without volume, of futures only"),
        (_is_fine(head, KLINES), _SPOT, "times in microseconds, in spot files since 2025"),
        (head.has_header, _USD_M, "a header, which spot files do not have"),
        # the headers came to futures in 2022; before, spot files alone wrote all eight decimals
        (all(decimals), _SPOT, "prices written with eight decimals, as in spot files"),
    )
    told = [(venue, sign) for holds, venue, sign in rules if holds]
    return told[0] if told else (_USD_M, "prices with less than the eight decimals of spot files")


def _is_fine(head: _Head, layout: Layout) -> bool:
    name = next(name for name, column in layout.columns.items() if column.name == "ts")
    times = [row[name] for row in head.rows if row[name].isdigit()]
    return bool(times) and all(int(time) >= _MICROSECONDS for time in times)


def _interval(head: _Head, token: str) -> timedelta | str:
    """Return the length of bars, or why it cannot be told."""
    if token == _MONTH:
        return "bars of calendar months have no fixed length; take daily bars"
    lengths = Counter(
        timedelta(microseconds=(int(end) + 1 - int(start)) * _unit(int(start)))
        for start, end in ((row["open_time"], row["close_time"]) for row in head.rows)
        if start.isdigit() and end.isdigit()
    )
    if not lengths:
        return "no record from whose open and close time the interval could be told"
    measured = lengths.most_common(1)[0][0]
    if measured not in {parse_duration(name) for name in _INTERVALS}:
        return f"bars of {measured}, which is no interval of the archive"
    if token in _INTERVALS and parse_duration(token) != measured:
        return (
            f"the file's name says bars of {token}, its records are bars of "
            f"{format_duration(measured)}; rename it after its records"
        )
    return measured


def _unit(time: int) -> int:
    return 1 if time >= _MICROSECONDS else 1000


def _table_of_bars(sample: Sample, head: _Head) -> tuple[str, str]:
    """Return the table of bars, and why there is a doubt, or nothing."""
    said = re.sub(r"_\d+[smhdw]$", "", sample.hints.table or "")
    if said in {KLINES.table, *PRICE_KLINES.values()}:
        return said, ""
    kinds = [PRICE_KLINES[part] for part in _folders(sample.source) if part in PRICE_KLINES]
    if not kinds:
        return KLINES.table, _NO_VOLUME if _has_no_volume(head) else ""
    if any(_number(row["volume"]) > 0 for row in head.rows):
        return kinds[-1], f"bars with volume in a folder of {kinds[-1]}, which have none"
    return kinds[-1], ""


def _has_no_volume(head: _Head) -> bool:
    return bool(head.rows) and all(
        _number(row["volume"]) == 0 and _number(row["count"]) > 0 for row in head.rows
    )


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return 0.0
