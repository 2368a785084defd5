"""Volatility from a bar's open, high, low and close: a day's range says more than its close.

Per square root of one bar, in fractions (but for the price range, which is the whole window's); row
t uses bars closed by t.

Sources: Parkinson (1980) doi:10.1086/296071; Garman and Klass (1980) doi:10.1086/296072; Rogers and
Satchell (1991) doi:10.1214/aoap/1177005835; Yang and Zhang (2000) doi:10.1086/209650; Alizadeh,
Brandt and Diebold (2002) doi:10.1111/1540-6261.00454 on the log range.
"""

import math

import polars as pl

from margincast.features.library import Window, feature
from margincast.features.rolling import rolling_mean
from margincast.features.volatility.returns import (
    LOG_RANGE,
    above_zero,
    parkinson_variance,
    require_rows,
    root,
)

_LOG_BODY = (pl.col("close") / pl.col("open")).log()
_ROGERS_SATCHELL = (pl.col("high") / pl.col("close")).log() * (
    pl.col("high") / pl.col("open")
).log() + (pl.col("low") / pl.col("close")).log() * (pl.col("low") / pl.col("open")).log()


@feature("bars", "fraction")
def parkinson_volatility(window: Window) -> pl.Expr:
    """Root of the mean of log(high / low)^2 / (4 log 2), per square root of a bar.

    Parkinson (1980) doi:10.1086/296071. Null where too few bars are known.
    """
    return root(parkinson_variance(window))


@feature("bars", "fraction")
def garman_klass_volatility(window: Window) -> pl.Expr:
    """Root of the mean of 0.5 log(h / l)^2 - (2 log 2 - 1) log(c / o)^2, per root of a bar.

    Garman and Klass (1980) doi:10.1086/296072. Null where too few bars are known.
    """
    body = (pl.col("close") / pl.col("open")).log()
    variance = 0.5 * LOG_RANGE.pow(2) - (2 * math.log(2) - 1) * body.pow(2)
    return root(rolling_mean(variance, window))


@feature("bars", "fraction")
def rogers_satchell_volatility(window: Window) -> pl.Expr:
    """Root of the mean of log(h / c) log(h / o) + log(l / c) log(l / o).

    Rogers and Satchell (1991) doi:10.1214/aoap/1177005835: unbiased under drift, blind to jumps
    between bars. Null where too few bars are known.
    """
    return root(rolling_mean(_ROGERS_SATCHELL, window))


@feature("bars", "fraction")
def yang_zhang_volatility(window: Window) -> pl.Expr:
    """Root of s2_open + k s2_body + (1 - k) Rogers-Satchell, k = 0.34 / (1.34 + (n + 1) / (n - 1)).

    Yang and Zhang (2000) doi:10.1086/209650. s2_open and s2_body are sample variances (n - 1) of
    log(open / previous close) and log(close / open); n the bars of the window, at least 2. Sees
    jumps between bars and is free of drift. Null where too few bars are known.

    Raises:
        InputError: a window of one bar.
    """
    require_rows(window, 2, "yang_zhang_volatility")
    count = window.rows
    weight = 0.34 / (1.34 + (count + 1) / (count - 1))
    opening = (pl.col("open") / pl.col("close").shift(1)).log()
    return root(
        opening.rolling_var(count, min_samples=window.minimum, ddof=1)
        + weight * _LOG_BODY.rolling_var(count, min_samples=window.minimum, ddof=1)
        + (1 - weight) * rolling_mean(_ROGERS_SATCHELL, window)
    )


@feature("bars", "fraction")
def price_range(window: Window) -> pl.Expr:
    """Log of the window's highest high over its lowest low.

    Not per bar: it grows with the root of the window. Parkinson (1980) doi:10.1086/296071. Null
    where too few bars are known.
    """
    highest = pl.col("high").rolling_max(window.rows, min_samples=window.minimum)
    lowest = pl.col("low").rolling_min(window.rows, min_samples=window.minimum)
    return (highest / lowest).log()


@feature("bars", "number")
def log_range(window: Window) -> pl.Expr:
    """Log of :func:`price_range`: close to normal, where the range itself is skewed.

    Alizadeh, Brandt and Diebold (2002) doi:10.1111/1540-6261.00454. Null where too few bars
    are known or nothing moved.
    """
    return above_zero(price_range(window)).log()
