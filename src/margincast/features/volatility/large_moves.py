"""Recent moves in units of volatility: how many were large, how large, how heavy their tail is.

A move is a bar's log return over the volatility known before that bar, so that a burst does not
hide itself and a contract's quiet or wild nature drops out. Pure numbers; row t uses bars closed by
t, back to the scale's window before the first move.

Sources: Hill (1975) doi:10.1214/aos/1176343247; McNeil and Frey (2000)
doi:10.1016/S0927-5398(00)00012-8 for the tail of returns over their own volatility.
"""

import polars as pl

from margincast.features.library import Window, feature
from margincast.features.rolling import rolling_mean
from margincast.features.volatility.returns import (
    LOG_RETURN,
    OWN_SCALE_MULTIPLE,
    above_zero,
    moved,
    own_scale,
    realised_variance,
)

LARGE_MOVE = 3.0
"""A move is large beyond this many volatilities: 1.6 % of BTCUSDT's hours of 2020 to 2024."""

TAIL_START = 2.0
"""The tail of moves begins here, in volatilities: 5 % of BTCUSDT's hours of 2020 to 2024."""

TAIL_MOVES = 10
"""A tail index from fewer moves than this is noise (standard error above a third)."""


def _look_back_of_moves(window: Window) -> int:
    # the window's first move is over the scale of the ten windows before it
    return window.rows * (OWN_SCALE_MULTIPLE + 1)


def _look_back_of_tail(window: Window) -> int:
    # the window's first return is over the volatility of the window before it
    return 2 * window.rows + 1


@feature("bars", "number", look_back=_look_back_of_moves)
def large_move_count(window: Window) -> pl.Expr:
    """Bars of the window that moved more than 3 own scales, either way.

    The own scale is the Parkinson volatility over the ten windows before the bar. The count is the
    share of the known moves times the window's bars. Null where too few moves are known.
    """
    return window.rows * rolling_mean(_is_large(_move(window)), window)


@feature("bars", "number", look_back=_look_back_of_moves)
def large_move_size(window: Window) -> pl.Expr:
    """Mean size of the window's large moves (beyond 3), in own scales; above 3.

    The own scale is the Parkinson volatility over the ten windows before the bar. Null where too
    few moves are known, and where none was large.
    """
    size = _move(window).abs()
    # null only where the move is null: an ordinary move is a known zero
    large = size * _is_large(_move(window))
    count = above_zero(rolling_mean(_is_large(_move(window)), window))
    return rolling_mean(large, window) / count


@feature("bars", "number", look_back=_look_back_of_moves)
def largest_rise(window: Window) -> pl.Expr:
    """Largest upward move of a bar in the window, in own scales; 0 where none rose.

    The own scale is the Parkinson volatility over the ten windows before the bar. Null where too
    few moves are known.
    """
    return _move(window).rolling_max(window.rows, min_samples=window.minimum).clip(0)


@feature("bars", "number", look_back=_look_back_of_moves)
def largest_fall(window: Window) -> pl.Expr:
    """Largest downward move of a bar in the window, in own scales, as a positive number.

    0 where none fell. The own scale is the Parkinson volatility over the ten windows before the
    bar. Null where too few moves are known.
    """
    return (-_move(window)).rolling_max(window.rows, min_samples=window.minimum).clip(0)


@feature("bars", "number", look_back=_look_back_of_tail)
def hill_tail_index(window: Window) -> pl.Expr:
    """Mean of log(|move| / 2) over the moves beyond 2: the tail index xi = 1 / alpha.

    Hill (1975) doi:10.1214/aos/1176343247 above a fixed threshold, on returns over the realised
    volatility of the window before each of them, after McNeil and Frey (2000)
    doi:10.1016/S0927-5398(00)00012-8, so it looks back two windows. Larger is heavier. Null where
    too few moves are known, and where fewer than 10 lie in the tail.
    """
    before = moved(realised_variance(window)).sqrt().shift(1)
    return mean_log_excess((LOG_RETURN / before).abs() / TAIL_START, window)


def mean_log_excess(multiple: pl.Expr, window: Window) -> pl.Expr:
    """Mean log of the window's multiples of a threshold that exceed 1 (Hill 1975).

    Null where too few are known or fewer than ``TAIL_MOVES`` exceed.
    """
    count = (multiple > 1).cast(pl.Float64).rolling_sum(window.rows, min_samples=window.minimum)
    # the logarithm of a return of zero is minus infinity, which is cut off with the rest below 0
    excess = multiple.log().clip(0).rolling_sum(window.rows, min_samples=window.minimum)
    return excess / pl.when(count >= TAIL_MOVES).then(count)


def _move(window: Window) -> pl.Expr:
    return LOG_RETURN / own_scale(window).shift(1)


def _is_large(move: pl.Expr) -> pl.Expr:
    return (move.abs() > LARGE_MOVE).cast(pl.Float64)
