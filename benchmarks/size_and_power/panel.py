"""Simulated margins of many contracts that crash together and whose outcomes overlap.

What the pooled tests see: exceedances at several levels, the day of each decision, whether the
contract's last finished outcome was an exceedance, and how high the forecast is.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from benchmarks.size_and_power.series import FOLLOWED, RATIO, Truth, levels_of
from scipy import special

from margincast.core.types import BoolArray, FloatArray

CONTRACTS: Final = 20
DECISIONS_A_DAY: Final = 4
OVERLAP: Final = 2
"""Decisions until an outcome is finished; neighbours share half of their shock."""

COMMON: Final = 0.5
"""Share of a shock's variance, and of that of a forecast, which all contracts have in common."""

PERSISTENCE: Final = 0.98
SPREAD: Final = 0.5
"""Of the logarithm of a forecast, from decision to decision; its standard deviation."""


@dataclass(frozen=True)
class PooledSample:
    """T decisions of all contracts, one below the other in order of time, n rows.

    Attributes:
        level: of the margin that is tested.
        levels: increasing from it, L of them.
        hits: exceedances of all levels, shape (n, L).
        days: since the first, shape (n,).
        instruments: previous finished exceedance and log forecast, shape (n, 2).
    """

    level: float
    levels: tuple[float, ...]
    hits: BoolArray
    days: npt.NDArray[np.int64]
    instruments: FloatArray


def draw_panel(
    sample_size: int, level: float, truth: Truth, generator: np.random.Generator
) -> PooledSample:
    """Draw one panel.

    Args:
        sample_size: decisions T of each contract.
        level: that the margin promises.
        truth: what the outcomes do to it; "clusters" follow the contract's last finished outcome.
        generator: of the draws.
    """
    shocks = _common_and_own(sample_size + OVERLAP - 1, generator)
    moving = sum(shocks[shift : shift + sample_size] for shift in range(OVERLAP))
    beyond = special.ndtr(-np.asarray(moving) / np.sqrt(OVERLAP))
    probability = np.full_like(beyond, RATIO.get(truth, 1.0) * (1.0 - level))
    before = np.zeros(beyond.shape)
    first = (1.0 - level) * (1.0 - FOLLOWED) / level
    for step in range(OVERLAP, sample_size):
        # shocks so far apart have nothing in common: the share stays as promised
        before[step] = beyond[step - OVERLAP] < probability[step - OVERLAP]
        if truth == "clusters":
            probability[step] = np.where(before[step] > 0.0, FOLLOWED, first)
    levels = levels_of(level)
    shares = [(1.0 - each) / (1.0 - level) for each in levels]
    news = _common_and_own(sample_size, generator)
    forecast = news
    for step in range(1, sample_size):
        innovation = np.sqrt(1.0 - PERSISTENCE**2) * news[step]
        forecast[step] = PERSISTENCE * forecast[step - 1] + innovation
    return PooledSample(
        level,
        levels,
        np.column_stack([(beyond < share * probability).ravel() for share in shares]),
        np.repeat(np.arange(sample_size) // DECISIONS_A_DAY, CONTRACTS),
        np.column_stack([before.ravel(), SPREAD * forecast.ravel()]),
    )


def _common_and_own(steps: int, generator: np.random.Generator) -> FloatArray:
    """Draw standard normal values, shape (steps, contracts), with a common part."""
    common = generator.standard_normal((steps, 1))
    own = generator.standard_normal((steps, CONTRACTS))
    return np.asarray(np.sqrt(COMMON) * common + np.sqrt(1.0 - COMMON) * own)
