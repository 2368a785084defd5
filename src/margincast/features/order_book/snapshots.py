"""Blocks of snapshots, and the quantities that several order-book features share.

A block holds some hundred consecutive snapshots, few enough to stay in the processor's cache, as
one float64 array a level, read where the decoded file lies (:mod:`.sides`). Nothing here depends on
where a block begins or ends: every value is that of its own snapshot, or of snapshots at most a
feature's memory before it, by the same additions in the same order.

Prices are in USD and a size times its price is USD notional.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import update_wrapper
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from margincast.core.errors import InputError
from margincast.data.schemas import book_columns
from margincast.features.library import Unit, feature
from margincast.features.order_book.sides import FloatArray, Levels, RunningSum, Scratch, Side

Kernel = Callable[..., FloatArray]
"""A feature of a block: one value a snapshot, NaN where not known."""


class Snapshots:
    """Consecutive snapshots of one contract's book, mended: never crossed, best levels first.

    Attributes:
        ts: microseconds since 1970, one a snapshot.
        passed: microseconds since the snapshot before, of the second snapshot on.
        levels: book levels on each side.
        mid: USD, one a snapshot.
        bid: the bids.
        ask: the asks.
        flow: order flow at each level since the snapshot before, of the second snapshot on:
            equation (10) of Cont, Kukanov and Stoikov (2014) doi:10.1093/jjfinec/nbt003. A side
            missing in one of the two adds nothing.
        flow_depth: mean of bid and ask size at each level in the two snapshots.
        total_flow: flow summed over the best levels.
        total_flow_depth: its depth likewise.
    """

    def __init__(
        self,
        ts: npt.NDArray[np.int64],
        columns: Sequence[FloatArray],
        scratch: Scratch,
        *,
        complete: bool,
    ) -> None:
        """Wrap a block.

        Args:
            ts: microseconds since 1970, one a snapshot.
            columns: in the order of :func:`margincast.data.schemas.book_columns`; NaN at levels
                that hold nothing.
            scratch: where what is computed lies.
            complete: whether no level is missing.
        """
        bid_price, bid_size, ask_price, ask_size = (list(columns[part::4]) for part in range(4))
        self.ts = ts
        self.passed = np.diff(ts)
        self.levels = len(bid_price)
        mid = (bid_price[0] + ask_price[0]) / 2
        bid = Side(bid_price, bid_size, mid, scratch, is_bid=True, complete=complete)
        ask = Side(ask_price, ask_size, mid, scratch, is_bid=False, complete=complete)
        self.mid, self.bid, self.ask = mid, bid, ask
        changes = len(self.passed)
        of_asks = scratch.take(changes)

        def flow(level: int, out: FloatArray) -> None:
            np.subtract(bid.flow(level, out), ask.flow(level, of_asks), out=out)

        def flow_depth(level: int, out: FloatArray) -> None:
            np.add(bid.flow_depth(level, out), ask.flow_depth(level, of_asks), out=out)
            out *= 0.25

        self.flow, self.flow_depth = (
            Levels(changes, scratch, compute) for compute in (flow, flow_depth)
        )
        self.total_flow, self.total_flow_depth = (
            RunningSum(changes, scratch, one.at) for one in (self.flow, self.flow_depth)
        )
        self._depths: dict[float, tuple[FloatArray, FloatArray]] = {}

    def whole_level(self, name: str, value: float) -> int:
        """Check a number of book levels.

        Raises:
            InputError: it is not a whole number from 1 to ``levels``.
        """
        if value != int(value) or not 1 <= value <= self.levels:
            raise InputError(
                f"feature '{name}' is asked for {value:g} book levels, and the book has "
                f"{self.levels}; list whole numbers from 1 to {self.levels}"
            )
        return int(value)

    def depth_within(self, distance_bps: float) -> tuple[FloatArray, FloatArray]:
        """USD notional of bids and of asks at most so many basis points away from the mid.

        Raises:
            InputError: the distance is not above 0.
        """
        if not 0 < distance_bps < float("inf"):
            raise InputError(
                f"a band around the mid must be above 0 bps, found {distance_bps:g}; list basis "
                "points, for example 5, 10, 25 and 50"
            )
        if distance_bps not in self._depths:
            self._depths[distance_bps] = (
                self.bid.depth_within(distance_bps),
                self.ask.depth_within(distance_bps),
            )
        return self._depths[distance_bps]


@dataclass(frozen=True)
class BookFeature:
    """How to compute a registered function on a block.

    Attributes:
        kernel: block (and value) to one value a snapshot.
        memory: how far back it looks; 0 for the snapshot before at most.
    """

    kernel: Kernel
    memory: Callable[[float], timedelta] | None


BOOK_FEATURES: dict[str, BookFeature] = {}


def book_feature(
    unit: Unit,
    argument: Literal["values", "nothing"] = "values",
    memory: Callable[[float], timedelta] | None = None,
    look_back: int = 1,
) -> Callable[[Kernel], Callable[..., pl.Expr]]:
    """Register a feature of snapshots under its own name.

    Args:
        unit: see :class:`margincast.features.library.FeatureFunction`.
        argument: whether the function takes one of ``values``.
        memory: from the value, how far back the function looks beyond the snapshot before.
        look_back: snapshots, its own among them, that a value hangs on, beside that memory.

    Returns:
        A decorator. What it leaves under the name takes the value, if any, and the number of book
        levels, and returns the feature as an expression over a whole book table (``ts`` and the
        columns of :func:`margincast.data.schemas.book_columns`).
    """

    def register(kernel: Kernel) -> Callable[..., pl.Expr]:
        BOOK_FEATURES[kernel.__name__] = BookFeature(kernel, memory)

        def build(*arguments: float) -> pl.Expr:
            value, levels = (arguments[:-1], arguments[-1]) if arguments else ((), 1)
            names = book_columns(int(levels))

            def over(table: pl.Series) -> pl.Series:
                book = table.struct.unnest()
                if book.is_empty():
                    return pl.Series([], dtype=pl.Float64)
                columns, complete = as_arrays(book, names)
                ts = book["ts"].to_physical().to_numpy()
                block = Snapshots(ts, columns, Scratch(), complete=complete)
                with np.errstate(divide="ignore", invalid="ignore"):
                    return pl.Series(kernel(block, *value), nan_to_null=True)

            return pl.struct("ts", *names).map_batches(over, return_dtype=pl.Float64)

        update_wrapper(build, kernel)
        return feature("book", unit, argument, lambda *_: look_back)(build)

    return register


def as_arrays(book: pl.DataFrame, names: Sequence[str]) -> tuple[list[FloatArray], bool]:
    """Columns as arrays, null to NaN, and whether none of them holds a null."""
    columns = [book[name] for name in names]
    return [one.to_numpy() for one in columns], not any(one.null_count() for one in columns)
