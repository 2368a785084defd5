"""Two columns over a window: how one moves with the other, for impact and market features.

Expressions over rows sorted by time; a row counts where both columns are known. Sums roll over the
window's rows and look no further back.
"""

import polars as pl

from margincast.core.errors import InputError
from margincast.features.library import Window
from margincast.features.rolling import rolling_mean, varies

MINIMUM_ROWS = 3
"""Rows a regression with a constant needs: through two points any line fits."""


def slope(y: pl.Expr, x: pl.Expr, window: Window) -> pl.Expr:
    """Slope of the least-squares line of y on x, with a constant.

    Null where x never varies, or with too few rows in which both are known (fewer than the window
    asks for, or than ``MINIMUM_ROWS``).

    Raises:
        InputError: the window is shorter than ``MINIMUM_ROWS``.
    """
    y, x, over = _together(y, x, window)
    variance = _covariance(x, x, over)
    return pl.when(varies(x, over) & (variance > 0)).then(_covariance(y, x, over) / variance)


def correlation(y: pl.Expr, x: pl.Expr, window: Window) -> pl.Expr:
    """Pearson correlation of y and x; in [-1, 1], null where one never varies; else as a slope.

    Raises:
        InputError: the window is shorter than ``MINIMUM_ROWS``.
    """
    y, x, over = _together(y, x, window)
    variances = _covariance(x, x, over) * _covariance(y, y, over)
    known = varies(x, over) & varies(y, over) & (variances > 0)
    return pl.when(known).then((_covariance(y, x, over) / variances.sqrt()).clip(-1, 1))


def residual_deviation(y: pl.Expr, x: pl.Expr, window: Window) -> pl.Expr:
    """Root of the mean squared residual of the least-squares line of y on x; known as a slope is.

    Raises:
        InputError: the window is shorter than ``MINIMUM_ROWS``.
    """
    y, x, over = _together(y, x, window)
    variance = _covariance(x, x, over)
    explained = _covariance(y, x, over).pow(2) / variance
    residual = (_covariance(y, y, over) - explained).clip(0).sqrt()
    return pl.when(varies(x, over) & (variance > 0)).then(residual)


def _together(y: pl.Expr, x: pl.Expr, window: Window) -> tuple[pl.Expr, pl.Expr, Window]:
    if window.rows < MINIMUM_ROWS:
        raise InputError(
            f"a regression over a window of {window.label} has {window.rows} row(s) of the grid; "
            f"use a window of at least {MINIMUM_ROWS} grid steps"
        )
    both = y.is_not_null() & x.is_not_null()
    over = Window(window.rows, max(window.minimum, MINIMUM_ROWS), window.label)
    return pl.when(both).then(y), pl.when(both).then(x), over


def _covariance(y: pl.Expr, x: pl.Expr, window: Window) -> pl.Expr:
    return rolling_mean(y * x, window) - rolling_mean(y, window) * rolling_mean(x, window)
