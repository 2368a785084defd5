"""Decode a recording of Binance's streams: each message to its book or its table.

The order books, trades and liquidations that a margin is computed from, as the venue sent them:
depth goes to :mod:`margincast.data.formats.binance.depth`, all else to
:mod:`margincast.data.formats.binance.rows`.

``ts`` is the transaction time ``T`` where a message has it, else the event time ``E``; a spot
``bookTicker`` has neither and takes the time it arrived, which is counted. Candles and tickers are
not stored: bars come from the archive, where they are complete.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

import polars as pl

from margincast.data.formats.binance.depth import (
    RECEIVE_TIME,
    DepthBook,
    DepthSnapshot,
    DepthUpdate,
)
from margincast.data.formats.binance.rows import COLUMNS, READERS, Translated, text_of
from margincast.data.formats.captures.decoder import (
    FAULTS,
    Rows,
    Updates,
    fault_of,
    levels_of,
    microseconds_of,
    whole,
)
from margincast.data.formats.format import (
    CLOCK_BEHIND,
    ROWS_BEYOND,
    TRANSLATED,
    Account,
    Batch,
    Options,
)
from margincast.data.schemas import TIMESTAMP

SECOND_STREAM = "not stored: second depth stream of a contract"
"""Outcome of updates that another stream of the same contract gives too."""
PARTIAL_BOOK = "not stored: partial book"
"""Outcome of messages of ``@depth5``, ``10`` and ``20``, which show the top of the book only."""
UNATTRIBUTED = "a snapshot without a symbol among several contracts"
"""Fault of a REST snapshot that could belong to any of several contracts."""

_PARTIAL = re.compile(r"@depth(5|10|20)(@|$)")
_SINGLE_STREAM = re.compile(r"/ws/([^/?]+@[^/?]+)$")
_EVENT_NAME = re.compile(r"\w{1,40}")


class BinanceDecoder:
    """Decodes messages of one Binance venue, and holds the books of its contracts."""

    def __init__(
        self,
        venue: str,
        options: Options,
        *,
        received: bool = True,
        sole_symbol: Callable[[], str | None] = lambda: None,
    ) -> None:
        """Begin without books.

        Args:
            venue: ``binance``, ``binance-futures`` or ``binance-delivery``.
            options: how books are built.
            received: whether messages have a receive time.
            sole_symbol: says which contract snapshots belong to that do not name theirs; None
                where there are several.
        """
        self._venue, self._options, self._received = venue, options, received
        self._sole_symbol = sole_symbol
        self._rows: dict[str, Rows] = {}
        self._books: dict[str, DepthBook] = {}
        self._depth_streams: dict[str, str] = {}
        self._streams: dict[str, str] = {}

    def connected(self, connection: str, address: str) -> None:
        """Take note of the stream of a connection whose messages do not name theirs."""
        single = _SINGLE_STREAM.search(address)
        self._streams[connection] = single[1] if single else ""

    def http(self, url: str, body: str, received_us: int, row: int, account: Account) -> None:
        """Take the answer to a request: depth snapshots are used."""
        address = urlsplit(url)
        name = address.path.rstrip("/").rpartition("/")[2]
        if name != "depth":
            account.count(f"not stored: answer to {name or 'a request'}")
            return
        try:
            content = json.loads(body)
            symbol = parse_qs(address.query)["symbol"][0].upper()
            self.snapshot(symbol, content, received_us, row, account)
        except FAULTS as error:
            account.reject(row, fault_of(error), body)

    def received(
        self, message: str, connection: str, received_us: int, row: int, account: Account
    ) -> None:
        """Take one websocket message, or a REST depth snapshot written among them."""
        try:
            content = json.loads(message)
        except FAULTS as error:
            account.reject(row, fault_of(error), message)
            return
        self.take_in(content, self._streams.get(connection, ""), received_us, row, account)

    def take_in(
        self, content: object, stream: str, received_us: int | None, row: int, account: Account
    ) -> None:
        """Take one parsed message, wrapped as combined streams are or bare."""
        arrival = _Arrival(row, received_us, account)
        try:
            if isinstance(content, dict) and "stream" in content and "data" in content:
                self._translate(content["data"], text_of(content["stream"]), arrival)
            elif isinstance(content, dict) and "lastUpdateId" in content and not stream:
                self._snapshot_among_messages(content, arrival)
            else:
                self._translate(content, stream, arrival)
        except FAULTS as error:
            account.reject(row, fault_of(error), json.dumps(content))

    def snapshot(
        self,
        symbol: str,
        content: Mapping[str, Any],
        received_us: int | None,
        row: int,
        account: Account,
        *,
        records: int = 1,
    ) -> None:
        """Take the answer to a request for the depth of a contract; raises one of ``FAULTS``."""
        time = content.get("T") or content.get("E")
        snapshot = DepthSnapshot(
            row,
            whole(content["lastUpdateId"]),
            levels_of(content["bids"]),
            levels_of(content["asks"]),
            None if time is None else microseconds_of(time),
            received_us,
            records,
        )
        self._book(symbol).snapshot(snapshot, account)

    def take(self, account: Account, *, last: bool) -> list[Batch]:
        """Hand over the rows collected so far."""
        batches = [batch for rows in self._rows.values() for batch in rows.take()]
        for book in self._books.values():
            batches.extend(book.take(account, last=last))
        return batches

    def _translate(self, content: object, stream: str, arrival: "_Arrival") -> None:
        """Translate a message and account for it; raises one of ``FAULTS`` before it does."""
        if isinstance(content, list):
            self._several(content, arrival)
            return
        if not isinstance(content, dict):
            raise TypeError
        is_best_quote = "e" not in content and "u" in content and "B" in content
        event = "bookTicker" if is_best_quote else content.get("e")
        if _PARTIAL.search(stream) or "lastUpdateId" in content:
            arrival.account.count(PARTIAL_BOOK)
        elif event == "depthUpdate":
            self._depth_update(content, stream, arrival)
        elif event in READERS:
            self._add(READERS[event](content), arrival)
            arrival.account.count(TRANSLATED)
        else:
            arrival.account.count(f"not stored: {_name_of(event, content)}")
        arrival.note_clock(content)

    def _several(self, messages: list[Any], arrival: "_Arrival") -> None:
        """Translate a message that is a list, as those of streams of all contracts are."""
        if not all(message["e"] in READERS for message in messages):
            names = sorted({_name_of(message["e"], message) for message in messages})
            arrival.account.count(f"not stored: {', '.join(names)}")
            return
        for translated in [READERS[message["e"]](message) for message in messages]:
            self._add(translated, arrival)
        arrival.account.note(ROWS_BEYOND, max(0, len(messages) - 1))
        arrival.account.count(TRANSLATED if messages else "not stored: empty list")

    def _add(self, translated: Translated, arrival: "_Arrival") -> None:
        table, symbol, ts_us, values = translated
        if ts_us is None:
            if arrival.received_us is None:
                raise KeyError("E")
            arrival.account.note(RECEIVE_TIME)
            ts_us = arrival.received_us
        if table not in self._rows:
            times = {"ts": TIMESTAMP} | ({"received_at": TIMESTAMP} if self._received else {})
            columns = {"symbol": pl.String} | times | COLUMNS[table]
            self._rows[table] = Rows(table, self._venue, columns)
        times_us = (ts_us, arrival.received_us) if self._received else (ts_us,)
        self._rows[table].add(arrival.row, symbol, *times_us, *values)

    def _depth_update(self, content: Mapping[str, Any], stream: str, arrival: "_Arrival") -> None:
        symbol = text_of(content["s"])
        update = DepthUpdate(
            arrival.row,
            whole(content["pu"]) if "pu" in content else whole(content["U"]) - 1,
            whole(content["u"]),
            levels_of(content["b"]),
            levels_of(content["a"]),
            microseconds_of(content["T"] if "T" in content else content["E"]),
            arrival.received_us,
        )
        # streams of different speeds cut the same changes differently: one of them is the book
        if self._depth_streams.setdefault(symbol, stream) != stream:
            arrival.account.count(SECOND_STREAM)
        else:
            self._book(symbol).update(update, arrival.account)

    def _snapshot_among_messages(self, content: Mapping[str, Any], arrival: "_Arrival") -> None:
        symbol = self._sole_symbol()
        if symbol is None:
            arrival.account.reject(arrival.row, UNATTRIBUTED, json.dumps(content))
        else:
            self.snapshot(symbol, content, arrival.received_us, arrival.row, arrival.account)
            arrival.note_clock(content)

    def _book(self, symbol: str) -> DepthBook:
        if symbol not in self._books:
            updates = Updates(symbol, self._venue, self._options, received=self._received)
            self._books[symbol] = DepthBook(updates)
        return self._books[symbol]


@dataclass(frozen=True, slots=True)
class _Arrival:
    """The number of a record, when it arrived, and where it is accounted for."""

    row: int
    received_us: int | None
    account: Account

    def note_clock(self, content: Mapping[str, Any]) -> None:
        """Take note of a message that arrived before the venue says it was sent."""
        time = content.get("E")
        if self.received_us is None or not isinstance(time, int):
            return
        if self.received_us < time * 1000:
            self.account.note(CLOCK_BEHIND)


def _name_of(event: object, content: Mapping[str, Any]) -> str:
    """Name the kind of a message that is not stored; raises ``TypeError`` if it has none."""
    if isinstance(event, str) and _EVENT_NAME.fullmatch(event):
        return event
    if event is None and "result" in content:
        return "subscription reply"
    if event is None and ("error" in content or "code" in content):
        return "error reply"
    raise TypeError
