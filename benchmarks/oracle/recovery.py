"""How soon forecasts find a volatility that tripled for good, with no refit to help them.

Every contract's volatility is multiplied by three at one moment after the last refit. Counted are
decisions from that moment until the forecast is back at the true quantile, and until it is
exceeded as rarely as it should be.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

import numpy as np
import numpy.typing as npt
from benchmarks.oracle.bars import Decisions
from benchmarks.oracle.laws import to_fraction, to_log

from margincast.core.types import BoolArray, FloatArray
from margincast.models.protocol import TailForecast

LEVEL: Final = 0.99
ROLLING: Final = 24
"""Decisions of the rolling median and the rolling mean, and for how many they must hold."""

NEAR: Final = 0.10
"""Near: the rolling median of forecast / true quantile is within this of 1."""

COVERED: Final = 1.5
"""Covered: the rolling mean of expected exceedances is at most this many times nominal."""


@dataclass(frozen=True)
class Recovery:
    """What one model did after the break, at level 0.99, all contracts and both sides.

    Attributes:
        decisions_to_quantile: until the rolling median of forecast / true quantile is near 1 and
            stays so for a day; NaN where it never is.
        decisions_to_coverage: until the rolling mean of exceedances over nominal ones is low
            enough and stays so for a day; NaN where it never is.
        before: median of forecast / true quantile in the week before the break.
        after: the same after 24, 100, 250, 500 and 1000 decisions (a day around each).
        followed: decisions a contract that were looked at.
    """

    process: str
    seed: int
    model: str
    decisions_to_quantile: float
    decisions_to_coverage: float
    before: float
    after: tuple[float, ...]
    followed: int


LOOKED_AT: Final = (24, 100, 250, 500, 1000)


def recovery_of(
    process: str,
    seed: int,
    model: str,
    *,
    decisions: Decisions,
    forecast: TailForecast,
    broken_at: datetime,
) -> Recovery:
    """Count decisions from the break to recovery."""
    moment = np.datetime64(broken_at.replace(tzinfo=None), "us")
    since = (decisions.panel.decided - moment) // np.timedelta64(1, "h")
    ratio, exceeded = [], []
    for side in forecast.sides:
        made = np.maximum(forecast.at(side, LEVEL), 1e-9)
        true = to_fraction(side, decisions.truth.quantile(side, LEVEL))
        ratio.append(made / true)
        exceeded.append(decisions.truth.survival(side, to_log(side, made)) / (1 - LEVEL))
    ratios, exceedances = np.stack(ratio, axis=1), np.stack(exceeded, axis=1)
    last = int(since.max())
    median = np.array([np.nanmedian(ratios[since == hour]) for hour in range(last + 1)])
    mean = np.array([np.nanmean(exceedances[since == hour]) for hour in range(last + 1)])
    rolling_median = np.median(_windows(median), axis=1)
    rolling_mean = np.mean(_windows(mean), axis=1)
    week_before = (since < 0) & (since >= -7 * 24)
    return Recovery(
        process,
        seed,
        model,
        _first_lasting(np.abs(rolling_median - 1) <= NEAR),
        _first_lasting(rolling_mean <= COVERED),
        float(np.nanmedian(ratios[week_before])),
        tuple(
            float(np.median(median[max(0, at - ROLLING // 2) : at + ROLLING // 2]))
            for at in LOOKED_AT
            if at <= last
        ),
        last + 1,
    )


def _windows(values: FloatArray) -> npt.NDArray[np.float64]:
    """Windows of the last :data:`ROLLING` decisions; the first ends ROLLING after the break."""
    return np.lib.stride_tricks.sliding_window_view(values, ROLLING)


def _first_lasting(held: BoolArray) -> float:
    """Decisions after the break at which a condition first holds for :data:`ROLLING` windows."""
    if len(held) < ROLLING:
        return float("nan")
    lasting = np.lib.stride_tricks.sliding_window_view(held, ROLLING).all(axis=1)
    return float(np.argmax(lasting) + ROLLING) if lasting.any() else float("nan")
