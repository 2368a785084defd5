"""What derivatives features share: windows over sparse states, and USD of what is traded and held.

Expressions over regular bars with states beside them; null where not known, which no value hides.
"""

import polars as pl

from margincast.features.library import Window
from margincast.features.rolling import rolling_mean

TRADED_USD = pl.coalesce("quote_volume", pl.col("volume") * pl.col("close"))
"""Notional traded in a bar: the venue's own figure, else volume at the close."""

OPEN_INTEREST_USD = pl.coalesce(
    "open_interest_usd",
    # a contract's open interest is counted in the unit of its volume
    pl.col("open_interest") * pl.col("close"),
)
"""Notional of all open positions: the publisher's own figure, else open interest at the close."""


def deviation(expression: pl.Expr, window: Window) -> pl.Expr:
    """Population standard deviation of the window's known rows; null with fewer than two."""
    least = max(window.minimum, 2)
    return expression.rolling_std(window.rows, min_samples=min(least, window.rows), ddof=0)


def mean_traded_usd(window: Window) -> pl.Expr:
    """Mean notional traded in a bar of the window; null where nothing was."""
    # a rolling sum leaves rounding behind where nothing was traded
    any_traded = TRADED_USD.rolling_max(window.rows, min_samples=window.minimum) > 0
    return pl.when(any_traded).then(rolling_mean(TRADED_USD, window))


def ratio_of_sums(part: pl.Expr, whole: pl.Expr, window: Window) -> pl.Expr:
    """Sum of one column over that of another, both at least 0, over rows that have both.

    Null with fewer of them than the window asks for, and where the whole is 0 throughout.
    """
    both = part.is_not_null() & whole.is_not_null()
    part, whole = pl.when(both).then(part), pl.when(both).then(whole)
    any_part, any_whole = (
        column.rolling_max(window.rows, min_samples=window.minimum) > 0 for column in (part, whole)
    )
    # what a rolling sum leaves of a large value that has left the window is not a sum
    share = pl.when(any_part).then(rolling_mean(part, window)).otherwise(0.0)
    return pl.when(any_whole).then(share / rolling_mean(whole, window)).clip(0)
