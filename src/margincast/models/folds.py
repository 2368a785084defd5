"""Contiguous blocks of time and the rows that may train for each: no label overlaps its block."""

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
    for inside in _blocks(decided, count):
        first, last = decided[inside].min(), label_end[inside].max()
        yield (label_end < first) | (decided > last), inside


def forward_chain(
    decided: npt.NDArray[np.datetime64], label_end: npt.NDArray[np.datetime64], count: int
) -> Iterator[tuple[BoolArray, BoolArray]]:
    """Cut time into ``count`` blocks; yield for all but the first (rows before, rows of the block).

    A row trains for a block only if its label was known before the block starts, as at every refit
    of a walk-forward. Arguments as of :func:`purged_folds`.
    """
    for inside in _blocks(decided, count)[1:]:
        yield label_end < decided[inside].min(), inside


def _blocks(decided: npt.NDArray[np.datetime64], count: int) -> list[BoolArray]:
    edges = decided[np.linspace(0, len(decided), count + 1).astype(int)[1:-1]]
    block_of = np.searchsorted(edges, decided, side="right")
    masks = [np.asarray(block_of == block) for block in range(count)]
    return [inside for inside in masks if inside.any()]
