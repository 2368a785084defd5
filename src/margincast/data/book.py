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

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl

from margincast.core.errors import InputError, did_you_mean
from margincast.data.book_judgement import (
    FATE,
    SAME_TIME_AS_NEXT,
    SIDES,
    batches_of,
    count_batches,
    count_faults,
    faults_of,
    judged_rows,
)
from margincast.data.files import find_table_files, readable
from margincast.data.quality import Finding
from margincast.data.schemas import (
    TIMESTAMP,
    book_columns,
    with_canonical_names,
    with_utc_timestamp,
)

Along = Callable[[str, int], Callable[[pl.DataFrame], object]]
"""From a contract and its number of book levels to what takes its mended snapshots, in batches."""


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
    root: Path,
    entries: Sequence[str],
    symbols: Sequence[str],
    known_after: timedelta,
    along: Along | None = None,
) -> BookTable:
    """Read, count and mend the books of every contract, without loading them.

    Every snapshot is decoded to be judged. What is needed of all of them anyway can be computed
    ``along`` the way, while they are in memory, instead of in a second pass over the file.

    Args:
        root: folder that relative entries start at.
        entries: folders or Parquet files.
        symbols: contracts to keep; empty keeps all.
        known_after: time from a row's ``ts`` until the row can have been known, where the feed
            does not say when it was received (``received_at``).
        along: asked once a contract; what it returns is called with each batch of mended snapshots
            (``ts``, ``known_at``, levels), in time order, each snapshot once. None to only judge.

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
                file.scan(),
                file.symbol,
                source,
                None if along is None else _stamped(along, known_after),
            )
        known_at = _known_at(frame.collect_schema().names(), known_after)
        frames[file.symbol] = frame.with_columns(
            known_at.alias("known_at"), pl.lit(file.symbol).alias("symbol")
        )
        findings += more
    return BookTable(frames, levels, tuple(findings))


def _stamped(along: Along, known_after: timedelta) -> Along:
    """Add ``known_at`` to the batches of a contract, as :func:`read_books` adds it to its frame."""

    def of_contract(symbol: str, levels: int) -> Callable[[pl.DataFrame], object]:
        take = along(symbol, levels)
        latest: list[datetime] = []

        def stamp(batch: pl.DataFrame) -> None:
            if batch.is_empty():
                return
            known_at = _known_at(batch.columns, known_after)
            if latest:
                known_at = pl.max_horizontal(known_at, pl.lit(latest[0], TIMESTAMP))
            stamped = batch.with_columns(known_at.alias("known_at"))
            if "received_at" in batch.columns:
                latest[:] = [stamped["known_at"][-1]]
            take(stamped)

        return stamp

    return of_contract


def _known_at(names: Sequence[str], known_after: timedelta) -> pl.Expr:
    """When a row could have been known: when it was received, and never before its own time.

    A row overtaken by a later one counts as known with it, so that the times never run backwards.
    """
    ts = pl.col("ts")
    if "received_at" not in names:
        return ts + known_after
    received = pl.max_horizontal(ts, pl.col("received_at").cast(TIMESTAMP))
    stated = pl.when(pl.col("received_at").is_not_null()).then(received)
    return pl.coalesce(stated, ts + known_after).cum_max()


def mended_book(
    scanned: pl.LazyFrame, symbol: str, source: str, along: Along | None = None
) -> tuple[pl.LazyFrame, int, list[Finding]]:
    """Apply the rules of this module to one contract's book.

    Two streaming passes: one over the times, which decides whether the book must be sorted (the
    only step that holds the whole book in memory), and one that counts all faults. Where times are
    out of order or come again, ``along`` needs a pass of its own.

    Args:
        scanned: one contract's rows in file order, canonical names or known aliases.
        symbol: the contract, for the findings.
        source: where the rows come from, for messages.
        along: see :func:`read_books`; its batches have no ``known_at``.

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
            SAME_TIME_AS_NEXT.sum().alias("repeated"),
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
    faults = faults_of(levels, has_validity="is_valid" in frame.collect_schema())
    judged = judged_rows(frame, levels, faults, has_repeats=bool(late_count or repeated))
    read = [
        name
        for name in ("ts", "is_valid", "received_at", *book_columns(levels))
        if name in frame.collect_schema()
    ]
    take = along(symbol, levels) if along else None
    in_one_pass = not late_count and not repeated
    if in_one_pass:
        counts = count_batches(frame.select(read), faults, levels, take)
    else:
        counts = count_faults(judged, faults, levels)
    if not counts["kept"]:
        worst = max(faults, key=lambda what: int(counts[what]))
        raise InputError(
            f"{source}: none of the {rows} snapshot(s) is usable ({counts[worst]} are: {worst}); "
            "check the feed's columns, or leave this contract out with data.symbols"
        )
    if counts["kept"] < rows or counts["short"]:
        frame = judged.filter(pl.col(FATE) == len(faults)).drop(FATE)
    if take and not in_one_pass:
        for batch in batches_of(frame.select(read)):
            take(batch)
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
