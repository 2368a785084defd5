"""Volatility from closes: realised, up and down semivariance, exponentially weighted.

Per square root of one bar, in fractions; row t uses bars closed by t. A window of n bars needs one
close more. Sources: Andersen, Bollerslev, Diebold and Labys (2003) doi:10.1111/1468-0262.00418;
Barndorff-Nielsen, Kinnebrock and Shephard (2010) on realised semivariance; RiskMetrics (1996) on
EWMA.
"""

import math

import polars as pl

from margincast.features.library import Window, feature
from margincast.features.rolling import rolling_mean
from margincast.features.volatility.returns import (
    LOG_RETURN,
    SQUARED_RETURN,
    realised_variance,
    root,
)

EWMA_REMAINDER = 1e-20
"""Weight of everything older than :func:`ewma_memory` bars.

What a crash by the log return L has left of the volatility by then is at most L times the root of
the weight: below 1e-9 for a price that has moved by a factor of e^10, even if it stands still ever
after.
"""

EWMA_RETURNS = 24
"""Returns that must be known within that memory for the volatility to be known."""


def ewma_memory(decay: float) -> int:
    """Bars that carry all but ``EWMA_REMAINDER`` of an exponential mean: its declared window.

    Example:
        >>> ewma_memory(0.94)
        745
    """
    return math.ceil(math.log(EWMA_REMAINDER) / math.log(decay))


def ewma_look_back(decay: float) -> int:
    """Bars that :func:`ewma_volatility` looks back: its memory, and the close before it."""
    return max(ewma_memory(decay), EWMA_RETURNS) + 1


@feature("bars", "fraction")
def realised_volatility(window: Window) -> pl.Expr:
    """Root of the mean squared close-to-close log return, per square root of a bar.

    Andersen, Bollerslev, Diebold and Labys (2003) doi:10.1111/1468-0262.00418. Null where too few
    returns are known.
    """
    return root(realised_variance(window))


@feature("bars", "fraction", argument="values", look_back=ewma_look_back)
def ewma_volatility(decay: float) -> pl.Expr:
    """Root of the exponentially weighted mean of squared log returns, weight ``decay`` a bar.

    RiskMetrics (1996). The weights reach back without end but fall below 1e-20 within
    ``log(1e-20) / log(decay)`` bars (:func:`ewma_memory`). Null with fewer than 24 returns in them.
    """
    returns = SQUARED_RETURN.is_not_null().cast(pl.Float64)
    known = returns.rolling_sum(ewma_look_back(decay) - 1, min_samples=1) >= EWMA_RETURNS
    mean = SQUARED_RETURN.ewm_mean(alpha=1 - decay, adjust=True, ignore_nulls=False)
    return pl.when(known).then(mean).sqrt()


@feature("bars", "fraction")
def upside_volatility(window: Window) -> pl.Expr:
    """Root of the mean of max(r, 0)^2, r the log return: what hurts shorts.

    Barndorff-Nielsen, Kinnebrock and Shephard (2010). Its square and that of
    :func:`downside_volatility` add up to the realised variance. Null where too few returns are
    known.
    """
    return root(rolling_mean(LOG_RETURN.clip(lower_bound=0).pow(2), window))


@feature("bars", "fraction")
def downside_volatility(window: Window) -> pl.Expr:
    """Root of the mean of min(r, 0)^2, r the log return: what hurts longs.

    Barndorff-Nielsen, Kinnebrock and Shephard (2010). Null where too few returns are known.
    """
    return root(rolling_mean(LOG_RETURN.clip(upper_bound=0).pow(2), window))


@feature("bars", "number")
def downside_share(window: Window) -> pl.Expr:
    """Share of the realised variance that comes from falling bars, in [0, 1].

    Barndorff-Nielsen, Kinnebrock and Shephard (2010). Null where too few returns are known or
    nothing moved.
    """
    falling = pl.when(LOG_RETURN < 0).then(SQUARED_RETURN).when(LOG_RETURN >= 0).then(0.0)
    total = rolling_mean(SQUARED_RETURN, window)
    share = (rolling_mean(falling, window) / total).clip(0, 1)
    return pl.when(total > 0).then(share)
