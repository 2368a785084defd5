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


class Windows:
    """Cuts consecutive blocks into windows as they come: every row is judged once.

    Args:
        context: rows that a judgement may need on either side; a row has fewer only at the very
            beginning and end.
    """

    def __init__(self, context: int) -> None:
        self.context = context
        self._held: pl.DataFrame | None = None
        self._start = 0

    def add(self, block: pl.DataFrame) -> Iterator[Window]:
        """Take a block, rows in the order of time, and give what can be judged by now."""
        held = self._held
        held = block if held is None else pl.concat([held, block], how="diagonal_relaxed")
        start, stop = self._start, len(held) - self.context
        if stop > start:
            drop = max(0, stop - self.context)
            self._held, self._start = held.slice(drop), stop - drop
            yield Window(held, start, stop)
        else:
            self._held = held

    def rest(self) -> Iterator[Window]:
        """Give what is left after the last block."""
        held, self._held = self._held, None
        if held is not None and len(held) > self._start:
            yield Window(held, self._start, len(held))


def windows(blocks: Iterable[pl.DataFrame], context: int) -> Iterator[Window]:
    """Cut consecutive blocks into windows (see :class:`Windows`).

    Args:
        blocks: rows in the order of time.
        context: rows of context on either side.
    """
    cut = Windows(context)
    for block in blocks:
        yield from cut.add(block)
    yield from cut.rest()
