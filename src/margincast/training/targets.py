"""Targets: the adverse excursion that actually followed each decision.

The margin must cover this number, so it is computed once, here, for training, calibration and
backtest alike. At a decision at the close of bar i with horizon of H bars the window is bars
i+1 .. i+H; nothing of bar i itself is in it.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from margincast.core.errors import InputError
from margincast.core.time import format_duration
from margincast.core.types import SIDES, FloatArray, Side
from margincast.data.bars import BarTable
from margincast.data.quality import Finding


@dataclass(frozen=True)
class Excursions:
    """What followed each of n bars of one contract.

    Attributes:
        outcomes: per side, adverse excursion, shape (n,), fractions of the decision price.
        log_range: log(highest high / lowest low) over the window, shape (n,).
    """

    outcomes: dict[Side, FloatArray]
    log_range: FloatArray


def adverse_excursions(
    high: FloatArray,
    low: FloatArray,
    close: FloatArray,
    horizon_bars: int,
    tolerated_bars: int,
    *,
    kind: Literal["path", "terminal"],
) -> Excursions:
    """Compute adverse excursions of both sides over the next bars.

    ``long``: max(0, 1 - min low / close); ``short``: max(0, max high / close - 1), over the
    window; ``terminal`` takes the window's last close in place of its extremes.

    Args:
        high: highs, shape (n,), on a regular grid; NaN where the bar is missing.
        low: lows, likewise.
        close: closes, likewise; the decision price.
        horizon_bars: bars in the window (H >= 1).
        tolerated_bars: missing bars a window may have and still give an outcome.
        kind: extremes along the path, or the end point.

    Returns:
        Arrays of shape (n,), NaN where the window is cut off, too gappy, or the bar is missing.
    """
    n = len(close)
    names: tuple[Side, ...] = SIDES
    if n <= horizon_bars:
        empty = {side: np.full(n, np.nan) for side in names}
        return Excursions(empty, np.full(n, np.nan))
    following = slice(1, n)
    highs = np.lib.stride_tricks.sliding_window_view(high[following], horizon_bars)
    lows = np.lib.stride_tricks.sliding_window_view(low[following], horizon_bars)
    missing = np.isnan(highs).sum(axis=1)
    known = (missing <= tolerated_bars) & (missing < horizon_bars)
    top = np.where(np.isnan(highs), -np.inf, highs).max(axis=1)
    bottom = np.where(np.isnan(lows), np.inf, lows).min(axis=1)
    price = close[: n - horizon_bars]
    if kind == "terminal":
        end = close[horizon_bars:]
        rise, fall = end / price - 1.0, 1.0 - end / price
    else:
        rise, fall = top / price - 1.0, 1.0 - bottom / price
    known &= np.isfinite(rise) & np.isfinite(fall)
    pad = np.full(horizon_bars, np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        log_range = np.log(top / bottom)

    def finish(values: FloatArray) -> FloatArray:
        return np.concatenate([np.where(known, values, np.nan), pad])

    return Excursions(
        outcomes={"long": finish(np.maximum(0.0, fall)), "short": finish(np.maximum(0.0, rise))},
        log_range=finish(log_range),
    )


def bars_in(horizon: timedelta, interval: timedelta) -> int:
    """Return the horizon in bars.

    Raises:
        InputError: the horizon is not a whole number of bars.
    """
    if horizon % interval:
        raise InputError(
            f"target.horizons: {format_duration(horizon)} is not a whole number of "
            f"{format_duration(interval)} bars"
        )
    return horizon // interval


def outcome_table(
    bars: BarTable,
    horizon: timedelta,
    gap_tolerance: timedelta,
    kind: Literal["path", "terminal"],
) -> tuple[pl.DataFrame, list[Finding]]:
    """Compute the outcomes of every bar close of every contract.

    Returns:
        A frame with ``symbol``, ``ts`` (decision time), ``outcome_long``, ``outcome_short``,
        ``log_range`` and ``label_end`` (time at which the window has closed), and the number of
        closes without an outcome.
    """
    horizon_bars = bars_in(horizon, bars.interval)
    tolerated = max(0, -(-gap_tolerance // bars.interval) - 1)
    parts, findings = [], []
    for symbol, frame in bars.frames.items():
        high, low, close = (_array(frame[name]) for name in ("high", "low", "close"))
        found = adverse_excursions(high, low, close, horizon_bars, tolerated, kind=kind)
        parts.append(
            pl.DataFrame(
                {
                    "symbol": frame["symbol"],
                    "ts": frame["ts"] + bars.interval,
                    "outcome_long": found.outcomes["long"],
                    "outcome_short": found.outcomes["short"],
                    "log_range": found.log_range,
                    "label_end": frame["ts"] + bars.interval + horizon,
                }
            )
        )
        present = np.isfinite(close)
        inside = np.arange(len(close)) < len(close) - horizon_bars
        lost = present & inside & np.isnan(found.log_range)
        findings.append(
            Finding(
                "targets",
                symbol,
                "window with too many missing or stale bars",
                int(lost.sum()),
                int(present.sum()),
                "no target",
            )
        )
    return pl.concat(parts), findings


def _array(series: pl.Series) -> npt.NDArray[np.float64]:
    return series.cast(pl.Float64).fill_null(float("nan")).to_numpy()
