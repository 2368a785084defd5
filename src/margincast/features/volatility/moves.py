"""Where the price stands against its recent past: drawdown, run-up, momentum, unusual activity.

In fractions of the price, over the whole window and not per bar; row t uses bars closed by t.
"""

import polars as pl

from margincast.features.library import Window, feature
from margincast.features.rolling import rolling_mean


@feature("bars", "fraction")
def drawdown(window: Window) -> pl.Expr:
    """Close relative to the window's highest high, less one; at most 0.

    Null where too few bars are known.
    """
    return pl.col("close") / pl.col("high").rolling_max(window.rows, min_samples=window.minimum) - 1


@feature("bars", "fraction")
def run_up(window: Window) -> pl.Expr:
    """Close relative to the window's lowest low, less one; at least 0.

    Null where too few bars are known.
    """
    return pl.col("close") / pl.col("low").rolling_min(window.rows, min_samples=window.minimum) - 1


@feature("bars", "fraction")
def log_return(window: Window) -> pl.Expr:
    """Log return of the close over the window.

    Null where the first or the last close is not known.
    """
    return pl.col("close").log().diff(window.rows)


@feature("bars", "number")
def log_volume_deviation(window: Window) -> pl.Expr:
    """Log of one plus the bar's volume less its mean over the window: unusual activity.

    Null where too few bars are known.
    """
    volume = pl.col("volume").log1p()
    return volume - rolling_mean(volume, window)
