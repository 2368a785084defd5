"""An option chain over the leader's bars: level, tilt and curvature of what tails cost, by tenor.

Expressions over the leader's regular bars with the columns of
:func:`margincast.features.implied_vol.surface.surface_states` as they stood at each close. The
windows of these functions are tenors: ``30d`` reads options 30 days from expiry, interpolated.

Sources: Gatheral and Jacquier (2014) doi:10.1080/14697688.2013.819986; Bollerslev, Tauchen and Zhou
(2009) doi:10.1093/rfs/hhp008; Xing, Zhang and Zhao (2010) doi:10.1017/S0022109010000220 (smirks
foretell falls).
"""

import polars as pl

from margincast.features.implied_vol.surface import surface_column
from margincast.features.implied_vol.units import days_of, per_bar, years_a_bar
from margincast.features.library import Window, feature, own_row
from margincast.features.volatility.returns import moved, realised_variance, root

LONGER_TENOR = 4
"""The term slope compares a tenor with one this many times as long: twice the usual move."""


@feature("options", "fraction", look_back=own_row)
def atm_volatility(tenor: Window) -> pl.Expr:
    """Volatility implied at the forward, per square root of one bar; the window is the tenor.

    Null where the tenor lies beyond the expiries whose smile is known.
    """
    return per_bar(_surface("atm_volatility", tenor), tenor)


@feature("options", "number", look_back=own_row)
def log_atm_volatility(tenor: Window) -> pl.Expr:
    """Log of the volatility implied at the forward, of a fraction a year; the window is the tenor.

    Null where the tenor lies beyond the expiries whose smile is known.
    """
    return _surface("atm_volatility", tenor).log()


@feature("options", "fraction", look_back=own_row)
def skew_25_delta(tenor: Window) -> pl.Expr:
    """Implied volatility of the 25-delta put less the call's, per square root of one bar.

    Above 0 where falls are dearer to insure than rises. Deltas are forward deltas of Black (1976);
    the window is the tenor. Null where a strike lies beyond those quoted.
    """
    return per_bar(_surface("skew_25_delta", tenor), tenor)


@feature("options", "number", look_back=own_row)
def relative_skew_25_delta(tenor: Window) -> pl.Expr:
    """25-delta skew over the volatility at the forward: the tilt of the smile, free of its level.

    The window is the tenor. Null where either is not known.
    """
    return _surface("skew_25_delta", tenor) / _surface("atm_volatility", tenor)


@feature("options", "fraction", look_back=own_row)
def butterfly_25_delta(tenor: Window) -> pl.Expr:
    """Mean implied volatility of the 25-delta put and call less that at the forward.

    Per square root of one bar: what large moves of either sign cost beyond ordinary ones. The
    window is the tenor. Null where a strike lies beyond those quoted.
    """
    return per_bar(_surface("butterfly_25_delta", tenor), tenor)


@feature("options", "number", look_back=own_row)
def relative_butterfly_25_delta(tenor: Window) -> pl.Expr:
    """25-delta butterfly over the volatility at the forward: curvature of the smile, level-free.

    The window is the tenor. Null where either is not known.
    """
    return _surface("butterfly_25_delta", tenor) / _surface("atm_volatility", tenor)


@feature("options", "number", look_back=own_row)
def atm_term_slope(tenor: Window) -> pl.Expr:
    """Log of the at-the-money volatility of the tenor over that of a tenor four times as long.

    Above 0 where the market fears the near future most. The window is the shorter tenor. Null where
    either is not known.
    """
    longer = pl.col(surface_column("atm_volatility", LONGER_TENOR * days_of(tenor)))
    return (_surface("atm_volatility", tenor) / longer).log()


@feature("options", "fraction")
def atm_less_realised(tenor: Window) -> pl.Expr:
    """At-the-money volatility of the tenor ahead less realised of as long a time behind.

    Per square root of one bar. Bollerslev, Tauchen and Zhou (2009) doi:10.1093/rfs/hhp008 as a
    difference of volatilities. Null where either is not known.
    """
    return per_bar(_surface("atm_volatility", tenor), tenor) - root(realised_variance(tenor))


@feature("options", "number")
def log_atm_over_realised(tenor: Window) -> pl.Expr:
    """Log of the at-the-money volatility of the tenor ahead over realised of as long behind.

    Above 0 where options charge more than what moved. Null where either is not known or nothing
    moved.
    """
    realised = moved(realised_variance(tenor)) / years_a_bar(tenor)
    return _surface("atm_volatility", tenor).log() - realised.log() / 2


def _surface(measure: str, tenor: Window) -> pl.Expr:
    return pl.col(surface_column(measure, days_of(tenor)))
