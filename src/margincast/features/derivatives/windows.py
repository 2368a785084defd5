"""What derivatives features share: windows over sparse states, and USD of what is traded and held.

Expressions over regular bars with states beside them; null where not known, which no value hides.
"""

import polars as pl

from margincast.features.library import Window
from margincast.features.regression import rolling_mean

TRADED_USD = pl.coalesce("quote_volume", pl.col("volume") * pl.col("close"))
"""Notional traded in a bar: the venue's own figure, else volume at the close."""

OPEN_INTEREST_USD = pl.coalesce(
    "open_interest_usd",
    # a contract's open interest is counted in the unit of its volume
    pl.col("open_interest") * pl.col("close"),
)
"""Notional of all open positions: the publisher's own figure, else open interest at the close."""


def window_rows(window: Window) -> int:
    """Rows a value over a window hangs on where nothing before the window enters."""
    return window.rows


def own_row() -> int:
    """Rows that a value of the decision's own row hangs on."""
    return 1


def deviation(expression: pl.Expr, window: Window) -> pl.Expr:
    """Population standard deviation of the window's known rows; null with fewer than two."""
    least = max(window.minimum, 2)
    return expression.rolling_std(window.rows, min_samples=min(least, window.rows), ddof=0)


def varied(expression: pl.Expr, window: Window) -> pl.Expr:
    """Whether a column has two values in the window: exact, where a deviation may be rounding."""
    highest = expression.rolling_max(window.rows, min_samples=window.minimum)
    return highest > expression.rolling_min(window.rows, min_samples=window.minimum)


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


def rank(expression: pl.Expr, window: Window) -> pl.Expr:
    """Place of the row's value among the window's: share below plus half the share equal.

    In (0, 1). Null where the row's own value is not known, or too few of the window's are.
    """
    count = expression.is_not_null().cast(pl.Float64).rolling_sum(window.rows, min_samples=1)
    place = expression.rolling_rank(window.rows, "average", min_samples=window.minimum)
    return (place - 0.5) / count
