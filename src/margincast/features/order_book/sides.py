"""One side of the book over a block of snapshots: what stands at each level, and up to it.

What several features need (notional, cumulative depth, distance from the mid, flow) is computed
once a block, for as many levels as are asked for. A level that is null holds nothing: its size
counts as zero, since a book that has lost its levels is thin, not unknown.
"""

from collections.abc import Callable
from functools import cached_property

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


class Scratch:
    """Memory that one block after the other is computed in: it stays warm, and is asked for once.

    What was taken may be used until :meth:`reuse`; then the next block takes the same memory.
    """

    def __init__(self) -> None:
        self._rows: list[FloatArray] = []
        self._taken = 0

    def take(self, snapshots: int) -> FloatArray:
        """Return an array of one value a snapshot, whatever it holds."""
        if self._taken == len(self._rows):
            self._rows.append(np.empty(snapshots))
        elif len(self._rows[self._taken]) < snapshots:
            self._rows[self._taken] = np.empty(snapshots)
        self._taken += 1
        return self._rows[self._taken - 1][:snapshots]

    def reuse(self) -> None:
        """Take back all arrays."""
        self._taken = 0


class Levels:
    """A quantity at each level, computed from the best level on as far as it is asked for."""

    def __init__(
        self, snapshots: int, scratch: Scratch, compute: Callable[[int, FloatArray], object]
    ) -> None:
        """Wrap how the quantity is computed.

        Args:
            snapshots: length of a level's array.
            scratch: where the arrays lie.
            compute: fills the array of a level; those before it are there.
        """
        self._snapshots, self._scratch, self._compute = snapshots, scratch, compute
        self._known: list[FloatArray] = []

    def at(self, level: int) -> FloatArray:
        """Return one level, 0 the best; not to be written to."""
        known = self._known
        if level < len(known):
            return known[level]
        for new in range(len(known), level + 1):
            values = self._scratch.take(self._snapshots)
            self._compute(new, values)
            known.append(values)
        return known[level]


class RunningSum:
    """A sum over the best levels, kept for the count that was asked for last."""

    def __init__(self, snapshots: int, scratch: Scratch, term: Callable[[int], FloatArray]) -> None:
        """Wrap what is summed.

        Args:
            snapshots: length of a level's array.
            scratch: where the sum lies.
            term: the summand of a level; not kept.
        """
        self._sum, self._count, self._term = scratch.take(snapshots), 0, term

    def over(self, count: int) -> FloatArray:
        """Sum up the best ``count`` levels, in their order.

        Returns:
            The sums; not to be written to, and to be used before the next call.
        """
        if count < self._count:
            self._count = 0
        for level in range(self._count, count):
            if level:
                np.add(self._sum, self._term(level), out=self._sum)
            else:
                self._sum[:] = self._term(0)
        self._count = count
        return self._sum


def running_levels(snapshots: int, scratch: Scratch, term: Callable[[int], FloatArray]) -> Levels:
    """Sums up to and including each level, in the order of the levels."""
    before: list[FloatArray] = []

    def compute(level: int, out: FloatArray) -> None:
        if level:
            np.add(before[-1], term(level), out=out)
        else:
            out[:] = term(0)
        before[:] = [out]

    return Levels(snapshots, scratch, compute)


class Side:
    """One side of the book over a block; lists hold one array a level, best first.

    Attributes:
        price: USD; NaN where the level holds nothing.
        size: units of the contract; 0 where the level holds nothing.
        mid: USD, one a snapshot.
        is_bid: whether these are the bids.
        missing: which levels hold nothing; None where all hold something.
        scratch: where what is computed lies.
        notional_usd: USD notional at each level, 0 where it holds nothing.
        distance_usd: distance from the mid; that of the level before where a level holds nothing.
        cumulative_size: size up to and including each level.
        cumulative_usd: USD notional up to and including each level.
        costs: costs of trades that were walked through this side already, by their notional.
    """

    def __init__(
        self,
        price: list[FloatArray],
        size: list[FloatArray],
        mid: FloatArray,
        scratch: Scratch,
        *,
        is_bid: bool,
        complete: bool,
    ) -> None:
        missing = None if complete else [np.isnan(one) for one in price]
        if missing is not None:
            size = [np.fmax(one, 0.0) for one in size]  # the number where the other is none
        self.price, self.size, self.is_bid, self.missing = price, size, is_bid, missing
        self.mid, self.scratch = mid, scratch
        snapshots = len(mid)

        def notional(level: int, out: FloatArray) -> None:
            np.multiply(price[level], size[level], out=out)
            if missing is not None:
                np.fmax(out, 0.0, out=out)

        far: list[FloatArray] = []

        def distance(level: int, out: FloatArray) -> None:
            low, high = (price[level], mid) if is_bid else (mid, price[level])
            np.subtract(high, low, out=out)
            if missing is not None and level:
                np.copyto(out, far[-1], where=missing[level])
            far[:] = [out]

        self.notional_usd = Levels(snapshots, scratch, notional)
        self.distance_usd = Levels(snapshots, scratch, distance)
        self.cumulative_size = running_levels(snapshots, scratch, size.__getitem__)
        self.cumulative_usd = running_levels(snapshots, scratch, self.notional_usd.at)
        self.costs: dict[float, FloatArray] = {}
        self._least: list[float] = []

    @cached_property
    def step_usd(self) -> Levels:
        """Distance from each level to the next."""
        distance = self.distance_usd

        def compute(level: int, out: FloatArray) -> None:
            np.subtract(distance.at(level + 1), distance.at(level), out=out)

        return Levels(len(self.mid), self.scratch, compute)

    def least_cumulative_size(self, level: int) -> float:
        """Over the block, the least size up to and including a level."""
        while len(self._least) <= level:
            self._least.append(float(self.cumulative_size.at(len(self._least)).min()))
        return self._least[level]

    @cached_property
    def distance_products(self) -> RunningSum:
        """Sum of the notional up to each level times the level's distance from the mid."""
        there, distance = self._cumulative_usd_there, self.distance_usd
        product = self.scratch.take(len(self.mid))
        return RunningSum(
            len(self.mid),
            self.scratch,
            lambda level: np.multiply(there(level), distance.at(level), out=product),
        )

    @cached_property
    def depth_squares(self) -> RunningSum:
        """Sum of the squared notional up to each level."""
        there = self._cumulative_usd_there
        square = self.scratch.take(len(self.mid))

        def term(level: int) -> FloatArray:
            depth = there(level)
            return np.multiply(depth, depth, out=square)

        return RunningSum(len(self.mid), self.scratch, term)

    @cached_property
    def twice_area(self) -> RunningSum:
        """Twice the area below the straight lines from level to level.

        They join the origin and, for each level, the notional up to it and its distance from the
        mid.
        """
        distance, notional = self.distance_usd, self.notional_usd
        area = self.scratch.take(len(self.mid))

        def term(level: int) -> FloatArray:
            if not level:
                return np.multiply(distance.at(0), notional.at(0), out=area)
            np.add(distance.at(level), distance.at(level - 1), out=area)
            return np.multiply(area, notional.at(level), out=area)

        return RunningSum(len(self.mid), self.scratch, term)

    @property
    def _cumulative_usd_there(self) -> Callable[[int], FloatArray]:
        """USD notional up to and including a level, 0 where the level holds nothing."""
        missing, usd = self.missing, self.cumulative_usd
        if missing is None:
            return usd.at
        return lambda level: np.where(missing[level], 0.0, usd.at(level))

    def depth_within(self, distance_bps: float) -> FloatArray:
        """USD notional at most ``distance_bps`` basis points away from the mid."""
        band = self.mid * (distance_bps * 1e-4)
        nearest, furthest = band.min(), band.max()
        # Most levels are inside, or outside, over the whole block.
        inside = 0
        for _, largest in self._extremes_usd:
            if not largest <= nearest:
                break
            inside += 1
        total = self.cumulative_usd.at(inside - 1).copy() if inside else np.zeros_like(self.mid)
        for level in range(inside, len(self.price)):
            if self._extremes_usd[level][0] <= furthest:
                total += self.notional_usd.at(level) * (self.distance_usd.at(level) <= band)
        return total

    @cached_property
    def _extremes_usd(self) -> list[tuple[float, float]]:
        distances = (self.distance_usd.at(level) for level in range(len(self.price)))
        return [(float(one.min()), float(one.max())) for one in distances]

    def flow(self, level: int, out: FloatArray) -> FloatArray:
        """Fill in the size added to the level, less what was taken, since the snapshot before."""
        price, size = self.price[level], self.size[level]
        # A bid that rises is new demand, one that falls is demand gone; asks the other way.
        now, then = (price[1:], price[:-1]) if self.is_bid else (price[:-1], price[1:])
        # where the level is missing both comparisons are false, and nothing flows
        np.multiply(now >= then, size[1:], out=out)
        out -= (now <= then) * size[:-1]
        return out

    def flow_depth(self, level: int, out: FloatArray) -> FloatArray:
        """Fill in the size in the two snapshots together, 0 where it is missing in one of them."""
        size = self.size[level]
        np.add(size[1:], size[:-1], out=out)
        if self.missing is not None:
            missing = self.missing[level]
            out *= ~(missing[1:] | missing[:-1])
        return out
