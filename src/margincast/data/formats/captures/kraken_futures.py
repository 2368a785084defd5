"""Decode recorded messages of Kraken Futures: books, trades, funding and open interest.

The venue is ``kraken-futures``. Sizes are Kraken's own: contracts (USD for the inverse ``PI_`` and
``FI_``, coins for the linear ``PF_`` and ``FF_``).

Messages (Kraken Futures API, "WebSocket: Book, Trade, Ticker"): a book snapshot, then one level a
message, numbered by ``seq``, which grows by one for each product. The side of a trade is the
taker's, its ``type`` says whether it closed a position by force (``liquidation``). A ticker's
``funding_rate`` is an amount of money a contract; the fraction is its ``relative_funding_rate``,
and that is what is stored. The shorter ``ticker_lite`` has neither time nor sizes and is not
stored.
"""

from collections.abc import Mapping

import polars as pl

from margincast.data.formats.captures.decoder import microseconds_of, number, whole
from margincast.data.formats.captures.fields import (
    microseconds_or_none,
    number_or_none,
    object_of,
    objects_in,
    side_of,
    text_of,
)
from margincast.data.formats.captures.venue import (
    HEARTBEAT,
    NOTICE,
    OTHER_CHANNEL,
    QUOTE_COLUMNS,
    REPLY,
    TICKER,
    TICKER_COLUMNS,
    TRADE_COLUMNS,
    BookMessage,
    Columns,
    Record,
    Row,
    VenueDecoder,
)
from margincast.data.schemas import TIMESTAMP

VENUE = "kraken-futures"

_TRADES: Columns = {
    **TRADE_COLUMNS,
    "trade_id": pl.String,
    "sequence": pl.Int64,
    "trade_type": pl.String,
}
_TICKERS: Columns = {
    **TICKER_COLUMNS,
    "predicted_funding_rate": pl.Float64,
    **QUOTE_COLUMNS,
    "funding_timestamp": TIMESTAMP,
}
# futures with a maturity have no funding, and a rate of zero is left out
_TICKER_NUMBERS = (
    "last",
    "markPrice",
    "index",
    "openInterest",
    "relative_funding_rate",
    "relative_funding_rate_prediction",
    "bid",
    "bid_size",
    "ask",
    "ask_size",
)
_REPLIES = ("subscribed", "unsubscribed", "subscribed_failed", "unsubscribed_failed")
_NOT_STORED = {"ticker_lite": TICKER, "heartbeat": HEARTBEAT}


class KrakenFuturesDecoder(VenueDecoder):
    """Decodes the public feeds of Kraken Futures' websocket API v1."""

    def decode(self, content: object, record: Record) -> None:
        """Turn one message into rows; see :meth:`VenueDecoder.decode`."""
        message = object_of(content)
        if "event" in message:
            record.account.count(REPLY if message["event"] in _REPLIES else NOTICE)
            return
        feed = text_of(message["feed"])
        if feed in ("book_snapshot", "book"):
            update = _snapshot(message) if feed == "book_snapshot" else _update(message)
            book = self.book(VENUE, text_of(message["product_id"]))
            record.account.count(book.take(update, record))
        elif feed in ("trade_snapshot", "trade"):
            trades = objects_in(message["trades"]) if feed == "trade_snapshot" else [message]
            self.add_rows(record, "trades", VENUE, _TRADES, [_trade(trade) for trade in trades])
        elif feed == "ticker":
            self.add_rows(record, "derivative_ticker", VENUE, _TICKERS, [_ticker(message)])
        else:
            record.account.count(_NOT_STORED.get(feed, OTHER_CHANNEL))


def _snapshot(message: Mapping[str, object]) -> BookMessage:
    return BookMessage(
        ts_us=microseconds_of(message["timestamp"]),
        bids=[_level(level) for level in objects_in(message["bids"])],
        asks=[_level(level) for level in objects_in(message["asks"])],
        is_snapshot=True,
        sequence=whole(message["seq"]),
    )


def _update(message: Mapping[str, object]) -> BookMessage:
    is_bid = side_of(message["side"]) == "buy"
    sequence = whole(message["seq"])
    return BookMessage(
        ts_us=microseconds_of(message["timestamp"]),
        bids=[_level(message)] if is_bid else [],
        asks=[] if is_bid else [_level(message)],
        is_snapshot=False,
        sequence=sequence,
        follows=sequence - 1,
    )


def _level(level: Mapping[str, object]) -> tuple[float, float]:
    return number(level["price"]), number(level["qty"])


def _trade(item: Mapping[str, object]) -> Row:
    values = (
        number(item["price"]),
        number(item["qty"]),
        side_of(item["side"]),
        text_of(item["uid"]),
        whole(item["seq"]),
        text_of(item["type"]),
    )
    return text_of(item["product_id"]), microseconds_of(item["time"]), values


def _ticker(item: Mapping[str, object]) -> Row:
    values = (
        *[number_or_none(item.get(name)) for name in _TICKER_NUMBERS],
        microseconds_or_none(item.get("next_funding_rate_time")),
    )
    return text_of(item["product_id"]), microseconds_of(item["time"]), values
