"""Which side pressed: imbalance of aggressors, and how one-sided equal buckets of volume were.

All are null where the aggressor's side is not known, and all but a change of sign is the same when
buyers and sellers trade places; none hangs on the price's unit.
"""

from collections.abc import Sequence

import numpy as np
import polars as pl

from margincast.core.types import BoolArray, FloatArray
from margincast.features.library import Window, feature
from margincast.features.rolling import rolling_mean

BUCKETS = 50
"""Volume buckets in a window, as in Easley, Lopez de Prado and O'Hara (2012)."""

_BLOCK_CELLS = 50_000
"""Cells of the matrix of windows that VPIN holds at a time: few enough for the cache."""


@feature("trades", "number")
def signed_flow_imbalance(window: Window) -> pl.Expr:
    """Notional bought less sold by aggressors over their sum, in the window; in [-1, 1].

    Null where nothing was traded, and where the aggressor's side is not known.
    """
    return _imbalance("signed_notional_usd", "notional_usd", window)


@feature("trades", "number")
def signed_count_imbalance(window: Window) -> pl.Expr:
    """Trades by buyers less trades by sellers over their number, in the window; in [-1, 1].

    Unlike :func:`signed_flow_imbalance` it gives a small trade as much weight as a large one. Null
    where nothing was traded, and where the aggressor's side is not known.
    """
    return _imbalance("signed_count", "trade_count", window)


@feature("trades", "number")
def vpin(window: Window) -> pl.Expr:
    """Volume-synchronised probability of informed trading, over the window; in [0, 1].

    ``sum over buckets of |bought - sold| / total``, notional in USD: the window's own trades cut
    into ``BUCKETS`` buckets of equal notional, oldest first. So buckets end at the decision and
    nothing outside the window enters. As in the paper an interval is the unit: what does not fit
    one bucket goes on into the next, with the interval's mix of sides. The sides are the
    aggressors' own, not the paper's bulk classification by price change.

    At least the absolute :func:`signed_flow_imbalance` of the same intervals. Null where nothing
    was traded and where fewer of the window's intervals are known, with their aggressors, than it
    asks for.

    Source: Easley, Lopez de Prado and O'Hara (2012), Flow toxicity and liquidity in a
    high-frequency world, doi:10.1093/rfs/hhs053.
    """

    def over_windows(columns: Sequence[pl.Series]) -> pl.Series:
        notional, signed = (
            column.cast(pl.Float64).fill_null(float("nan")).to_numpy() for column in columns
        )
        values = bucket_imbalance(notional, signed, window.rows, window.minimum)
        return pl.Series(values, nan_to_null=True)

    flow = [pl.col("notional_usd"), pl.col("signed_notional_usd")]
    return pl.map_batches(flow, over_windows, return_dtype=pl.Float64)


def bucket_imbalance(
    notional: FloatArray, signed: FloatArray, rows: int, minimum: int, buckets: int = BUCKETS
) -> FloatArray:
    """Mean absolute imbalance of buckets of equal notional in each row's window.

    Args:
        notional: traded in each interval, shape (n,), NaN where not known.
        signed: bought less sold, shape (n,), NaN where not known.
        rows: intervals in a window.
        minimum: intervals of a window that must be known.
        buckets: buckets a window is cut into.

    Returns:
        Shape (n,), NaN where not known.
    """
    known = ~(np.isnan(notional) | np.isnan(signed))
    counts = np.concatenate([np.zeros(rows, dtype=np.int64), known.cumsum()])
    enough = counts[rows:] - counts[:-rows] >= minimum
    before = np.zeros(rows - 1)
    traded, pressed = (
        np.lib.stride_tricks.sliding_window_view(
            np.concatenate([before, np.where(known, column, 0.0)]), rows
        )
        for column in (notional, signed)
    )
    values = np.full(len(notional), np.nan)
    # blocks start at multiples of a fixed length, so that rows to come change no earlier value
    block = max(1, _BLOCK_CELLS // rows)
    for start in range(0, len(notional), block):
        part = slice(start, start + block)
        values[part] = _block_imbalance(traded[part], pressed[part], enough[part], buckets)
    return values


def _block_imbalance(
    traded: FloatArray, pressed: FloatArray, enough: BoolArray, buckets: int
) -> FloatArray:
    """Cut each row into buckets; traded and pressed have the shape (windows, intervals)."""
    edge = np.zeros((len(traded), 1))
    volume = np.hstack([edge, traded.cumsum(axis=1)])
    flow = np.hstack([edge, pressed.cumsum(axis=1)])
    total = volume[:, -1:]
    there = enough & (total[:, 0] > 0)
    values = np.full(len(traded), np.nan)
    if there.any():
        # one interpolation for all windows: each has its own stretch of the axis, [2k, 2k + 1]
        place = 2.0 * np.arange(there.sum())[:, np.newaxis]
        shares = place + volume[there] / total[there]
        pressed_shares = flow[there] / total[there]
        cuts = place + np.linspace(0.0, 1.0, buckets + 1)
        at_cuts = np.interp(cuts.ravel(), shares.ravel(), pressed_shares.ravel())
        imbalances = np.abs(np.diff(at_cuts.reshape(cuts.shape), axis=1))
        values[there] = np.minimum(imbalances.sum(axis=1), 1.0)
    return values


def _imbalance(signed_name: str, total_name: str, window: Window) -> pl.Expr:
    signed = pl.col(signed_name)
    known = pl.when(signed.is_not_null()).then(pl.col(total_name))
    total = rolling_mean(known, window)
    return pl.when(total > 0).then((rolling_mean(signed, window) / total).clip(-1, 1))
