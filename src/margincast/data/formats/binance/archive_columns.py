"""The tables of the Binance public archive: their columns, units and canonical names.

A column read under another's name (contracts as coins, coins as dollars) scales every margin that
rests on it, so units that differ between the venue's markets get names that differ.

Sources: README of the repository ``binance/binance-public-data`` (columns of klines, trades and
aggTrades of the three markets); its issues 246, 278 and 283 (futures files have a header since
2022, spot files none); the venue's documentation of ``/futures/data/openInterestHist`` of both
futures markets (units of metrics) and of the stream of liquidation orders.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from margincast.data.formats.text import Column, Kind

COIN_M = "binance-delivery"


@dataclass(frozen=True)
class Layout:
    """A table of the archive.

    Attributes:
        name: its folder in the archive.
        table: canonical table.
        columns: by the archive's name of a column, what it becomes.
        optional: columns a file with a header may lack.
        headerless: columns of files without a header, one tuple for each number of them.
        is_plain: whether a line without a header tells the table; otherwise the file's name must.
        futures_only: whether only futures have the table.
    """

    name: str
    table: str
    columns: Mapping[str, Column]
    optional: tuple[str, ...] = ()
    headerless: tuple[tuple[str, ...], ...] = ()
    is_plain: bool = False
    futures_only: bool = True

    @property
    def needed(self) -> tuple[str, ...]:
        """Columns a file with a header must have."""
        return tuple(name for name in self.columns if name not in self.optional)


def _columns(**kinds: tuple[str, Kind]) -> Mapping[str, Column]:
    return MappingProxyType({name: Column(*column) for name, column in kinds.items()})


KLINES = Layout(
    "klines",
    "bars",
    _columns(
        open_time=("ts", "time"),
        open=("open", "number"),
        high=("high", "number"),
        low=("low", "number"),
        close=("close", "number"),
        volume=("volume", "number"),
        close_time=("close_time", "time"),
        quote_volume=("quote_volume", "number"),
        count=("trade_count", "integer"),
        taker_buy_volume=("taker_buy_volume", "number"),
        taker_buy_quote_volume=("taker_buy_quote_volume", "number"),
        ignore=("ignore", "text"),
    ),
    optional=("ignore",),
    headerless=(
        (
            *("open_time", "open", "high", "low", "close", "volume", "close_time"),
            *("quote_volume", "count", "taker_buy_volume", "taker_buy_quote_volume", "ignore"),
        ),
    ),
    is_plain=True,
    futures_only=False,
)
PRICE_KLINES = MappingProxyType(
    {
        "markPriceKlines": "mark_bars",
        "indexPriceKlines": "index_bars",
        "premiumIndexKlines": "premium_bars",
    }
)
"""Tables laid out as klines, of prices at which nobody trades: their volumes are zeros."""

_AGGREGATE = (
    *("agg_trade_id", "price", "quantity", "first_trade_id", "last_trade_id"),
    *("transact_time", "is_buyer_maker"),
)
AGGREGATE_TRADES = Layout(
    "aggTrades",
    "aggregate_trades",
    _columns(
        agg_trade_id=("trade_id", "integer"),
        price=("price", "number"),
        quantity=("size", "number"),
        first_trade_id=("first_trade_id", "integer"),
        last_trade_id=("last_trade_id", "integer"),
        transact_time=("ts", "time"),
        is_buyer_maker=("is_buyer_maker", "boolean"),
        is_best_match=("is_best_match", "boolean"),
    ),
    optional=("is_best_match",),
    headerless=(_AGGREGATE, (*_AGGREGATE, "is_best_match")),
    is_plain=True,
    futures_only=False,
)
_TRADES = ("id", "price", "qty", "quote_qty", "time", "is_buyer_maker")
TRADES = Layout(
    "trades",
    "trades",
    _columns(
        id=("trade_id", "integer"),
        price=("price", "number"),
        qty=("size", "number"),
        quote_qty=("quote_size", "number"),
        # of COIN-M: size is in contracts, this is their worth in the coin
        base_qty=("base_size", "number"),
        time=("ts", "time"),
        is_buyer_maker=("is_buyer_maker", "boolean"),
        is_best_match=("is_best_match", "boolean"),
    ),
    optional=("quote_qty", "base_qty", "is_best_match"),
    headerless=(_TRADES, (*_TRADES, "is_best_match")),
    is_plain=True,
    futures_only=False,
)
BOOK_TICKER = Layout(
    "bookTicker",
    "quotes",
    _columns(
        update_id=("sequence", "integer"),
        best_bid_price=("bid_price_0", "number"),
        best_bid_qty=("bid_size_0", "number"),
        best_ask_price=("ask_price_0", "number"),
        best_ask_qty=("ask_size_0", "number"),
        transaction_time=("ts", "time"),
        event_time=("event_time", "time"),
    ),
)
# Cumulative depth within -5 % to +5 % of the mid, about every 30 s. The venue documents no units:
# USD-M files hold coins and their worth in the quote currency, COIN-M files contracts.
BOOK_DEPTH = Layout(
    "bookDepth",
    "depth_bands",
    _columns(
        timestamp=("ts", "time"),
        percentage=("percentage", "number"),
        depth=("depth", "number"),
        notional=("notional", "number"),
    ),
)
_RATIOS = (
    "count_toptrader_long_short_ratio",
    "sum_toptrader_long_short_ratio",
    "count_long_short_ratio",
    "sum_taker_long_short_vol_ratio",
)
METRICS = Layout(
    "metrics",
    "open_interest",
    _columns(
        create_time=("ts", "time"),
        symbol=("symbol", "text"),
        sum_open_interest=("open_interest", "number"),
        # in the quote currency, a dollar coin but for ETHBTC
        sum_open_interest_value=("open_interest_usd", "number"),
        **{name: (name, "number") for name in _RATIOS},
    ),
    optional=_RATIOS,
)
FUNDING_RATE = Layout(
    "fundingRate",
    "funding",
    _columns(
        calc_time=("ts", "time"),
        funding_interval_hours=("funding_interval_hours", "integer"),
        last_funding_rate=("funding_rate", "number"),
    ),
    headerless=(("calc_time", "funding_interval_hours", "last_funding_rate"),),
)
# A record is the state of an order that closes a position. What it closed is the accumulated
# quantity, at the average price: ``last_fill_quantity`` is one of its fills only, and
# ``order_price`` the limit it was sent with, which lies beyond the market so that it is filled.
_LIQUIDATION = (
    *("time", "side", "order_type", "time_in_force", "original_quantity", "price"),
    *("average_price", "order_status", "last_fill_quantity", "accumulated_fill_quantity"),
)
LIQUIDATION_SNAPSHOT = Layout(
    "liquidationSnapshot",
    "liquidations",
    _columns(
        time=("ts", "time"),
        symbol=("symbol", "text"),
        side=("side", "text"),
        order_type=("order_type", "text"),
        time_in_force=("time_in_force", "text"),
        original_quantity=("original_quantity", "number"),
        price=("order_price", "number"),
        average_price=("price", "number"),
        order_status=("order_status", "text"),
        last_fill_quantity=("last_fill_quantity", "number"),
        accumulated_fill_quantity=("size", "number"),
    ),
    optional=("symbol",),
    headerless=(_LIQUIDATION,),
)
LAYOUTS = (
    KLINES,
    AGGREGATE_TRADES,
    TRADES,
    BOOK_TICKER,
    BOOK_DEPTH,
    METRICS,
    FUNDING_RATE,
    LIQUIDATION_SNAPSHOT,
)

COIN_M_NAMES = MappingProxyType(
    {
        "quote_volume": "base_volume",
        "taker_buy_quote_volume": "taker_buy_base_volume",
        "quote_size": "base_size",
        "open_interest_usd": "open_interest_base",
    }
)
"""Names of what COIN-M files hold in the coin where those of other markets hold quote currency.

A COIN-M contract is worth a fixed number of dollars; ``volume``, ``taker_buy_volume``, ``size`` and
``open_interest`` count contracts there. The header of its klines says ``quote_volume`` nonetheless.
"""

_NUMBER = re.compile(r"-?\d+(\.\d*)?([eE][-+]?\d+)?")
_CELLS = MappingProxyType(
    {
        "number": _NUMBER,
        "integer": re.compile(r"-?\d+"),
        "time": re.compile(r"\d{13}|\d{16}"),
        "boolean": re.compile(r"true|false", re.IGNORECASE),
        "text": re.compile(r".*"),
    }
)


def fits(cells: tuple[str, ...], names: tuple[str, ...], layout: Layout) -> bool:
    """Say whether the cells of a line can be those of the named columns."""
    return len(cells) == len(names) and all(
        _CELLS[layout.columns[name].kind].fullmatch(cell) is not None
        for cell, name in zip(cells, names, strict=True)
    )


def is_heading(cells: tuple[str, ...]) -> bool:
    """Say whether a line names columns: none of its cells is a number."""
    return not any(_NUMBER.fullmatch(cell) for cell in cells)
