"""Translate Binance's messages that are rows: trades, best quotes, mark prices, liquidations.

What trades cost, where the best quotes stood and what was liquidated are inputs of a margin. The
messages are those of "Web Socket Streams" (spot) and "Websocket Market Streams" (USD-M and COIN-M
futures) of the venue's API documentation. Sizes are in the venue's unit: the base asset on spot and
USD-M futures, contracts on COIN-M futures.
"""

from collections.abc import Callable, Mapping
from typing import Any

import polars as pl

from margincast.data.formats.captures.decoder import DataType, microseconds_of, number, whole
from margincast.data.schemas import TIMESTAMP

COLUMNS: dict[str, dict[str, DataType]] = {
    "trades": {
        "price": pl.Float64,
        "size": pl.Float64,
        "side": pl.String,
        "trade_id": pl.Int64,
        "event_time": TIMESTAMP,
        "kind": pl.String,
    },
    "aggregate_trades": {
        "price": pl.Float64,
        "size": pl.Float64,
        "side": pl.String,
        "trade_id": pl.Int64,
        "first_trade_id": pl.Int64,
        "last_trade_id": pl.Int64,
        "event_time": TIMESTAMP,
    },
    "quotes": {
        "sequence": pl.Int64,
        "bid_price_0": pl.Float64,
        "bid_size_0": pl.Float64,
        "ask_price_0": pl.Float64,
        "ask_size_0": pl.Float64,
        "event_time": TIMESTAMP,
    },
    "derivative_ticker": {
        "mark_price": pl.Float64,
        "index_price": pl.Float64,
        "funding_rate": pl.Float64,
        "funding_timestamp": TIMESTAMP,
        "estimated_settlement_price": pl.Float64,
    },
    "liquidations": {
        "price": pl.Float64,
        "size": pl.Float64,
        "side": pl.String,
        "order_price": pl.Float64,
        "original_quantity": pl.Float64,
        "last_fill_quantity": pl.Float64,
        "order_type": pl.String,
        "time_in_force": pl.String,
        "order_status": pl.String,
        "event_time": TIMESTAMP,
    },
}
"""Columns of each table besides symbol, times and row.

A trade's ``kind`` is the futures field ``X`` in lower case: other than ``market`` (``adl``,
``insurance_fund``, ``na``) it did not happen in the book.
"""

Translated = tuple[str, str, int | None, tuple[object, ...]]
"""Table, symbol, time in microseconds and the values of the table's columns."""


def _trade(content: Mapping[str, Any]) -> Translated:
    kind = content.get("X")
    return (
        "trades",
        text_of(content["s"]),
        microseconds_of(content["T"]),
        (
            number(content["p"]),
            number(content["q"]),
            _aggressor(content),
            whole(content["t"]),
            microseconds_of(content["E"]),
            None if kind is None else text_of(kind).lower(),
        ),
    )


def _aggregate_trade(content: Mapping[str, Any]) -> Translated:
    return (
        "aggregate_trades",
        text_of(content["s"]),
        microseconds_of(content["T"]),
        (
            number(content["p"]),
            number(content["q"]),
            _aggressor(content),
            whole(content["a"]),
            whole(content["f"]),
            whole(content["l"]),
            microseconds_of(content["E"]),
        ),
    )


def _best_quote(content: Mapping[str, Any]) -> Translated:
    time = content.get("T")
    return (
        "quotes",
        text_of(content["s"]),
        None if time is None else microseconds_of(time),
        (
            whole(content["u"]),
            number(content["b"]),
            number(content["B"]),
            number(content["a"]),
            number(content["A"]),
            microseconds_of(content["E"]) if "E" in content else None,
        ),
    )


def _mark_price(content: Mapping[str, Any]) -> Translated:
    # delivery contracts have no funding: an empty rate, and zero for its time
    rate, time = content.get("r"), content.get("T")
    return (
        "derivative_ticker",
        text_of(content["s"]),
        microseconds_of(content["E"]),
        (
            number(content["p"]),
            number(content["i"]) if content.get("i") else None,
            number(rate) if rate else None,
            microseconds_of(time) if time else None,
            number(content["P"]) if content.get("P") else None,
        ),
    )


def _liquidation(content: Mapping[str, Any]) -> Translated:
    # what was executed, at what it cost: the order's own price is where the position was bankrupt
    order = content["o"]
    if order["S"] not in {"BUY", "SELL"}:
        raise ValueError("a value that is no side")
    return (
        "liquidations",
        text_of(order["s"]),
        microseconds_of(order["T"]),
        (
            number(order["ap"]),
            number(order["z"]),
            order["S"].lower(),
            number(order["p"]),
            number(order["q"]),
            number(order["l"]),
            text_of(order["o"]),
            text_of(order["f"]),
            text_of(order["X"]),
            microseconds_of(content["E"]),
        ),
    )


READERS: dict[object, Callable[[Mapping[str, Any]], Translated]] = {
    "trade": _trade,
    "aggTrade": _aggregate_trade,
    "bookTicker": _best_quote,
    "markPriceUpdate": _mark_price,
    "forceOrder": _liquidation,
}
"""How to read a message, by its event ``e``; each raises one of ``FAULTS``."""


def _aggressor(content: Mapping[str, Any]) -> str:
    """Side that took: ``m`` says that the buyer was the maker."""
    if not isinstance(content["m"], bool):
        raise TypeError
    return "sell" if content["m"] else "buy"


def text_of(value: object) -> str:
    """Read text that is not empty.

    Raises:
        TypeError: it is none.
    """
    if not isinstance(value, str) or not value:
        raise TypeError
    return value
