"""Bring files whose extra columns drifted in type over the years under one type, or say why not.

A venue adds a flag as a number and writes it as text a year later. The columns a margin is made of
have one type in a store, so such a drift must not make the rows unreadable.
"""

from collections.abc import Mapping, Sequence

import polars as pl

from margincast.core.errors import InputError
from margincast.data.schemas import TIMESTAMP

_NESTED = (pl.List, pl.Array, pl.Struct)


def with_common_types(frames: Mapping[str, pl.LazyFrame]) -> list[pl.LazyFrame]:
    """Give the columns of several frames types under which their rows go together.

    Numbers become the narrowest number that holds all, times UTC, and what has nothing else in
    common text (durations in ISO 8601, bytes in hexadecimal).

    Args:
        frames: by what they are, for messages.

    Returns:
        The frames, in their order, for ``pl.concat(..., how="diagonal_relaxed")``.

    Raises:
        InputError: a column of lists or structures has no type in common with another.
    """
    schemas = {what: frame.collect_schema() for what, frame in frames.items()}
    found: dict[str, dict[pl.DataType, str]] = {}
    for what, schema in schemas.items():
        for name, dtype in schema.items():
            found.setdefault(name, {}).setdefault(dtype, what)
    casts = {
        name: casts
        for name, dtypes in found.items()
        if len(dtypes) > 1 and (casts := _casts(name, dtypes))
    }
    return [
        frame.with_columns(
            casts[name][dtype].alias(name)
            for name, dtype in schemas[what].items()
            if name in casts and dtype in casts[name]
        )
        for what, frame in frames.items()
    ]


def _casts(name: str, dtypes: Mapping[pl.DataType, str]) -> dict[pl.DataType, pl.Expr]:
    """Say how a column of these types becomes one; types that need nothing are left out."""
    column = pl.col(name)
    said = [dtype for dtype in dtypes if dtype != pl.Null]
    if all(dtype.is_numeric() for dtype in said) or _go_together(said):
        return {}
    if all(isinstance(dtype, pl.Datetime | pl.Date) for dtype in said):
        return {dtype: _utc(column, dtype) for dtype in said}
    nested = [dtype for dtype in said if isinstance(dtype, _NESTED)]
    if nested:
        other = next(dtype for dtype in said if dtype != nested[0])
        raise InputError(
            f"column {name!r} is {nested[0]} in {dtypes[nested[0]]} and {other} in "
            f"{dtypes[other]}, which have nothing in common; keep the two in different stores"
        )
    return {dtype: _text(column, dtype) for dtype in said if dtype != pl.String}


def _go_together(dtypes: Sequence[pl.DataType]) -> bool:
    """Whether lists or structures differ in nothing but what polars can widen."""
    if not all(isinstance(dtype, pl.List) for dtype in dtypes) and not all(
        isinstance(dtype, pl.Struct) for dtype in dtypes
    ):
        return len(dtypes) <= 1
    empty = [pl.DataFrame(schema={"column": dtype}) for dtype in dtypes]
    try:
        pl.concat(empty, how="diagonal_relaxed")
    except pl.exceptions.PolarsError:
        return False
    return True


def _utc(column: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    if isinstance(dtype, pl.Datetime) and dtype.time_zone is not None:
        return column.dt.convert_time_zone("UTC").cast(TIMESTAMP)
    return column.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")


def _text(column: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    if dtype == pl.Duration:
        return column.dt.to_string("iso")
    if dtype == pl.Binary:
        return column.bin.encode("hex")
    return column.cast(pl.String)
