"""Who is being liquidated: forced closing of longs and shorts, against trading and what is open.

A liquidation is a market order that does not mind its price, and what it moves liquidates the next.
Values are of what became known within the window; 0 where nothing was liquidated, null where the
feed was not there. A function of longs is that of shorts where both trade places.

Sources: Binance, "Liquidation Order Streams" (the order's side); liquidation spirals: Brunnermeier
and Pedersen (2009), Market Liquidity and Funding Liquidity, doi:10.1093/rfs/hhn098.
"""

import polars as pl

from margincast.features.derivatives.windows import (
    OPEN_INTEREST_USD,
    TRADED_USD,
    ratio_of_sums,
)
from margincast.features.library import Window, feature, window_rows
from margincast.features.rolling import rolling_mean

_LONG, _SHORT = pl.col("long_liquidated_usd"), pl.col("short_liquidated_usd")


@feature("derivatives", "number", look_back=window_rows)
def long_liquidations_to_volume(window: Window) -> pl.Expr:
    """Notional of longs liquidated over the notional traded, in the window; at least 0.

    Over bars that have both. Above 1 only where the two come from different markets. Null where
    nothing was traded.
    """
    return ratio_of_sums(_LONG, TRADED_USD, window)


@feature("derivatives", "number", look_back=window_rows)
def short_liquidations_to_volume(window: Window) -> pl.Expr:
    """Notional of shorts liquidated over the notional traded, in the window; at least 0.

    Over bars that have both. Above 1 only where the two come from different markets. Null where
    nothing was traded.
    """
    return ratio_of_sums(_SHORT, TRADED_USD, window)


@feature("derivatives", "number", look_back=window_rows)
def long_liquidations_to_open_interest(window: Window) -> pl.Expr:
    """Notional of longs liquidated in the window over mean open interest of its bars; at least 0.

    ``mean(liquidated) x bars of the window / mean(open interest)``, the means over bars that have
    both: the share of positions that was closed by force, were it going on in the bars that lack
    one as in the others. Null where nothing was open.
    """
    return ratio_of_sums(_LONG, OPEN_INTEREST_USD, window) * window.rows


@feature("derivatives", "number", look_back=window_rows)
def short_liquidations_to_open_interest(window: Window) -> pl.Expr:
    """Notional of shorts liquidated in the window over mean open interest of its bars; at least 0.

    As ``long_liquidations_to_open_interest``.
    """
    return ratio_of_sums(_SHORT, OPEN_INTEREST_USD, window) * window.rows


@feature("derivatives", "number", look_back=window_rows)
def liquidation_imbalance(window: Window) -> pl.Expr:
    """Longs less shorts liquidated over their sum, in the window; in [-1, 1].

    1 where longs alone were liquidated; changes sign where longs and shorts trade places. Null
    where nobody was.
    """
    # of the two shares, each is exact where it is 0, and the smaller one where it is small
    longs = ratio_of_sums(_LONG, _LONG + _SHORT, window)
    shorts = ratio_of_sums(_SHORT, _LONG + _SHORT, window)
    return (longs - shorts).clip(-1, 1)


@feature("derivatives", "number", look_back=window_rows)
def log_long_liquidated_usd(window: Window) -> pl.Expr:
    """Log of one plus the mean notional of longs liquidated in a bar of the window, USD."""
    return _log_mean(_LONG, window)


@feature("derivatives", "number", look_back=window_rows)
def log_short_liquidated_usd(window: Window) -> pl.Expr:
    """Log of one plus the mean notional of shorts liquidated in a bar of the window, USD."""
    return _log_mean(_SHORT, window)


def _log_mean(liquidated: pl.Expr, window: Window) -> pl.Expr:
    # what a rolling sum leaves of a large value that has left the window is not a liquidation
    anything = liquidated.rolling_max(window.rows, min_samples=window.minimum) > 0
    mean = pl.when(anything).then(rolling_mean(liquidated, window).clip(0)).otherwise(0.0)
    known = rolling_mean(liquidated, window).is_not_null()
    return pl.when(known).then(mean.log1p())
