"""Volatility, drawdown and momentum of one contract's bars.

These are the features the conditional scale stands on. Each is an expression over regular bars
(one row a grid step, null where a bar is missing); row t uses bars closed by t. Volatilities are
per square root of one bar, in fractions.

Sources: Parkinson (1980) doi:10.1086/296071; Garman and Klass (1980) doi:10.1086/296072; Barndorff-
Nielsen, Kinnebrock and Shephard (2010) on realised semivariance; RiskMetrics (1996) on EWMA.
"""

import math

import polars as pl

from margincast.features.library import Window, feature

_LOG_RETURN = pl.col("close").log().diff()
_SQUARED_RETURN = _LOG_RETURN.pow(2)
_LOG_RANGE = (pl.col("high") / pl.col("low")).log()


def _rolling_mean(expression: pl.Expr, window: Window) -> pl.Expr:
    return expression.rolling_mean(window.rows, min_samples=window.minimum)


@feature("bars", "fraction")
def parkinson_volatility(window: Window) -> pl.Expr:
    """Root of the mean of log(high / low)^2 / (4 log 2) (Parkinson 1980)."""
    return _rolling_mean(_LOG_RANGE.pow(2) / (4 * math.log(2)), window).clip(0).sqrt()


@feature("bars", "fraction")
def garman_klass_volatility(window: Window) -> pl.Expr:
    """Root of the mean of 0.5 log(h / l)^2 - (2 log 2 - 1) log(c / o)^2 (Garman-Klass 1980)."""
    body = (pl.col("close") / pl.col("open")).log()
    variance = 0.5 * _LOG_RANGE.pow(2) - (2 * math.log(2) - 1) * body.pow(2)
    return _rolling_mean(variance, window).clip(0).sqrt()


@feature("bars", "fraction")
def realised_volatility(window: Window) -> pl.Expr:
    """Root of the mean squared close-to-close log return."""
    return _rolling_mean(_SQUARED_RETURN, window).clip(0).sqrt()


@feature("bars", "fraction", argument="values")
def ewma_volatility(decay: float) -> pl.Expr:
    """Root of the exponentially weighted mean of squared log returns, weight ``decay`` a bar.

    RiskMetrics (1996). The weights reach back without end but fall below 1e-9 within
    ``log(1e-9) / log(decay)`` bars.
    """
    return _SQUARED_RETURN.ewm_mean(
        alpha=1 - decay, adjust=True, ignore_nulls=False, min_samples=24
    ).sqrt()


@feature("bars", "number")
def downside_share(window: Window) -> pl.Expr:
    """Share of the realised variance that comes from falling bars, in [0, 1]."""
    falling = pl.when(_LOG_RETURN < 0).then(_SQUARED_RETURN).when(_LOG_RETURN >= 0).then(0.0)
    total = _rolling_mean(_SQUARED_RETURN, window)
    share = (_rolling_mean(falling, window) / total).clip(0, 1)
    return pl.when(total > 0).then(share)


@feature("bars", "fraction")
def drawdown(window: Window) -> pl.Expr:
    """Close relative to the window's highest high, less one; at most 0."""
    return pl.col("close") / pl.col("high").rolling_max(window.rows, min_samples=window.minimum) - 1


@feature("bars", "fraction")
def run_up(window: Window) -> pl.Expr:
    """Close relative to the window's lowest low, less one; at least 0."""
    return pl.col("close") / pl.col("low").rolling_min(window.rows, min_samples=window.minimum) - 1


@feature("bars", "fraction")
def log_return(window: Window) -> pl.Expr:
    """Log return of the close over the window."""
    return pl.col("close").log().diff(window.rows)


@feature("bars", "number")
def log_volume_deviation(window: Window) -> pl.Expr:
    """Log of the bar's volume less its mean over the window: unusual activity."""
    volume = pl.col("volume").log1p()
    return volume - _rolling_mean(volume, window)
