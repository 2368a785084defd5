"""Circular block bootstrap: how far a margin's figures would differ in another draw of history.

Responsible for every interval and standard error of a backtest. Values are summed within blocks of
time first and blocks resampled afterwards, so that thousands of resamples of a million decisions
are one small matrix product, and every figure of every model sees the same resamples.
"""

import numpy as np
import numpy.typing as npt

from margincast.core.errors import InputError
from margincast.core.types import FloatArray

BlockLabels = npt.NDArray[np.integer | np.datetime64]


class BlockBootstrap:
    """Resamples of B consecutive blocks of time, the same for all that is asked of them.

    Runs of ``run_length`` consecutive blocks, on a circle so that the ends count as much as the
    middle, are drawn with replacement until the original number of blocks is reached (the next
    multiple of ``run_length``). One multinomial draw a replication counts the runs.

    Args:
        count: number of blocks B, at least 2.
        generator: seeded source of randomness.
        run_length: consecutive blocks kept together; 1 treats blocks as independent.
        replications: number of resamples R.

    Raises:
        InputError: run_length not in 1..B-1, or no replication.

    Source: Politis and Romano (1992), A circular block resampling procedure for stationary data,
    in LePage and Billard (eds), Exploring the Limits of Bootstrap, ISBN 9780471536314.
    """

    def __init__(
        self, count: int, *, generator: np.random.Generator, run_length: int, replications: int
    ) -> None:
        if not 1 <= run_length < count:
            raise InputError(
                f"run_length must lie in 1..{count - 1} for {count} blocks: {run_length}"
            )
        if replications < 1:
            raise InputError(f"replications must be at least 1, found {replications}")
        self.count = count
        self.run_length = run_length
        drawn = generator.multinomial(
            -(-count // run_length), np.full(count, 1.0 / count), size=replications
        )
        self._drawn: FloatArray = drawn.astype(np.float64)

    def totals(self, block_sums: FloatArray) -> FloatArray:
        """Return the total of every resample.

        Args:
            block_sums: sums of a quantity within the blocks, in their order, shape (..., B).

        Returns:
            Totals, shape (..., R); those of two quantities belong to the same resamples, so their
            quotients are resampled ratios.
        """
        runs = np.zeros_like(block_sums, dtype=np.float64)
        for shift in range(self.run_length):
            runs += np.roll(block_sums, -shift, axis=-1)
        totals = self._drawn @ runs.reshape(-1, self.count).T
        return np.asarray(totals.T.reshape(*block_sums.shape[:-1], -1))


def percentile_interval(resampled: FloatArray, confidence: float) -> tuple[float, float]:
    """Return the percentile interval of resampled figures, shape (R,); NaN where one is NaN.

    Raises:
        InputError: a confidence outside (0, 1).
    """
    if not 0.0 < confidence < 1.0:
        raise InputError(f"confidence must lie in (0, 1), found {confidence:g}")
    tail = (1.0 - confidence) / 2.0
    lower, upper = np.quantile(resampled, [tail, 1.0 - tail])
    return float(lower), float(upper)


def block_index(blocks: BlockLabels, size: int) -> tuple[npt.NDArray[np.intp], int]:
    """Number the blocks 0, 1, ... in the order of their labels; return indices and their count.

    Args:
        blocks: block label of each value, shape (n,), for example the day.
        size: n.

    Raises:
        InputError: labels of another length, or a single block.
    """
    labels = np.asarray(blocks)
    if labels.shape != (size,):
        raise InputError(f"blocks has shape {labels.shape}; expected one label a value ({size},)")
    distinct, index = np.unique(labels, return_inverse=True)
    if distinct.size < 2:
        raise InputError(
            "found a single block; dependence is judged between blocks, give at least 2 "
            "(for example shorter blocks or a longer test period)"
        )
    return index, distinct.size
