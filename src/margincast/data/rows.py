"""Small tables that people write by hand: CSV or JSON, read strictly, each problem with its place.

Responsible for the positions, collateral and prices of an account view: money must not be read
from a guess, so a misspelt column, an empty cell or a number that is none is an error that names
file, row and column.
"""

import csv
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from margincast.core.errors import InputError, did_you_mean

FORMS = (".csv", ".json")


@dataclass(frozen=True)
class Row:
    """One row, and where it stands.

    Attributes:
        path: its file.
        number: of the row, from 1; a CSV file's heading is not counted.
        cells: by column; text in CSV, what JSON has otherwise; empty cells are not there.
    """

    path: Path
    number: int
    cells: dict[str, object]

    def text(self, column: str, allowed: Sequence[str] = ()) -> str:
        """Return a text.

        Raises:
            InputError: absent, no text, or not among those allowed.
        """
        found = self.cells.get(column)
        if not isinstance(found, str) or not found.strip():
            raise self.problem(column, found, f"one of {', '.join(allowed)}" if allowed else "text")
        if allowed and found.strip() not in allowed:
            hint = did_you_mean(found.strip(), allowed)
            raise self.problem(column, found, f"one of {', '.join(allowed)}{hint}")
        return found.strip()

    def number_of(
        self, column: str, *, above: float = -math.inf, at_least: float = -math.inf
    ) -> float:
        """Return a finite number.

        Raises:
            InputError: absent, no number, not finite, or too small.
        """
        found = self.cells.get(column)
        bounds = [f"above {above:g}"] if above > -math.inf else []
        bounds += [f"{at_least:g} or more"] if at_least > -math.inf else []
        allowed = f"a finite number{', ' + ', '.join(bounds) if bounds else ''}, written as 1234.5"
        if isinstance(found, bool) or not isinstance(found, str | int | float):
            raise self.problem(column, found, allowed)
        try:
            number = float(found)
        except ValueError:
            raise self.problem(column, found, allowed) from None
        if not math.isfinite(number) or number <= above or number < at_least:
            raise self.problem(column, found, allowed)
        return number

    def problem(self, column: str, found: object, allowed: str) -> InputError:
        """Return the error of a cell."""
        shown = "nothing" if found is None else repr(found)
        return InputError(
            f"{self.path}, row {self.number}, column {column}: found {shown}; allowed: {allowed}"
        )


def read_rows(path: Path, needed: Sequence[str], optional: Sequence[str] = ()) -> list[Row]:
    """Read a table whose columns are known.

    Args:
        path: CSV with a heading, or JSON: a list of objects.
        needed: columns that must be there.
        optional: columns that may be.

    Raises:
        InputError: no such file, another form, a column that is missing or unknown, a row of
            another length, no rows.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist; give a CSV or JSON file")
    if path.suffix.lower() not in FORMS:
        raise InputError(f"{path} is no {' or '.join(FORMS)} file")
    try:
        text = path.read_text(encoding="utf-8-sig")
        rows = list((_of_csv if path.suffix.lower() == ".csv" else _of_json)(path, text))
    except (UnicodeDecodeError, json.JSONDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read: {error}") from None
    known = [*needed, *optional]
    for row in rows:
        unknown = [name for name in row.cells if name not in known]
        if unknown:
            raise InputError(
                f"{path}, row {row.number}: unknown column {unknown[0]!r}"
                f"{did_you_mean(unknown[0], known)}; allowed: {', '.join(known)}"
            )
        absent = [name for name in needed if name not in row.cells]
        if absent:
            raise row.problem(absent[0], None, f"a value; a row has {', '.join(needed)}")
    if not rows:
        raise InputError(f"{path} has no rows; a table has the columns {', '.join(needed)}")
    return rows


def _of_csv(path: Path, text: str) -> Iterator[Row]:
    lines = csv.reader(text.splitlines(), strict=True)
    heading = [name.strip() for name in next(lines, [])]
    if len(set(heading)) != len(heading):
        raise InputError(f"{path}: a column stands twice in the heading {', '.join(heading)}")
    number = 0
    for cells in lines:
        if not any(cell.strip() for cell in cells):
            continue
        number += 1
        if len(cells) != len(heading):
            raise InputError(
                f"{path}, row {number}: {len(cells)} cells under {len(heading)} columns; write "
                "numbers without separators, as 1234.5"
            )
        pairs = zip(heading, cells, strict=True)
        yield Row(path, number, {name: cell.strip() for name, cell in pairs if cell.strip()})


def _of_json(path: Path, text: str) -> Iterator[Row]:
    found = json.loads(text)
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise InputError(f"{path} holds no list of objects; write [{{...}}, {{...}}]")
    for number, each in enumerate(found, start=1):
        yield Row(path, number, {name: cell for name, cell in each.items() if cell is not None})
