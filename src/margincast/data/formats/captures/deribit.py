"""Decode recorded messages of Deribit: books, trades, option prices, funding and open interest.

Implied volatilities are what the market pays for tail risk; perpetuals say how crowded a side is.
The venue is ``deribit``, a contract is named by its instrument. Amounts are Deribit's own: USD for
inverse perpetuals and futures, coins for options and linear futures.

Books (Deribit API v2, "book.(instrument_name).(interval)"): a snapshot, then changes, each of which
names the one before it (``prev_change_id``). A ticker of an option is a row of ``options`` with its
prices in coins, volatilities as fractions a year (Deribit says percent) and the underlying's
currency as symbol; that of another contract a row of ``derivative_ticker``, whose ``funding_rate``
is Deribit's ``current_funding``, and ``funding_rate_8h`` the one over the last eight hours. The
side of a trade is the taker's; ``liquidation`` says which side was closed by force (M, T or MT).
Statistics and price limits in a ticker are not stored.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import polars as pl

from margincast.data.formats.captures.decoder import Levels, microseconds_of, number, whole
from margincast.data.formats.captures.fields import (
    number_or_none,
    object_of,
    objects_in,
    pairs_in,
    side_of,
    text_of,
    text_or_none,
    whole_or_none,
)
from margincast.data.formats.captures.venue import (
    CANDLES,
    HEARTBEAT,
    NOTICE,
    OTHER_CHANNEL,
    QUOTE_COLUMNS,
    REPLY,
    TICKER_COLUMNS,
    TRADE_COLUMNS,
    BookMessage,
    Columns,
    Record,
    Row,
    VenueDecoder,
)
from margincast.data.schemas import TIMESTAMP

VENUE = "deribit"

GROUPED_BOOK = "not stored: grouped book"
"""Outcome of books whose prices are rounded to groups."""

_TRADES: Columns = {
    **TRADE_COLUMNS,
    "trade_id": pl.String,
    "sequence": pl.Int64,
    "mark_price": pl.Float64,
    "index_price": pl.Float64,
    "implied_volatility": pl.Float64,
    "liquidation": pl.String,
    "block_trade_id": pl.String,
    "tick_direction": pl.Int64,
}
_OPTIONS: Columns = {
    "instrument": pl.String,
    "expiry": TIMESTAMP,
    "strike": pl.Float64,
    "option_type": pl.String,
    "implied_volatility": pl.Float64,
    "bid_implied_volatility": pl.Float64,
    "ask_implied_volatility": pl.Float64,
    "bid_price": pl.Float64,
    "bid_size": pl.Float64,
    "ask_price": pl.Float64,
    "ask_size": pl.Float64,
    "last_price": pl.Float64,
    "mark_price": pl.Float64,
    "open_interest": pl.Float64,
    "underlying_price": pl.Float64,
    "index_price": pl.Float64,
    "interest_rate": pl.Float64,
    "underlying_index": pl.String,
    "delta": pl.Float64,
    "gamma": pl.Float64,
    "vega": pl.Float64,
    "theta": pl.Float64,
    "rho": pl.Float64,
}
_OPTION_NUMBERS = (
    "last_price",
    "mark_price",
    "open_interest",
    "underlying_price",
    "index_price",
    "interest_rate",
)
_GREEKS = ("delta", "gamma", "vega", "theta", "rho")
_TICKERS: Columns = {**TICKER_COLUMNS, "funding_rate_8h": pl.Float64, **QUOTE_COLUMNS}
_TICKER_NUMBERS = (
    "last_price",
    "mark_price",
    "index_price",
    "open_interest",
    "current_funding",
    "funding_8h",
)
_BEST = ("best_bid_price", "best_bid_amount", "best_ask_price", "best_ask_amount")

# BTC-24SEP21-8000-P, and XRP_USDC-30JUN24-0d625-C, whose d is a decimal point
_OPTION = re.compile(
    r"(?P<currency>[A-Z0-9]+)(?:_[A-Z]+)?-(?P<day>\d{1,2})(?P<month>[A-Z]{3})(?P<year>\d{2})"
    r"-(?P<strike>\d+(?:d\d+)?)-(?P<kind>[CP])"
)
_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_EXPIRY_HOUR = 8
_PERCENT = 0.01
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class DeribitDecoder(VenueDecoder):
    """Decodes the public channels of Deribit's API v2."""

    def decode(self, content: object, record: Record) -> None:
        """Turn one message into rows; see :meth:`VenueDecoder.decode`."""
        message = object_of(content)
        method = message.get("method")
        if method != "subscription":
            named = HEARTBEAT if method == "heartbeat" else NOTICE
            record.account.count(REPLY if method is None else named)
            return
        parameters = object_of(message["params"])
        kind = text_of(parameters["channel"]).partition(".")[0]
        if kind == "book":
            data = object_of(parameters["data"])
            record.account.count(self._take_book(data, record) if "type" in data else GROUPED_BOOK)
        elif kind == "trades":
            rows = [_trade(trade) for trade in objects_in(parameters["data"])]
            self.add_rows(record, "trades", VENUE, _TRADES, rows)
        elif kind == "ticker":
            data = object_of(parameters["data"])
            if "greeks" in data:
                self.add_rows(record, "options", VENUE, _OPTIONS, [_option(data)])
            else:
                self.add_rows(record, "derivative_ticker", VENUE, _TICKERS, [_ticker(data)])
        else:
            record.account.count(CANDLES if kind == "chart" else OTHER_CHANNEL)

    def _take_book(self, data: Mapping[str, object], record: Record) -> str:
        message = BookMessage(
            ts_us=microseconds_of(data["timestamp"]),
            bids=_levels(data["bids"]),
            asks=_levels(data["asks"]),
            is_snapshot=data["type"] == "snapshot",
            sequence=whole(data["change_id"]),
            follows=whole_or_none(data.get("prev_change_id")),
        )
        return self.book(VENUE, text_of(data["instrument_name"])).take(message, record)


def _levels(levels: object) -> Levels:
    """Read levels given as ``[action, price, amount]``."""
    read = []
    for action, price, amount in pairs_in(levels):
        if action not in ("new", "change", "delete"):
            raise ValueError("a value that is no action on a level")
        read.append((number(price), 0.0 if action == "delete" else number(amount)))
    return read


def _trade(item: Mapping[str, object]) -> Row:
    values = (
        number(item["price"]),
        number(item["amount"]),
        side_of(item["direction"]),
        text_of(item["trade_id"]),
        whole(item["trade_seq"]),
        number_or_none(item.get("mark_price")),
        number_or_none(item.get("index_price")),
        _fraction(number_or_none(item.get("iv"))),
        text_or_none(item.get("liquidation")),
        text_or_none(item.get("block_trade_id")),
        whole_or_none(item.get("tick_direction")),
    )
    return text_of(item["instrument_name"]), microseconds_of(item["timestamp"]), values


def _option(item: Mapping[str, object]) -> Row:
    instrument, greeks = text_of(item["instrument_name"]), object_of(item["greeks"])
    currency, *terms = _terms_of(instrument)
    values = (
        instrument,
        *terms,
        _fraction(number_or_none(item["mark_iv"])),
        _fraction(_best(item["bid_iv"])),
        _fraction(_best(item["ask_iv"])),
        *[_best(item[name]) for name in _BEST],
        *[number_or_none(item[name]) for name in _OPTION_NUMBERS],
        text_or_none(item.get("underlying_index")),
        *[number_or_none(greeks[name]) for name in _GREEKS],
    )
    return currency, microseconds_of(item["timestamp"]), values


def _ticker(item: Mapping[str, object]) -> Row:
    values = (
        *[number_or_none(item.get(name)) for name in _TICKER_NUMBERS],
        *[_best(item[name]) for name in _BEST],
    )
    return text_of(item["instrument_name"]), microseconds_of(item["timestamp"]), values


def _best(value: object) -> float | None:
    """Read what is best on a side; Deribit writes 0 where a side is empty."""
    return number_or_none(value) or None


def _fraction(percent: float | None) -> float | None:
    return None if percent is None else _PERCENT * percent


def _terms_of(instrument: str) -> tuple[str, int, float, str]:
    """Currency, expiry in microseconds, strike and type of an option by its name."""
    terms = _OPTION.fullmatch(instrument)
    if terms is None or terms["month"] not in _MONTHS:
        raise ValueError("a value that is no name of an option")
    year, month, day = 2000 + int(terms["year"]), 1 + _MONTHS.index(terms["month"]), terms["day"]
    expiry = datetime(year, month, int(day), _EXPIRY_HOUR, tzinfo=UTC)
    return (
        terms["currency"],
        (expiry - _EPOCH) // timedelta(microseconds=1),
        float(terms["strike"].replace("d", ".")),
        "call" if terms["kind"] == "C" else "put",
    )
