"""What the whole market shows: medians over contracts and the leading contract's own features.

A contract's tail widens when the market's does, often before its own bars show it. These
expressions read the panel of all contracts at one decision time.
"""

import polars as pl

from margincast.features.library import feature


@feature("market", "fraction", argument="columns")
def market_median(column: str) -> pl.Expr:
    """Median of a column over the contracts known at the decision time."""
    return pl.col(column).median()


@feature("market", "fraction", argument="columns")
def leader(column: str) -> pl.Expr:
    """The leading contract's value of a column; unknown where it has none."""
    return pl.col(column).filter(pl.col("is_leader")).first()
