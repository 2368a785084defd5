"""What a column shows over a window: its mean, where it stands in it, whether it moved at all.

Expressions over rows sorted by time, for features of every family: windows of known rows, which
look no further back, and are null where too few of their rows are known.
"""

import polars as pl

from margincast.features.library import Window


def rolling_mean(expression: pl.Expr, window: Window) -> pl.Expr:
    """Mean of the window's known rows; null with fewer of them than it asks for."""
    return expression.rolling_mean(window.rows, min_samples=window.minimum)


def rank(expression: pl.Expr, window: Window) -> pl.Expr:
    """Place of the row's value among the window's: share below plus half the share equal.

    In (0, 1): its own value counts among the equal ones, so that 0.5 is the middle. Null where it
    is not known, or too few of the window's are.
    """
    count = expression.is_not_null().cast(pl.Float64).rolling_sum(window.rows, min_samples=1)
    place = expression.rolling_rank(window.rows, "average", min_samples=window.minimum)
    return (place - 0.5) / count


def varies(expression: pl.Expr, window: Window) -> pl.Expr:
    """Whether a column has two values: exact, where a variance from sums may be a rounding error.

    It has where the newest row known to differ from the last known value lies in the window; that
    row hangs on no window, and costs a tenth of a rolling maximum and minimum.
    """
    row = pl.int_range(pl.len())
    value_before = expression.forward_fill().shift(1)
    row_before = pl.when(expression.is_not_null()).then(row).forward_fill().shift(1)
    newest_other = pl.when(expression != value_before).then(row_before).forward_fill()
    return newest_other > row - window.rows
