"""Volatility without jumps, and how much of the variance is jumps.

A jump widens the tail for hours and decays faster than diffusive volatility, so a forecast wants
the two apart. Per square root of one bar, in fractions; row t uses bars closed by t. Each product
or median takes neighbouring returns that all lie inside the window.

Sources: Barndorff-Nielsen and Shephard (2004) doi:10.1093/jjfinec/nbh001; Andersen, Dobrev and
Schaumburg (2012) doi:10.1016/j.jeconom.2012.01.011.
"""

import math

import polars as pl

from margincast.features.library import Window, feature
from margincast.features.rolling import rolling_mean
from margincast.features.volatility.returns import (
    LOG_RETURN,
    SQUARED_RETURN,
    moved,
    realised_variance,
    require_rows,
    root,
    shortened,
)

_MEDIAN_FACTOR = math.pi / (6 - 4 * math.sqrt(3) + math.pi)
"""One over the mean squared median of three absolute standard normals."""


@feature("bars", "fraction")
def bipower_volatility(window: Window) -> pl.Expr:
    """Root of pi / 2 times the mean of |r_i| |r_(i-1)| over the window's n - 1 pairs.

    Barndorff-Nielsen and Shephard (2004) doi:10.1093/jjfinec/nbh001: a jump meets an ordinary
    neighbour and loses its weight. Null where too few pairs are known.

    Raises:
        InputError: a window of one bar.
    """
    return root(_bipower_variance(window, "bipower_volatility"))


@feature("bars", "fraction")
def median_volatility(window: Window) -> pl.Expr:
    """Root of pi / (6 - 4 sqrt(3) + pi) times the mean squared median of three neighbouring |r|.

    MedRV, Andersen, Dobrev and Schaumburg (2012) doi:10.1016/j.jeconom.2012.01.011, over the
    window's n - 2 triples: sturdier than bipower variation against two jumps in a row and returns
    of zero. Null where too few triples are known.

    Raises:
        InputError: a window of fewer than three bars.
    """
    require_rows(window, 3, "median_volatility")
    # squares keep the order of absolute returns, so the middle square is the squared median
    last, before, first = (SQUARED_RETURN.shift(bars) for bars in (0, 1, 2))
    low, high = _smaller(before, first), _larger(before, first)
    middle = _larger(low, _smaller(high, last))
    # a comparison with a null takes either side, a sum does not: all three must be known
    squared = pl.when((last + before + first).is_not_null()).then(middle)
    return root(_MEDIAN_FACTOR * rolling_mean(squared, shortened(window, 2)))


@feature("bars", "fraction")
def jump_volatility(window: Window) -> pl.Expr:
    """Root of the realised variance above the bipower variance, at least 0.

    Barndorff-Nielsen and Shephard (2004) doi:10.1093/jjfinec/nbh001. Null where either is.

    Raises:
        InputError: a window of one bar.
    """
    return root(realised_variance(window) - _bipower_variance(window, "jump_volatility"))


@feature("bars", "number")
def jump_share(window: Window) -> pl.Expr:
    """Share of the realised variance that jumps account for: 1 - bipower / realised, in [0, 1].

    Barndorff-Nielsen and Shephard (2004) doi:10.1093/jjfinec/nbh001; sampling error below 0
    counts as no jump. Null where either variance is, and where nothing moved.

    Raises:
        InputError: a window of one bar.
    """
    smooth = _bipower_variance(window, "jump_share")
    return (1 - smooth / moved(realised_variance(window))).clip(0, 1)


def _smaller(one: pl.Expr, other: pl.Expr) -> pl.Expr:
    # three times as fast as the horizontal extremes of Polars, which look for nulls
    return pl.when(one < other).then(one).otherwise(other)


def _larger(one: pl.Expr, other: pl.Expr) -> pl.Expr:
    return pl.when(one < other).then(other).otherwise(one)


def _bipower_variance(window: Window, what: str) -> pl.Expr:
    require_rows(window, 2, what)
    pairs = (LOG_RETURN * LOG_RETURN.shift(1)).abs()
    return math.pi / 2 * rolling_mean(pairs, shortened(window, 1))
