"""Read any other flat file by a mapping of its columns, which the user writes down.

What a margin is computed from must not be guessed: where a file's own names do not say what its
columns are, the user says it once, and every value that the mapping does not provide for is
rejected with its line.
"""

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import polars as pl

from margincast.core.digest import digest_of
from margincast.core.errors import SpecError, did_you_mean
from margincast.data.formats.flat_file import (
    is_columnar,
    read_records,
    sample_cells,
    with_kinds,
)
from margincast.data.formats.format import (
    FEATHER_MAGIC,
    ROW,
    Account,
    Batch,
    Format,
    Match,
    Sample,
)
from margincast.data.formats.records import reject_rows
from margincast.data.formats.source import Source
from margincast.data.formats.table_kinds import column_kind
from margincast.data.formats.tabular import canonical_batches, symbol_in_name
from margincast.data.formats.text import Column
from margincast.data.schemas import SCHEMAS, TIMESTAMP, stored_name


@dataclass(frozen=True)
class MappedColumn:
    """Where a canonical column comes from.

    Attributes:
        column: column of the source.
        times: factor on its numbers (0.001 where the source counts in thousandths).
        values: canonical value by value of the source, for sides and the like; other values are
            rejected.
    """

    column: str
    times: float | None = None
    values: Mapping[str, str] | None = None


@dataclass(frozen=True)
class ColumnMapping:
    """What the columns of a file are.

    Attributes:
        table: canonical table.
        venue: where it was traded.
        columns: by canonical name, where it comes from. Columns of the source that are not named
            are kept; one with a canonical column's name that means something else gets
            ``_in_source`` appended.
        symbol: contract; None takes it from the mapped column ``symbol``, or where there is none
            from the file's name.
        interval: of bars.
        delimiter: field separator of text; None finds it.
        header: names of the columns of text without a header line.
        time_format: how ``ts`` and ``received_at`` are written, in the notation of Rust's chrono
            (nearly that of strftime; ``%3f`` are milliseconds); None for numbers since 1970 and
            ISO 8601.
        time_zone: of written times; None is UTC. A time that a change of clocks repeats or leaves
            out is rejected.

    Raises:
        SpecError: the parts do not fit each other or the table; lists every problem.
    """

    table: str
    venue: str
    columns: Mapping[str, MappedColumn]
    symbol: str | None = None
    interval: timedelta | None = None
    delimiter: str | None = None
    header: tuple[str, ...] | None = None
    time_format: str | None = None
    time_zone: str | None = None

    def __post_init__(self) -> None:
        problems = [
            *self._problems_of_table(),
            *self._problems_of_names(),
            *self._problems_of_times(),
        ]
        if problems:
            raise SpecError("the column mapping", problems)

    def _problems_of_table(self) -> Iterator[str]:
        schema = SCHEMAS.get(self.table)
        if schema is None:
            yield (
                f"table: there is no table '{self.table}'{did_you_mean(self.table, SCHEMAS)}; "
                f"tables are {', '.join(SCHEMAS)}"
            )
            return
        for name in schema.required:
            if name not in self.columns:
                yield f"columns.{name}: missing; a table of {self.table} needs it"
        if schema.covers_interval and self.interval is None:
            yield f'interval: missing; a row of {self.table} covers an interval, as in "1h"'
        if not schema.covers_interval and self.interval is not None:
            yield f"interval: a row of {self.table} covers none; leave it out"
        for name, mapped in self.columns.items():
            if mapped.times is not None and column_kind(schema, name) != "number":
                yield f"columns.{name}.times: {name} is no number in a table of {self.table}"

    def _problems_of_names(self) -> Iterator[str]:
        if ROW in self.columns:
            yield f"columns.{ROW}: is kept for the number of the record"
        if self.symbol is not None and "symbol" in self.columns:
            yield "symbol: stands in the mapping and in columns.symbol; leave one out"
        for name, mapped in self.columns.items():
            if self.header is not None and mapped.column not in self.header:
                yield (
                    f"columns.{name}: '{mapped.column}' is not in the header given"
                    f"{did_you_mean(mapped.column, self.header)}"
                )

    def _problems_of_times(self) -> Iterator[str]:
        if self.time_zone is not None:
            if self.time_format is None:
                yield "time_zone: needs a time_format; numbers since 1970 are UTC"
            try:
                ZoneInfo(self.time_zone)
            except (ZoneInfoNotFoundError, ValueError):
                yield (
                    f"time_zone: there is no '{self.time_zone}'; write a name of the IANA "
                    "database, for example 'America/New_York'"
                )
        if self.time_format is not None:
            try:
                pl.Series(["-"]).str.to_datetime(self.time_format, strict=False)
            except pl.exceptions.PolarsError as error:
                yield f"time_format: '{self.time_format}' is no format of times: {error}"


def mapping_from(fields: Mapping[str, Any]) -> ColumnMapping:
    """Make a mapping of plain values, as :class:`margincast.specs.mapping.MappingSpec` gives them.

    Args:
        fields: by names of :class:`ColumnMapping`, the columns as fields of :class:`MappedColumn`.

    Raises:
        SpecError: see :class:`ColumnMapping`.
    """
    columns = {name: MappedColumn(**column) for name, column in fields["columns"].items()}
    return ColumnMapping(**{**fields, "columns": columns})


def mapped_format(mapping: ColumnMapping) -> Format:
    """Make a format of a mapping; it goes before all others, for the user's word stands."""
    return Format("mapped table", partial(_match, mapping), partial(_read, mapping))


def _match(mapping: ColumnMapping, sample: Sample) -> Match | str:
    delimiter = mapping.delimiter or sample.delimiter
    names, lines = list(sample.columns), []
    if not is_columnar(sample.head):
        fields = next(csv.reader(sample.lines[:1], delimiter=delimiter), [])
        names = [name.strip() for name in mapping.header or fields]
        if len(names) != len(fields):
            return f"the first line has {len(fields)} fields, the header given {len(names)}"
        lines = sample.lines if mapping.header else sample.lines[1:]
    missing = {mapped.column for mapped in mapping.columns.values()} - set(names)
    if missing:
        shown = (f"{name}{did_you_mean(name, names)}" for name in sorted(missing))
        return f"there is no column {', '.join(shown)}"
    time = mapping.columns["ts"]
    cells = sample_cells(sample, [time.column], names, lines, delimiter)
    times = _translated(cells, mapping, {"ts": time}, Account(), str(sample.source))
    if times["ts"].drop_nulls().is_empty():
        return f"column '{time.column}' holds no time that can be read"
    symbol = mapping.symbol
    if symbol is None and "symbol" not in mapping.columns:
        symbol = symbol_in_name(sample.source.stem, mapping.interval)
    table = stored_name(mapping.table, mapping.interval)
    return Match(
        table,
        mapping.venue,
        symbol,
        # the mapping itself, so that the manifest can tell a source read with another one
        {"delimiter": delimiter, "mapping": digest_of(repr(mapping))},
    )


def _read(
    mapping: ColumnMapping, source: Source, match: Match, account: Account
) -> Iterator[Batch]:
    header = None if is_columnar(source.head(len(FEATHER_MAGIC))) else mapping.header
    delimiter = match.details["delimiter"]
    for frame in read_records(source, {}, account, delimiter=delimiter, header=header):
        rows = _translated(frame, mapping, mapping.columns, account, str(source))
        yield from canonical_batches(rows, match, account)


def _translated(
    frame: pl.DataFrame,
    mapping: ColumnMapping,
    columns: Mapping[str, MappedColumn],
    account: Account,
    what: str,
) -> pl.DataFrame:
    """Make canonical columns of a source's; reject rows that the mapping does not provide for."""
    for name, mapped in columns.items():
        if mapped.values is not None or _is_written(name, mapping):
            lost = _made(name, mapped, mapping).is_null() & pl.col(mapped.column).is_not_null()
            frame = reject_rows(frame, lost, _reason(mapped, mapping), account)
    used = {mapped.column for mapped in columns.values()} | {ROW}
    further = {
        name: f"{name}_in_source" if name in columns else name
        for name in frame.columns
        if name not in used
    }
    built = frame.select(
        ROW,
        *(_made(name, mapped, mapping).alias(name) for name, mapped in columns.items()),
        *(pl.col(name).alias(kept) for name, kept in further.items()),
    )
    kinds = {
        name: Column(name, kind)
        for name in columns
        if (kind := column_kind(SCHEMAS[mapping.table], name)) is not None
    }
    typed = with_kinds(built, kinds, account, what)
    return typed.with_columns(
        pl.col(name) * mapped.times for name, mapped in columns.items() if mapped.times is not None
    )


def _made(name: str, mapped: MappedColumn, mapping: ColumnMapping) -> pl.Expr:
    cell = pl.col(mapped.column)
    if mapped.values is not None:
        return cell.cast(pl.String).replace_strict(mapped.values, default=None)
    if mapping.time_format is None or not _is_written(name, mapping):
        return cell
    written = cell.cast(pl.String).str.to_datetime(
        mapping.time_format, time_unit="us", strict=False
    )
    if "%z" in mapping.time_format or "%:z" in mapping.time_format or "%#z" in mapping.time_format:
        return written.cast(TIMESTAMP)
    local = written.dt.replace_time_zone(
        mapping.time_zone or "UTC", ambiguous="null", non_existent="null"
    )
    return local.dt.convert_time_zone("UTC")


def _is_written(name: str, mapping: ColumnMapping) -> bool:
    return mapping.time_format is not None and name in ("ts", "received_at")


def _reason(mapped: MappedColumn, mapping: ColumnMapping) -> str:
    if mapped.values is not None:
        return f"column '{mapped.column}' holds a value that the mapping does not name"
    return (
        f"column '{mapped.column}' is no time of the form '{mapping.time_format}', or one that a "
        "change of clocks repeats or leaves out"
    )
