"""Sequences of exceedances and the spells between them, many sequences at once.

Responsible for what every test of exceedances reads: checked booleans, their counts, and how many
decisions passed from one exceedance to the next. Sequences are rows, so that a thousand simulated
ones cost one pass.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from margincast.core.errors import InputError
from margincast.core.types import BoolArray, FloatArray


def require_hits(hits: BoolArray) -> BoolArray:
    """Return ``hits`` if it is a non-empty one-dimensional boolean array.

    Raises:
        InputError: it is empty, not one-dimensional, or not boolean (NaN cannot be a boolean).
    """
    hits = np.asarray(hits)
    if hits.ndim != 1 or hits.size == 0 or hits.dtype != np.bool_:
        raise InputError(
            f"hits has shape {hits.shape} and type {hits.dtype}; expected a non-empty "
            "one-dimensional boolean array in time order, as scoring.coverage.exceedances gives it"
        )
    return hits


def require_sequences(hits: BoolArray) -> BoolArray:
    """Return ``hits`` if it is a non-empty boolean matrix, one sequence a row.

    Raises:
        InputError: it is empty, not two-dimensional, or not boolean.
    """
    hits = np.asarray(hits)
    if hits.ndim != 2 or hits.size == 0 or hits.dtype != np.bool_:
        raise InputError(
            f"hits has shape {hits.shape} and type {hits.dtype}; expected a non-empty boolean "
            "array of shape (replications, T); give one sequence as hits[np.newaxis, :]"
        )
    return hits


@dataclass(frozen=True)
class Spells:
    """Numbers of decisions from one exceedance to the next, of R sequences of T decisions.

    The first spell of a sequence runs from before its first decision to the first exceedance, so
    an exceedance at once is a spell of 1. The decisions after the last exceedance are the open
    spell. Given their number, the spells are exchangeable under exact coverage once the open one is
    closed by an exceedance imagined right after the sample; they then sum to T + 1.

    Attributes:
        sample_size: decisions T of each sequence.
        counts: exceedances of each sequence, shape (R,).
        rows: sequence of each finished spell, in time order within a sequence, shape (n,).
        lengths: decisions of each finished spell, at least 1, shape (n,).
        is_first: whether it is the first of its sequence, shape (n,).
        last_hits: position of the last exceedance, counted from 1; 0 without one; shape (R,).
    """

    sample_size: int
    counts: FloatArray
    rows: npt.NDArray[np.intp]
    lengths: FloatArray
    is_first: BoolArray
    last_hits: FloatArray

    def sums(self, values: FloatArray) -> FloatArray:
        """Add up one value a finished spell within each sequence, shape (R,)."""
        return sum_by_row(self.rows, values, self.counts.size)

    def firsts(self) -> FloatArray:
        """Return the first spell of each sequence; NaN without an exceedance; shape (R,)."""
        first = np.full(self.counts.size, np.nan)
        first[self.rows[self.is_first]] = self.lengths[self.is_first]
        return first


def sum_by_row(rows: npt.NDArray[np.intp], values: FloatArray, row_count: int) -> FloatArray:
    """Add up the values of each row, shape (row_count,)."""
    return np.asarray(np.bincount(rows, weights=values, minlength=row_count), dtype=np.float64)


def spells(hits: BoolArray) -> Spells:
    """Measure the spells of sequences of exceedances, shape (R, T).

    Raises:
        InputError: see :func:`require_sequences`.
    """
    hits = require_sequences(hits)
    replications, sample_size = hits.shape
    rows, positions = np.divmod(np.flatnonzero(hits), sample_size)
    before = np.empty_like(positions)
    before[1:] = positions[:-1]
    is_first = np.ones(rows.size, dtype=np.bool_)
    is_first[1:] = rows[1:] != rows[:-1]
    before[is_first] = -1
    last_hits = np.zeros(replications)
    last_hits[rows] = positions + 1  # the last assignment to a row stands
    return Spells(
        sample_size=sample_size,
        counts=np.count_nonzero(hits, axis=1).astype(np.float64),
        rows=rows,
        lengths=(positions - before).astype(np.float64),
        is_first=is_first,
        last_hits=last_hits,
    )
