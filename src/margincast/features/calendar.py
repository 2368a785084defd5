"""The clock at a decision: volatility and depth have strong daily and weekly rhythms."""

import polars as pl

from margincast.features.library import feature


@feature("calendar", "number", argument="nothing")
def hour_of_day() -> pl.Expr:
    """Hour of the UTC day, in [0, 24), with minutes as fractions."""
    return pl.col("ts").dt.hour().cast(pl.Float64) + pl.col("ts").dt.minute() / 60


@feature("calendar", "number", argument="nothing")
def hour_of_week() -> pl.Expr:
    """Hours since Monday 00:00 UTC, in [0, 168)."""
    return (day_of_week() - 1) * 24 + hour_of_day()


@feature("calendar", "number", argument="nothing")
def day_of_week() -> pl.Expr:
    """ISO weekday, 1 (Monday) to 7 (Sunday)."""
    # Polars counts days in eight bits, in which Sunday's hours would overflow
    return pl.col("ts").dt.weekday().cast(pl.Float64)
