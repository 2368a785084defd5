"""Blocks of snapshots, and the quantities that several order-book features share.

A block holds some thousand consecutive snapshots, few enough to stay in the processor's cache: one
float64 array over time for each book level, read where the decoded file lies. What several features
need (notional, cumulative depth, distance from the mid) is computed once a block, when first asked
for. Nothing here depends on where a block begins or ends: every value is that of its own snapshot,
or of snapshots at most a feature's memory before it, by the same additions in the same order.

Prices are in USD and a size times its price is USD notional. A level that is null holds nothing:
its size counts as zero, since a book that has lost its levels is thin, not unknown.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property, update_wrapper
from itertools import accumulate
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from margincast.core.errors import InputError
from margincast.data.schemas import book_columns
from margincast.features.library import Unit, feature

FloatArray = npt.NDArray[np.float64]
Levels = list[FloatArray]
Kernel = Callable[..., FloatArray]
"""A feature of a block: one value a snapshot, NaN where not known."""


class Side:
    """One side of the book over a block; every list holds one array a level, best first.

    Attributes:
        price: USD; NaN where the level holds nothing.
        size: units of the contract; 0 where the level holds nothing.
        mid: USD, one a snapshot.
        complete: whether no level of the block is missing.
    """

    def __init__(self, price: Levels, size: Levels, mid: FloatArray, *, complete: bool) -> None:
        self.price = price
        self.mid = mid
        self.complete = complete
        self.size = size if complete else [np.where(np.isnan(one), 0.0, one) for one in size]

    @cached_property
    def there(self) -> list[npt.NDArray[np.bool_]]:
        """Which levels hold something."""
        return [~np.isnan(price) for price in self.price]

    @cached_property
    def cumulative_size(self) -> Levels:
        """Size up to and including each level."""
        return list(accumulate(self.size, np.add))

    @cached_property
    def notional_usd(self) -> Levels:
        """USD notional at each level, 0 where it holds nothing."""
        notional = [price * size for price, size in zip(self.price, self.size, strict=True)]
        if self.complete:
            return notional
        return [np.where(np.isnan(usd), 0.0, usd) for usd in notional]

    @cached_property
    def cumulative_usd(self) -> Levels:
        """USD notional up to and including each level."""
        return list(accumulate(self.notional_usd, np.add))

    @cached_property
    def distance_usd(self) -> Levels:
        """Distance of each level from the mid; that of the level before where it holds nothing."""
        distances: Levels = []
        for level, price in enumerate(self.price):
            distance = price - self.mid
            np.abs(distance, out=distance)
            if not self.complete and level:
                distance = np.where(self.there[level], distance, distances[-1])
            distances.append(distance)
        return distances

    def depth_within(self, distance_bps: float) -> FloatArray:
        """USD notional at most ``distance_bps`` basis points away from the mid."""
        band = self.mid * (distance_bps * 1e-4)
        nearest, furthest = band.min(), band.max()
        total = np.zeros_like(self.mid)
        for (least, largest), distance, notional in zip(
            self._extremes_usd, self.distance_usd, self.notional_usd, strict=True
        ):
            # Most levels are inside, or outside, over the whole block.
            if largest <= nearest:
                total += notional
            elif least <= furthest:
                total += notional * (distance <= band)
        return total

    @cached_property
    def _extremes_usd(self) -> list[tuple[float, float]]:
        return [(float(one.min()), float(one.max())) for one in self.distance_usd]


class Snapshots:
    """Consecutive snapshots of one contract's book.

    Attributes:
        ts: microseconds since 1970, one a snapshot.
        levels: book levels on each side.
        mid: USD, one a snapshot.
        bid: the bids.
        ask: the asks.
    """

    def __init__(
        self, ts: npt.NDArray[np.int64], columns: Sequence[FloatArray], *, complete: bool
    ) -> None:
        """Wrap a block.

        Args:
            ts: microseconds since 1970, one a snapshot.
            columns: in the order of :func:`margincast.data.schemas.book_columns`; NaN at levels
                that hold nothing.
            complete: whether no level is missing.
        """
        bid_price, bid_size, ask_price, ask_size = (list(columns[part::4]) for part in range(4))
        self.ts = ts
        self.levels = len(bid_price)
        self.mid = (bid_price[0] + ask_price[0]) / 2
        self.bid = Side(bid_price, bid_size, self.mid, complete=complete)
        self.ask = Side(ask_price, ask_size, self.mid, complete=complete)
        self._flows: dict[int, tuple[FloatArray, FloatArray]] = {}
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

    def flow(self, level: int) -> tuple[FloatArray, FloatArray]:
        """Order flow at one level since the snapshot before, and average depth there.

        Equation (10) of Cont, Kukanov and Stoikov (2014) doi:10.1093/jjfinec/nbt003, and the mean
        of bid and ask size in the two snapshots; of the second snapshot on. A side missing in one
        of the two adds nothing.
        """
        if level not in self._flows:
            bid = _side_flow(self.bid, level, rising=True)
            ask = _side_flow(self.ask, level, rising=False)
            self._flows[level] = bid[0] - ask[0], (bid[1] + ask[1]) / 4
        return self._flows[level]


def _side_flow(side: Side, level: int, *, rising: bool) -> tuple[FloatArray, FloatArray]:
    price, size = side.price[level], side.size[level]
    # A bid that rises is new demand, one that falls is demand gone; asks the other way.
    better = price[1:] >= price[:-1] if rising else price[1:] <= price[:-1]
    worse = price[1:] <= price[:-1] if rising else price[1:] >= price[:-1]
    flow = better * size[1:] - worse * size[:-1]
    depth = size[1:] + size[:-1]
    if side.complete:
        return flow, depth
    both = side.there[level][1:] & side.there[level][:-1]
    return np.where(both, flow, 0.0), np.where(both, depth, 0.0)


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
) -> Callable[[Kernel], Callable[..., pl.Expr]]:
    """Register a feature of snapshots under its own name.

    Args:
        unit: see :class:`margincast.features.library.FeatureFunction`.
        argument: whether the function takes one of ``values``.
        memory: from the value, how far back the function looks beyond the snapshot before.

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
                block = Snapshots(book["ts"].to_physical().to_numpy(), columns, complete=complete)
                with np.errstate(divide="ignore", invalid="ignore"):
                    return pl.Series(kernel(block, *value), nan_to_null=True)

            return pl.struct("ts", *names).map_batches(over, return_dtype=pl.Float64)

        update_wrapper(build, kernel)
        return feature("book", unit, argument)(build)

    return register


def as_arrays(book: pl.DataFrame, names: Sequence[str]) -> tuple[list[FloatArray], bool]:
    """Columns as arrays, null to NaN, and whether none of them holds a null."""
    columns = [book[name] for name in names]
    return [one.to_numpy() for one in columns], not any(one.null_count() for one in columns)
