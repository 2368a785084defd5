"""How large single trades were: a few large aggressors move a price further than many small ones.

Quantiles are taken inside each interval, over its trades, by linear interpolation between order
statistics, and their mean over the window weights intervals by their trades. So an interval leaves
one number behind, however many trades it held; with one trade in it every quantile is that trade.
No function needs the aggressor, and none hangs on the price's unit at the same notional.
"""

import polars as pl

from margincast.features.library import Window, feature
from margincast.features.rolling import rolling_mean


@feature("trades", "number")
def log_trade_notional_usd_median(window: Window) -> pl.Expr:
    """Log of the median notional of a trade, USD: mean of the intervals' own, weighted by trades.

    Null where nothing was traded in the window.
    """
    return _log_quantile("median_times_count", window)


@feature("trades", "number")
def log_trade_notional_usd_p90(window: Window) -> pl.Expr:
    """Log of the 0.9 quantile of a trade's notional, USD: the intervals' mean, weighted by trades.

    Null where nothing was traded in the window.
    """
    return _log_quantile("p90_times_count", window)


@feature("trades", "number")
def log_trade_notional_usd_p99(window: Window) -> pl.Expr:
    """Log of the 0.99 quantile of a trade's notional, USD: the intervals' mean, weighted by trades.

    Null where nothing was traded in the window.
    """
    return _log_quantile("p99_times_count", window)


@feature("trades", "number")
def large_trade_share(window: Window) -> pl.Expr:
    """Share of the window's notional in trades of at least ten times their interval's median.

    In [0, 1]. The median is that of the trades of the same interval, so that "large" means the same
    for every contract. Null where nothing was traded in the window.
    """
    total = rolling_mean(pl.col("notional_usd"), window)
    large = rolling_mean(pl.col("large_notional_usd"), window)
    return pl.when(total > 0).then((large / total).clip(0, 1))


def _log_quantile(weighted_name: str, window: Window) -> pl.Expr:
    weighted = rolling_mean(pl.col(weighted_name), window)
    count = rolling_mean(pl.col("trade_count"), window)
    return pl.when((count > 0) & (weighted > 0)).then((weighted / count).log())
