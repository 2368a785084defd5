"""What closing a position of a given size costs now: the liquidation cost of the margin.

A book too short for the size is a state of its own: the cost is not known, and
:func:`depth_shortage` says so.
"""

import numpy as np

from margincast.core.errors import InputError
from margincast.features.order_book.sides import FloatArray, Side
from margincast.features.order_book.snapshots import Snapshots, book_feature


@book_feature("fraction")
def cost_to_buy(book: Snapshots, notional_usd: float) -> FloatArray:
    """Average price above the mid of buying ``notional_usd / mid`` at once, in fractions.

    Fees apart, what closing a short of that notional costs; at least half the relative spread.
    Null where all levels of the feed together are too few, so that the mean over a window is of the
    snapshots that could fill it: read it beside :func:`depth_shortage`.
    """
    return walked_cost(book, book.ask, notional_usd)


@book_feature("fraction")
def cost_to_sell(book: Snapshots, notional_usd: float) -> FloatArray:
    """Average price below the mid of selling ``notional_usd / mid`` at once, in fractions.

    The mirror image of :func:`cost_to_buy`: what closing a long costs.
    """
    return walked_cost(book, book.bid, notional_usd)


@book_feature("number")
def depth_shortage(book: Snapshots, notional_usd: float) -> FloatArray:
    """1 where the feed's levels of either side cannot fill ``notional_usd``, else 0.

    Its mean is the share of snapshots in which one of the costs to trade is not known.
    """
    size = _size_to_trade(book, notional_usd)
    deepest = book.levels - 1
    short = book.bid.cumulative_size.at(deepest) < size
    short |= book.ask.cumulative_size.at(deepest) < size
    return short.astype(np.float64)


def walked_cost(book: Snapshots, side: Side, notional_usd: float) -> FloatArray:
    """Cost of trading against one side of the book, best level first, in fractions of the mid.

    The whole size pays the distance of the best level, and what passes each level pays the step to
    the next. Sums of steps, not of prices, keep a cost near zero exact. Walked once a block
    for each notional; not to be written to.

    Raises:
        InputError: the notional is not above 0 USD.
    """
    if notional_usd not in side.costs:
        size = _size_to_trade(book, notional_usd)
        largest, deepest = size.max(), book.levels - 1
        cost = side.distance_usd.at(0) * size
        passing = side.scratch.take(len(size))
        for level in range(deepest):
            if side.least_cumulative_size(level) >= largest:
                break  # filled by here in every snapshot of the block
            np.subtract(size, side.cumulative_size.at(level), out=passing)
            np.maximum(passing, 0.0, out=passing)
            passing *= side.step_usd.at(level)
            cost += passing
        cost /= notional_usd
        cost[side.cumulative_size.at(deepest) < size] = np.nan
        side.costs[notional_usd] = cost
    return side.costs[notional_usd]


def _size_to_trade(book: Snapshots, notional_usd: float) -> FloatArray:
    if not 0 < notional_usd < float("inf"):
        raise InputError(f"a notional to trade must be above 0 USD, found {notional_usd:g}")
    size: FloatArray = notional_usd / book.mid
    return size
