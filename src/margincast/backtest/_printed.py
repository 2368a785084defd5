"""Tables of text: how a number of the report is written, and when it is not known."""

import math
from dataclasses import dataclass

import pandas as pd

UNKNOWN = "\N{EN DASH}"


@dataclass(frozen=True)
class PrintedTable:
    """A table of text.

    Attributes:
        title: heading above it; empty to stand under the one before.
        caption: what it shows.
        columns: headings; the first names the rows.
        rows: cells in the order of the columns.
        words: positions of columns that hold words, not numbers.
    """

    title: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: frozenset[int] = frozenset({0})


def number(value: float, form: str) -> str:
    """Write a number in a format."""
    return UNKNOWN if value is None or math.isnan(value) else format(value, form)


def percent(value: float, digits: int = 2) -> str:
    """Write a fraction in per cent; "none" where there is no such number."""
    if math.isinf(value):
        return "none"
    return UNKNOWN if pd.isna(value) else f"{100.0 * value:.{digits}f} %"


def p_value(value: float) -> str:
    """Write a p-value."""
    if math.isnan(value):
        return UNKNOWN
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
