"""How much was traded: the market into which a position would have to be closed."""

import polars as pl

from margincast.features.library import Window, feature
from margincast.features.rolling import rolling_mean


@feature("trades", "number")
def log_traded_notional_usd(window: Window) -> pl.Expr:
    """Log of one plus the mean notional traded in an interval of the window, USD."""
    return rolling_mean(pl.col("notional_usd"), window).clip(0).log1p()


@feature("trades", "number")
def trade_count(window: Window) -> pl.Expr:
    """Mean number of trades in an interval of the window."""
    return rolling_mean(pl.col("trade_count"), window)


@feature("trades", "number")
def log_trade_count_deviation(window: Window) -> pl.Expr:
    """Log of one plus the interval's trades, less its mean over the window: unusual activity.

    Null where the interval itself is not known.
    """
    count = pl.col("trade_count").log1p()
    return count - rolling_mean(count, window)
