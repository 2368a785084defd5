"""Read order books and mend them: what closing a position would have met, snapshot by snapshot.

Real feeds repeat, lose and disorder snapshots. Each rule is applied in this order, a row meets the
first that concerns it, and each is counted; a book without faults passes through untouched.

=====================================================  ==========================================
found                                                  what happens
=====================================================  ==========================================
row after a row of a later time                        sorted by time
row equal to the next of the same time                 dropped
several rows of one time, not equal                    the last in the file is kept
``is_valid`` not true, where the column exists         dropped
best price or size missing, not finite or not above 0  dropped (an empty side)
deeper level better than the one before it             dropped (not best first)
crossed: best bid above best ask                       dropped
locked: best bid equal to best ask                     kept: the mid is well defined, spread is 0
deeper price or size missing, not finite, not above 0  kept; that level is null (nothing there)
=====================================================  ==========================================

A snapshot equal to the one before it at a later time is kept: a quiet book looks like that, and a
feed that hangs shows in ``margincast data check`` as a frozen book. A hole in the sequence of a
feed of updates leaves no row at all: from there to the next full snapshot the book is not known
(:mod:`margincast.data.book_builder`), and what needs it has no value.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from margincast.core.errors import InputError, did_you_mean
from margincast.data.files import find_table_files, readable
from margincast.data.quality import Finding
from margincast.data.schemas import (
    TIMESTAMP,
    book_columns,
    with_canonical_names,
    with_utc_timestamp,
)

_SAME_TIME_AS_NEXT = pl.col("ts").eq_missing(pl.col("ts").shift(-1))
_NEVER = pl.lit(value=False)
_SIDES = ("bid", "ask")
_SAME_TIME, _EQUAL, _FATE = "_same_time", "_equal", "_fate"


@dataclass(frozen=True)
class BookTable:
    """Order books of several contracts.

    Attributes:
        frames: per symbol, lazily, strictly increasing in ``ts``: ``ts``, ``known_at`` (UTC; when
            the row could have been known), the columns of
            :func:`margincast.data.schemas.book_columns` (float64, prices and sizes above zero or
            both null) and the feed's further columns.
        levels: per symbol, the number of book levels on each side.
        findings: what was irregular.
    """

    frames: dict[str, pl.LazyFrame]
    levels: dict[str, int]
    findings: tuple[Finding, ...]


def read_books(
    root: Path, entries: Sequence[str], symbols: Sequence[str], known_after: timedelta
) -> BookTable:
    """Read, count and mend the books of every contract, without loading them.

    Args:
        root: folder that relative entries start at.
        entries: folders or Parquet files.
        symbols: contracts to keep; empty keeps all.
        known_after: time from a row's ``ts`` until the row can have been known, where the feed
            does not say when it was received (``received_at``).

    Raises:
        InputError: a file or column breaks a rule, or no snapshot is usable; says which, where
            and what to do.
    """
    if known_after < timedelta(0):
        raise InputError(
            f"data.book_known_after must not be negative, found {known_after}: a book cannot be "
            "known before it was there"
        )
    files, findings = find_table_files(root, entries, symbols, "book")
    frames, levels = {}, {}
    for file in files:
        source = str(file)
        with readable(source):
            frame, levels[file.symbol], more = mended_book(file.scan(), file.symbol, source)
        frames[file.symbol] = frame.with_columns(
            _known_at(frame, known_after).alias("known_at"), pl.lit(file.symbol).alias("symbol")
        )
        findings += more
    return BookTable(frames, levels, tuple(findings))


def _known_at(frame: pl.LazyFrame, known_after: timedelta) -> pl.Expr:
    """When a row could have been known: when it was received, and never before its own time.

    A row overtaken by a later one counts as known with it, so that the times never run backwards.
    """
    ts = pl.col("ts")
    if "received_at" not in frame.collect_schema():
        return ts + known_after
    received = pl.max_horizontal(ts, pl.col("received_at").cast(TIMESTAMP))
    stated = pl.when(pl.col("received_at").is_not_null()).then(received)
    return pl.coalesce(stated, ts + known_after).cum_max()


def mended_book(
    scanned: pl.LazyFrame, symbol: str, source: str
) -> tuple[pl.LazyFrame, int, list[Finding]]:
    """Apply the rules of this module to one contract's book.

    Two streaming passes: one over the times, which decides whether the book must be sorted (the
    only step that holds the whole book in memory), and one that counts all faults.

    Args:
        scanned: one contract's rows in file order, canonical names or known aliases.
        symbol: the contract, for the findings.
        source: where the rows come from, for messages.

    Returns:
        The mended frame, its number of book levels, and one finding a rule, zero counts included.

    Raises:
        InputError: see :func:`read_books`.
    """
    frame = with_canonical_names(scanned)
    levels = _book_levels(frame, source)
    frame = with_utc_timestamp(frame, source).with_columns(
        pl.col(book_columns(levels)).cast(pl.Float64)
    )
    late = pl.col("ts") < pl.col("ts").cum_max()
    rows, unknown, late_count, repeated, first_late = (
        frame.select(
            pl.len(),
            pl.col("ts").null_count().alias("unknown"),
            late.sum().alias("late"),
            _SAME_TIME_AS_NEXT.sum().alias("repeated"),
            pl.when(late).then(pl.col("ts")).min().alias("first_late"),
        )
        .collect(engine="streaming")
        .row(0)
    )
    if not rows:
        raise InputError(f"{source}: the table has no rows")
    if unknown:
        raise InputError(
            f"{source}: column 'ts' holds no time in {unknown} of {rows} row(s); "
            "repair or remove these rows"
        )
    if late_count:
        frame = frame.sort("ts", maintain_order=True)
    faults = _faults(levels, has_validity="is_valid" in frame.collect_schema())
    judged = _judged(frame, levels, faults, has_repeats=bool(late_count or repeated))
    counts = _count(judged, faults, levels)
    if not counts["kept"]:
        worst = max(faults, key=lambda what: int(counts[what]))
        raise InputError(
            f"{source}: none of the {rows} snapshot(s) is usable ({counts[worst]} are: {worst}); "
            "check the feed's columns, or leave this contract out with data.symbols"
        )
    if counts["kept"] < rows or counts["short"]:
        frame = judged.filter(pl.col(_FATE) == len(faults)).drop(_FATE)
    return (
        frame,
        levels,
        [
            Finding(
                "book", symbol, "out-of-order rows", late_count, rows, "sorted by time", first_late
            ),
            *(
                Finding(
                    "book",
                    symbol,
                    what,
                    counts[what],
                    rows,
                    "the last in the file is kept" if "not equal" in what else "dropped",
                    counts[f"first {what}"],
                )
                for what in faults
            ),
            Finding(
                "book",
                symbol,
                "locked (best bid = best ask)",
                counts["locked"],
                rows,
                "kept: the mid is well defined, the spread is 0",
                counts["first locked"],
            ),
            Finding(
                "book",
                symbol,
                "deeper levels missing",
                counts["short"],
                rows,
                "kept: these levels are null",
                counts["first short"],
            ),
        ],
    )


def _book_levels(frame: pl.LazyFrame, source: str) -> int:
    """Count the book levels, and check that their columns are complete and numeric."""
    schema = frame.collect_schema()
    found = [name for name in schema if name.startswith(tuple(f"{side}_" for side in _SIDES))]
    numbers = [
        int(suffix)
        for side in _SIDES
        for name in found
        if (suffix := name.removeprefix(f"{side}_price_")).isdecimal()
    ]
    levels = max(numbers, default=0) + 1
    missing = [name for name in ("ts", *book_columns(levels)) if name not in schema]
    if missing:
        hints = ", ".join(f"'{name}'{did_you_mean(name, schema)}" for name in missing[:4])
        raise InputError(
            f"{source}: a book table needs ts and, from level 0 (the best) on without a hole, "
            f"bid_price_0, bid_size_0, ask_price_0, ask_size_0 and so on; missing {hints}; "
            f"found {', '.join(list(schema)[:8])}{', ...' if len(schema) > 8 else ''}"
        )
    for name in book_columns(levels):
        if not schema[name].is_numeric():
            raise InputError(
                f"{source}: column '{name}' is {schema[name]}, not a number; store it as one"
            )
    if schema.get("is_valid", pl.Boolean) != pl.Boolean:
        raise InputError(
            f"{source}: column 'is_valid' is {schema['is_valid']}, not true or false; store it as "
            "a boolean"
        )
    return levels


def _faults(levels: int, *, has_validity: bool) -> dict[str, pl.Expr]:
    """For each kind of fault, in order of precedence, the expression that finds it."""
    best_known = pl.col("bid_price_0").is_not_null() & pl.col("ask_price_0").is_not_null()
    better_than_before = [
        worse
        for level in range(1, levels)
        for worse in (
            pl.col(f"bid_price_{level}") > pl.col(f"bid_price_{level - 1}"),
            pl.col(f"ask_price_{level}") < pl.col(f"ask_price_{level - 1}"),
        )
    ]
    return {
        "equal to the next row of the same time": pl.col(_SAME_TIME) & pl.col(_EQUAL),
        "several rows of the same time, not equal": pl.col(_SAME_TIME),
        "is_valid not true": ~pl.col("is_valid").fill_null(value=False) if has_validity else _NEVER,
        "empty side (best price or size missing or not above 0)": ~best_known,
        "levels not best first": pl.any_horizontal(_NEVER, *better_than_before),
        "crossed (best bid > best ask)": pl.col("bid_price_0") > pl.col("ask_price_0"),
    }


def _judged(
    frame: pl.LazyFrame, levels: int, faults: dict[str, pl.Expr], *, has_repeats: bool
) -> pl.LazyFrame:
    """Null the levels that hold nothing and say which fault each row has, if any."""
    names = frame.collect_schema()
    compared = [name for name in (*book_columns(levels), "is_valid") if name in names]
    equal = pl.all_horizontal(pl.col(name).eq_missing(pl.col(name).shift(-1)) for name in compared)
    marked = frame.with_columns(
        (_SAME_TIME_AS_NEXT if has_repeats else _NEVER).alias(_SAME_TIME),
        (equal if has_repeats else _NEVER).alias(_EQUAL),
    )
    fate = pl.coalesce(
        *(pl.when(fault).then(pl.lit(place)) for place, fault in enumerate(faults.values())),
        pl.lit(len(faults)),
    )
    return (
        marked.with_columns(
            pl.when(_holds_something(side, level))
            .then(pl.col(f"{side}_{what}_{level}"))
            .alias(f"{side}_{what}_{level}")
            for side in _SIDES
            for level in range(levels)
            for what in ("price", "size")
        )
        .with_columns(fate.alias(_FATE))
        .drop(_SAME_TIME, _EQUAL)
    )


def _holds_something(side: str, level: int) -> pl.Expr:
    price, size = pl.col(f"{side}_price_{level}"), pl.col(f"{side}_size_{level}")
    return price.is_finite() & (price > 0) & size.is_finite() & (size > 0)


def _count(judged: pl.LazyFrame, faults: dict[str, pl.Expr], levels: int) -> dict[str, Any]:
    """Count each fault, and what is irregular among the rows kept; with the first time of each."""
    kept = pl.col(_FATE) == len(faults)
    missing = [
        pl.col(f"{side}_price_{level}").is_null() for side in _SIDES for level in range(levels)
    ]
    concerned = {what: pl.col(_FATE) == place for place, what in enumerate(faults)} | {
        "kept": kept,
        "locked": kept & (pl.col("bid_price_0") == pl.col("ask_price_0")),
        "short": kept & pl.any_horizontal(missing),
    }
    return (
        judged.select(
            *(rows.sum().alias(what) for what, rows in concerned.items()),
            *(
                pl.when(rows).then(pl.col("ts")).min().alias(f"first {what}")
                for what, rows in concerned.items()
            ),
        )
        .collect(engine="streaming")
        .row(0, named=True)
    )


def latest_snapshots(books: BookTable, at: datetime) -> dict[str, pl.DataFrame]:
    """Return each contract's last snapshot known at a time, one row; none where there is none."""
    found = {}
    for symbol, frame in books.frames.items():
        last = frame.filter(pl.col("known_at") <= at).last().collect()
        if len(last):
            found[symbol] = last
    return found
