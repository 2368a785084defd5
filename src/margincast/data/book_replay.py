"""Replay one side of an order book: its first levels after each interval, from arrays of updates.

The first levels are what a liquidation trades against. Each price of a batch is a position, best
first. A table of books by positions holds the newest update of each level; filled downwards it says
what each book contains. Nothing is done update by update, and a table is only as wide as the first
levels need: that is what makes it fast.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from margincast.core.types import BoolArray, FloatArray

IntArray = npt.NDArray[np.int64]

# Fewer books a table cost more calls, more make tables wider than the first levels need.
_TABLE_BOOKS = 256
_TABLE_CELLS = 1_000_000


@dataclass(frozen=True)
class Levels:
    """Levels of one side in no particular order; no size is zero."""

    price: FloatArray
    size: FloatArray


NO_LEVELS = Levels(np.empty(0), np.empty(0))


@dataclass(frozen=True)
class SideUpdates:
    """Updates in their order.

    Attributes:
        price: price of the level.
        size: its new size; zero deletes it.
        book: index of the first book asked for that the update belongs to; never decreases.
        epoch: number of snapshots in the batch, up to and with the update's message.
    """

    price: FloatArray
    size: FloatArray
    book: IntArray
    epoch: IntArray

    def only(self, chosen: BoolArray) -> "SideUpdates":
        """Keep the chosen updates."""
        index = np.flatnonzero(chosen)  # taking by index is several times faster than by flag
        return SideUpdates(self.price[index], self.size[index], self.book[index], self.epoch[index])


class SideReplay:
    """One side of a book through a batch of updates.

    Args:
        held: levels before the batch.
        updates: the batch.
        best_is_highest: whether the side is that of the bids.
    """

    def __init__(self, held: Levels, updates: SideUpdates, *, best_is_highest: bool) -> None:
        # levels held become updates ahead of the first book; entry zero, of size zero, stands for
        # "no update" wherever the index of an update is asked for
        ahead = 1 + len(held.price)
        self._price = np.concatenate([[np.nan], held.price, updates.price])
        self._size = np.concatenate([[0.0], held.size, updates.size])
        self._book = np.concatenate([np.full(ahead, -1), updates.book])
        self._epoch = np.concatenate([np.zeros(ahead, np.int64), updates.epoch])
        self._is_level = self._size != 0
        price = self._price[1:]
        # stable: the updates of one price stay in their order
        self._order = 1 + np.argsort(-price if best_is_highest else price, kind="stable")
        ordered = self._price[self._order]
        self._opens = np.ones(len(ordered), np.bool_)
        self._opens[1:] = ordered[1:] != ordered[:-1]
        self._prices = ordered[self._opens]
        self._position = np.zeros(len(self._price), np.int64)
        self._position[self._order] = np.cumsum(self._opens) - 1
        self._held = np.arange(1, ahead)

    def count_deletes_of_absent_levels(self) -> int:
        """Count deletes of levels that were not there when their turn came."""
        before, after = self._order[:-1], self._order[1:]
        was_there = (
            ~self._opens[1:] & self._is_level[before] & (self._epoch[before] == self._epoch[after])
        )
        deletes = ~self._is_level[self._order]
        return int(np.count_nonzero(deletes) - np.count_nonzero(deletes[1:] & was_there))

    def levels_after(self, epoch: int) -> Levels:
        """Return the levels there after the batch, given its number of snapshots."""
        newest = self._order[np.concatenate([self._opens[1:], self._opens[:1]])]
        there = newest[self._is_level[newest] & (self._epoch[newest] == epoch)]
        return Levels(self._price[there], self._size[there])

    def tops(self, epoch: IntArray, levels: int) -> tuple[FloatArray, FloatArray]:
        """Return the first levels of each book.

        Args:
            epoch: number of snapshots in the batch, up to and with each book.
            levels: how many levels.

        Returns:
            Prices and sizes, shape (levels, books), NaN where there is no level.
        """
        prices, sizes = np.full((2, levels, len(epoch)), np.nan)
        newest = np.zeros(len(self._prices), np.int64)
        newest[self._position[self._held]] = self._held
        start, width = 0, 2 * levels
        while start < len(epoch):
            table = self._table(newest, start, epoch, levels, width)
            stop = start + len(table.update)
            book, column = np.nonzero(table.is_there)
            level = np.arange(len(book)) - np.searchsorted(book, np.arange(stop - start))[book]
            wanted = np.flatnonzero(level < levels)
            book, column, level = book[wanted], column[wanted], level[wanted]
            prices[level, start + book] = self._prices[table.position[column]]
            sizes[level, start + book] = self._size[table.update[book, column]]
            applied = slice(*np.searchsorted(self._book, (start, stop)))
            # of several updates of one position numpy keeps the last
            newest[self._position[applied]] = np.arange(applied.start, applied.stop)
            # the next table is likely to need about as many positions
            start, width = stop, int(column.max(initial=0)) + 1 + levels
        return prices, sizes

    def _table(
        self, newest: IntArray, start: int, epoch: IntArray, levels: int, width: int
    ) -> "_Table":
        """Make the table of as many books from ``start`` on as fit, wide enough for the levels."""
        # levels from before a snapshot would do no harm, but make tables wider
        epoch_before = epoch[start - 1] if start else 0
        there = self._is_level[newest] & (self._epoch[newest] == epoch_before)
        books = min(_TABLE_BOOKS, len(epoch) - start)
        while True:
            first, end = np.searchsorted(self._book, (start, start + books))
            at = self._position[first:end]
            is_active = there.copy()
            is_active[at] = True
            position = np.flatnonzero(is_active)
            if books > 1 and books * min(width, len(position)) > _TABLE_CELLS:
                books //= 2
                continue
            column = (np.cumsum(is_active) - 1)[at]
            inside = np.flatnonzero(column < width)
            table = np.zeros((books, min(width, len(position))), np.int64)
            table[0] = newest[position[:width]]
            # of several updates of one cell numpy keeps the last
            table[self._book[first + inside] - start, column[inside]] = first + inside
            np.maximum.accumulate(table, axis=0, out=table)
            # a book contains no update from before its snapshot
            oldest = np.searchsorted(self._epoch, epoch[start : start + books])
            is_there = self._is_level[table] & (table >= oldest[:, np.newaxis])
            if width >= len(position) or is_there.sum(axis=1).min() >= levels:
                return _Table(position, table, is_there)
            width *= 2


@dataclass(frozen=True)
class _Table:
    """Books by positions.

    Attributes:
        position: shape (columns or more,), best first.
        update: shape (books, columns), index of the newest update of the position.
        is_there: shape (books, columns), whether the book has a level at the position.
    """

    position: IntArray
    update: IntArray
    is_there: BoolArray
