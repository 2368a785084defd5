"""The clock at a decision: volatility and depth have strong daily and weekly rhythms.

The time of a decision is always known, so nothing here is ever null.
"""

import math

import polars as pl

from margincast.core.errors import InputError
from margincast.features.library import feature

HOURS_A_WEEK = 168

FIRST_CLOSE = "first_close"
"""Column beside decision times: close of the contract's first bar, which a window may not hold."""

# not divided by: polars divides one row, but multiplies several by the reciprocal
_HOUR_MICROSECONDS = 3_600_000_000
_LEAST_STEP_MICROSECONDS = 1_000_000


@feature("calendar", "number", argument="nothing")
def hour_of_day() -> pl.Expr:
    """Hour of the UTC day, in [0, 24), with what is past of the hour as a fraction."""
    past = pl.col("ts").dt.epoch("us") % _HOUR_MICROSECONDS
    return pl.col("ts").dt.hour().cast(pl.Float64) + past * (1 / _HOUR_MICROSECONDS)


@feature("calendar", "number", argument="nothing")
def hour_of_week() -> pl.Expr:
    """Hours since Monday 00:00 UTC, in [0, 168)."""
    return (day_of_week() - 1) * 24 + hour_of_day()


@feature("calendar", "number", argument="nothing")
def day_of_week() -> pl.Expr:
    """ISO weekday, 1 (Monday) to 7 (Sunday)."""
    # Polars counts days in eight bits, in which Sunday's hours would overflow
    return pl.col("ts").dt.weekday().cast(pl.Float64)


@feature("calendar", "number", argument="nothing")
def hour_of_week_sine() -> pl.Expr:
    """``sin(2 pi hour_of_week / 168)``: with its cosine, a week that joins end to start."""
    return _week_angle().sin()


@feature("calendar", "number", argument="nothing")
def hour_of_week_cosine() -> pl.Expr:
    """``cos(2 pi hour_of_week / 168)``: 1 as Monday begins, -1 on Thursday at noon, UTC."""
    return _week_angle().cos()


@feature("calendar", "number", argument="nothing")
def is_weekend() -> pl.Expr:
    """1 on Saturday and Sunday, UTC, else 0: books are thinner when banks are closed."""
    return (day_of_week() >= 6).cast(pl.Float64)


@feature("calendar", "number", argument="values")
def hours_to_funding(hours_between: float) -> pl.Expr:
    """Hours from the decision to the next funding, in (0, ``hours_between``].

    Funding is due at whole multiples of ``hours_between`` from 00:00 UTC; 8 for most perpetual
    contracts (Binance, "Introduction to Binance Futures Funding Rates": 00:00, 08:00 and 16:00
    UTC), 4 or 1 for some. At the very time of a funding it is the next one that counts.

    Raises:
        InputError: a day is not a whole number of such steps, or they are shorter than a second.
    """
    step = round(hours_between * _HOUR_MICROSECONDS) if 0 < hours_between <= 24 else 0
    if step < _LEAST_STEP_MICROSECONDS or 24 * _HOUR_MICROSECONDS % step:
        raise InputError(
            f"hours_to_funding: fundings {hours_between:g} hours apart do not fit a day; list "
            "hours that divide 24, such as 8, 4 or 1, and no less than a second"
        )
    # the epoch began at midnight, and days are whole multiples of the step
    return (step - pl.col("ts").dt.epoch("us") % step) * (1 / _HOUR_MICROSECONDS)


@feature("calendar", "number", argument="values")
def days_since_listing(most_days: float) -> pl.Expr:
    """Days since the close of the contract's first bar, at most ``most_days``.

    The first bar given is taken for the listing, so that history cut off earlier makes a contract
    look younger. Beyond ``most_days`` it stays there: a contract of that age is as old as any, and
    no more history than that is ever needed to tell.

    Raises:
        InputError: ``most_days`` is not above zero.
    """
    if not 0 < most_days < math.inf:
        raise InputError(f"days_since_listing: most_days must be above 0, found {most_days:g}")
    age = (pl.col("ts") - pl.col(FIRST_CLOSE)).dt.total_microseconds()
    return (age * (1 / (24 * _HOUR_MICROSECONDS))).clip(0, most_days)


def _week_angle() -> pl.Expr:
    return hour_of_week() * (2 * math.pi / HOURS_A_WEEK)
