"""The canonical tables as code: which columns, of which type, allowed to hold what.

A wrong price becomes a wrong margin, so every table passes here before anything is computed from
it. A check names the table, the column, the first offending row, what was found and what is
allowed.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

import polars as pl

from margincast.core.errors import InputError, did_you_mean
from margincast.core.time import format_duration, parse_duration

TIMESTAMP = pl.Datetime("us", "UTC")

ALIASES = {
    "timestamp": "ts",
    "open_time": "ts",
    "time": "ts",
    "date": "ts",
    "quantity": "size",
    "amount": "size",
    "qty": "size",
}
"""Column names venues use for a canonical one; taken only where the canonical one is absent."""

BOOK_ALIASES = {"bid_qty_": "bid_size_", "ask_qty_": "ask_size_"}
"""Prefixes of per-level columns that mean a canonical one."""


Span = Literal["day", "month", "year"]


@dataclass(frozen=True)
class Schema:
    """A canonical table: its columns and the hard rules of their values.

    Attributes:
        table: name of the table.
        required: columns that must be there, and hold a value in every row.
        positive: columns whose values must be finite and above zero, where there is one.
        non_negative: columns whose values must be finite and not below zero, where there is one.
        finite: columns whose values must be finite, where there is one.
        key: columns that tell rows of one contract apart, besides ``ts``.
        events: whether a row is an event, of which several equal ones may happen at one time (a
            trade); otherwise a row is a state.
        repeats: whether a state may change within one time stamp (a book); otherwise a contract
            has one row a time and key.
        span: the period that one partition of the store holds.
        covers_interval: whether a row covers an interval that opens at ``ts``; the interval is
            then part of the stored table's name (``bars_1h``).
    """

    table: str
    required: tuple[str, ...]
    positive: tuple[str, ...] = ()
    non_negative: tuple[str, ...] = ()
    finite: tuple[str, ...] = ()
    key: tuple[str, ...] = ()
    events: bool = False
    repeats: bool = False
    span: Span = "day"
    covers_interval: bool = False


_OHLC = ("open", "high", "low", "close")
_BEST = ("bid_price_0", "bid_size_0", "ask_price_0", "ask_size_0")

BARS = Schema(
    "bars",
    required=("ts", *_OHLC, "volume"),
    positive=_OHLC,
    non_negative=(
        "volume",
        "quote_volume",
        "trade_count",
        "taker_buy_volume",
        "taker_buy_quote_volume",
    ),
    span="month",
    covers_interval=True,
)
TRADES = Schema(
    "trades",
    required=("ts", "price", "size", "side"),
    positive=("price",),
    non_negative=("size",),
    events=True,
)
FUNDING = Schema("funding", required=("ts", "funding_rate"), finite=("funding_rate",), span="year")

SCHEMAS = {
    schema.table: schema
    for schema in (
        BARS,
        Schema("mark_bars", ("ts", *_OHLC), _OHLC, span="month", covers_interval=True),
        Schema("index_bars", ("ts", *_OHLC), _OHLC, span="month", covers_interval=True),
        # a premium over the index is a fraction of either sign
        Schema("premium_bars", ("ts", *_OHLC), finite=_OHLC, span="month", covers_interval=True),
        # levels are checked by the rules of the book, see margincast.data.ingestion.hard_rules
        Schema("book", ("ts", *_BEST), repeats=True),
        Schema("quotes", ("ts", *_BEST), repeats=True),
        # depth within a percentage of the mid; the sign of the percentage is the side
        Schema(
            "depth_bands",
            ("ts", "percentage", "depth", "notional"),
            non_negative=("depth", "notional"),
            finite=("percentage",),
            key=("percentage",),
            span="month",
        ),
        TRADES,
        # several trades of one order, price and side as one: never to be added to the trades
        Schema(
            "aggregate_trades",
            ("ts", "price", "size", "side"),
            positive=("price",),
            non_negative=("size",),
            events=True,
        ),
        FUNDING,
        Schema(
            "open_interest",
            ("ts", "open_interest"),
            non_negative=("open_interest", "open_interest_usd"),
            span="month",
        ),
        # open interest as bars of its value in USD
        Schema(
            "open_interest_bars",
            ("ts", *_OHLC),
            non_negative=_OHLC,
            span="year",
            covers_interval=True,
        ),
        # side is that of the liquidation order: a sell closes a long position
        Schema(
            "liquidations",
            ("ts", "price", "size", "side"),
            positive=("price",),
            non_negative=("size",),
            events=True,
            span="month",
        ),
        # liquidated notional of long and of short positions, USD
        Schema(
            "liquidation_totals",
            ("ts", "long_usd", "short_usd"),
            non_negative=("long_usd", "short_usd"),
            span="year",
            covers_interval=True,
        ),
        # an index of implied volatility, in percent a year as its publisher gives it
        Schema("implied_vol", ("ts", *_OHLC), _OHLC, span="year", covers_interval=True),
        # symbol is the underlying; volatilities are fractions a year
        Schema(
            "options",
            ("ts", "instrument", "option_type", "strike", "expiry"),
            positive=("strike", "underlying_price", "index_price"),
            non_negative=(
                "bid_price",
                "ask_price",
                "mark_price",
                "implied_volatility",
                "open_interest",
            ),
            finite=("delta",),
            key=("instrument",),
        ),
        # what a venue's ticker of a contract says: each field null where it did not
        Schema(
            "derivative_ticker",
            ("ts",),
            positive=("last_price", "index_price", "mark_price"),
            non_negative=("open_interest",),
            finite=("funding_rate", "predicted_funding_rate"),
            repeats=True,
        ),
    )
}
"""Every canonical table by name."""

SIDES_OF_TABLES = ("trades", "aggregate_trades", "liquidations")
"""Tables whose ``side`` is ``buy`` or ``sell``."""


def stored_name(table: str, interval: timedelta | None = None) -> str:
    """Return the name under which a table is stored: ``bars`` of an hour are ``bars_1h``."""
    return table if interval is None else f"{table}_{format_duration(interval)}"


def schema_of(stored: str) -> Schema:
    """Return the schema of a stored table's name.

    Raises:
        InputError: there is no such table; names the nearest.
    """
    name, _, interval = stored.rpartition("_")
    if name in SCHEMAS and SCHEMAS[name].covers_interval and _is_duration(interval):
        return SCHEMAS[name]
    if stored in SCHEMAS and not SCHEMAS[stored].covers_interval:
        return SCHEMAS[stored]
    raise InputError(
        f"there is no table '{stored}'{did_you_mean(stored, SCHEMAS)}; tables are "
        f"{', '.join(SCHEMAS)}, those of bars with their interval, as in bars_1h"
    )


def _is_duration(text: str) -> bool:
    try:
        parse_duration(text)
    except ValueError:
        return False
    return True


def book_columns(levels: int) -> list[str]:
    """Names of the price and size columns of a book with ``levels`` levels, best first."""
    return [
        f"{side}_{what}_{level}"
        for level in range(levels)
        for side in ("bid", "ask")
        for what in ("price", "size")
    ]


def with_canonical_names(frame: pl.LazyFrame) -> pl.LazyFrame:
    """Rename known aliases; extra columns are kept, and a canonical name is never overwritten.

    Of several aliases of one name the first of :data:`ALIASES` is taken: a ``timestamp`` says more
    than a ``date``.
    """
    names = frame.collect_schema().names()
    renames: dict[str, str] = {}
    for alias, target in ALIASES.items():
        if alias in names and target not in names and target not in renames.values():
            renames[alias] = target
    for name in names:
        for prefix, canonical in BOOK_ALIASES.items():
            target = canonical + name.removeprefix(prefix)
            if name.startswith(prefix) and target not in names:
                renames[name] = target
    return frame.rename(renames)


def require_columns(frame: pl.LazyFrame, schema: Schema, source: str) -> None:
    """Check that all required columns are there.

    Raises:
        InputError: names each missing column and the nearest name that is present.
    """
    names = frame.collect_schema().names()
    missing = [column for column in schema.required if column not in names]
    if missing:
        hints = ", ".join(f"'{column}'{did_you_mean(column, names)}" for column in missing)
        raise InputError(
            f"{source}: table {schema.table} needs the column(s) {hints}; found {', '.join(names)}"
        )


def with_utc_timestamp(frame: pl.LazyFrame, source: str) -> pl.LazyFrame:
    """Give ``ts`` the canonical type: UTC, microseconds.

    Raises:
        InputError: ``ts`` is a number or text, whose unit or zone would have to be guessed.
    """
    dtype = frame.collect_schema()["ts"]
    if not isinstance(dtype, pl.Datetime):
        raise InputError(
            f"{source}: column 'ts' is {dtype}, not a timestamp; store it as a datetime in UTC"
        )
    if dtype.time_zone is None:
        return frame.with_columns(pl.col("ts").dt.replace_time_zone("UTC").cast(TIMESTAMP))
    return frame.with_columns(pl.col("ts").dt.convert_time_zone("UTC").cast(TIMESTAMP))


def check_values(frame: pl.DataFrame, schema: Schema, source: str) -> None:
    """Check numbers: finite, positive or non-negative where the table demands it.

    A required column holds a value in every row; one that may be absent may also be null, and
    holds nothing else that breaks its rule.

    Raises:
        InputError: names column, first offending row and time, value, count and the rule.
    """
    ruled = (*schema.positive, *schema.non_negative, *schema.finite)
    optional = [name for name in ruled if name in frame.columns and name not in schema.required]
    for column in (*schema.required, *optional):
        if column == "ts":
            _fail_first(frame, frame["ts"].is_null(), "ts", source, "a time")
            continue
        dtype = frame[column].dtype
        # a column that holds nothing at all has no type of its own
        if not dtype.is_numeric() and not (column in optional and dtype == pl.Null):
            if column == "side":
                continue
            raise InputError(f"{source}: column '{column}' is {dtype}, not a number")
        values = frame[column].cast(pl.Float64)
        bad, rule = ~values.is_finite(), "a finite number"
        if column in schema.positive:
            bad, rule = bad | (values <= 0), "a finite number above zero"
        elif column in schema.non_negative:
            bad, rule = bad | (values < 0), "a finite number, zero or above"
        if column in optional:
            bad, rule = bad.fill_null(value=False), f"{rule}, or nothing"
        _fail_first(frame, bad, column, source, rule)


def check_bar_consistency(frame: pl.DataFrame, source: str) -> None:
    """Check that high and low enclose open and close.

    Raises:
        InputError: names the first bar where they do not.
    """
    outside = (
        frame["high"] < frame.select(pl.max_horizontal("open", "close", "low")).to_series()
    ) | (frame["low"] > frame.select(pl.min_horizontal("open", "close", "high")).to_series())
    _fail_first(frame, outside, "high", source, "high >= open, close, low and low <= open, close")


def check_sorted_unique(frame: pl.DataFrame, source: str) -> None:
    """Check that ``ts`` strictly increases.

    Raises:
        InputError: says whether times repeat or run backwards, how often, and where first.
    """
    step = frame["ts"].diff().dt.total_microseconds()
    backwards, repeated = step < 0, step == 0
    raise_if(frame, backwards, source, "runs backwards", "sort the table by ts")
    raise_if(frame, repeated, source, "repeats", "keep one row per time")


def raise_if(frame: pl.DataFrame, bad: pl.Series, source: str, what: str, advice: str) -> None:
    """Raise for the first row flagged in ``bad``, naming the row and its time."""
    count = int(bad.fill_null(value=False).sum())
    if count:
        row = int(bad.fill_null(value=False).arg_max() or 0)
        raise InputError(
            f"{source}: 'ts' {what} in {count} row(s), first at row {row} ({frame['ts'][row]}); "
            f"{advice}"
        )


def _fail_first(frame: pl.DataFrame, bad: pl.Series, column: str, source: str, rule: str) -> None:
    count = int(bad.fill_null(value=True).sum())
    if count:
        row = int(bad.fill_null(value=True).arg_max() or 0)
        raise InputError(
            f"{source}: column '{column}' holds {frame[column][row]} at row {row} "
            f"({frame['ts'][row]}); allowed is {rule} ({count} such row(s)); "
            "repair or remove these rows"
        )
