"""The canonical tables as code: which columns, of which type, allowed to hold what.

A wrong price becomes a wrong margin, so every table passes here before anything is computed from
it. A check names the table, the column, the first offending row, what was found and what is
allowed.
"""

from dataclasses import dataclass

import polars as pl

from margincast.core.errors import InputError, did_you_mean

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


@dataclass(frozen=True)
class Schema:
    """A canonical table: required columns and the hard rules of its values."""

    table: str
    required: tuple[str, ...]
    positive: tuple[str, ...] = ()
    non_negative: tuple[str, ...] = ()


BARS = Schema(
    "bars",
    required=("ts", "open", "high", "low", "close", "volume"),
    positive=("open", "high", "low", "close"),
    non_negative=("volume",),
)
TRADES = Schema(
    "trades", required=("ts", "price", "size", "side"), positive=("price",), non_negative=("size",)
)
FUNDING = Schema("funding", required=("ts", "funding_rate"))


def book_columns(levels: int) -> list[str]:
    """Names of the price and size columns of a book with ``levels`` levels, best first."""
    return [
        f"{side}_{what}_{level}"
        for level in range(levels)
        for side in ("bid", "ask")
        for what in ("price", "size")
    ]


def with_canonical_names(frame: pl.LazyFrame) -> pl.LazyFrame:
    """Rename known aliases; extra columns are kept, and a canonical name is never overwritten."""
    names = frame.collect_schema().names()
    renames = {
        name: ALIASES[name] for name in names if name in ALIASES and ALIASES[name] not in names
    }
    for name in names:
        for prefix, canonical in BOOK_ALIASES.items():
            target = canonical + name.removeprefix(prefix)
            if name.startswith(prefix) and target not in names:
                renames[name] = target
    taken: set[str] = set()
    for name, target in list(renames.items()):
        if target in taken:
            del renames[name]
        taken.add(target)
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
            f"{source}: a {schema.table} table needs the column(s) {hints}; "
            f"found {', '.join(names)}"
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

    Raises:
        InputError: names column, first offending row and time, value, count and the rule.
    """
    for column in schema.required:
        if column == "ts":
            _fail_first(frame, frame["ts"].is_null(), "ts", source, "a time")
            continue
        if not frame[column].dtype.is_numeric():
            if column == "side":
                continue
            raise InputError(f"{source}: column '{column}' is {frame[column].dtype}, not a number")
        values = frame[column].cast(pl.Float64)
        bad = values.is_null() | ~values.is_finite()
        rule = "a finite number"
        if column in schema.positive:
            bad, rule = bad | (values <= 0), "a finite number above zero"
        elif column in schema.non_negative:
            bad, rule = bad | (values < 0), "a finite number, zero or above"
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
