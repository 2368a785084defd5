"""Rows with their neighbours: a price is judged by those around it, also across two blocks."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import polars as pl


@dataclass(frozen=True)
class Window:
    """Rows to judge, with context on both sides where there is any.

    Attributes:
        rows: context, the rows to judge, and context.
        start: first row to judge.
        stop: row after the last to judge.
    """

    rows: pl.DataFrame
    start: int
    stop: int

    def judged(self, values: pl.Series) -> pl.Series:
        """Cut a series of all rows to those to judge."""
        return values.slice(self.start, self.stop - self.start)


def windows(blocks: Iterable[pl.DataFrame], context: int) -> Iterator[Window]:
    """Cut consecutive blocks into windows: every row is judged once.

    Args:
        blocks: rows in the order of time.
        context: rows that a judgement may need on either side; a row has fewer only at the very
            beginning and end.
    """
    held: pl.DataFrame | None = None
    start = 0
    for block in blocks:
        held = block if held is None else pl.concat([held, block], how="diagonal_relaxed")
        stop = len(held) - context
        if stop > start:
            yield Window(held, start, stop)
            drop = max(0, stop - context)
            held, start = held.slice(drop), stop - drop
    if held is not None and len(held) > start:
        yield Window(held, start, len(held))
