"""Decode recorded messages of Coinbase Advanced Trade: books, trades and best quotes.

Prices of coins for USD, which cross-check those of contracts. The venue is ``coinbase``; sizes are
coins.

Messages (Advanced Trade API, "WebSocket Channels") are numbered by ``sequence_num`` on each
connection, over all channels and products: a number left out may have been an update of any book
of the connection, so all of them are unknown until their next snapshots. A message that comes late
changes no book any more. The time of a book or quote is that of the message; levels have their own,
which is never later. The side of a trade is told as the maker's ("Market Trades Channel"): the
aggressor's is the other. The statistics in a ticker are not stored.
"""

from collections.abc import Mapping

import polars as pl

from margincast.data.formats.captures.decoder import number, whole
from margincast.data.formats.captures.fields import (
    microseconds_of_text,
    number_or_none,
    object_of,
    objects_in,
    opposite_of,
    side_of,
    text_of,
)
from margincast.data.formats.captures.venue import (
    CANDLES,
    HEARTBEAT,
    NO_CONTENT,
    NOTICE,
    OTHER_CHANNEL,
    QUOTE_COLUMNS,
    REPLY,
    TRADE_COLUMNS,
    BookMessage,
    Columns,
    Record,
    Row,
    VenueDecoder,
)
from margincast.data.formats.format import APPLIED, Options

VENUE = "coinbase"

LATE = "without a book: message that came late"
"""Outcome of a book message of a lower number than one before it."""
MISSING = "messages missing by their numbers"
"""Event: how many numbers of a connection were left out."""

_TRADES: Columns = {**TRADE_COLUMNS, "trade_id": pl.Int64}
_QUOTES: Columns = {**QUOTE_COLUMNS, "last_price": pl.Float64}
_QUOTE_NUMBERS = ("best_bid", "best_bid_quantity", "best_ask", "best_ask_quantity", "price")
_NOT_STORED = {
    "candles": CANDLES,
    "heartbeats": HEARTBEAT,
    "subscriptions": REPLY,
    "status": NOTICE,
}


class CoinbaseDecoder(VenueDecoder):
    """Decodes the market data channels of Coinbase Advanced Trade."""

    def __init__(self, options: Options) -> None:
        """Begin without books; ``options`` say how they are written down."""
        super().__init__(options)
        self._last: dict[str, int] = {}

    def connected(self, connection: str, address: str) -> None:
        """Take note of a connection, whose numbers begin anew."""
        super().connected(connection, address)
        self._last.pop(connection, None)

    def decode(self, content: object, record: Record) -> None:
        """Turn one message into rows; see :meth:`VenueDecoder.decode`."""
        message = object_of(content)
        if message.get("type") == "error":
            record.account.count(NOTICE)
            return
        channel = text_of(message["channel"])
        sequence = whole(message["sequence_num"])
        ts_us = microseconds_of_text(message["timestamp"])
        events = [] if channel in _NOT_STORED else objects_in(message["events"])
        # all is read before anything is used: a message that cannot be read is a missing number
        if channel == "l2_data":
            updates = [_book(event, ts_us, sequence) for event in events]
            is_late = self._follow(sequence, record)
            record.account.count(LATE if is_late else self._apply(updates, record))
        elif channel == "market_trades":
            rows = [_trade(item) for event in events for item in objects_in(event["trades"])]
            self._follow(sequence, record)
            self.add_rows(record, "trades", VENUE, _TRADES, rows)
        elif channel in ("ticker", "ticker_batch"):
            tickers = [item for event in events for item in objects_in(event["tickers"])]
            rows = [_quote(item, ts_us) for item in tickers]
            self._follow(sequence, record)
            self.add_rows(record, "quotes", VENUE, _QUOTES, rows)
        else:
            self._follow(sequence, record)
            record.account.count(_NOT_STORED.get(channel, OTHER_CHANNEL))

    def _follow(self, sequence: int, record: Record) -> bool:
        """Take note of a message's number; returns whether the message came late."""
        last = self._last.get(record.connection)
        if last is not None and sequence <= last:
            return True
        self._last[record.connection] = sequence
        if last is not None and sequence > last + 1:
            record.account.note(MISSING, sequence - last - 1)
            for book in self.books_of(record.connection):
                book.lose(record.account)
        return False

    def _apply(self, updates: list[tuple[str, BookMessage]], record: Record) -> str:
        outcomes = [self.book(VENUE, symbol).take(update, record) for symbol, update in updates]
        if APPLIED in outcomes:
            return APPLIED
        return outcomes[0] if outcomes else NO_CONTENT


def _book(event: Mapping[str, object], ts_us: int, sequence: int) -> tuple[str, BookMessage]:
    levels: dict[str, list[tuple[float, float]]] = {"bid": [], "offer": []}
    for update in objects_in(event["updates"]):
        level = number(update["price_level"]), number(update["new_quantity"])
        levels[text_of(update["side"])].append(level)
    return text_of(event["product_id"]), BookMessage(
        ts_us=ts_us,
        bids=levels["bid"],
        asks=levels["offer"],
        is_snapshot=event["type"] == "snapshot",
        sequence=sequence,
    )


def _trade(item: Mapping[str, object]) -> Row:
    values = (
        number(item["price"]),
        number(item["size"]),
        opposite_of(side_of(item["side"])),
        whole(item["trade_id"]),
    )
    return text_of(item["product_id"]), microseconds_of_text(item["time"]), values


def _quote(item: Mapping[str, object], ts_us: int) -> Row:
    values = tuple(number_or_none(item[name]) for name in _QUOTE_NUMBERS)
    return text_of(item["product_id"]), ts_us, values
