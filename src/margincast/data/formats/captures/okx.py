"""Decode recorded messages of OKX: books, trades and best quotes.

The venue is ``okx`` for all of its markets, whose instrument names differ (``BTC-USDT`` spot,
``BTC-USDT-SWAP``, ``BTC-USD-220527``). Sizes are OKX's own: coins for spot, contracts for all else.

Books (OKX API v5, "Order Book Trading: WS / Order book channel"): a snapshot, then updates. Each
names the one before it (``prevSeqId``, absent before 2023) and carried a checksum of the best
levels, which is 0 since June 2026 ("Order book channels checksum field deprecation"): what is there
is verified, and a message that does not fit is a hole. The statistics of 24 hours in a ticker are
not stored.
"""

from collections.abc import Mapping

import polars as pl

from margincast.data.formats.captures.checksum import ChecksummedDecoder
from margincast.data.formats.captures.decoder import microseconds_of, number, whole
from margincast.data.formats.captures.fields import (
    number_or_none,
    object_of,
    objects_in,
    side_of,
    text_of,
)
from margincast.data.formats.captures.venue import (
    CANDLES,
    NOTICE,
    OTHER_CHANNEL,
    QUOTE_COLUMNS,
    REPLY,
    TRADE_COLUMNS,
    Columns,
    Record,
    Row,
)

VENUE = "okx"

BOOK_CHANNELS = ("books", "books-l2-tbt", "books50-l2-tbt")
"""Channels of a snapshot and updates."""

_TRADES: Columns = {**TRADE_COLUMNS, "trade_id": pl.Int64}
_QUOTES: Columns = {**QUOTE_COLUMNS, "last_price": pl.Float64, "last_size": pl.Float64}
# an empty side has empty fields
_QUOTE_NUMBERS = ("bidPx", "bidSz", "askPx", "askSz", "last", "lastSz")
_REPLIES = ("subscribe", "unsubscribe", "login", "error", "channel-conn-count")


class OkxDecoder(ChecksummedDecoder):
    """Decodes the public channels of OKX's API v5."""

    def decode(self, content: object, record: Record) -> None:
        """Turn one message into rows; see :meth:`VenueDecoder.decode`."""
        message = object_of(content)
        if "event" in message:
            record.account.count(REPLY if message["event"] in _REPLIES else NOTICE)
            return
        argument = object_of(message["arg"])
        channel = text_of(argument["channel"])
        data = objects_in(message["data"])
        if channel in BOOK_CHANNELS:
            (item,) = data
            symbol, is_snapshot = text_of(argument["instId"]), message["action"] == "snapshot"
            outcome = self.take_book(item, VENUE, symbol, channel, record, is_snapshot=is_snapshot)
            record.account.count(outcome)
        elif channel == "trades":
            self.add_rows(record, "trades", VENUE, _TRADES, [_trade(item) for item in data])
        elif channel == "tickers":
            self.add_rows(record, "quotes", VENUE, _QUOTES, [_quote(item) for item in data])
        else:
            is_candle = channel.startswith("candle")
            record.account.count(CANDLES if is_candle else OTHER_CHANNEL)


def _trade(item: Mapping[str, object]) -> Row:
    values = (
        number(item["px"]),
        number(item["sz"]),
        side_of(item["side"]),
        whole(item["tradeId"]),
    )
    return text_of(item["instId"]), microseconds_of(item["ts"]), values


def _quote(item: Mapping[str, object]) -> Row:
    values = tuple(number_or_none(item[name]) for name in _QUOTE_NUMBERS)
    return text_of(item["instId"]), microseconds_of(item["ts"]), values
