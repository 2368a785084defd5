"""Read option chains: what option markets said of moves to come before a margin was decided.

A chain holds one row an instrument and snapshot, under the canonical names of the ``options``
table; the symbol is the underlying. A row is known when it was received (column ``received_at``),
or at its own time where the feed does not say; a reception before the row's time is a clock's error
and counts as that time. Values that cannot be are refused; a value may be missing where the venue
had none (an option without a bid).
"""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from margincast.core.errors import InputError
from margincast.data.files import TableFile, find_table_files, readable
from margincast.data.quality import Finding
from margincast.data.reception import not_received, utc_time
from margincast.data.schemas import (
    SCHEMAS,
    require_columns,
    with_canonical_names,
    with_utc_timestamp,
)
from margincast.data.states import StateTable

OPTION_TYPES = ("call", "put")

LARGEST_MEDIAN_VOLATILITY = 5.0
"""500 % a year: no chain's median option is above it, and in percent every chain's is."""

_SCHEMA = SCHEMAS["options"]
_NUMBERS = (
    "strike",
    "underlying_price",
    "implied_volatility",
    "bid_price",
    "ask_price",
    "mark_price",
    "open_interest",
    "delta",
)
_TEXTS = ("instrument", "option_type")
_INGEST = "bring a venue's own files into a store with 'margincast data ingest'"


def read_option_chains(root: Path, entries: Sequence[str]) -> StateTable:
    """Read and check the option chains of every underlying.

    Args:
        root: folder that relative entries start at.
        entries: folders or Parquet files, or folders of a store such as
            ``table=options/venue=deribit``.

    Returns:
        Frames per underlying, sorted by ``known_at``, ``ts``, ``expiry``, ``strike`` and
        ``option_type``: ``known_at``, ``ts`` and ``expiry`` (UTC), ``instrument``, ``option_type``
        (``call`` or ``put``), ``strike`` and ``underlying_price`` (forward of the expiry, in the
        strike's currency), ``implied_volatility`` (fraction a year) and, where the files have them,
        ``bid_price``, ``ask_price``, ``mark_price``, ``open_interest`` and ``delta``.

    Raises:
        InputError: a file, column or value breaks a rule; says which, where and what to do.
    """
    files, findings = find_table_files(root, entries, [], "options")
    frames = {}
    for file in files:
        with readable(str(file)):
            frames[file.symbol], more = checked_chain(file)
        findings += more
    return StateTable(frames, tuple(findings))


def checked_chain(file: TableFile) -> tuple[pl.DataFrame, list[Finding]]:
    """Check one underlying's chain.

    Returns:
        The frame as of :func:`read_option_chains`, and what was found.

    Raises:
        InputError: see :func:`read_option_chains`.
    """
    source = str(file)
    scanned = with_canonical_names(file.scan())
    try:
        require_columns(scanned, _SCHEMA, source)
    except InputError as error:
        raise InputError(f"{error}; {_INGEST}") from None
    schema = scanned.collect_schema()
    absent = [name for name in ("underlying_price", "implied_volatility") if name not in schema]
    if absent:
        raise InputError(
            f"{source}: no column {', '.join(absent)}; an option chain's smile is made of the "
            f"forward of each expiry and of implied volatilities (fractions a year); {_INGEST}"
        )
    numbers = [name for name in _NUMBERS if name in schema]
    for column in numbers:
        if not schema[column].is_numeric():
            raise InputError(
                f"{source}: column '{column}' is {schema[column]}, not a number; store it as one"
            )
    times = [name for name in ("expiry", "received_at") if name in schema]
    stamped = with_utc_timestamp(scanned, source).with_columns(
        utc_time(name, schema[name], source) for name in times
    )
    frame = stamped.select(
        "ts",
        *times,
        pl.col("instrument").cast(pl.String),
        pl.col("option_type").cast(pl.String).str.to_lowercase(),
        pl.col(numbers).cast(pl.Float64),
    ).collect()
    if frame.is_empty():
        raise InputError(f"{source}: the table has no rows")
    _check_values(frame, numbers, source)
    arrives = "received_at" in times
    received = [pl.col("received_at")] if arrives else []
    silent = [not_received(frame, "options", file.symbol)] if arrives else []
    frame = frame.select(
        pl.max_horizontal("ts", *received).alias("known_at"),
        "ts",
        "instrument",
        "option_type",
        "strike",
        "expiry",
        pl.col([name for name in numbers if name != "strike"]),
    )
    late = frame["known_at"] < frame["known_at"].cum_max()
    expired = frame["expiry"] <= frame["ts"]
    ordered = frame.sort(
        "known_at", "ts", "expiry", "strike", "option_type", "instrument", maintain_order=True
    )
    return ordered, [
        *silent,
        _finding(file, frame, late, "received after a row received later", "sorted by known_at"),
        _finding(file, frame, expired, "listed at or after its expiry", "kept; in no smile"),
        _finding(
            file,
            frame,
            frame["implied_volatility"].is_null(),
            "without an implied volatility",
            "kept; in no smile",
        ),
    ]


def _check_values(frame: pl.DataFrame, numbers: Sequence[str], source: str) -> None:
    for column in ("ts", "expiry"):
        _refuse(frame, frame[column].is_null(), column, source, "a time")
    known = frame["option_type"].is_in(OPTION_TYPES).fill_null(value=False)
    _refuse(frame, frame["instrument"].is_null(), "instrument", source, "a name")
    _refuse(frame, ~known, "option_type", source, "call or put")
    for column in numbers:
        values = frame[column]
        bad, rule = ~values.is_finite(), "a finite number"
        if column in _SCHEMA.positive:
            bad, rule = bad | (values <= 0), "a finite number above zero"
        elif column in _SCHEMA.non_negative:
            bad, rule = bad | (values < 0), "a finite number, zero or above"
        if column in _SCHEMA.required:
            bad = bad.fill_null(value=True)
        else:
            rule += ", or nothing where the venue had none"
        _refuse(frame, bad.fill_null(value=False), column, source, rule)
    key = ["ts", "instrument"]
    repeated = ~frame.select(pl.struct(key).is_first_distinct()).to_series()
    _refuse(frame, repeated, "instrument", source, "one row an instrument and time")
    median = frame["implied_volatility"].median()
    if isinstance(median, float) and median > LARGEST_MEDIAN_VOLATILITY:
        raise InputError(
            f"{source}: column 'implied_volatility' has a median of {median:g}; allowed is a "
            "fraction a year (0.55), not percent: divide it by 100"
        )


def _refuse(frame: pl.DataFrame, bad: pl.Series, column: str, source: str, rule: str) -> None:
    count = int(bad.sum())
    if count:
        row = int(bad.arg_max() or 0)
        raise InputError(
            f"{source}: column '{column}' holds {frame[column][row]!r} at row {row} "
            f"({frame['ts'][row]}); allowed is {rule} ({count} such row(s)); repair or remove "
            "these rows"
        )


def _finding(
    file: TableFile, frame: pl.DataFrame, rows: pl.Series, what: str, action: str
) -> Finding:
    count = int(rows.sum())
    first = frame["ts"][int(rows.arg_max() or 0)] if count else None
    return Finding("options", file.symbol, what, count, len(frame), action, first)
