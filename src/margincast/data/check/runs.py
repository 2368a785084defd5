"""Runs: consecutive rows of which the same holds, also across blocks."""

from dataclasses import dataclass
from datetime import datetime

import numpy as np
import polars as pl


@dataclass(frozen=True)
class Run:
    """Consecutive rows.

    Attributes:
        first: time of the first row.
        last: time of the last row.
        rows: how many.
        value: what stood in the first row.
    """

    first: datetime
    last: datetime
    rows: int
    value: float


class Runs:
    """Collects runs of flagged rows from blocks in the order of time.

    Attributes:
        found: ended runs of at least ``minimum`` rows.
        flagged: flagged rows in all.
        total: rows in all.
    """

    def __init__(self, minimum: int) -> None:
        self.minimum = minimum
        self.found: list[Run] = []
        self.flagged = self.total = 0
        self._open: Run | None = None

    def add(self, times: pl.Series, flagged: pl.Series, values: pl.Series) -> None:
        """Take a block."""
        mask = flagged.fill_null(value=False).to_numpy()
        if not mask.size:
            return
        self.total += len(mask)
        self.flagged += int(mask.sum())
        edges = np.flatnonzero(np.diff(mask.astype(np.int8), prepend=0, append=0))
        for start, stop in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
            run = Run(times[start], times[stop - 1], stop - start, float(values[start]))
            if start == 0 and self._open is not None:
                run = Run(self._open.first, run.last, self._open.rows + run.rows, self._open.value)
                self._open = None
            self._end()
            self._open = run
        if not mask[-1]:
            self._end()

    def open_run(self) -> Run | None:
        """The run that goes on at the last row, if there is one."""
        return self._open

    def all_runs(self) -> list[Run]:
        """Ended runs and the one that goes on, of at least ``minimum`` rows."""
        last = [self._open] if self._open is not None and self._open.rows >= self.minimum else []
        return [*self.found, *last]

    def _end(self) -> None:
        if self._open is not None and self._open.rows >= self.minimum:
            self.found.append(self._open)
        self._open = None
