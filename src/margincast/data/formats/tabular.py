"""Read tables that have the canonical columns already: Parquet, Feather or text with a header.

The fast path of a desk that prepared its data: columns are renamed and given their types, nothing
is computed. Which table a file holds is told by its columns, and where they leave a choice by the
names of the file and its folder; what remains open is refused, not guessed.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from urllib.parse import unquote

import polars as pl

from margincast.core.time import format_duration, parse_duration
from margincast.data.formats.flat_file import (
    commonest_step,
    is_columnar,
    read_records,
    sample_records,
)
from margincast.data.formats.format import ROW, TRANSLATED, Account, Batch, Format, Match, Sample
from margincast.data.formats.records import reject_rows, with_side
from margincast.data.formats.source import Source
from margincast.data.formats.table_kinds import (
    canonical_names,
    column_kind,
    missing_columns,
    table_of_columns,
)
from margincast.data.formats.text import Column
from margincast.data.schemas import (
    SCHEMAS,
    SIDES_OF_TABLES,
    Schema,
    schema_of,
    stored_name,
)

NO_SYMBOL = "no symbol"
NO_SIDE = "trade without an aggressor side"
UNKNOWN_VENUE = "unknown"
"""Venue of plain tables whose files and folder do not say where they were traded."""

_DATES = re.compile(r"[-_.](?:(?:19|20)\d\d-\d\d(?:-\d\d)?|(?:19|20)\d{6})$")
_TABLE_WORDS = re.compile(rf"[-_.](?:{'|'.join(SCHEMAS)})$", re.IGNORECASE)
_PARTS_OF_TIME = ("date", "year", "month", "day", "hour")


def _match(sample: Sample) -> Match | str:
    names = list(sample.columns) or list(sample.header)
    partition = partition_values(sample.source)
    wanted = sample.hints.table or partition.get("table")
    unusable = _unusable(names) or ("" if wanted else _foreign(names))
    if unusable:
        return unusable
    found = _recognised(sample, names, wanted)
    if isinstance(found, str):
        return found
    schema, columns = found
    targets = {column.name for column in columns.values()}
    strange = _strange_side(sample, columns) if schema.table in SIDES_OF_TABLES else None
    if strange is not None:
        return f"column 'side' holds {strange!r}, neither buy nor sell; describe it by a mapping"
    interval = None
    if schema.covers_interval:
        shown, stated = _interval(sample, columns), _interval_of_name(wanted)
        interval = stated or shown
        if interval is None:
            return (
                f"it holds {schema.table}, but their interval does not show in its first rows; "
                f"say it, as in --table {schema.table}_1h"
            )
        # rows may lie further apart than they last, where there are gaps, but no closer
        if shown is not None and shown % interval:
            return f"its rows are {format_duration(shown)} apart, which cannot be {wanted}"
    return Match(
        table=stored_name(schema.table, interval),
        venue=partition.get("venue") or partition.get("exchange") or _venue(sample.source),
        symbol=None
        if "symbol" in targets
        else partition.get("symbol") or symbol_in_name(sample.source.stem, interval),
        details={
            "columns": columns,
            "delimiter": sample.delimiter,
            "by_venue": "venue" in targets,
            "constants": {
                key: value
                for key, value in partition.items()
                if key not in ("table", "venue", "exchange", "symbol", *_PARTS_OF_TIME)
                and key not in names
            },
        },
    )


def _foreign(names: Sequence[str]) -> str:
    """Say whose columns these are, where they look canonical and mean something else."""
    if {"exchange", "local_timestamp"} <= set(names):
        return "its columns are those of Tardis, of a kind its name does not tell; say --table"
    if {"update_type", "first_update_id"} & set(names):
        return "its columns are those of updates of an order book, not of trades"
    return ""


def _unusable(names: Sequence[str]) -> str:
    if not names:
        return "it has no columns"
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        return f"the column {repeated[0]!r} is there {names.count(repeated[0])} times"
    if ROW in names:
        return f"a column is called {ROW}, which is kept for the number of the record"
    return ""


def _recognised(
    sample: Sample, names: Sequence[str], wanted: str | None
) -> tuple[Schema, dict[str, Column]] | str:
    """Return the table of a sample and what its columns become, or why there is none."""
    words = " ".join((_folder(sample.source), sample.source.stem)).lower()
    found = (
        (SCHEMAS[wanted] if wanted in SCHEMAS else schema_of(wanted))
        if wanted is not None
        else table_of_columns(names, words, idle=lambda column: _is_idle(sample, column))
    )
    if isinstance(found, str):
        return found
    renames = canonical_names(names, found)
    if isinstance(renames, str):
        return renames
    missing = missing_columns(renames, found)
    if missing:
        return f"a table of {found.table} needs the column(s) {', '.join(missing)}"
    kinds = {name: column_kind(found, target) for name, target in renames.items()}
    columns = {
        name: Column(renames[name], kind) for name, kind in kinds.items() if kind is not None
    }
    identifiers = [name for name in renames if renames[name] == "trade_id"]
    if identifiers and not is_columnar(sample.head) and _are_whole(sample, identifiers[0]):
        columns[identifiers[0]] = Column("trade_id", "integer")
    return found, columns


def _is_idle(sample: Sample, column: str) -> bool:
    """Whether a column of the sample is zero or empty throughout."""
    values = sample_records(sample, {column: Column(column, "number")})[column]
    return not bool((values.fill_nan(None).fill_null(0.0) != 0.0).any())


def _are_whole(sample: Sample, column: str) -> bool:
    cells = sample_records(sample, {column: Column(column, "text")})[column].drop_nulls()
    return bool(cells.str.contains(r"^\d{1,18}$").all())


def _strange_side(sample: Sample, columns: Mapping[str, Column]) -> str | None:
    """Return a side of the sample that is none, where no row has one that is."""
    sides = {name: column for name, column in columns.items() if column.name == "side"}
    said = sample_records(sample, sides)["side"].drop_nulls()
    known = said.str.to_lowercase().is_in(["buy", "sell"]).any()
    return None if known or said.is_empty() else str(said[0])


def _interval(sample: Sample, columns: Mapping[str, Column]) -> timedelta | None:
    times = {name: column for name, column in columns.items() if column.name == "ts"}
    return commonest_step(sample_records(sample, times)["ts"])


def _interval_of_name(stored: str | None) -> timedelta | None:
    if stored is None or stored in SCHEMAS:
        return None
    return parse_duration(stored.rpartition("_")[2])


def _folder(source: Source) -> str:
    """Name of the nearest folder that is no partition."""
    plain = [name for name in source.folders if "=" not in name]
    return plain[-1] if plain else UNKNOWN_VENUE


def _venue(source: Source) -> str:
    """Take the folder's name for the venue, unless it says what the files hold."""
    folder = _folder(source)
    return UNKNOWN_VENUE if folder in SCHEMAS else folder


def partition_values(source: Source) -> dict[str, str]:
    """Read the ``key=value`` folders above a file, as partitioned datasets are laid out."""
    pairs = [name.partition("=") for name in source.folders if "=" in name]
    return {key: unquote(value) for key, _, value in pairs}


def symbol_in_name(stem: str, interval: timedelta | None = None) -> str:
    """Take the contract from a file name: what is left without dates, interval and table.

    >>> symbol_in_name("BTCUSDT-trades-2024-01-31")
    'BTCUSDT'
    >>> symbol_in_name("1000LUNC_USDT_1h", timedelta(hours=1))
    '1000LUNC_USDT'
    """
    span = format_duration(interval) if interval is not None else ""
    left, before = stem, ""
    while left != before:
        before = left
        left = _TABLE_WORDS.sub("", _DATES.sub("", left))
        if span and left.endswith((f"-{span}", f"_{span}", f".{span}")):
            left = left[: -len(span) - 1]
    return left or stem


def _read(source: Source, match: Match, account: Account) -> Iterator[Batch]:
    details = match.details
    frames = read_records(source, details["columns"], account, delimiter=details["delimiter"])
    constants = [pl.lit(value).alias(name) for name, value in details["constants"].items()]
    for frame in frames:
        parts = {(match.venue,): frame}
        if details["by_venue"]:
            parts = frame.partition_by("venue", as_dict=True, include_key=False)
        for (venue,), part in parts.items():
            name = str(venue) if venue else match.venue
            yield from canonical_batches(part.with_columns(constants), match, account, name)


def canonical_batches(
    frame: pl.DataFrame, match: Match, account: Account, venue: str | None = None
) -> Iterator[Batch]:
    """Check what names a row and its side, and account for the rows.

    Args:
        frame: canonical columns and :data:`~margincast.data.formats.format.ROW`.
        match: table, venue and, where the rows do not say it, the contract.
        account: counts rows without a contract or with an unknown side as rejected.
        venue: where it was traded, if not as in ``match``.

    Yields:
        At most one batch.
    """
    if match.symbol is not None:
        # what a row says of itself stands over the file's name and the user's hint: a hint for
        # many files must not merge the contracts of one
        said = ["symbol"] if "symbol" in frame.columns else []
        frame = frame.with_columns(pl.coalesce(*said, pl.lit(match.symbol)).alias("symbol"))
    nameless = pl.col("symbol").is_null() | (pl.col("symbol") == "")
    frame = reject_rows(frame, nameless, NO_SYMBOL, account)
    if match.table in SIDES_OF_TABLES:
        frame = with_side(frame, NO_SIDE, account)
    if len(frame):
        account.count(TRANSLATED, len(frame))
        others = [name for name in frame.columns if name not in ("symbol", "ts")]
        yield Batch(match.table, venue or match.venue, frame.select("symbol", "ts", *others))


FORMATS: tuple[Format, ...] = (Format("canonical table", _match, _read),)
