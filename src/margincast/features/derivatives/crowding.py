"""How crowded one side is: open interest times funding, what all positions on it pay to stay.

Much open interest at a high rate says that a crowd holds the same position on borrowed money, and
leaves together. Above zero where longs are the crowd; changes sign where longs and shorts trade
places. The amount paid at each funding is ``open interest in USD x funding rate``; every function
makes it free of the contract's size.

Sources: Binance, "Introduction to Binance Futures Funding Rates" (funding amount = nominal value of
positions x funding rate); Schmeling, Schrimpf and Todorov (2023), Crypto Carry, BIS Working Paper
1087, who tie high carry to leverage, liquidations and crashes.
"""

import polars as pl

from margincast.features.derivatives.windows import (
    OPEN_INTEREST_USD,
    deviation,
    mean_traded_usd,
)
from margincast.features.library import Window, feature, window_rows
from margincast.features.rolling import rank, rolling_mean, varies

_PAID_USD = OPEN_INTEREST_USD * pl.col("funding_rate")


@feature("derivatives", "fraction", look_back=window_rows)
def crowding(window: Window) -> pl.Expr:
    """Funding paid on all positions over the notional traded in a window.

    ``funding rate x open interest / (mean notional of a bar x bars of the window)``: the funding
    rate, weighted by how many windows of trading the positions are. Null where nothing was traded.
    """
    return _PAID_USD / (mean_traded_usd(window) * window.rows)


@feature("derivatives", "number", look_back=window_rows)
def crowding_rank(window: Window) -> pl.Expr:
    """Place of the funding paid on all positions among the window's values; in (0, 1).

    Share below plus half the share equal; with longs and shorts in each other's place, 1 less this.
    """
    return rank(_PAID_USD, window)


@feature("derivatives", "number", look_back=window_rows)
def crowding_score(window: Window) -> pl.Expr:
    """Funding paid on all positions less its mean, over its deviation, in the window.

    At most the root of the window's bars less one, in absolute value. Null where it never varied.
    """
    distance = _PAID_USD - rolling_mean(_PAID_USD, window)
    scale = deviation(_PAID_USD, window)
    return pl.when(varies(_PAID_USD, window) & (scale > 0)).then(distance / scale)
