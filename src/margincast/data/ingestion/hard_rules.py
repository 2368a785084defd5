"""What no row of market data can be: rules whose breach sends a row to the quarantine.

A negative price or a high below the low is no market event but a fault of the feed, and one such
row can set a margin. It is kept aside with its reason, never mended and never dropped unseen. What
markets do show, crossed and locked books among them, passes here and meets the rules of
:mod:`margincast.data.book` on reading.
"""

from datetime import UTC, datetime

import polars as pl

from margincast.data.schemas import SIDES_OF_TABLES, Schema

FIRST_TIME = datetime(2009, 1, 3, tzinfo=UTC)
"""The first Bitcoin block: nothing here was traded before."""
LAST_TIME = datetime(2100, 1, 1, tzinfo=UTC)

ABSURD = 1e15
"""No price, size or notional of one row reaches this in any unit: the smallest coins count total
supplies of about 1e15."""

REASON = "_reason"

_BOOK_TABLES = ("book", "quotes")
_LEVEL_PREFIXES = ("bid_price_", "bid_size_", "ask_price_", "ask_size_")


def with_reason(frame: pl.DataFrame, schema: Schema) -> pl.DataFrame:
    """Add the column :data:`REASON`: the first rule a row breaks, null where it breaks none.

    Args:
        frame: rows of a canonical table.
        schema: its schema.
    """
    reason: pl.Expr = pl.lit(None, dtype=pl.String)
    for text, broken in reversed(hard_rules(schema, frame.columns)):
        reason = pl.when(broken).then(pl.lit(text)).otherwise(reason)
    return frame.with_columns(reason.alias(REASON))


def breaches_any(frame: pl.DataFrame, schema: Schema) -> bool:
    """Say whether any row breaks a rule, which costs less than saying which and why."""
    rules = [broken.any() for _, broken in hard_rules(schema, frame.columns)]
    return bool(frame.select(pl.any_horizontal(rules)).item())


def hard_rules(schema: Schema, columns: list[str]) -> list[tuple[str, pl.Expr]]:
    """List the rules of a table for the columns that are there, in the order they are judged."""
    ts = pl.col("ts")
    rules = [("no time", ts.is_null()), ("no symbol", pl.col("symbol") == "")]
    rules.append(
        (
            f"time before {FIRST_TIME:%Y-%m-%d} or after {LAST_TIME:%Y-%m-%d}",
            (ts < FIRST_TIME) | (ts > LAST_TIME),
        )
    )
    rules += [
        (f"no {name}", _absent(name))
        for name in schema.required
        if name != "ts" and schema.table not in _BOOK_TABLES and not _may_be_null(schema, name)
    ]
    for name in columns:
        value = _number(name)
        if name in schema.positive:
            rules.append((f"{name} is not above zero", value <= 0))
        elif name in schema.non_negative:
            rules.append((f"{name} is negative", value < 0))
        elif name not in schema.finite:
            continue
        rules.append((f"{name} is not finite or absurdly large", _absurd(name)))
    if schema.table in _BOOK_TABLES:
        rules += _book_rules(columns)
    if {"open", "high", "low", "close"} <= set(columns):
        prices = ("open", "close", "low")
        rules.append(("high below open, close or low", pl.col("high") < pl.max_horizontal(prices)))
        rules.append(("low above open or close", pl.col("low") > pl.min_horizontal(prices[:2])))
    return [(text, broken.fill_null(value=False)) for text, broken in rules]


def _may_be_null(schema: Schema, name: str) -> bool:
    # a venue may not say who was the aggressor; a trade without a side is still a trade
    return name == "side" and schema.table in SIDES_OF_TABLES


def _absent(name: str) -> pl.Expr:
    return pl.col(name).is_null()


def _number(name: str) -> pl.Expr:
    # a column that holds nothing at all has no type of its own
    return pl.col(name).cast(pl.Float64)


def _absurd(name: str) -> pl.Expr:
    value = _number(name)
    return value.is_nan() | (value.abs() >= ABSURD)


def _book_rules(columns: list[str]) -> list[tuple[str, pl.Expr]]:
    """Levels may be missing (null, NaN or zero), but neither negative nor absurd."""
    levels = [name for name in columns if name.startswith(_LEVEL_PREFIXES)]
    return [
        (
            "a price or size of the book is negative",
            pl.min_horizontal(levels) < 0,
        ),
        (
            "a price or size of the book is infinite or absurdly large",
            pl.max_horizontal(pl.col(levels).cast(pl.Float64).fill_nan(None)) >= ABSURD,
        ),
    ]
