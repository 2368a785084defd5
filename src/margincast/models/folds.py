"""Contiguous purged folds of time: out-of-fold forecasts that no training label overlaps."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from margincast.core.types import BoolArray


def purged_folds(
    decided: npt.NDArray[np.datetime64], label_end: npt.NDArray[np.datetime64], count: int
) -> Iterator[tuple[BoolArray, BoolArray]]:
    """Cut time into ``count`` blocks; yield for each (rows to train on, rows of the block).

    A row trains for a block only if its label's span [decided, label_end] does not meet the span
    of any label decided in the block (Lopez de Prado 2018, chapter 7).

    Args:
        decided: decision times, shape (n,), sorted.
        label_end: times at which labels became known, shape (n,).
        count: number of blocks, each with about the same number of rows.
    """
    edges = decided[np.linspace(0, len(decided), count + 1).astype(int)[1:-1]]
    block_of = np.searchsorted(edges, decided, side="right")
    for block in range(count):
        inside = block_of == block
        if not inside.any():
            continue
        first, last = decided[inside].min(), label_end[inside].max()
        yield (label_end < first) | (decided > last), inside
