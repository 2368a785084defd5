"""The same features over the contract's own scale, so that one model serves a new listing too.

The scale is the Parkinson volatility over ten windows (:func:`own_scale`), so each function looks
back ten windows; moves over a whole window are divided by the scale times the root of its bars.
Pure numbers, around 1 for volatilities. Null where the feature or the scale is.
"""

import math

import polars as pl

from margincast.features.library import Window, feature
from margincast.features.volatility import jumps, moves, ranges, realised
from margincast.features.volatility.returns import (
    OWN_SCALE_MULTIPLE,
    above_zero,
    own_scale,
)


def _look_back(window: Window) -> int:
    # ten windows of the scale hold the one row before the feature's window, too
    return window.rows * OWN_SCALE_MULTIPLE


def _ewma_look_back(decay: float) -> int:
    return realised.ewma_look_back(decay ** (1 / OWN_SCALE_MULTIPLE))


@feature("bars", "number", look_back=_look_back)
def relative_parkinson_volatility(window: Window) -> pl.Expr:
    """Parkinson volatility over the own scale; at most the root of 10 on gapless bars.

    The own scale is the Parkinson volatility over ten windows. Null where either is.
    """
    return ranges.parkinson_volatility(window) / own_scale(window)


@feature("bars", "number", look_back=_look_back)
def relative_garman_klass_volatility(window: Window) -> pl.Expr:
    """Garman-Klass volatility over the own scale.

    The own scale is the Parkinson volatility over ten windows. Null where either is.
    """
    return ranges.garman_klass_volatility(window) / own_scale(window)


@feature("bars", "number", look_back=_look_back)
def relative_rogers_satchell_volatility(window: Window) -> pl.Expr:
    """Rogers-Satchell volatility over the own scale.

    The own scale is the Parkinson volatility over ten windows. Null where either is.
    """
    return ranges.rogers_satchell_volatility(window) / own_scale(window)


@feature("bars", "number", look_back=_look_back)
def relative_yang_zhang_volatility(window: Window) -> pl.Expr:
    """Yang-Zhang volatility over the own scale.

    The own scale is the Parkinson volatility over ten windows. Null where either is.

    Raises:
        InputError: a window of one bar.
    """
    return ranges.yang_zhang_volatility(window) / own_scale(window)


@feature("bars", "number", look_back=_look_back)
def relative_realised_volatility(window: Window) -> pl.Expr:
    """Realised volatility over the own scale.

    The own scale is the Parkinson volatility over ten windows. Null where either is.
    """
    return realised.realised_volatility(window) / own_scale(window)


@feature("bars", "number", look_back=_look_back)
def relative_upside_volatility(window: Window) -> pl.Expr:
    """Root of the upside semivariance over the own scale.

    The own scale is the Parkinson volatility over ten windows. Null where either is.
    """
    return realised.upside_volatility(window) / own_scale(window)


@feature("bars", "number", look_back=_look_back)
def relative_downside_volatility(window: Window) -> pl.Expr:
    """Root of the downside semivariance over the own scale.

    The own scale is the Parkinson volatility over ten windows. Null where either is.
    """
    return realised.downside_volatility(window) / own_scale(window)


@feature("bars", "number", look_back=_look_back)
def relative_bipower_volatility(window: Window) -> pl.Expr:
    """Bipower volatility over the own scale.

    The own scale is the Parkinson volatility over ten windows. Null where either is.

    Raises:
        InputError: a window of one bar.
    """
    return jumps.bipower_volatility(window) / own_scale(window)


@feature("bars", "number", look_back=_look_back)
def relative_median_volatility(window: Window) -> pl.Expr:
    """Median (MedRV) volatility over the own scale.

    The own scale is the Parkinson volatility over ten windows. Null where either is.

    Raises:
        InputError: a window of fewer than three bars.
    """
    return jumps.median_volatility(window) / own_scale(window)


@feature("bars", "number", look_back=_look_back)
def relative_jump_volatility(window: Window) -> pl.Expr:
    """Jump volatility over the own scale.

    The own scale is the Parkinson volatility over ten windows. Null where either is.

    Raises:
        InputError: a window of one bar.
    """
    return jumps.jump_volatility(window) / own_scale(window)


@feature("bars", "number", argument="values", look_back=_ewma_look_back)
def relative_ewma_volatility(decay: float) -> pl.Expr:
    """Exponential volatility over the one with ten times its memory, of decay ``decay`` ^ 0.1.

    The declared window is that of the slower one, :func:`realised.ewma_memory` of its decay. Null
    before the 24th return and where nothing moved.
    """
    slow = realised.ewma_volatility(decay ** (1 / OWN_SCALE_MULTIPLE))
    return realised.ewma_volatility(decay) / above_zero(slow)


@feature("bars", "number", look_back=_look_back)
def relative_price_range(window: Window) -> pl.Expr:
    """Price range of the window over the own scale times the root of the window's bars.

    The own scale is the Parkinson volatility over ten windows. Null where either is.
    """
    return ranges.price_range(window) / _own_move(window)


@feature("bars", "number", look_back=_look_back)
def relative_drawdown(window: Window) -> pl.Expr:
    """Drawdown over the own scale times the root of the window's bars; at most 0.

    The own scale is the Parkinson volatility over ten windows. Null where either is.
    """
    return moves.drawdown(window) / _own_move(window)


@feature("bars", "number", look_back=_look_back)
def relative_run_up(window: Window) -> pl.Expr:
    """Run-up over the own scale times the root of the window's bars; at least 0.

    The own scale is the Parkinson volatility over ten windows. Null where either is.
    """
    return moves.run_up(window) / _own_move(window)


@feature("bars", "number", look_back=_look_back)
def relative_log_return(window: Window) -> pl.Expr:
    """Log return over the own scale times the root of the window's bars.

    The own scale is the Parkinson volatility over ten windows. Null where either is.
    """
    return moves.log_return(window) / _own_move(window)


def _own_move(window: Window) -> pl.Expr:
    return own_scale(window) * math.sqrt(window.rows)
