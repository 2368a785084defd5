"""Read the records of a flat file, text or columnar, in batches whose columns have known kinds.

Parquet and Feather files say the type of a column, text does not; behind this module both look the
same, so that a price means one thing wherever it came from. What has the right type already is
passed on untouched, which is what makes a large order book cheap to take in.
"""

import csv
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from margincast.core.errors import InputError
from margincast.data.formats.format import (
    BATCH_ROWS,
    FEATHER_MAGIC,
    PARQUET_MAGIC,
    ROW,
    Account,
    Sample,
)
from margincast.data.formats.source import Source
from margincast.data.formats.text import Column, Kind, parse_cells, read_text, time_of_number
from margincast.data.schemas import TIMESTAMP

SAMPLE_ROWS = 10_000
"""Rows from which a file is recognised where its columns do not suffice."""

_BATCH_CELLS = 2_000_000  # about 16 MB of numbers: two workers with their copies stay below 1.5 GiB
_BUFFER_BYTES, _LEAST_BUFFER_BYTES = 64 * 1024**2, 16 * 1024
_NAMES = {
    "number": "a number",
    "integer": "a whole number",
    "text": "text",
    "boolean": "true or false",
    "time": "a time",
    "received": "a time",
}


def is_columnar(head: bytes) -> bool:
    """Tell by its first bytes whether a file is Parquet or Feather."""
    return head.startswith((PARQUET_MAGIC, FEATHER_MAGIC))


def read_records(
    source: Source,
    columns: Mapping[str, Column],
    account: Account,
    *,
    delimiter: str = ",",
    header: Sequence[str] | None = None,
) -> Iterator[pl.DataFrame]:
    """Read a file in batches, whatever its storage.

    Args:
        source: text, Parquet or Feather.
        columns: by name in the source, what it becomes; other columns keep name and type.
        account: counts rejected records; what became of the others is for the caller to say.
        delimiter: field separator of text.
        header: names of the columns of text without a header line.

    Yields:
        Frames with canonical names and :data:`~margincast.data.formats.format.ROW`.

    Raises:
        InputError: the file cannot be read to its end, or a column is of a type that cannot hold
            what it should.
    """
    if not is_columnar(source.head(len(FEATHER_MAGIC))):
        yield from read_text(source, columns, account, header=header, delimiter=delimiter)
        return
    first = 1
    for frame in _columnar_batches(source):
        last = first + len(frame)
        rows = pl.int_range(first, last, dtype=pl.Int64, eager=True).alias(ROW)
        sound = with_kinds(frame.with_columns(rows), columns, account, str(source))
        first = last
        if len(sound):
            yield sound


def sample_records(sample: Sample, columns: Mapping[str, Column]) -> pl.DataFrame:
    """Read some columns of the first records; faulty ones are left out.

    Raises:
        InputError: see :func:`read_records`.
    """
    cells = sample_cells(sample, list(columns), sample.header, sample.lines[1:], sample.delimiter)
    return with_kinds(cells, columns, Account(), str(sample.source))


def sample_cells(
    sample: Sample, names: Sequence[str], header: Sequence[str], lines: list[str], delimiter: str
) -> pl.DataFrame:
    """Read some columns of the first records as they are, with their numbers.

    Args:
        sample: the beginning of the file.
        names: the columns.
        header: all columns of text, in their order.
        lines: lines of text after the header.
        delimiter: field separator of text.

    Raises:
        InputError: the file cannot be read.
    """
    cells = pl.DataFrame(schema=dict.fromkeys(names, pl.String))
    if is_columnar(sample.head):
        cells = next(_columnar_batches(sample.source, names, SAMPLE_ROWS), cells)
    else:
        rows = [row for row in csv.reader(lines, delimiter=delimiter) if len(row) == len(header)]
        places = {name: list(header).index(name) for name in names}
        cells = pl.DataFrame(
            {name: [row[place] or None for row in rows] for name, place in places.items()},
            schema=cells.schema,
        )
    return cells.with_columns(pl.int_range(1, pl.len() + 1, dtype=pl.Int64).alias(ROW))


def commonest_step(times: pl.Series) -> timedelta | None:
    """Return the commonest distance between neighbouring times, the shorter of equally common ones.

    Times of several contracts may be mixed. None where there are no two times, or where the step
    is no whole number of seconds.
    """
    steps = times.drop_nulls().unique().sort().diff().drop_nulls().dt.total_microseconds()
    counts = Counter(steps.to_list())
    if not counts:
        return None
    step = timedelta(microseconds=min(counts, key=lambda step: (-counts[step], step)))
    return None if step.microseconds else step


def with_kinds(
    frame: pl.DataFrame, columns: Mapping[str, Column], account: Account, what: str
) -> pl.DataFrame:
    """Give columns their canonical names and types; reject the rows that hold something else.

    Args:
        frame: columns of any type and :data:`~margincast.data.formats.format.ROW`.
        columns: by name in ``frame``, what it becomes; names that are absent are passed over.
        account: counts rejected rows.
        what: where the rows come from, for messages.

    Returns:
        The sound rows; other columns stay as they are.

    Raises:
        InputError: a column is of a type that cannot hold its kind (a price of true and false).
    """
    present = {name: column for name, column in columns.items() if name in frame.columns}
    converted, faults = _parsed_text(frame, present)
    for name, column in present.items():
        if frame.schema[name] == pl.String:
            continue
        change = _converted(pl.col(name), frame.schema[name], column.kind, f"{what}: {name!r}")
        if change is not None:
            converted = converted.with_columns(change.alias(name))
            lost = converted[name].is_null() & frame[name].is_not_null()
            if lost.any():
                reason = f"column '{name}' is not {_NAMES[column.kind]}"
                faults |= dict.fromkeys(frame[ROW].filter(lost).to_list(), reason)
    if faults:
        is_faulty = pl.col(ROW).is_in(list(faults))
        for row in frame.filter(is_faulty).iter_rows(named=True):
            number = int(row.pop(ROW))
            text = json.dumps(row, ensure_ascii=False, default=str)
            account.reject(number, faults[number], text)
        converted = converted.filter(~is_faulty)
    targets = {column.name for column in present.values()}
    replaced = [name for name in frame.columns if name in targets and name not in present]
    return converted.drop(replaced).rename({name: column.name for name, column in present.items()})


def _parsed_text(
    frame: pl.DataFrame, columns: Mapping[str, Column]
) -> tuple[pl.DataFrame, dict[int, str]]:
    """Parse text columns under their own names; return what is wrong by number of the record."""
    written = {
        name: Column(name, column.kind)
        for name, column in columns.items()
        if frame.schema[name] == pl.String and column.kind != "text"
    }
    if not written:
        return frame, {}
    scratch = Account()
    parsed = parse_cells(frame.select(ROW, *written), written, scratch)
    # the rows that parse_cells rejects stay in for now, so that they are rejected with all they say
    aligned = frame.select(ROW).join(parsed, on=ROW, how="left", maintain_order="left")
    faults = {reject.row: reject.reason for reject in scratch.rejects}
    return frame.with_columns(aligned.select(*written).get_columns()), faults


def _converted(column: pl.Expr, dtype: pl.DataType, kind: Kind, what: str) -> pl.Expr | None:
    """Convert a column that is not text; None where it is right already."""
    change: pl.Expr | None = None
    if kind == "text":
        change = column.cast(pl.String)
    elif kind == "number" and (dtype.is_numeric() or dtype == pl.Null):
        change = None if dtype == pl.Float64 else column.cast(pl.Float64)
    elif kind == "integer" and (dtype.is_integer() or dtype == pl.Null):
        change = None if dtype == pl.Int64 else column.cast(pl.Int64, strict=False)
    elif kind == "integer" and dtype.is_numeric():
        whole = column.cast(pl.Int64, strict=False)
        change = pl.when(whole == column).then(whole)
    elif kind == "boolean" and dtype in (pl.Boolean, pl.Null):
        change = None if dtype == pl.Boolean else column.cast(pl.Boolean)
    elif kind == "boolean" and dtype.is_numeric():
        change = pl.when(column.is_in([0, 1])).then(column == 1)
    elif kind in ("time", "received") and dtype != TIMESTAMP:
        change = _time(column, dtype, kind, what)
    elif kind not in ("time", "received"):
        raise _unfit(dtype, kind, what)
    return change


def _time(column: pl.Expr, dtype: pl.DataType, kind: Kind, what: str) -> pl.Expr:
    round_up = kind == "received"
    if isinstance(dtype, pl.Datetime):
        # a time without a zone is UTC, as everywhere
        if dtype.time_unit != "ns":
            return column.dt.timestamp("us").cast(TIMESTAMP)
        nanoseconds = column.dt.timestamp("ns")
        microseconds = -((-nanoseconds) // 1000) if round_up else nanoseconds // 1000
        return microseconds.cast(TIMESTAMP)
    if dtype in (pl.Date, pl.Null):
        return column.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    if dtype.is_numeric():
        return time_of_number(column, round_up=round_up)
    raise _unfit(dtype, kind, what)


def _unfit(dtype: pl.DataType, kind: Kind, what: str) -> InputError:
    return InputError(
        f"{what} is {dtype}, not {_NAMES[kind]}; write the column as one, or describe the file "
        "with --mapping"
    )


def _columnar_batches(
    source: Source, names: Sequence[str] | None = None, rows: int | None = None
) -> Iterator[pl.DataFrame]:
    """Read a Parquet or Feather file in frames of bounded size."""
    with _readable(source):
        if source.head(len(PARQUET_MAGIC)) == PARQUET_MAGIC:
            columns = len(pq.read_schema(source.path).names)
            # without a buffer a column each row group is held whole, compressed, while it is read
            buffer = max(_LEAST_BUFFER_BYTES, _BUFFER_BYTES // max(columns, 1))
            with pq.ParquetFile(source.path, buffer_size=buffer, pre_buffer=False) as parquet:
                size = rows or _rows_of_batch(columns)
                for batch in parquet.iter_batches(batch_size=size, columns=names):
                    yield _frame(batch)
            return
        with pa.memory_map(str(source.path)) as mapped:
            feather = pa.ipc.open_file(mapped)
            size = rows or _rows_of_batch(len(feather.schema.names))
            for index in range(feather.num_record_batches):
                batch = feather.get_batch(index)
                for start in range(0, batch.num_rows, size):
                    piece = batch.slice(start, size)
                    yield _frame(piece if names is None else piece.select(names))


def _rows_of_batch(columns: int) -> int:
    return max(1_000, min(BATCH_ROWS, _BATCH_CELLS // max(columns, 1)))


def _frame(batch: pa.RecordBatch) -> pl.DataFrame:
    frame = pl.DataFrame(batch)
    coded = [
        name for name, dtype in frame.schema.items() if isinstance(dtype, pl.Categorical | pl.Enum)
    ]
    # the codes of one batch mean nothing in another
    return frame.with_columns(pl.col(coded).cast(pl.String)) if coded else frame


@contextmanager
def _readable(source: Source) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise InputError(
            f"{source} cannot be read to its end: {error}; fetch or write the file again"
        ) from None
