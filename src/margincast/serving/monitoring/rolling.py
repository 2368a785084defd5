"""Rolling coverage: what a person looks at first, before any test says whether it is chance.

Of every contract, side and level: outcomes that became known within a window, how many went beyond
what was promised, and by how much.
"""

from datetime import datetime, timedelta

import numpy as np
import numpy.typing as npt
import pandas as pd

from margincast.core.time import instant64
from margincast.core.types import FloatArray
from margincast.serving.monitoring.record import Record

ALL = "all"
"""Stands in the table for all contracts together."""


def rolling_coverage(record: Record, at: datetime, window: timedelta) -> pd.DataFrame:
    """Return coverage over the outcomes that became known in ``(at - window, at]``.

    Horizons of neighbouring decisions overlap, so these are not counts of independent events.

    Returns:
        A row a contract (and all of them), side and level: ``symbol``, ``side``, ``level``,
        ``decisions`` whose horizon ended in the window, ``promised`` of them, ``known`` (promised,
        and with an outcome), ``exceeded``, ``exceedance_ratio`` (over what the level promises),
        ``coverage``, ``shortfall_bps`` a known outcome; ratios are NaN where nothing is known.
    """
    known = record.as_of(at)
    moment = instant64(at)
    ends = known.matures
    recent = known.rows((ends <= moment) & (ends > moment - np.timedelta64(window)))
    shape = (len(recent.symbols), len(recent.sides), len(recent.levels))
    exceeded = recent.exceeded
    have = ~np.isnan(exceeded)
    with np.errstate(invalid="ignore"):
        beyond = np.where(have, np.fmax(recent.outcomes[:, :, None] - recent.promised, 0.0), 0.0)
    sums = {
        name: _summed(values, recent.contract, shape)
        for name, values in (
            ("decisions", np.ones_like(exceeded)),
            ("promised", ~np.isnan(recent.promised)),
            ("known", have),
            ("exceeded", np.where(have, exceeded, 0.0)),
            ("beyond", beyond),
        )
    }
    count = sums["known"].ravel()
    levels = np.tile(np.tile(recent.levels, shape[1]), shape[0] + 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        rate = sums["exceeded"].ravel() / count
        shortfall = sums["beyond"].ravel() / count * 1e4
    return pd.DataFrame(
        {
            "symbol": np.repeat([ALL, *recent.symbols], shape[1] * shape[2]),
            "side": np.tile(np.repeat(recent.sides, shape[2]), shape[0] + 1),
            "level": levels,
            **{
                name: sums[name].ravel().astype(np.int64)
                for name in ("decisions", "promised", "known", "exceeded")
            },
            "exceedance_ratio": rate / (1.0 - levels),
            "coverage": 1.0 - rate,
            "shortfall_bps": shortfall,
        }
    )


def _summed(
    values: npt.NDArray[np.generic], contract: npt.NDArray[np.intp], shape: tuple[int, int, int]
) -> FloatArray:
    """Sum over decisions: of all contracts, then of each; shape (C + 1, S, L)."""
    sums = np.zeros(shape)
    np.add.at(sums, contract, values)
    return np.concatenate([sums.sum(axis=0)[None], sums])
