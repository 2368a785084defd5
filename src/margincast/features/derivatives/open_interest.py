"""How much is open: positions that could be liquidated, against what the market trades.

Open interest that grows faster than trading is leverage that has to leave through the same door;
open interest that collapses says that it just did. The same where longs and shorts trade places.

Source: Bessembinder and Seguin (1993), Price volatility, trading volume, and market depth: evidence
from futures markets, doi:10.2307/2331149.
"""

import polars as pl

from margincast.features.derivatives.windows import OPEN_INTEREST_USD, mean_traded_usd
from margincast.features.library import Window, feature, window_rows


def _log(amount: pl.Expr) -> pl.Expr:
    """Logarithm of an amount; null where there is none."""
    return pl.when(amount > 0).then(amount).log()


@feature("derivatives", "number")
def log_open_interest_change(window: Window) -> pl.Expr:
    """Log of open interest over that of a window ago, in the contract's own unit.

    Free of the price: positions opened less positions closed. Null where the publisher gives USD
    alone, and where nothing was open.
    """
    held = _log(pl.col("open_interest"))
    return held - held.shift(window.rows)


@feature("derivatives", "number")
def log_open_interest_usd_change(window: Window) -> pl.Expr:
    """Log of the USD value of open interest over that of a window ago.

    Moves with the price as well as with positions. Null where nothing was open.
    """
    held = _log(OPEN_INTEREST_USD)
    return held - held.shift(window.rows)


@feature("derivatives", "number", look_back=window_rows)
def log_open_interest_to_volume(window: Window) -> pl.Expr:
    """Log of open interest over the notional traded in a window: how crowded the exit is.

    ``log(open interest / (mean notional of a bar x bars of the window))``, both in USD; 0 where the
    window trades as much as is open. Null where nothing is open or traded.
    """
    traded = _log(mean_traded_usd(window) * window.rows)
    return _log(OPEN_INTEREST_USD) - traded
