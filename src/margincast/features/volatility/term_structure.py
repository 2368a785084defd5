"""The conditional scale's raw material: log volatilities of several windows, and how they relate.

Volatility has long memory, which few windows in logarithms catch (HAR); their differences say
whether it is rising or fading, on any contract's scale. Row t uses bars closed by t.

Sources: Corsi (2009) doi:10.1093/jjfinec/nbp001; Alizadeh, Brandt and Diebold (2002)
doi:10.1111/1540-6261.00454; Corsi, Mittnik, Pigorsch and Pigorsch (2008)
doi:10.1080/07474930701853616 on the volatility of volatility.
"""

import polars as pl

from margincast.features.library import Window, feature
from margincast.features.volatility.returns import (
    LOG_RANGE,
    above_zero,
    moved,
    parkinson_variance,
    realised_variance,
    require_rows,
    stretched,
)

TERM_MULTIPLE = 4
"""Neighbouring windows of the term structure differ by this factor: twice the move."""


def _look_back_of_slope(window: Window) -> int:
    return window.rows * TERM_MULTIPLE


def _look_back_of_curvature(window: Window) -> int:
    return window.rows * TERM_MULTIPLE**2


@feature("bars", "number")
def log_realised_volatility(window: Window) -> pl.Expr:
    """Log of the root mean squared log return: a HAR component.

    Corsi (2009) doi:10.1093/jjfinec/nbp001. Log of the mean, not mean of logs. Null where too few
    returns are known or nothing moved.
    """
    return _half_log(realised_variance(window))


@feature("bars", "number")
def log_parkinson_volatility(window: Window) -> pl.Expr:
    """Log of the Parkinson volatility: a HAR component from ranges.

    Corsi (2009) doi:10.1093/jjfinec/nbp001, Parkinson (1980) doi:10.1086/296071. Null where too
    few bars are known or nothing moved.
    """
    return _half_log(parkinson_variance(window))


@feature("bars", "number", look_back=_look_back_of_slope)
def volatility_term_slope(window: Window) -> pl.Expr:
    """Log of the Parkinson volatility of the window over that of a window four times as long.

    Above 0 where volatility has risen. Looks back four windows. Null where either is.
    """
    longer = stretched(window, TERM_MULTIPLE)
    return _half_log(parkinson_variance(window)) - _half_log(parkinson_variance(longer))


@feature("bars", "number", look_back=_look_back_of_curvature)
def volatility_term_curvature(window: Window) -> pl.Expr:
    """Slope of the window less slope of the window four times as long.

    Above 0 where the rise is young. Looks back sixteen windows. Null where any volatility is.
    """
    short, middle, long = (
        _half_log(parkinson_variance(stretched(window, factor)))
        for factor in (1, TERM_MULTIPLE, TERM_MULTIPLE**2)
    )
    return short - 2 * middle + long


@feature("bars", "number")
def volatility_of_volatility(window: Window) -> pl.Expr:
    """Sample standard deviation (n - 1) of log(log(high / low)) over the window's bars.

    The log range is a bar's log volatility plus noise of known size, 0.29 for a diffusion,
    Alizadeh, Brandt and Diebold (2002) doi:10.1111/1540-6261.00454, so the excess over that is
    volatility of volatility. Null where too few bars moved.

    Raises:
        InputError: a window of one bar.
    """
    require_rows(window, 2, "volatility_of_volatility")
    return above_zero(LOG_RANGE).log().rolling_std(window.rows, min_samples=window.minimum, ddof=1)


def _half_log(variance: pl.Expr) -> pl.Expr:
    return moved(variance).log() / 2
