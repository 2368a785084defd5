"""Decode recorded messages of Bitget's API v1: books, trades, funding and open interest.

Venues are ``bitget`` (spot, ``instType`` ``sp``) and ``bitget-futures`` (``mc``): one name is a
coin in the one and a contract in the other. Sizes are Bitget's own: coins.

Books (Bitget API v1, "Websocket: Depth channel"): a snapshot, then updates, without a number; each
carries a checksum of the best levels after it, which is verified. A message that does not fit is a
hole. Trades have no id. Tickers of contracts tell funding, mark and index price and open interest;
those of spot tell rounded best prices without sizes and are not stored.
"""

from collections.abc import Mapping, Sequence

import polars as pl

from margincast.data.formats.captures.checksum import ChecksummedDecoder
from margincast.data.formats.captures.decoder import microseconds_of, number
from margincast.data.formats.captures.fields import (
    microseconds_or_none,
    number_or_none,
    object_of,
    objects_in,
    pairs_in,
    side_of,
    text_of,
)
from margincast.data.formats.captures.venue import (
    CANDLES,
    NOTICE,
    OTHER_CHANNEL,
    REPLY,
    TICKER,
    TICKER_COLUMNS,
    TRADE_COLUMNS,
    Columns,
    Record,
    Row,
)
from margincast.data.schemas import TIMESTAMP

VENUES = {"sp": "bitget", "mc": "bitget-futures"}
"""Venue by ``instType``."""

_TICKERS: Columns = {
    **TICKER_COLUMNS,
    "bid_price_0": pl.Float64,
    "ask_price_0": pl.Float64,
    "funding_timestamp": TIMESTAMP,
}
_TICKER_NUMBERS = (
    "last",
    "markPrice",
    "indexPrice",
    "holding",
    "capitalRate",
    "bestBid",
    "bestAsk",
)


class BitgetDecoder(ChecksummedDecoder):
    """Decodes the public channels of Bitget's API v1."""

    has_sequence = False

    def decode(self, content: object, record: Record) -> None:
        """Turn one message into rows; see :meth:`VenueDecoder.decode`."""
        message = object_of(content)
        if "event" in message:
            is_reply = message["event"] in ("subscribe", "unsubscribe", "error")
            record.account.count(REPLY if is_reply else NOTICE)
            return
        argument = object_of(message["arg"])
        venue = _venue_of(argument["instType"])
        channel, symbol = text_of(argument["channel"]), text_of(argument["instId"])
        if channel == "books":
            (item,) = objects_in(message["data"])
            is_snapshot = message["action"] == "snapshot"
            outcome = self.take_book(item, venue, symbol, channel, record, is_snapshot=is_snapshot)
            record.account.count(outcome)
        elif channel == "trade":
            rows = [_trade(symbol, item) for item in pairs_in(message["data"])]
            self.add_rows(record, "trades", venue, TRADE_COLUMNS, rows)
        elif channel == "ticker" and venue == "bitget-futures":
            rows = [_ticker(item) for item in objects_in(message["data"])]
            self.add_rows(record, "derivative_ticker", venue, _TICKERS, rows)
        elif channel == "ticker":
            record.account.count(TICKER)
        else:
            is_candle = channel.startswith("candle")
            record.account.count(CANDLES if is_candle else OTHER_CHANNEL)


def _venue_of(kind: object) -> str:
    venue = VENUES.get(text_of(kind).lower())
    if venue is None:
        raise ValueError("a value that is no market of API v1 (sp or mc)")
    return venue


def _trade(symbol: str, item: Sequence[object]) -> Row:
    time, price, size, side = item
    return symbol, microseconds_of(time), (number(price), number(size), side_of(side))


def _ticker(item: Mapping[str, object]) -> Row:
    values = (
        *[number_or_none(item[name]) for name in _TICKER_NUMBERS],
        microseconds_or_none(item["nextSettleTime"]),
    )
    return text_of(item["instId"]), microseconds_of(item["systemTime"]), values
