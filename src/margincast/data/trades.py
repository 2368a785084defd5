"""Read trades: how much was traded, and which side pressed, before a margin was decided.

A trade is known when it was received (column ``received_at``), or at its own time where the feed
does not say; a reception before the trade itself is a clock's error and counts as the trade's time.
Values that cannot be (a price of zero, a side that is neither buy nor sell) are refused; a side may
be missing where a venue does not say it. An aggressor side that never varies says nothing, so
``side`` is null until both sides have been seen: every signed feature is "not known" rather than
wrong. That is judged on the trades so far, so that no later trade changes an earlier one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import polars as pl

from margincast.core.errors import InputError
from margincast.data.files import TableFile, find_table_files, readable
from margincast.data.quality import Finding
from margincast.data.reception import utc_time
from margincast.data.schemas import (
    TRADES,
    require_columns,
    with_canonical_names,
    with_utc_timestamp,
)

AGGRESSOR_SIDES = ("buy", "sell")

ALL_ON_ONE_SIDE = "all on one side so far: the aggressor is not known"

_PRICE, _SIZE = pl.col("price"), pl.col("size")
_RULES = {
    "ts": (pl.col("ts").is_null(), "a time"),
    "price": (
        ~(_PRICE.is_finite() & (_PRICE > 0)).fill_null(value=False),
        "a finite number above zero",
    ),
    "size": (
        ~(_SIZE.is_finite() & (_SIZE >= 0)).fill_null(value=False),
        "a finite number, zero or above",
    ),
    "side": (
        ~pl.col("side").is_in(AGGRESSOR_SIDES).fill_null(value=True),
        "buy or sell, or nothing where the venue does not say",
    ),
}
"""Per column: which rows are wrong, and what is allowed."""


@dataclass(frozen=True)
class TradeTable:
    """Trades of several contracts.

    Attributes:
        frames: per symbol, lazily, sorted by ``known_at``: ``ts``, ``known_at`` (both UTC),
            ``price`` (USD), ``size``, ``side`` (``buy``, ``sell``, or null where the feed's side
            means nothing), and the feed's further columns.
        findings: what was irregular.
    """

    frames: dict[str, pl.LazyFrame]
    findings: tuple[Finding, ...]


def read_trades(root: Path, entries: Sequence[str], symbols: Sequence[str]) -> TradeTable:
    """Read and check the trades of every contract, without loading them.

    Args:
        root: folder that relative entries start at.
        entries: folders or Parquet files.
        symbols: contracts to keep; empty keeps all.

    Raises:
        InputError: a file, column or value breaks a rule; says which, where and what to do.
    """
    files, findings = find_table_files(root, entries, symbols, "trades")
    frames = {}
    for file in files:
        with readable(str(file)):
            frames[file.symbol], more = checked_trades(file)
        findings += more
    return TradeTable(frames, tuple(findings))


def checked_trades(file: TableFile) -> tuple[pl.LazyFrame, list[Finding]]:
    """Check one contract's trades in one streaming pass.

    Returns:
        The frame as in :class:`TradeTable`, and what was found.

    Raises:
        InputError: see :func:`read_trades`.
    """
    source = str(file)
    scanned = with_canonical_names(file.scan())
    require_columns(scanned, TRADES, source)
    _require_numbers(scanned, source)
    frame = _with_known_at(with_utc_timestamp(scanned, source), source).with_columns(
        pl.col("price", "size").cast(pl.Float64),
        pl.col("side").cast(pl.String).str.to_lowercase(),
        pl.lit(file.symbol).alias("symbol"),
    )
    late = pl.col("known_at") < pl.col("known_at").cum_max()
    counts = (
        frame.with_row_index("row")
        .select(
            pl.len().alias("rows"),
            *(
                pl.when(pl.col("side") == side).then(pl.col("known_at")).min().alias(side)
                for side in AGGRESSOR_SIDES
            ),
            pl.col("side").null_count().alias("without side"),
            late.sum().alias("late"),
            pl.when(late).then(pl.col("ts")).min().alias("first late"),
            *(bad.sum().alias(f"bad {column}") for column, (bad, _) in _RULES.items()),
            *(
                pl.when(bad).then(pl.col("row")).min().alias(f"row of {column}")
                for column, (bad, _) in _RULES.items()
            ),
        )
        .collect(engine="streaming")
        .row(0, named=True)
    )
    if not counts["rows"]:
        raise InputError(f"{source}: the table has no rows")
    for column, (_, rule) in _RULES.items():
        if counts[f"bad {column}"]:
            row = counts[f"row of {column}"]
            wrong = scanned.slice(row, 1).select(pl.col(column).alias("value"), "ts").collect()
            value, time = wrong.row(0)
            raise InputError(
                f"{source}: column '{column}' holds {value!r} at row {row} ({time}); allowed is "
                f"{rule} ({counts[f'bad {column}']} such row(s)); repair or remove these rows"
            )
    if counts["late"]:
        frame = frame.sort("known_at", maintain_order=True)
    frame, untold = _told_by_both_sides(frame, [counts[side] for side in AGGRESSOR_SIDES])
    return frame, [
        Finding(
            "trades",
            file.symbol,
            "received after a trade received later",
            counts["late"],
            counts["rows"],
            "sorted by the time they were known",
            counts["first late"],
        ),
        Finding(
            "trades",
            file.symbol,
            "without an aggressor side",
            counts["without side"],
            counts["rows"],
            "kept; signed flow of their interval is not known",
        ),
        Finding(
            "trades",
            file.symbol,
            ALL_ON_ONE_SIDE,
            untold,
            counts["rows"],
            "side is null; signed flow is not known",
        ),
    ]


def _told_by_both_sides(
    frame: pl.LazyFrame, first_known: Sequence[datetime | None]
) -> tuple[pl.LazyFrame, int]:
    """Take the side off the trades before both sides had been seen, and count these trades."""
    both = [first for first in first_known if first is not None]
    if not both:
        return frame, 0
    told = pl.lit(value=False)
    if len(both) == len(AGGRESSOR_SIDES):
        told = pl.col("known_at") >= pl.lit(max(both))
    told = told & pl.col("side").is_not_null()
    lost = frame.select((~told & pl.col("side").is_not_null()).sum())
    return (
        frame.with_columns(pl.when(told).then(pl.col("side")).alias("side")),
        int(lost.collect(engine="streaming").item()),
    )


def _require_numbers(frame: pl.LazyFrame, source: str) -> None:
    schema = frame.collect_schema()
    for column in ("price", "size"):
        if not schema[column].is_numeric():
            raise InputError(
                f"{source}: column '{column}' is {schema[column]}, not a number; store it as one"
            )


def _with_known_at(frame: pl.LazyFrame, source: str) -> pl.LazyFrame:
    schema = frame.collect_schema()
    if "received_at" not in schema:
        return frame.with_columns(pl.col("ts").alias("known_at"))
    received = utc_time("received_at", schema["received_at"], source)
    return frame.with_columns(
        received.alias("received_at"), pl.max_horizontal("ts", received).alias("known_at")
    )
