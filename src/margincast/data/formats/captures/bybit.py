"""Decode recorded messages of Bybit: books, trades, liquidations, funding and open interest.

Venues are ``bybit`` (linear and inverse contracts), ``bybit-spot`` and ``bybit-options``, told
apart by the address of the connection, because one symbol names a contract and a coin. Sizes are
Bybit's own: coins for linear contracts and spot, USD for inverse ones.

Books (Bybit API v5, "WebSocket Stream: Public: Orderbook"): a snapshot, then deltas whose update id
``u`` grows by one; ``u`` of 1 is a snapshot after a restart of the service. Their time is when
the venue made the message (``ts``): when the matching engine acted (``cts``) nobody outside could
know it. Tickers of contracts are a snapshot, then the fields that
changed ("Ticker"), so that a row holds all that is in force. The statistics of 24 hours are not
stored. The side of a liquidation is told as that of the position ("All Liquidation"): a long one
(``Buy``) is closed by selling.
"""

from collections.abc import Mapping

import polars as pl

from margincast.data.formats.captures.decoder import levels_of, microseconds_of, number, whole
from margincast.data.formats.captures.fields import (
    flag_or_none,
    microseconds_or_none,
    number_or_none,
    object_of,
    objects_in,
    opposite_of,
    pairs_in,
    side_of,
    text_of,
    text_or_none,
    whole_or_none,
)
from margincast.data.formats.captures.venue import (
    CANDLES,
    HEARTBEAT,
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
from margincast.data.formats.format import Options
from margincast.data.schemas import TIMESTAMP

BEFORE_TICKER = "not stored: ticker update before its snapshot"

VENUES = {
    "linear": "bybit",
    "inverse": "bybit",
    "spot": "bybit-spot",
    "option": "bybit-options",
}
"""Venue by the last part of a connection's address."""

_TRADES: Columns = {
    **TRADE_COLUMNS,
    "trade_id": pl.String,
    "tick_direction": pl.String,
    "is_block_trade": pl.Boolean,
    "is_rpi_trade": pl.Boolean,
    "sequence": pl.Int64,
}
_TICKERS: Columns = {
    **TICKER_COLUMNS,
    "open_interest_value": pl.Float64,
    **QUOTE_COLUMNS,
    "funding_timestamp": TIMESTAMP,
    "sequence": pl.Int64,
}
_TICKER_NUMBERS = (
    "lastPrice",
    "markPrice",
    "indexPrice",
    "openInterest",
    "fundingRate",
    "openInterestValue",
    "bid1Price",
    "bid1Size",
    "ask1Price",
    "ask1Size",
)


class BybitDecoder(VenueDecoder):
    """Decodes the public streams of Bybit's API v5."""

    def __init__(self, options: Options) -> None:
        """Begin without books; ``options`` say how they are written down."""
        super().__init__(options)
        self._tickers: dict[tuple[str, str], Mapping[str, object]] = {}

    def connected(self, connection: str, address: str) -> None:
        """Take note of a connection, which tells its tickers anew."""
        super().connected(connection, address)
        self._tickers = {key: told for key, told in self._tickers.items() if key[0] != connection}

    def decode(self, content: object, record: Record) -> None:
        """Turn one message into rows; see :meth:`VenueDecoder.decode`."""
        message = object_of(content)
        if "topic" not in message:
            is_reply = message.get("op") in ("subscribe", "unsubscribe")
            record.account.count(REPLY if is_reply else HEARTBEAT)
            return
        kind, _, rest = text_of(message["topic"]).partition(".")
        depth = rest.partition(".")[0]
        venue = self._venue_of(record.connection)
        if kind == "orderbook" and depth.isdecimal():
            symbol, update = _book(message)
            record.account.count(self.book(venue, symbol, depth).take(update, record))
        elif kind == "publicTrade":
            rows = [_trade(trade) for trade in objects_in(message["data"])]
            self.add_rows(record, "trades", venue, _TRADES, rows)
        elif kind == "allLiquidation":
            rows = [_liquidation(item) for item in objects_in(message["data"])]
            self.add_rows(record, "liquidations", venue, TRADE_COLUMNS, rows)
        elif kind == "liquidation":
            rows = [_liquidation_spelled_out(object_of(message["data"]))]
            self.add_rows(record, "liquidations", venue, TRADE_COLUMNS, rows)
        elif kind == "tickers" and venue == "bybit":
            self._take_ticker(message, venue, record)
        else:
            record.account.count({"kline": CANDLES, "tickers": TICKER}.get(kind, OTHER_CHANNEL))

    def _venue_of(self, connection: str) -> str:
        market = self.addresses.get(connection, "").rpartition("/")[2]
        if market not in VENUES:
            raise ValueError("a value that is no address of a known market")
        return VENUES[market]

    def _take_ticker(self, message: Mapping[str, object], venue: str, record: Record) -> None:
        data = object_of(message["data"])
        key = (record.connection, text_of(data["symbol"]))
        told = {} if message["type"] == "snapshot" else self._tickers.get(key)
        if told is None:
            record.account.count(BEFORE_TICKER)
            return
        in_force = {**told, **data}
        values = (
            *[number_or_none(in_force.get(name)) for name in _TICKER_NUMBERS],
            microseconds_or_none(in_force.get("nextFundingTime")),
            whole_or_none(message.get("cs")),
        )
        row = (key[1], microseconds_of(message["ts"]), values)
        self._tickers[key] = in_force
        self.add_rows(record, "derivative_ticker", venue, _TICKERS, [row])


def _book(message: Mapping[str, object]) -> tuple[str, BookMessage]:
    data = object_of(message["data"])
    sequence = whole(data["u"])
    return text_of(data["s"]), BookMessage(
        ts_us=microseconds_of(message["ts"]),
        bids=levels_of(pairs_in(data["b"])),
        asks=levels_of(pairs_in(data["a"])),
        is_snapshot=message["type"] == "snapshot" or sequence == 1,
        sequence=sequence,
        follows=sequence - 1,
    )


def _trade(item: Mapping[str, object]) -> Row:
    values = (
        number(item["p"]),
        number(item["v"]),
        side_of(item["S"]),
        text_of(item["i"]),
        text_or_none(item.get("L")),
        flag_or_none(item.get("BT")),
        flag_or_none(item.get("RPI")),
        whole_or_none(item.get("seq")),
    )
    return text_of(item["s"]), microseconds_of(item["T"]), values


def _liquidation(item: Mapping[str, object]) -> Row:
    values = (number(item["p"]), number(item["v"]), opposite_of(side_of(item["S"])))
    return text_of(item["s"]), microseconds_of(item["T"]), values


def _liquidation_spelled_out(item: Mapping[str, object]) -> Row:
    """Read the one liquidation of the topic that was there before ``allLiquidation``."""
    values = (number(item["price"]), number(item["size"]), opposite_of(side_of(item["side"])))
    return text_of(item["symbol"]), microseconds_of(item["updatedTime"]), values
