"""An index of implied volatility over the leader's bars: what options charge beside what happened.

Expressions over the leader's regular bars with the column ``implied_volatility`` (fraction a year:
DVOL and its like, of options some 30 days from expiry) as it stood at each close. Options see what
lies ahead; realised volatility cannot.

Sources: Deribit Insights, "DVOL - Deribit Implied Volatility Index" (365 days a year, 30 days
ahead); Bollerslev, Tauchen and Zhou (2009) doi:10.1093/rfs/hhp008 on implied less realised.
"""

import polars as pl

from margincast.features.implied_vol.units import per_bar, years_a_bar
from margincast.features.library import Window, feature, window_rows
from margincast.features.rolling import rank, rolling_mean
from margincast.features.volatility.returns import moved, realised_variance, root

IMPLIED = pl.col("implied_volatility")


@feature("implied_vol", "fraction", look_back=window_rows)
def implied_volatility(window: Window) -> pl.Expr:
    """Mean of the index over the window's bars, per square root of one bar.

    A window of one bar is the index itself. The index is a fraction a year of 365 days; times the
    root of a bar's share of the year it compares with the contract's own volatilities. Null where
    too few bars have one.
    """
    return per_bar(rolling_mean(IMPLIED, window), window)


@feature("implied_vol", "number", look_back=window_rows)
def log_implied_volatility(window: Window) -> pl.Expr:
    """Log of the mean of the index over the window's bars, of a fraction a year.

    -0.69 is 50 % a year on any grid: a level of its own, beside that relative to the contract's
    scale. Null where too few bars have one.
    """
    return rolling_mean(IMPLIED, window).log()


@feature("implied_vol", "number")
def implied_volatility_change(window: Window) -> pl.Expr:
    """Log change of the index over the window.

    Null where the index is not known now or was not at the window's beginning.
    """
    return IMPLIED.log() - IMPLIED.log().shift(window.rows)


@feature("implied_vol", "number", look_back=window_rows)
def implied_volatility_rank(window: Window) -> pl.Expr:
    """Place of the index among the window's values: share below plus half the share equal, 0 to 1.

    Its own value counts among the equal ones, so that 0.5 is the middle. Null where it or too many
    of the window's values are not known.
    """
    return rank(IMPLIED, window)


@feature("implied_vol", "fraction")
def implied_less_realised(window: Window) -> pl.Expr:
    """The index less the leader's realised volatility of the window, per square root of one bar.

    The premium for bearing volatility, as a volatility; :func:`variance_risk_premium` is the same
    of variances. Null where either is not known.
    """
    return per_bar(IMPLIED, window) - root(realised_variance(window))


@feature("implied_vol", "number")
def log_implied_over_realised(window: Window) -> pl.Expr:
    """Log of the index over the leader's realised volatility of the window, both a year.

    Above 0 where options charge more than the window's moves would cost. Null where either is not
    known or nothing moved.
    """
    return IMPLIED.log() - (moved(realised_variance(window)) / years_a_bar(window)).log() / 2


@feature("implied_vol", "number")
def variance_risk_premium(window: Window) -> pl.Expr:
    """Square of the index less the leader's realised variance of the window, both a year.

    Bollerslev, Tauchen and Zhou (2009) doi:10.1093/rfs/hhp008, who take windows of a month, as
    far back as the index looks ahead. Null where either is not known.
    """
    return IMPLIED.pow(2) - realised_variance(window) / years_a_bar(window)
