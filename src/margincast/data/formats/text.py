"""Read delimited text in batches: every cell is parsed strictly, every faulty line is kept aside.

A price that fails to parse must not become a null that a margin is computed around, so a line with
a cell that is not what its column says is rejected whole, with the line's number and content.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
from pyarrow import csv

from margincast.core.errors import InputError
from margincast.data.formats.format import ROW, Account
from margincast.data.formats.source import Source
from margincast.data.formats.times import parse_times, time_of_number

__all__ = ["Column", "Kind", "parse_cells", "read_text", "time_of_number"]

Kind = Literal["number", "integer", "text", "boolean", "time", "received"]
"""What a column holds. A time is ISO 8601 (UTC unless it says otherwise) or a number since 1970,
whose unit (s, ms, us, ns) shows in its size; ``received`` is a time rounded up to the microsecond,
so that nothing is known before it came."""

HEADER_IN_THE_MIDDLE = "a header in the middle of the file"
RAGGED = "a line with another number of fields than the header"
SPANS_LINES = "a quoted field that spans lines"

_BLOCK_BYTES = 4 * 1024**2
_TRUE, _FALSE = ("true", "1", "t", "yes"), ("false", "0", "f", "no")
_ARROW_ERRORS = {
    "Empty CSV": "it holds no line of data",
    "out of sync": "a quote is opened that is not closed on its line",
    "straddling": f"a line is longer than {_BLOCK_BYTES:,} bytes",
}
"""Signs of an error of Arrow's reader, and what it means for the file."""
_NAMES = {
    "number": "a number",
    "integer": "a whole number",
    "boolean": "true or false",
    "time": "a time",
    "received": "a time",
}


@dataclass(frozen=True)
class Column:
    """Canonical name and kind of a source's column."""

    name: str
    kind: Kind


def read_text(
    source: Source,
    columns: Mapping[str, Column],
    account: Account,
    *,
    header: Sequence[str] | None = None,
    delimiter: str = ",",
) -> Iterator[pl.DataFrame]:
    """Parse a delimited file in batches of some megabytes.

    Rejected lines are counted in the account; what became of the others is for the caller to say.

    Args:
        source: the file.
        columns: by name in the source, what it becomes; columns not named are kept as text. An
            empty cell is null.
        account: counts rejected lines.
        header: names of the columns where the file has no header line.
        delimiter: field separator.

    Yields:
        Frames with canonical names and :data:`~margincast.data.formats.format.ROW` (the first line
        after the header is 1; empty lines do not count).

    Raises:
        InputError: the file is empty, has two columns of one name, is not UTF-8, or cannot be read
            to its end.
    """
    broken = _Broken(account, heading=1 if header is None else 0)
    following = 1
    with source.open() as stream:
        try:
            reader = csv.open_csv(
                stream,
                read_options=csv.ReadOptions(
                    column_names=header, use_threads=False, block_size=_BLOCK_BYTES
                ),
                parse_options=csv.ParseOptions(
                    delimiter=delimiter, invalid_row_handler=broken.take
                ),
                convert_options=csv.ConvertOptions(
                    default_column_type=pa.string(), strings_can_be_null=True, null_values=[""]
                ),
            )
            names = _names_of(reader.schema, source)
            for block in reader:
                cells = pl.DataFrame(pa.table(block.rename_columns(names)))
                numbers = broken.numbers_between(following, len(cells))
                if len(cells):
                    following = int(numbers[-1]) + 1
                    broken.forget(following)
                numbered = cells.with_columns(pl.Series(ROW, numbers))
                whole = _without_spanning(numbered, columns, account)
                parsed = parse_cells(whole, columns, account)
                if len(parsed):
                    yield parsed
        except (pa.ArrowInvalid, UnicodeDecodeError) as error:
            if broken.failure is not None:
                raise broken.failure from None
            raise _unreadable(source, delimiter, error) from None


class _Broken:
    """Rejects ragged lines as Arrow meets them, ahead of the sound ones, and knows their numbers.

    Arrow reads on until it has a block with a sound line, so of a file without any all lines pass
    here at once: what is kept of them is no more than where their runs begin and end.
    """

    def __init__(self, account: Account, heading: int) -> None:
        self.failure: Exception | None = None
        self._account, self._heading = account, heading
        self._runs: list[tuple[int, int]] = []  # first number, and the one after the last

    def take(self, row: csv.InvalidRow) -> str:
        """Reject a line; Arrow cannot pass on an error of ours, so it is kept."""
        number = row.number - self._heading
        try:
            self._account.reject(number, RAGGED, row.text)
        except Exception as error:  # noqa: BLE001  # raised again by read_text, whatever it is
            self.failure = error
            return "error"
        first = number
        if self._runs and self._runs[-1][1] == number:
            first, _ = self._runs.pop()
        self._runs.append((first, number + 1))
        return "skip"

    def numbers_between(self, first: int, count: int) -> npt.NDArray[np.int64]:
        """Return the numbers of the next ``count`` sound records, leaving out the broken ones."""
        pieces = [np.arange(0, dtype=np.int64)]
        for start, end in self._runs:
            if count and start > first:
                pieces.append(np.arange(first, min(start, first + count), dtype=np.int64))
                count -= len(pieces[-1])
            first = max(first, end)
        pieces.append(np.arange(first, first + count, dtype=np.int64))
        return np.concatenate(pieces)

    def forget(self, before: int) -> None:
        """Let go of the runs before a record."""
        self._runs = [run for run in self._runs if run[1] > before]


def _names_of(schema: pa.Schema, source: Source) -> list[str]:
    names = [str(name).strip() for name in schema.names]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise InputError(
            f"{source}: its header has more than one column '{twice[0]}'; rename all but one"
        )
    return names


def _without_spanning(
    cells: pl.DataFrame, columns: Mapping[str, Column], account: Account
) -> pl.DataFrame:
    """Reject records of which a text spans lines: an open quote swallows the lines after it.

    No market data has line breaks in its texts, so such a record is kept aside, not believed. In
    columns of another kind swallowed lines do not parse.
    """
    texts = [
        name
        for name in cells.columns
        if name != ROW and (name not in columns or columns[name].kind == "text")
    ]
    if not texts:
        return cells
    broken = pl.any_horizontal(pl.col(name).str.contains("\n", literal=True) for name in texts)
    spans = cells.select(broken.fill_null(value=False)).to_series()
    if not spans.any():
        return cells
    for row in cells.filter(spans).iter_rows(named=True):
        account.reject(int(row[ROW]), SPANS_LINES, _text_of(row, cells.columns))
    return cells.filter(~spans)


def _unreadable(source: Source, delimiter: str, error: Exception) -> InputError:
    what = f"{source} cannot be read as text separated by '{delimiter}'"
    with source.open() as stream:
        for number, line in enumerate(stream, start=1):
            try:
                line.decode()
            except UnicodeDecodeError as wrong:
                piece = line[wrong.start : wrong.start + 8]
                return InputError(
                    f"{what}: line {number} is no UTF-8 at its byte {wrong.start + 1} ({piece!r}); "
                    "convert the file to UTF-8"
                )
    for sign, meaning in _ARROW_ERRORS.items():
        if sign in str(error):
            return InputError(f"{what}: {meaning}; fetch or export the file again")
    return InputError(f"{what}: {error}; fetch or export the file again")


def parse_cells(
    cells: pl.DataFrame, columns: Mapping[str, Column], account: Account
) -> pl.DataFrame:
    """Parse columns of text; reject the rows that have a cell of the wrong kind.

    Args:
        cells: text columns and :data:`~margincast.data.formats.format.ROW`.
        columns: by name in ``cells``, what it becomes; names that are absent are passed over.
        account: counts rejected rows.

    Returns:
        The sound rows, with canonical names and types; other columns stay as they are.
    """
    present = {name: column for name, column in columns.items() if name in cells.columns}
    parsed = cells.with_columns(
        _parsed(cells[name].str.strip_chars(), column.kind).alias(f"parsed {name}")
        for name, column in present.items()
    )
    wrong = {
        name: pl.col(f"parsed {name}").is_null() & pl.col(name).is_not_null() for name in present
    }
    checks = parsed.select(pl.any_horizontal(*wrong.values()).alias("any")) if wrong else None
    if checks is not None and checks["any"].any():
        _reject(parsed.filter(checks["any"]), cells.columns, present, wrong, account)
        parsed = parsed.filter(~checks["any"])
    targets = {column.name for column in present.values()}
    others = [name for name in cells.columns if name not in present]
    return parsed.select(
        *(pl.col(f"parsed {name}").alias(column.name) for name, column in present.items()),
        # a column that is not translated but has a canonical name must not be lost to it
        *(pl.col(name).alias(f"source_{name}" if name in targets else name) for name in others),
    )


def _reject(
    rows: pl.DataFrame,
    names: Sequence[str],
    columns: Mapping[str, Column],
    wrong: Mapping[str, pl.Expr],
    account: Account,
) -> None:
    judged = rows.with_columns(check.alias(f"wrong {name}") for name, check in wrong.items())
    for row in judged.iter_rows(named=True):
        faulty = [name for name in columns if row[f"wrong {name}"]]
        is_header = all(str(row[name]).strip() == name for name in faulty) and len(faulty) > 1
        reason = (
            HEADER_IN_THE_MIDDLE
            if is_header
            else f"column '{faulty[0]}' is not {_NAMES[columns[faulty[0]].kind]}"
        )
        account.reject(int(row[ROW]), reason, _text_of(row, names))


def _text_of(row: Mapping[str, object], names: Sequence[str]) -> str:
    return json.dumps({name: row[name] for name in names if name != ROW}, ensure_ascii=False)


def _parsed(text: pl.Series, kind: Kind) -> pl.Series:
    """Parse text, null where it is not of the kind."""
    if kind == "number":
        return text.cast(pl.Float64, strict=False)
    if kind == "integer":
        return text.cast(pl.Int64, strict=False)
    if kind == "text":
        return text
    if kind == "boolean":
        lower = text.str.to_lowercase()
        known = lower.is_in([*_TRUE, *_FALSE])
        return lower.is_in(_TRUE).set(~known.fill_null(value=True), None)
    return parse_times(text, round_up=kind == "received")
