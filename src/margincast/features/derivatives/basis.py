"""How far the contract trades from what it is margined and settled on: the mark and index price.

A last price that runs from the mark is one-sided pressure that liquidations, which go by the mark,
have not caught up with; a mark away from the index says the whole contract is bid or offered.

Sources: Binance, "What Are the Differences Between a Futures Contract's Last Price and Mark Price"
(mark and index price); crypto carry: Schmeling, Schrimpf and Todorov (2023), Crypto Carry, BIS
Working Paper 1087.
"""

import polars as pl

from margincast.features.derivatives.windows import deviation
from margincast.features.library import Window, feature, window_rows
from margincast.features.rolling import rolling_mean


def _price(name: str) -> pl.Expr:
    """A price of the bar's close; null where it cannot be one."""
    value = pl.col(name).cast(pl.Float64)
    return pl.when(value.is_finite() & (value > 0)).then(value)


def _premium(price: str, over: str) -> pl.Expr:
    return _price(price) / _price(over) - 1


_MARK_BASIS = _premium("close", "mark_close")
_INDEX_BASIS = _premium("close", "index_close")
_MARK_INDEX_BASIS = _premium("mark_close", "index_close")


@feature("derivatives", "fraction", argument="nothing")
def mark_basis() -> pl.Expr:
    """Close over the mark price at the bar's close, less one. Null without a mark price."""
    return _MARK_BASIS


@feature("derivatives", "fraction", look_back=window_rows)
def mark_basis_mean(window: Window) -> pl.Expr:
    """Mean of ``mark_basis`` over the window's bars."""
    return rolling_mean(_MARK_BASIS, window)


@feature("derivatives", "fraction", look_back=window_rows)
def mark_basis_deviation(window: Window) -> pl.Expr:
    """Population deviation of ``mark_basis`` over the window's bars: how loose the tie is."""
    return deviation(_MARK_BASIS, window)


@feature("derivatives", "fraction", argument="nothing")
def index_basis() -> pl.Expr:
    """Close over the index price at the bar's close, less one. Null without an index price."""
    return _INDEX_BASIS


@feature("derivatives", "fraction", look_back=window_rows)
def index_basis_mean(window: Window) -> pl.Expr:
    """Mean of ``index_basis`` over the window's bars."""
    return rolling_mean(_INDEX_BASIS, window)


@feature("derivatives", "fraction", look_back=window_rows)
def index_basis_deviation(window: Window) -> pl.Expr:
    """Population deviation of ``index_basis`` over the window's bars."""
    return deviation(_INDEX_BASIS, window)


@feature("derivatives", "fraction", argument="nothing")
def mark_index_basis() -> pl.Expr:
    """Mark over index price at the bar's close, less one: the premium that funding follows."""
    return _MARK_INDEX_BASIS


@feature("derivatives", "fraction", look_back=window_rows)
def mark_index_basis_mean(window: Window) -> pl.Expr:
    """Mean of ``mark_index_basis`` over the window's bars."""
    return rolling_mean(_MARK_INDEX_BASIS, window)


@feature("derivatives", "fraction", look_back=window_rows)
def mark_index_basis_deviation(window: Window) -> pl.Expr:
    """Population deviation of ``mark_index_basis`` over the window's bars."""
    return deviation(_MARK_INDEX_BASIS, window)
