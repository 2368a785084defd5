"""Read captures of a recorder: every message of a venue's feed, one JSON object a line.

A venue's own messages are the only record of its books between two archived snapshots, so what
liquidating a position would have cost then is computed from them. What the messages mean is the
business of one decoder a venue; here lines are read, told apart and handed on in their order.

A line has a type ``t``: ``header`` (the first: ``format``, ``exchange``), ``http`` (``url`` and
``data``, an answer), ``connect`` (``conn``, ``addr``), ``send`` (``data``, a request), ``recv``
(``conn``, ``data``, a message as text), and notes such as ``close``; ``ts`` is the recorder's
clock in seconds. A record is a line, and one message may make several rows.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from margincast.core.errors import InputError, did_you_mean
from margincast.data.formats.binance.decoder import BinanceDecoder
from margincast.data.formats.captures.bitget import BitgetDecoder
from margincast.data.formats.captures.bybit import BybitDecoder
from margincast.data.formats.captures.coinbase import CoinbaseDecoder
from margincast.data.formats.captures.decoder import FAULTS, TAKE_EVERY, Decoder, fault_of
from margincast.data.formats.captures.deribit import DeribitDecoder
from margincast.data.formats.captures.kraken_futures import KrakenFuturesDecoder
from margincast.data.formats.captures.okx import OkxDecoder
from margincast.data.formats.format import Account, Batch, Format, Match, Options, Sample
from margincast.data.formats.json_text import lines_of
from margincast.data.formats.source import Source

CAPTURE_FORMAT = 2
"""Version of the capture format that is read."""

HEADER = "not stored: header of the capture"
CONNECTION = "not stored: connection"
REQUEST = "not stored: request"
NOTE = "not stored: note of the recorder"

_NOTES = ("close", "disconnect", "error")
_TAKE_BYTES = 8 * 1024**2


@dataclass(frozen=True)
class Exchange:
    """A venue whose captures are known.

    Attributes:
        venue: where most of its messages were traded, in Tardis' names.
        decoder: makes the decoder of its messages.
    """

    venue: str
    decoder: Callable[[Options], Decoder]


EXCHANGES: Mapping[str, Exchange] = {
    "BINANCE": Exchange("binance", lambda options: BinanceDecoder("binance", options)),
    "BINANCE_FUTURES": Exchange(
        "binance-futures", lambda options: BinanceDecoder("binance-futures", options)
    ),
    "BITGET": Exchange("bitget", BitgetDecoder),
    "BYBIT": Exchange("bybit", BybitDecoder),
    "COINBASE": Exchange("coinbase", CoinbaseDecoder),
    "DERIBIT": Exchange("deribit", DeribitDecoder),
    "KRAKEN_FUTURES": Exchange("kraken-futures", KrakenFuturesDecoder),
    "OKX": Exchange("okx", OkxDecoder),
}
"""Known venues by the name a capture's header gives them."""


def match(sample: Sample) -> Match | str:
    """Recognise a capture by its first line."""
    try:
        header = json.loads(sample.lines[0])
    except (IndexError, ValueError, RecursionError):
        return "the first line is no JSON"
    if not isinstance(header, dict) or header.get("t") != "header":
        return "the first line is no header of a capture"
    if header.get("format") != CAPTURE_FORMAT:
        return f"a capture of format {header.get('format')!r}, known is {CAPTURE_FORMAT}"
    name = str(header.get("exchange"))
    if name not in EXCHANGES:
        known = ", ".join(EXCHANGES)
        return f"a capture of '{name}'{did_you_mean(name, EXCHANGES)}, known are {known}"
    return Match("book", EXCHANGES[name].venue, details={"exchange": name})


def read(source: Source, matched: Match, account: Account) -> Iterator[Batch]:
    """Translate a capture line by line.

    Args:
        source: the capture.
        matched: what it was recognised as; another venue than the usual one stands for it. Venues
            of a second market of the exchange (``bybit-spot``) keep their names.
        account: where every line is accounted for.

    Raises:
        InputError: the source is damaged, or another exchange's capture begins in the middle.
    """
    name = matched.details["exchange"]
    exchange = EXCHANGES[name]
    decoder = exchange.decoder(matched.options)
    capture = _Capture(source, name, decoder, account)

    def taken(*, last: bool) -> Iterator[Batch]:
        for batch in decoder.take(account, last=last):
            yield replace(batch, venue=matched.venue) if batch.venue == exchange.venue else batch

    messages = size = 0
    for row, line in lines_of(source):
        messages, size = messages + 1, size + len(line)
        capture.take_line(line, row)
        if messages >= TAKE_EVERY or size >= _TAKE_BYTES:
            messages = size = 0
            yield from taken(last=False)
    yield from taken(last=True)


@dataclass(frozen=True)
class _Capture:
    """A capture being read: its lines go to a decoder or into the account."""

    source: Source
    exchange: str
    decoder: Decoder
    account: Account

    def take_line(self, line: bytes, row: int) -> None:
        text = line.decode("utf-8-sig" if row == 1 else "utf-8", errors="replace")
        try:
            # the clock is read as a decimal number: a binary one is off by parts of a microsecond
            record = json.loads(text, parse_float=Decimal)
            if not isinstance(record, dict):
                raise TypeError(record)
            self._take(record, row, text)
        except RecursionError:
            self.account.reject(row, "not JSON", text)
        except FAULTS as error:
            self.account.reject(row, f"a line of a capture: {fault_of(error)}", text)

    def _take(self, record: Mapping[str, Any], row: int, text: str) -> None:
        kind = record["t"]
        if kind == "recv":
            data, connection = _text(record, "data"), _text(record, "conn")
            self.decoder.received(data, connection, _clock(record), row, self.account)
        elif kind == "http":
            url, data, received_us = _text(record, "url"), _text(record, "data"), _clock(record)
            self.decoder.http(url, data, received_us, row, self.account)
        elif kind == "connect":
            self.decoder.connected(_text(record, "conn"), _text(record, "addr"))
            self.account.count(CONNECTION)
        elif kind == "header":
            self._check_exchange(record, row)
            self.account.count(HEADER)
        elif kind == "send" or kind in _NOTES:
            self.account.count(REQUEST if kind == "send" else NOTE)
        else:
            self.account.reject(row, "a line of an unknown type", text)

    def _check_exchange(self, header: Mapping[str, Any], row: int) -> None:
        if header.get("exchange") != self.exchange:
            raise InputError(
                f"{self.source}: line {row} begins a capture of {header.get('exchange')!r} in one "
                f"of {self.exchange!r}; a file holds the capture of one exchange: split it before "
                "this line"
            )


def _text(record: Mapping[str, Any], name: str) -> str:
    value = record[name]
    if not isinstance(value, str):
        raise ValueError("a value that is no text")  # noqa: TRY004  # a fault of the line, as others
    return value


def _clock(record: Mapping[str, Any]) -> int:
    """Microseconds of the recorder's clock, rounded up: the message was there by then."""
    seconds = record["ts"]
    if isinstance(seconds, int | Decimal) and 0 <= seconds < 2**33:
        return math.ceil(seconds * 1_000_000)
    raise ValueError("a value that is no time")


FORMATS: tuple[Format, ...] = (Format("websocket capture", match, read),)
"""The recorder's captures of all known venues."""
