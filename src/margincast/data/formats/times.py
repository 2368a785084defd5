"""Read times, written as numbers since 1970 or as ISO 8601, to the microsecond.

A feature may use a row only from the time at which it was known, so a time is read exactly or not
at all: no digit is lost to a float, and nothing is taken for a time that may be something else.
"""

from typing import Literal

import polars as pl

from margincast.data.schemas import TIMESTAMP

_DECIMAL = r"^(\d+)\.(\d*)$"
_ISO_FORMATS = (
    "%Y-%m-%d %H:%M:%S%.f",
    "%Y-%m-%dT%H:%M:%S%.f%#z",
    "%Y-%m-%d %H:%M:%S%.f%#z",
    "%Y-%m-%dT%H:%M:%S%.f",
    "%Y-%m-%dT%H:%M",
    "%Y-%m-%d %H:%M",
)


def parse_times(text: pl.Series, *, round_up: bool = False) -> pl.Series:
    """Read times written as text.

    Numbers are read as in :func:`time_of_number`, with a decimal fraction digit by digit. Not read
    as a time: scientific notation, where digits are lost (``1.69085E+12`` is off by half an hour).
    ISO 8601 is UTC unless it says otherwise.

    Args:
        text: times.
        round_up: round up to the microsecond instead of down.

    Returns:
        UTC, microseconds; null where the text is no time.
    """
    whole = pl.col("text").cast(pl.Int64, strict=False)
    numbers = _time_of_whole(whole, round_up=round_up)
    times = text.to_frame("text").select(numbers).to_series()
    # each further way costs more than the one before, so it is tried only where it is needed
    for way in (_decimal_times, _iso_times):
        missing = times.is_null() & text.is_not_null()
        if not missing.any():
            break
        times = times.scatter(missing.arg_true(), way(text.filter(missing), round_up=round_up))
    return times


def _decimal_times(text: pl.Series, *, round_up: bool) -> pl.Series:
    parts = text.to_frame("text").select(
        pl.col("text").str.extract(_DECIMAL, 1).cast(pl.Int64, strict=False).alias("whole"),
        pl.col("text").str.extract(_DECIMAL, 2).alias("digits"),
    )
    whole, digits = pl.col("whole"), pl.col("digits")
    billionths = digits.str.pad_end(9, "0").str.head(9).cast(pl.Int64)
    # billionths of the unit in a microsecond; of microseconds and nanoseconds all are a rest
    in_microsecond = (
        pl.when(whole < 10**11).then(10**3).when(whole < 10**14).then(10**6).otherwise(10**9)
    )
    rest = (billionths % in_microsecond > 0) | digits.str.slice(9).str.contains("[1-9]")
    microseconds = billionths // in_microsecond + (rest.cast(pl.Int64) if round_up else 0)
    start = _time_of_whole(whole, round_up=round_up)
    return parts.select(start + pl.duration(microseconds=microseconds)).to_series()


def _iso_times(text: pl.Series, *, round_up: bool) -> pl.Series:
    cell = pl.col("text").str.replace(" UTC$", "Z")
    dates = pl.col("text").str.to_date("%Y-%m-%d", strict=False).cast(TIMESTAMP)
    times = text.to_frame("text").select(dates).to_series()
    unit: Literal["ns", "us"] = "ns" if round_up else "us"
    for form in _ISO_FORMATS:
        missing = times.is_null()
        if not missing.any():
            break
        read = cell.str.to_datetime(form, time_unit=unit, time_zone="UTC", strict=False)
        if round_up:
            read = _thousands(read.cast(pl.Int64), round_up=True).cast(TIMESTAMP)
        found = text.filter(missing).to_frame("text").select(read).to_series()
        times = times.scatter(missing.arg_true(), found)
    return times


def time_of_number(text: pl.Expr, *, round_up: bool = False) -> pl.Expr:
    """Read numbers since 1970 as times; the unit shows in their size.

    A number from 1e8 counts seconds, from 1e11 milliseconds, from 1e14 microseconds, from 1e17
    nanoseconds: between 1973 and 2286 no time of one unit reads as one of another, and neither 0
    nor a date such as 20230101 reads as any. Whole numbers are exact; a fraction is rounded to the
    nearest microsecond, which is all that a float can tell.

    Args:
        text: numbers as text or numeric columns.
        round_up: round whole numbers up to the microsecond instead of down.

    Returns:
        UTC, microseconds; null where there is no number, or none of a time.
    """
    number = text.cast(pl.Float64, strict=False)
    whole = text.cast(pl.Int64, strict=False)
    scaled = (
        pl.when(number < 1e8)
        .then(None)
        .when(number < 1e11)
        .then(number * 1e6)
        .when(number < 1e14)
        .then(number * 1e3)
        .when(number < 1e17)
        .then(number)
        .otherwise(number / 1e3)
    )
    nearest = scaled.round().cast(pl.Int64, strict=False).cast(TIMESTAMP)
    is_whole = whole.cast(pl.Float64) == number
    return pl.when(is_whole).then(_time_of_whole(whole, round_up=round_up)).otherwise(nearest)


def _time_of_whole(whole: pl.Expr, *, round_up: bool) -> pl.Expr:
    return (
        pl.when(whole < 10**8)
        .then(None)
        .when(whole < 10**11)
        .then(whole * 10**6)
        .when(whole < 10**14)
        .then(whole * 10**3)
        .when(whole < 10**17)
        .then(whole)
        .otherwise(_thousands(whole, round_up=round_up))
        .cast(TIMESTAMP)
    )


def _thousands(number: pl.Expr, *, round_up: bool) -> pl.Expr:
    return -((-number) // 1000) if round_up else number // 1000
