"""How jumpy the margins of many contracts are from day to day, each day's last standing for it.

Responsible for the one answer that forecasts and published margins are both measured by: the
measures of :mod:`~margincast.backtest.procyclicality` of each contract and side on a calendar
without holes, and their medians.
"""

from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd

from margincast.backtest.procyclicality import DAYS_OF_RISES, NOTABLE_RISES, measure
from margincast.core.types import FloatArray

MEASURES = (
    "mean_margin",
    "peak_to_trough",
    "volatility",
    *(f"largest_{days}_day_rise" for days in DAYS_OF_RISES),
    *(f"days_above_{size:g}" for size in NOTABLE_RISES),
)


def last_of_each_day(decided: npt.NDArray[np.datetime64], values: FloatArray) -> FloatArray:
    """Return the last value of every calendar day, shape (..., days); NaN for a day without one.

    Args:
        decided: decision times of one contract, increasing, shape (n,), n > 0.
        values: shape (..., n).
    """
    day = decided.astype("datetime64[D]").astype(np.int64)
    last = np.append(np.flatnonzero(np.diff(day)), len(day) - 1)
    daily = np.full((*values.shape[:-1], int(day[-1] - day[0]) + 1), np.nan)
    daily[..., day[last] - day[0]] = values[..., last]
    return daily


def daily_measures(margin: FloatArray) -> dict[str, float] | None:
    """Return :data:`MEASURES` of a daily margin, shape (days,); None where less than two are known.

    Days of rises are shares of the days whose margin is known.
    """
    known = int(np.isfinite(margin).sum())
    if known < 2:
        return None
    found = measure(margin)
    return {
        "mean_margin": found.mean_margin,
        "peak_to_trough": found.peak_to_trough,
        "volatility": found.volatility,
        **{f"largest_{days}_day_rise": rise for days, rise in found.largest_rises.items()},
        **{f"days_above_{size:g}": n / known for size, n in found.days_of_rises.items()},
    }


def medians(
    records: Iterable[Mapping[str, float] | None], names: Iterable[str]
) -> dict[str, float]:
    """Return the median of each named measure over contracts and sides; NaN where there is none."""
    rows = [record for record in records if record is not None]
    table = pd.DataFrame(rows, columns=list(names), dtype=float)
    return {str(name): float(value) for name, value in table.median().items()}
