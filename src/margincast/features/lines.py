"""Read the lines of a feature set: each function over its windows, values or columns is a column.

Which numbers a margin's model sees, under which name, with which unit, and how far back each looks.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

import polars as pl

from margincast.core.errors import InputError
from margincast.features.library import (
    Argument,
    Family,
    FeatureFunction,
    Unit,
    Window,
    look_up,
    value_label,
)
from margincast.specs.features import Feature

_TAKES: Mapping[Argument, tuple[str, ...]] = {
    "nothing": (),
    "windows": ("windows",),
    "values": ("values",),
    "columns": ("columns",),
    "pairs": ("columns",),
    "columns and windows": ("columns", "windows"),
}
"""Keys of a line that a function of each kind reads."""

_KEYS = ("windows", "values", "statistics", "columns")


@dataclass(frozen=True)
class Column:
    """One column of a feature table.

    Attributes:
        name: ``{function}[_{argument}]``.
        unit: how the model may use it.
        expression: the column, under its name, float64, over rows sorted by time.
        reads: columns of the set that a market function names.
        look_back: rows of its table, the decision's own among them, that a value hangs on; the
            look-back of what it reads comes on top.
        against_leader: whether it reads a contract's rows beside the leader's.
    """

    name: str
    unit: Unit
    expression: pl.Expr
    reads: tuple[str, ...]
    look_back: int
    against_leader: bool


def columns_of(
    entries: Sequence[Feature], family: Family, interval: timedelta, minimum_present: float
) -> Iterator[Column]:
    """Read the lines of one family, in order.

    Raises:
        InputError: an unknown function, arguments that do not fit it, or a window off the grid.
    """
    for entry in entries:
        function = look_up(family, entry.function)
        for label, arguments in _arguments(entry, function, interval, minimum_present):
            name = f"{entry.function}_{label}" if label else entry.function
            yield Column(
                name,
                function.unit,
                function.build(*arguments).cast(pl.Float64).alias(name),
                tuple(argument for argument in arguments if isinstance(argument, str)),
                function.look_back(*arguments),
                function.argument == "columns and windows",
            )


def _arguments(
    entry: Feature, function: FeatureFunction, interval: timedelta, minimum_present: float
) -> list[tuple[str, tuple[Window | float | str, ...]]]:
    windows = [Window.over(length, interval, minimum_present) for length in entry.windows]
    given: list[tuple[str, tuple[Window | float | str, ...]]]
    match function.argument:
        case "nothing":
            given = [("", ())]
        case "windows":
            given = [(window.label, (window,)) for window in windows]
        case "values":
            given = [(value_label(value), (value,)) for value in entry.values]  # a spec key
        case "columns":
            given = [(column, (column,)) for column in entry.columns]
        case "pairs":
            if len(entry.columns) not in (0, 2):
                raise InputError(
                    f"feature '{entry.function}' reads two columns a line, and lists "
                    f"{len(entry.columns)}: {', '.join(entry.columns)}; give each pair its own line"
                )
            given = [("_".join(entry.columns), entry.columns)] if entry.columns else []
        case "columns and windows":
            given = [
                (f"{column}_{window.label}", (column, window))
                for column in entry.columns
                for window in windows
            ]
    if not given:
        raise InputError(f"feature '{entry.function}' needs {function.argument}, and lists none")
    unread = [key for key in _KEYS if getattr(entry, key) and key not in _TAKES[function.argument]]
    if unread:
        taken = " and ".join(_TAKES[function.argument]) or "nothing"
        raise InputError(
            f"feature '{entry.function}' takes {taken}, and the line gives {', '.join(unread)} "
            "too; leave it out, or choose the function that takes it"
        )
    return given
