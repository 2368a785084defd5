"""What trading moved: price impact and the spread that trades bounce in.

A position is closed by trading, so these say what closing costs as :mod:`order_book` does, but from
prices that were paid. Impacts are fractions of the price for each million USD. None hangs on the
price's unit as long as the notional is the same.
"""

import polars as pl

from margincast.features.library import Window, feature
from margincast.features.regression import slope
from margincast.features.rolling import rolling_mean

IMPACT_UNIT_USD = 1e6
"""Impacts are fractions of the price for each million USD traded, as a book's slope is."""

_LOG_RETURN = pl.col("last_price").log().diff()


@feature("trades", "fraction")
def kyle_lambda(window: Window) -> pl.Expr:
    """Log return for each million USD bought net by aggressors: a regression's slope.

    Least squares with a constant, over the window's intervals: log return of the last trade price,
    against that of the interval before, on the notional bought less sold in the interval. Negative
    where prices fell against the flow; unchanged where both change sign.

    An interval counts where it and the one before have trades and its aggressors are known; null
    with fewer of them than the window asks for, or than three, and where the flow never varied.

    Source: Kyle (1985), Continuous auctions and insider trading, doi:10.2307/1913210; estimated
    as in Hasbrouck (2009), doi:10.1111/j.1540-6261.2009.01469.x, with signed notional in place of
    its square root.
    """
    return slope(_LOG_RETURN, pl.col("signed_notional_usd") * (1 / IMPACT_UNIT_USD), window)


@feature("trades", "fraction")
def amihud_illiquidity(window: Window) -> pl.Expr:
    """Mean absolute log return for each million USD traded, over the window's intervals.

    ``mean(|log return of the last trade price| / notional)``; at least 0; needs no aggressor. An
    interval counts where it and the one before have trades; null with fewer of them than the window
    asks for.

    Source: Amihud (2002), Illiquidity and stock returns, doi:10.1016/S1386-4181(01)00024-6.
    """
    notional = pl.col("notional_usd")
    ratio = pl.when(notional > 0).then(_LOG_RETURN.abs() * IMPACT_UNIT_USD / notional)
    return rolling_mean(ratio, window).clip(0)


@feature("trades", "fraction")
def roll_spread(window: Window) -> pl.Expr:
    """Spread implied by the bounce of trade prices, in fractions of the price.

    ``2 sqrt(-c)``, c the autocovariance of the log price changes from trade to trade, over all
    pairs of consecutive changes inside one interval (three trades in a row) of the window; needs no
    aggressor. Null where c is above zero (prices ran on more than they bounced: the estimator has
    no value) and where the window has fewer than two such pairs.

    Source: Roll (1984), A simple implicit measure of the effective bid-ask spread,
    doi:10.1111/j.1540-6261.1984.tb03897.x.
    """
    total = pl.col("change_pairs").rolling_sum(window.rows, min_samples=window.minimum)
    pairs = rolling_mean(pl.col("change_pairs"), window)
    product, change, before = (
        rolling_mean(pl.col(name), window) / pairs
        for name in ("change_products", "changes", "changes_before")
    )
    autocovariance = product - change * before
    return pl.when((total > 1) & (autocovariance <= 0)).then(2 * (-autocovariance).sqrt())
