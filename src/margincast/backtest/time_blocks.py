"""Blocks of time in which decisions count together: the evidence behind a margin's figures.

Responsible for the bracket behind every figure of the report. A block is a day, all contracts in
it; runs of several days are resampled together, because volatility clusters last longer than one.
"""

from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property

import numpy as np
import numpy.typing as npt

from margincast.backtest.block_bootstrap import BlockBootstrap, percentile_interval
from margincast.core.types import BoolArray, FloatArray

REPLICATIONS = 1000
CONFIDENCE = 0.95
RUN_DAYS = 5
"""Bootstrap runs of five days: volatility clusters last longer than one."""
FEWEST_BLOCKS = 20
"""With fewer blocks a bootstrap interval means nothing and is not given."""


def block_labels(
    decided: npt.NDArray[np.datetime64], horizon: timedelta
) -> npt.NDArray[np.integer]:
    """Return each decision's block: its UTC day, or less where there are few days, shape (n,).

    A shorter block holds at least two horizons, and about fifty make up the test period.
    """
    span = (decided.max() - decided.min()) / np.timedelta64(1, "s")
    day = timedelta(days=1).total_seconds()
    length = min(day, max(2 * horizon.total_seconds(), span / 50))
    seconds = decided.astype("datetime64[s]").astype(np.int64)
    return np.asarray(seconds // max(1, round(length)))


@dataclass(frozen=True)
class Spread:
    """How far a figure moves over resamples; NaN where it cannot tell.

    Attributes:
        lower: of the 95 % percentile interval.
        upper: of the same.
        error: standard error, the resamples' standard deviation.
    """

    lower: float = float("nan")
    upper: float = float("nan")
    error: float = float("nan")


class TimeBlocks:
    """The blocks of n decisions, and the same resamples of them for every figure.

    Args:
        labels: block of each decision, shape (n,), see :func:`block_labels`.
    """

    def __init__(self, labels: npt.NDArray[np.integer]) -> None:
        distinct, self._index = np.unique(labels, return_inverse=True)
        self.count = int(distinct.size)
        self.decisions: FloatArray = np.bincount(self._index).astype(np.float64)
        self.run_length = min(RUN_DAYS, self.count // 10)

    @property
    def enough(self) -> bool:
        """Whether there are blocks enough to say anything of uncertainty."""
        return self.count >= FEWEST_BLOCKS

    @cached_property
    def _bootstrap(self) -> BlockBootstrap:
        return BlockBootstrap(
            self.count,
            generator=np.random.default_rng(0),
            run_length=self.run_length,
            replications=REPLICATIONS,
        )

    def sums(self, values: FloatArray | BoolArray) -> FloatArray:
        """Sum within blocks: shape (..., n) becomes (..., B)."""
        rows = values.reshape(-1, values.shape[-1])
        summed = [np.bincount(self._index, weights=row, minlength=self.count) for row in rows]
        return np.array(summed, dtype=np.float64).reshape(*values.shape[:-1], self.count)

    def resampled_ratios(self, numerator: FloatArray, denominator: FloatArray) -> FloatArray:
        """Return resampled ratios of totals, shape (..., R); R is 0 with too few blocks.

        Args:
            numerator: sums by block, shape (..., B).
            denominator: sums by block of the same decisions, non-negative, the same shape.
        """
        if not self.enough:
            return np.empty((*numerator.shape[:-1], 0))
        above, below = self._bootstrap.totals(numerator), self._bootstrap.totals(denominator)
        return np.divide(above, below, out=np.full_like(above, np.nan), where=below > 0.0)

    def effective_decisions(self, hit_sums: FloatArray, copies: int) -> float:
        """Return how many independent decisions the sample is worth for its exceedance count.

        ``dependence.clustered_sample_size`` of the exceedances, from their sums by block.

        Args:
            hit_sums: exceedances by block, shape (B,).
            copies: outcomes of a decision, one a side.
        """
        sizes = copies * self.decisions
        total = sizes.sum()
        share = hit_sums.sum() / total
        independent = total * share * (1.0 - share)
        if self.count < 2 or independent == 0.0:
            return float("nan")
        deviation = hit_sums - share * sizes
        clustered = float(deviation @ deviation) * self.count / (self.count - 1)
        return float(total * min(1.0, independent / max(clustered, independent)))


def spread_of(resampled: FloatArray) -> Spread:
    """Summarise resampled figures, shape (R,); not known where there is none or one is NaN."""
    if resampled.size == 0 or np.isnan(resampled).any():
        return Spread()
    lower, upper = percentile_interval(resampled, CONFIDENCE)
    return Spread(lower, upper, float(resampled.std(ddof=1)))
