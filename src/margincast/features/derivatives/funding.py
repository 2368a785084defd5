"""What holding a position costs: the rate that longs pay shorts each funding, and its cap.

Funding far from zero is the price of leverage on one side; a side that pays much is the one that is
liquidated when the price turns. The rate is that of the newest funding known at the decision, a
fraction of the notional, above zero where longs pay.

Sources: Binance, "Introduction to Binance Futures Funding Rates" (rate, cap, payment); perpetual
futures and their funding: He, Manela, Ross and von Wachter (2022), Fundamentals of Perpetual
Futures, arXiv:2212.06888.
"""

import math

import polars as pl

from margincast.core.errors import InputError
from margincast.features.library import Window, feature, window_rows
from margincast.features.rolling import rolling_mean

HOURS_A_YEAR = 24 * 365

_RATE = pl.col("funding_rate")


@feature("derivatives", "fraction", argument="nothing")
def funding_rate() -> pl.Expr:
    """Rate of the newest funding known: a fraction of the notional that longs pay shorts.

    Changes sign where longs and shorts trade places. Source: Binance, "Introduction to Binance
    Futures Funding Rates".
    """
    return _RATE


@feature("derivatives", "number", argument="values")
def annualised_funding(hours_between: float) -> pl.Expr:
    """Funding rate a year, without compounding: ``rate x 8760 / hours_between``.

    Makes contracts with fundings every 8, 4 or 1 hours comparable. Changes sign where longs and
    shorts trade places.

    Raises:
        InputError: ``hours_between`` is not above zero.
    """
    if not 0 < hours_between < math.inf:
        raise InputError(
            f"annualised_funding: hours between fundings must be above 0, found {hours_between:g}; "
            "list 8, 4 or 1"
        )
    return _RATE * (HOURS_A_YEAR / hours_between)


@feature("derivatives", "fraction", look_back=window_rows)
def funding_mean(window: Window) -> pl.Expr:
    """Mean of the funding rate standing at the window's bars: what holding has cost, a funding."""
    return rolling_mean(_RATE, window)


@feature("derivatives", "fraction")
def funding_change(window: Window) -> pl.Expr:
    """Funding rate less the one that stood a window ago. Null where either is not known."""
    return _RATE - _RATE.shift(window.rows)


@feature("derivatives", "number", argument="values")
def distance_to_funding_cap(cap: float) -> pl.Expr:
    """How far funding is from its cap: ``1 - |rate| / cap``; 1 at no funding, 0 at the cap.

    At its cap funding no longer balances the sides, and the basis runs on alone. ``cap`` is a
    fraction of the notional each funding, the same up and down, as a venue publishes it for the
    contract; below 0 where the venue has raised it. The same where longs and shorts trade places.
    Source: Binance, "Introduction to Binance Futures Funding Rates" (capped funding rate).

    Raises:
        InputError: ``cap`` is not in (0, 1].
    """
    if not 0 < cap <= 1:
        raise InputError(
            f"distance_to_funding_cap: a cap is a fraction of the notional in (0, 1], found "
            f"{cap:g}; write 2 % as 0.02"
        )
    return 1 - _RATE.abs() / cap
