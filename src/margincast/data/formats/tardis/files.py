"""Tardis' downloadable CSV files: books, trades, quotes, tickers, liquidations and option chains.

The vendor's normalised files, one for each day, venue, kind and contract (or group of contracts),
from which the books, flows and volatilities of a margin can be had for most venues. Sizes stay in
the venue's unit: coins, or contracts.

Source: docs.tardis.dev, "Downloadable CSV files: Data types". ``local_timestamp`` is when the
message reached Tardis. The side of a liquidation is that of the liquidation order: "buy" says that
a short position was liquidated. Books of ``incremental_book_L2`` are rebuilt in
:mod:`margincast.data.formats.tardis.updates`.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import polars as pl

from margincast.data.formats.format import TRANSLATED, Account, Batch, Format, Match, Sample
from margincast.data.formats.records import reject_rows, with_side
from margincast.data.formats.source import Source
from margincast.data.formats.tardis.rows import COMMON_CELLS, UPDATE_CELLS, venue_of
from margincast.data.formats.tardis.updates import read_updates
from margincast.data.formats.text import Column, read_text
from margincast.data.schemas import book_columns


def _numbers(*names: str) -> dict[str, Column]:
    """Columns of numbers that keep their names."""
    return {name: Column(name, "number") for name in names}


_TRADE = {
    "id": Column("trade_id", "text"),
    "side": Column("side", "text"),
    "price": Column("price", "number"),
    "amount": Column("size", "number"),
}
_QUOTE = {
    "bid_price": Column("bid_price_0", "number"),
    "bid_amount": Column("bid_size_0", "number"),
    "ask_price": Column("ask_price_0", "number"),
    "ask_amount": Column("ask_size_0", "number"),
}
_TICKER = {
    "funding_timestamp": Column("funding_timestamp", "time"),
    **_numbers("funding_rate", "predicted_funding_rate", "open_interest"),
    **_numbers("last_price", "index_price", "mark_price"),
}
_OPTION = {
    "symbol": Column("instrument", "text"),
    "type": Column("option_type", "text"),
    "strike_price": Column("strike", "number"),
    "expiration": Column("expiry", "time"),
    "bid_amount": Column("bid_size", "number"),
    "ask_amount": Column("ask_size", "number"),
    "underlying_index": Column("underlying_index", "text"),
    **_numbers("bid_price", "ask_price", "mark_price", "last_price", "underlying_price"),
    **_numbers("open_interest", "mark_iv", "bid_iv", "ask_iv"),
    **_numbers("delta", "gamma", "vega", "theta", "rho"),
}

_VOLATILITIES = {
    "mark_iv": "implied_volatility",
    "bid_iv": "bid_implied_volatility",
    "ask_iv": "ask_implied_volatility",
}
# Tardis passes volatilities on as the venue says them: Deribit in percent, these as fractions
_VOLATILITY_UNIT = {
    "deribit": 0.01,
    "okex-options": 1.0,
    "bybit-options": 1.0,
    "binance-european-options": 1.0,
}
UNKNOWN_UNIT = "option row with volatilities of unknown unit (kept as mark_iv, bid_iv, ask_iv)"

# venues whose trade ids are whole numbers; elsewhere they are letters, too long, or either
_WHOLE_TRADE_IDS = re.compile(r"binance(-futures|-delivery|-us)?|okex(-swap|-futures)?|coinbase")


@dataclass(frozen=True)
class _Kind:
    """A kind of file.

    Attributes:
        name: as Tardis calls it.
        table: canonical table of its rows.
        columns: what its columns become, besides the common ones.
        needed: columns by which it is known.
        finish: what is left to do with parsed rows.
    """

    name: str
    table: str
    columns: Mapping[str, Column]
    needed: tuple[str, ...]
    finish: Callable[[pl.DataFrame, Account], pl.DataFrame]


def _as_parsed(frame: pl.DataFrame, _account: Account) -> pl.DataFrame:
    return frame


def _as_trades(frame: pl.DataFrame, account: Account) -> pl.DataFrame:
    return with_side(frame, "trade without an aggressor side", account)


def _as_liquidations(frame: pl.DataFrame, account: Account) -> pl.DataFrame:
    return with_side(frame, "liquidation without a side", account)


def _as_options(frame: pl.DataFrame, account: Account) -> pl.DataFrame:
    """Name the underlying, check the type and make the volatilities fractions."""
    lower = frame.with_columns(pl.col("option_type").str.to_lowercase())
    typed = pl.col("option_type").is_in(["call", "put"]).fill_null(value=False)
    rows = reject_rows(lower, ~typed, "column 'type' is neither call nor put", account)
    unit = pl.col("exchange").replace_strict(_VOLATILITY_UNIT, default=None)
    unknown = rows.select(unit.is_null()).to_series()
    account.note(UNKNOWN_UNIT, int(unknown.sum()))
    ours = rows.with_columns(
        # BTC-9JUN20-9875-P and BTC_USDC-9JUN20-9875-P are both options on BTC
        pl.col("instrument").str.extract(r"^([^-_]+)").alias("symbol"),
        *((pl.col(theirs) * unit).alias(name) for theirs, name in _VOLATILITIES.items()),
    )
    return ours if unknown.any() else ours.drop(_VOLATILITIES)


_QUOTES = _Kind("quotes", "quotes", _QUOTE, tuple(_QUOTE), _as_parsed)
_TICKERS = _Kind(
    "derivative_ticker",
    "derivative_ticker",
    _TICKER,
    ("funding_timestamp", "mark_price"),
    _as_parsed,
)
_OPTIONS = _Kind(
    "options_chain", "options", _OPTION, ("type", "strike_price", *_VOLATILITIES), _as_options
)
_TRADES = _Kind("trades", "trades", _TRADE, tuple(_TRADE), _as_trades)
_LIQUIDATIONS = _Kind("liquidations", "liquidations", _TRADE, tuple(_TRADE), _as_liquidations)
_ALIKE = (_TRADES.name, _LIQUIDATIONS.name)
"""Kinds that have the same columns, so that only names tell them apart."""


def _match(kind: _Kind, sample: Sample) -> Match | str:
    lacking = sample.lacks(*COMMON_CELLS, *kind.needed)
    if lacking:
        return lacking
    if kind is _QUOTES and "strike_price" in sample.header:
        return "the header has a column strike_price"
    if kind.name in _ALIKE:
        said = sample.hints.table or _said_by_name(sample.source)
        if said is None:
            return "trades or liquidations: name the file as Tardis does, or say which table it is"
        if said != kind.name:
            return f"its name, or you, say that it holds {said}"
    return _recognised(sample, kind.table)


def _said_by_name(source: Source) -> str | None:
    said = [name for name in _ALIKE if f"_{name}_" in f"_{source.stem}_"]
    if len(said) == 1:
        return said[0]
    return next((folder for folder in reversed(source.folders) if folder in _ALIKE), None)


def _match_snapshot(sample: Sample) -> Match | str:
    lacking = sample.lacks(*COMMON_CELLS, "asks[0].price", "bids[0].price")
    return lacking or _recognised(sample, "book")


def _match_updates(sample: Sample) -> Match | str:
    return sample.lacks(*UPDATE_CELLS) or _recognised(sample, "book")


def _recognised(sample: Sample, table: str) -> Match:
    cells = sample.lines[1].split(sample.delimiter) if len(sample.lines) > 1 else []
    place = sample.header.index("exchange")
    # a day without a row still has its venue in the name of the file
    exchange = cells[place] if len(cells) > place else sample.source.name.split("_")[0]
    details = {
        "exchange": exchange,
        "delimiter": sample.delimiter,
        "levels": sum(name.endswith("].price") for name in sample.header) // 2,
    }
    return Match(table, venue_of(exchange), details=details)


def _read(kind: _Kind, source: Source, match: Match, account: Account) -> Iterator[Batch]:
    columns = {**COMMON_CELLS, **kind.columns}
    if kind.name in _ALIKE and _WHOLE_TRADE_IDS.fullmatch(match.details["exchange"]):
        columns["id"] = Column("trade_id", "integer")
    for parsed in read_text(source, columns, account, delimiter=match.details["delimiter"]):
        rows = parsed
        for cell in ("exchange", "symbol"):
            empty = pl.col(columns[cell].name).is_null()
            rows = reject_rows(rows, empty, f"column '{cell}' is empty", account)
        rows = kind.finish(rows, account)
        account.count(TRANSLATED, len(rows))
        yield from _batches(rows, kind.table, match)


def _read_snapshot(source: Source, match: Match, account: Account) -> Iterator[Batch]:
    columns = {
        f"{side}s[{level}].{theirs}": Column(f"{side}_{ours}_{level}", "number")
        for level in range(match.details["levels"])
        for side in ("bid", "ask")
        for theirs, ours in (("price", "price"), ("amount", "size"))
    }
    kind = _Kind("book_snapshot", "book", columns, (), _as_parsed)
    return _read(kind, source, match, account)


def _batches(rows: pl.DataFrame, table: str, match: Match) -> Iterator[Batch]:
    """Cut rows by venue and put the columns into the order of ours."""
    if match.symbol is not None:
        rows = rows.with_columns(pl.lit(match.symbol).alias("symbol"))
    first = ["symbol", "ts", "received_at", *book_columns(max(match.details["levels"], 1))]
    names = [name for name in first if name in rows.columns]
    names += [name for name in rows.columns if name not in {*names, "exchange"}]
    for part in rows.partition_by("exchange", maintain_order=True):
        yield Batch(table, venue_of(part["exchange"][0], match), part.select(names))


FORMATS: tuple[Format, ...] = (
    *(
        Format(f"Tardis {kind.name}", partial(_match, kind), partial(_read, kind))
        for kind in (_TRADES, _LIQUIDATIONS, _QUOTES, _TICKERS, _OPTIONS)
    ),
    Format("Tardis book_snapshot", _match_snapshot, _read_snapshot),
    Format("Tardis incremental_book_L2", _match_updates, read_updates),
)
