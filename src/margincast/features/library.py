"""The registry of feature functions: each with its unit, which says how the model may use it.

A feature function is pure: it returns a Polars expression over one table, sorted by time, in which
row t holds only what was known at t. Expressions look back, never forward.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

import numpy as np
import polars as pl

from margincast.core.errors import InputError, did_you_mean
from margincast.core.time import format_duration

Unit = Literal["fraction", "number"]
Family = Literal[
    "bars", "derivatives", "implied_vol", "options", "book", "trades", "market", "calendar"
]
Argument = Literal["windows", "values", "columns", "pairs", "columns and windows", "nothing"]


@dataclass(frozen=True)
class Window:
    """A span of grid rows ending at the decision.

    Attributes:
        rows: length in grid steps.
        minimum: rows that must be known for the window's value to be known.
        label: the length as written in the spec (``"24h"``), used in feature names.
    """

    rows: int
    minimum: int
    label: str

    @classmethod
    def over(cls, length: timedelta, interval: timedelta, minimum_present: float) -> "Window":
        """Make the window of a given length on a grid.

        Raises:
            InputError: the length is not a whole number of grid steps.
        """
        if length % interval:
            raise InputError(
                f"window {format_duration(length)} is not a whole number of "
                f"{format_duration(interval)} grid steps"
            )
        rows = length // interval
        # the allowance keeps floating point from asking for one row more than the share says
        minimum = max(1, math.ceil(minimum_present * rows - 1e-9))
        return cls(rows, minimum, format_duration(length))


@dataclass(frozen=True)
class FeatureFunction:
    """A registered feature function.

    Attributes:
        name: name used in feature sets.
        family: table it reads.
        unit: ``fraction`` (scales with volatility) or ``number``.
        argument: what it runs over: windows, values, columns, pairs (two columns a line), columns
            and windows (each column over each window, the contract's beside the leader's) or
            nothing.
        build: the function itself.
        look_back: from the same arguments to the rows, the decision's own among them, that a value
            hangs on: its declared bound, which streaming keeps and a test checks.
    """

    name: str
    family: Family
    unit: Unit
    argument: Argument
    build: Callable[..., pl.Expr]
    look_back: Callable[..., int]


LIBRARY: dict[tuple[Family, str], FeatureFunction] = {}


def window_and_row_before(*arguments: object) -> int:
    """Rows of the longest window among the arguments and one more: a return needs the close before.

    A function of no window reads the decision's row alone.
    """
    rows = [argument.rows + 1 for argument in arguments if isinstance(argument, Window)]
    return max(rows, default=1)


def window_rows(window: Window) -> int:
    """Rows of a window where nothing before it enters."""
    return window.rows


def own_row(*_: object) -> int:
    """The decision's row alone, whatever the arguments: a window that is a tenor lies ahead."""
    return 1


def value_label(value: float) -> str:
    """A value as names of columns have it: in full, since names are typed by people.

    >>> [value_label(value) for value in (5.0, 0.94, 250_000.0, 1e6)]
    ['5', '0.94', '250000', '1000000']
    """
    return np.format_float_positional(value, trim="-")


def feature(
    family: Family,
    unit: Unit,
    argument: Argument = "windows",
    look_back: Callable[..., int] = window_and_row_before,
) -> Callable[[Callable[..., pl.Expr]], Callable[..., pl.Expr]]:
    """Register a feature function under its own name."""

    def register(build: Callable[..., pl.Expr]) -> Callable[..., pl.Expr]:
        name = build.__name__
        LIBRARY[family, name] = FeatureFunction(name, family, unit, argument, build, look_back)
        return build

    return register


def look_up(family: Family, name: str) -> FeatureFunction:
    """Find a feature function.

    Raises:
        InputError: no such function in the family; says which there are.
    """
    try:
        return LIBRARY[family, name]
    except KeyError:
        known = [known for (of, known) in LIBRARY if of == family]
        hint = did_you_mean(name, known) or f"; there are {', '.join(sorted(known))}"
        raise InputError(f"no feature function '{name}' for {family}{hint}") from None
