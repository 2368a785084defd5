"""What every volatility is made of: log returns, log ranges, windows and the contract's own scale.

Expressions over regular bars (one row a grid step, null where a bar is missing). A return is null
where its bar or the bar before is missing, so one missing bar costs a window two returns.
"""

import math

import polars as pl

from margincast.core.errors import InputError
from margincast.features.library import Window
from margincast.features.rolling import rolling_mean

LOG_RETURN = pl.col("close").log().diff()
"""Log return of the close over one bar."""

SQUARED_RETURN = LOG_RETURN.pow(2)

LOG_RANGE = (pl.col("high") / pl.col("low")).log()
"""Log of a bar's high over its low, at least 0."""

ROUNDING_VARIANCE = 1e-16
"""A rolling variance of a price that stands still, after a crash has left its window.

A crash by half leaves 4e-17, the last bit of its square; one move by a ten-thousandth of a per cent
in a day of minutes is above.
"""

OWN_SCALE_MULTIPLE = 10
"""A feature's own scale is measured over this many of its windows.

Long enough that a window's burst does not set its own yardstick, short enough that a contract of
some weeks has one for windows of a few days.
"""


def root(variance: pl.Expr) -> pl.Expr:
    """Volatility of a variance, 0 up to ``ROUNDING_VARIANCE``.

    Rounding may leave a variance of zero a hair to either side of it, and the root of a hair above
    it is no longer small: what earlier bars leave behind would show.
    """
    return pl.when(variance <= ROUNDING_VARIANCE).then(0.0).otherwise(variance).sqrt()


def above_zero(expression: pl.Expr) -> pl.Expr:
    """Make a zero null: what is divided by it, or its logarithm, is not known."""
    return expression.replace(0.0, None)


def moved(variance: pl.Expr) -> pl.Expr:
    """Make a variance null where nothing moved, so that no shape or ratio is made of rounding."""
    return pl.when(variance > ROUNDING_VARIANCE).then(variance)


def parkinson_variance(window: Window) -> pl.Expr:
    """Mean of log(high / low)^2 / (4 log 2)."""
    return rolling_mean(LOG_RANGE.pow(2) / (4 * math.log(2)), window)


def realised_variance(window: Window) -> pl.Expr:
    """Mean squared log return: the realised variance of the window, a bar."""
    return rolling_mean(SQUARED_RETURN, window)


def own_scale(window: Window) -> pl.Expr:
    """Parkinson volatility over ``OWN_SCALE_MULTIPLE`` windows; null where nothing moved."""
    return moved(parkinson_variance(stretched(window, OWN_SCALE_MULTIPLE))).sqrt()


def stretched(window: Window, factor: int) -> Window:
    """Make the window some times as long, of which the same share must be known."""
    return Window(window.rows * factor, window.minimum * factor, window.label)


def shortened(window: Window, rows: int) -> Window:
    """Make the window of the terms, each ``rows`` + 1 returns, that lie inside a window."""
    return Window(window.rows - rows, max(1, window.minimum - rows), window.label)


def require_rows(window: Window, least: int, what: str) -> None:
    """Refuse a window that cannot hold an estimator.

    Raises:
        InputError: the window has fewer rows than the estimator needs.
    """
    if window.rows < least:
        raise InputError(
            f"{what} needs a window of at least {least} grid steps; {window.label} is "
            f"{window.rows}: write a longer window"
        )
