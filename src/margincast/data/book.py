"""Read order books and mend them: what closing a position would have met, snapshot by snapshot.

A row is known when it was received (column ``received_at``, never before its own time), or a stated
delay after its time where the feed does not say. Real feeds repeat, lose and disorder snapshots.
Each rule is applied in this order, a row meets the first that concerns it, and each is counted; a
book without faults passes through untouched.

=====================================================  ==========================================
found                                                  what happens
=====================================================  ==========================================
row after a row known later                            sorted by the time it was known
row older than one known before it                     dropped: a newer state was known
row equal to the next, of one time and known together  dropped
several rows of one time known together, not equal     the last in the file is kept
``is_valid`` not true, where the column exists         dropped
best price or size missing, not finite or not above 0  dropped (an empty side)
deeper level better than the one before it             dropped (not best first)
crossed: best bid above best ask                       dropped
locked: best bid equal to best ask                     kept: the mid is well defined, spread is 0
deeper price or size missing, not finite, not above 0  kept; that level is null (nothing there)
=====================================================  ==========================================

No rule lets a row known later change what was known before: a late snapshot waits for itself alone,
and of several of one time each counts from its own arrival.

A snapshot equal to the one before it at a later time is kept: a quiet book looks like that, and a
feed that hangs shows in ``margincast data check`` as a frozen book. A hole in the sequence of a
feed of updates leaves no row at all: from there to the next full snapshot the book is not known
(:mod:`margincast.data.book_builder`), and what needs it has no value.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl

from margincast.core.errors import InputError, did_you_mean
from margincast.data.book_judgement import (
    FATE,
    SIDES,
    count_batches,
    count_faults,
    faults_of,
    in_order_of_knowledge,
    judged_rows,
)
from margincast.data.files import find_table_files, readable
from margincast.data.quality import Finding
from margincast.data.reception import utc_time
from margincast.data.schemas import (
    book_columns,
    with_canonical_names,
    with_utc_timestamp,
)


@dataclass(frozen=True)
class BookTable:
    """Order books of several contracts.

    Attributes:
        frames: per symbol, lazily, in the order in which rows were known: ``ts``, ``known_at``
            (UTC; when the row could have been known), which never fall, and of which no two rows
            have both the same; the columns of
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
            frame, levels[file.symbol], more = mended_book(
                file.scan(), file.symbol, source, known_after
            )
        frames[file.symbol] = frame.with_columns(pl.lit(file.symbol).alias("symbol"))
        findings += more
    return BookTable(frames, levels, tuple(findings))


def mended_book(
    scanned: pl.LazyFrame, symbol: str, source: str, known_after: timedelta
) -> tuple[pl.LazyFrame, int, list[Finding]]:
    """Apply the rules of this module to one contract's book.

    Two streaming passes: one over the times, which decides whether the book must be sorted (the
    only step that holds the whole book in memory), and one that counts all faults.

    Args:
        scanned: one contract's rows in file order, canonical names or known aliases.
        symbol: the contract, for the findings.
        source: where the rows come from, for messages.
        known_after: see :func:`read_books`.

    Returns:
        The mended frame with ``known_at``, its number of book levels, and one finding a rule, zero
        counts included.

    Raises:
        InputError: see :func:`read_books`.
    """
    frame = with_canonical_names(scanned)
    levels = _book_levels(frame, source)
    frame = with_utc_timestamp(frame, source)
    known_at = _known_at(frame.collect_schema(), source, known_after)
    frame = frame.with_columns(
        pl.col(book_columns(levels)).cast(pl.Float64), known_at.alias("known_at")
    )
    frame, rows, has_repeats, findings = in_order_of_knowledge(frame, symbol, source)
    faults = faults_of(levels, has_validity="is_valid" in frame.collect_schema())
    judged = judged_rows(frame, levels, faults, has_repeats=has_repeats)
    if has_repeats:
        counts = count_faults(judged, faults, levels)
    else:
        counts = count_batches(frame, faults, levels)
    if not counts["kept"]:
        worst = max(faults, key=lambda what: int(counts[what]))
        raise InputError(
            f"{source}: none of the {rows} snapshot(s) is usable ({counts[worst]} are: {worst}); "
            "check the feed's columns, or leave this contract out with data.symbols"
        )
    if counts["short"] or any(counts[what] for what in faults):
        frame = judged.filter(pl.col(FATE) == len(faults)).drop(FATE)
    actions = {
        what: "the last in the file is kept" if "not equal" in what else "dropped"
        for what in faults
    } | {
        "locked": "kept: the mid is well defined, the spread is 0",
        "short": "kept: these levels are null",
    }
    names = {"locked": "locked (best bid = best ask)", "short": "deeper levels missing"}
    return (
        frame,
        levels,
        [
            *findings,
            *(
                Finding(
                    "book",
                    symbol,
                    names.get(what, what),
                    counts[what],
                    rows,
                    action,
                    counts[f"first {what}"],
                )
                for what, action in actions.items()
            ),
        ],
    )


def _known_at(schema: pl.Schema, source: str, known_after: timedelta) -> pl.Expr:
    """When a row could have been known: when it was received, and never before its own time."""
    ts = pl.col("ts")
    if "received_at" not in schema:
        return ts + known_after
    received = utc_time("received_at", schema["received_at"], source)
    stated = pl.when(received.is_not_null()).then(pl.max_horizontal(ts, received))
    return pl.coalesce(stated, ts + known_after)


def _book_levels(frame: pl.LazyFrame, source: str) -> int:
    """Count the book levels, and check that their columns are complete and numeric."""
    schema = frame.collect_schema()
    found = [name for name in schema if name.startswith(tuple(f"{side}_" for side in SIDES))]
    numbers = [
        int(suffix)
        for side in SIDES
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


def latest_snapshots(books: BookTable, at: datetime) -> dict[str, pl.DataFrame]:
    """Return each contract's last snapshot known at a time, one row; none where there is none."""
    found = {}
    for symbol, frame in books.frames.items():
        last = frame.filter(pl.col("known_at") <= at).last().collect()
        if len(last):
            found[symbol] = last
    return found


def recent_snapshots(
    books: BookTable, at: datetime, window: timedelta, every: timedelta
) -> dict[str, pl.DataFrame]:
    """Return each contract's snapshots of a window, the last known in every period.

    Args:
        books: order books.
        at: end of the window; nothing that was known later is read.
        window: its length.
        every: length of a period; periods are counted from the start of 1970.

    Returns:
        Per symbol, in the order in which they were known; contracts without any are left out.
    """
    found = {}
    for symbol, frame in books.frames.items():
        some = (
            frame.filter(pl.col("known_at").is_between(at - window, at, closed="right"))
            .group_by(pl.col("known_at").dt.truncate(every).alias("period"), maintain_order=True)
            .last()
            .collect(engine="streaming")
        )
        if len(some):
            found[symbol] = some
    return found
