"""Read what was recorded of Binance's streams: raw lines, JSON arrays of messages, depth as CSV.

Books joined from a snapshot and the updates after it are the finest record of what closing a
position would have cost; how they are joined is in :mod:`margincast.data.formats.binance.depth`.
"""

import json
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from margincast.core.errors import InputError
from margincast.core.time import parse_instant
from margincast.data.formats.binance.decoder import BinanceDecoder
from margincast.data.formats.binance.depth_csv import DEPTH_CSV
from margincast.data.formats.captures.decoder import FAULTS, TAKE_EVERY, fault_of
from margincast.data.formats.format import Account, Batch, Format, Match, Sample
from margincast.data.formats.json_text import MOST_CHARACTERS, elements_of, lines_of
from margincast.data.formats.source import Source

NO_LINE = "a line that is not '<receive time in ns> <message>'"
"""Fault of a line of a raw recording."""
EMPTY_LINE = "not stored: empty line"
"""Outcome of lines without content."""
BESIDE_UPDATES = "not stored: read together with the updates beside it"
"""Outcome of a snapshot file whose update file is there: its book begins theirs."""
NAME_TIME = "time of the file's name taken for a snapshot without one"
"""Event: the only time a snapshot on its own has is that of its file."""

_RAW_LINE = re.compile(r"(\d{19}) (\{.*)", re.DOTALL)
_RAW_MESSAGE = re.compile(
    r'\d{19} \{\s*("stream"\s*:\s*"([^"@]+@|!)[^"]+"\s*,\s*"data"|"(lastUpdateId|e)")\s*:'
)
_ARRAY_EVENT = re.compile(r'\[\s*\{\s*"e"\s*:\s*"(depthUpdate|aggTrade|trade)"')
_DEPTH_SYMBOL = re.compile(rb'"e"\s*:\s*"depthUpdate".{0,200}?"s"\s*:\s*"([^"]+)"', re.DOTALL)
_SYMBOL = re.compile(r'"s"\s*:\s*"([^"]+)"')
_FOLDER_SYMBOL = re.compile(
    r"[A-Z0-9]{2,}(USD[TC]?|[FTB]USD|BTC|ETH|BNB|EUR|GBP|TRY|BRL|JPY)(_PERP|_\d{6})?"
)
_NAME_TIME = re.compile(r"(\d{4}-\d\d-\d\d)[T_](\d\d)[-:]?(\d\d)[-:]?(\d\d)")


def venue_of(text: str) -> str | None:
    """Tell the venue from messages: fields that only one of its markets has; None if none does."""
    if re.search(r'"ps"\s*:|"s"\s*:\s*"\w+USD_', text):
        return "binance-delivery"
    if re.search(r'"pu"\s*:|"X"\s*:|"e"\s*:\s*"(bookTicker|markPriceUpdate|forceOrder)"', text):
        return "binance-futures"
    if re.search(r'"lastUpdateId"\s*:\s*\d+\s*,\s*"E"\s*:', text):
        return "binance-futures"
    if re.search(r'"M"\s*:|"e"\s*:\s*"depthUpdate"|"lastUpdateId"\s*:|"data"\s*:\s*\{"u":', text):
        return "binance"
    return None


def _match_lines(sample: Sample) -> Match | str:
    lines = [line for line in sample.lines if line.strip()]
    if not lines or not _RAW_LINE.match(lines[0]):
        return "the first line is no receive time in nanoseconds followed by a message"
    if not any(_RAW_MESSAGE.match(line) for line in lines):
        return "no message has a stream (symbol@name), event or depth snapshot of Binance"
    venue = sample.hints.venue or venue_of("\n".join(sample.lines))
    if venue is None:
        return "its messages do not show which market of Binance they are of: give the venue"
    return Match("book", venue)


def _read_lines(source: Source, match: Match, account: Account) -> Iterator[Batch]:
    sole_symbol = _SoleDepthSymbol(source, match.symbol)
    decoder = BinanceDecoder(match.venue, match.options, sole_symbol=sole_symbol)
    for row, line in lines_of(source):
        _read_line(line, row, decoder, account)
        if row % TAKE_EVERY == 0:
            yield from decoder.take(account, last=False)
    yield from decoder.take(account, last=True)


def _read_line(line: bytes, row: int, decoder: BinanceDecoder, account: Account) -> None:
    try:
        text = line.decode()
    except UnicodeDecodeError:
        account.reject(row, "not UTF-8 text", repr(line))
        return
    parts = _RAW_LINE.fullmatch(text)
    if parts is not None:
        received_us = -(-int(parts[1]) // 1000)
        decoder.received(parts[2], "", received_us, row, account)
    elif text.strip():
        account.reject(row, NO_LINE, text)
    else:
        account.count(EMPTY_LINE)


class _SoleDepthSymbol:
    """The contract of a recording's depth stream if it has one only, looked up when first asked."""

    def __init__(self, source: Source, given: str | None) -> None:
        self._source, self._symbol = source, given
        self._is_known = given is not None

    def __call__(self) -> str | None:
        if not self._is_known:
            # a second contract may come after the snapshot, so all of the source is looked at
            found: set[bytes] = set()
            for _, line in lines_of(self._source):
                if match := _DEPTH_SYMBOL.search(line):
                    found.add(match[1])
                if len(found) > 1:
                    break
            self._symbol = found.pop().decode() if len(found) == 1 else None
            self._is_known = True
        return self._symbol


def _match_messages(sample: Sample) -> Match | str:
    head = sample.head.decode("utf-8-sig", errors="replace").lstrip()
    if not _ARRAY_EVENT.match(head):
        return "it is no JSON array of depth updates or trades"
    symbol = _SYMBOL.search(head)
    venue = sample.hints.venue or venue_of(head)
    if symbol is None or venue is None:
        return "its messages have no symbol, or show no market of Binance"
    return Match("book" if '"depthUpdate"' in head else "aggregate_trades", venue, symbol[1])


def _read_messages(source: Source, match: Match, account: Account) -> Iterator[Batch]:
    decoder = BinanceDecoder(match.venue, match.options, received=False)
    for path in _snapshot_beside(source, match):
        # neither its record nor its time counts here: those belong to that file's own reading
        content = _snapshot_of(Source(path)) | {"T": None, "E": None}
        try:
            decoder.snapshot(str(match.symbol), content, None, 0, account, records=0)
        except FAULTS as error:
            raise InputError(f"{path} is no depth snapshot: {fault_of(error)}") from None
    for row, message in elements_of(source):
        decoder.take_in(message, "", None, row, account)
        if row % TAKE_EVERY == 0:
            yield from decoder.take(account, last=False)
    yield from decoder.take(account, last=True)


def _snapshot_beside(source: Source, _match: Match) -> tuple[Path, ...]:
    return _beside(source, "update", "snapshot")


def _updates_beside(source: Source, _match: Match) -> tuple[Path, ...]:
    return _beside(source, "snapshot", "update")


def _beside(source: Source, part: str, other: str) -> tuple[Path, ...]:
    """Return the file of the same name but for one part, if there is one."""
    name = source.path.name
    if source.member is not None or part not in name:
        return ()
    path = source.path.with_name(name.replace(part, other))
    return (path,) if path.is_file() else ()


def _match_snapshot(sample: Sample) -> Match | str:
    head = sample.head.decode("utf-8-sig", errors="replace").lstrip()
    if not re.match(r'\{\s*"lastUpdateId"\s*:\s*\d', head):
        return "it is no answer to a request for depth"
    folder = sample.source.path.parent.name
    symbol = sample.hints.symbol or (folder if _FOLDER_SYMBOL.fullmatch(folder) else None)
    if symbol is None:
        return "a depth snapshot does not name its contract, nor does its folder: give the symbol"
    time = _time_in(sample.source.name)
    venue = sample.hints.venue or str(venue_of(head))
    if venue == "binance" and time is None:
        return "a spot depth snapshot has no time, nor has its file name"
    return Match("book", venue, symbol, {} if time is None else {"time": time})


def _time_in(name: str) -> datetime | None:
    found = _NAME_TIME.search(name)
    try:
        return found and parse_instant(f"{found[1]}T{found[2]}:{found[3]}:{found[4]}")
    except ValueError:  # digits that are no time
        return None


def _read_snapshot(source: Source, match: Match, account: Account) -> Iterator[Batch]:
    if _updates_beside(source, match):
        account.count(BESIDE_UPDATES)
        return
    content = _snapshot_of(source)
    if not content.get("T") and not content.get("E"):
        account.note(NAME_TIME)
        content["T"] = int(match.details["time"].timestamp()) * 1000
    decoder = BinanceDecoder(match.venue, match.options, received=False)
    try:
        decoder.snapshot(str(match.symbol), content, None, 1, account)
    except FAULTS as error:
        account.reject(1, fault_of(error), json.dumps(content))
    yield from decoder.take(account, last=True)


def _snapshot_of(source: Source) -> dict[str, Any]:
    """Load a file that is one JSON object."""
    with source.open() as stream:
        text = stream.read(MOST_CHARACTERS)
    try:
        content = json.loads(text)
    except ValueError as error:
        raise InputError(
            f"{source} is no JSON: {error}; the file is damaged or incomplete, fetch it again"
        ) from None
    if not isinstance(content, dict):
        raise InputError(f"{source} is no depth snapshot; remove it or fetch it again")
    return content


FORMATS: tuple[Format, ...] = (
    Format("Binance raw websocket lines", _match_lines, _read_lines),
    Format("Binance JSON messages", _match_messages, _read_messages, _snapshot_beside),
    Format("Binance depth snapshot", _match_snapshot, _read_snapshot, _updates_beside),
    DEPTH_CSV,
)
"""Recordings of Binance's streams."""
