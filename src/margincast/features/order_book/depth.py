"""How much stands in the book, on which side, and how far away: how firmly the price is held."""

import numpy as np

from margincast.features.order_book.sides import FloatArray, Side
from margincast.features.order_book.snapshots import Snapshots, book_feature

SLOPE_UNIT_USD = 1e6
"""A book slope is a fraction of the mid for each million USD of depth."""


@book_feature("number")
def imbalance(book: Snapshots, level_count: float) -> FloatArray:
    """Bid less ask size over their sum, over the best ``level_count`` levels; in [-1, 1].

    Stoikov (2018) doi:10.1080/14697688.2018.1489139. Known at every snapshot.
    """
    count = book.whole_level("imbalance", level_count)
    bid, ask = book.bid.cumulative_size.at(count - 1), book.ask.cumulative_size.at(count - 1)
    return (bid - ask) / (bid + ask)


@book_feature("number")
def imbalance_within(book: Snapshots, distance_bps: float) -> FloatArray:
    """Bid less ask USD notional over their sum, within ``distance_bps`` of the mid; in [-1, 1].

    Null where nothing stands that near.
    """
    bid, ask = book.depth_within(distance_bps)
    return (bid - ask) / (bid + ask)


@book_feature("number")
def bid_depth_usd_within(book: Snapshots, distance_bps: float) -> FloatArray:
    """USD notional of bids within ``distance_bps`` basis points of the mid; 0 where there is none.

    Of the levels the feed shows: where all of them are within, the book may hold more.
    """
    return book.depth_within(distance_bps)[0]


@book_feature("number")
def ask_depth_usd_within(book: Snapshots, distance_bps: float) -> FloatArray:
    """USD notional of asks within ``distance_bps`` basis points of the mid; 0 where there is none.

    The mirror image of :func:`bid_depth_usd_within`.
    """
    return book.depth_within(distance_bps)[1]


@book_feature("number")
def log_depth_usd(book: Snapshots, level_count: float) -> FloatArray:
    """Log of the USD notional on both sides of the best ``level_count`` levels."""
    count = book.whole_level("log_depth_usd", level_count)
    total = book.bid.cumulative_usd.at(count - 1) + book.ask.cumulative_usd.at(count - 1)
    return np.log(total, out=total)


@book_feature("number")
def depth_asymmetry(book: Snapshots, level_count: float) -> FloatArray:
    """Log of bid over ask USD notional in the best ``level_count`` levels.

    Unlike :func:`imbalance` it goes on growing as one side empties.
    """
    count = book.whole_level("depth_asymmetry", level_count)
    ratio = book.bid.cumulative_usd.at(count - 1) / book.ask.cumulative_usd.at(count - 1)
    return np.log(ratio, out=ratio)


@book_feature("fraction")
def book_slope(book: Snapshots, level_count: float) -> FloatArray:
    """How far the price moves, in fractions of the mid, for each million USD taken from the book.

    Least squares through the origin of a level's distance from the mid on the notional up to and
    including it, over the best ``level_count`` levels; the mean of both sides.
    """
    count = book.whole_level("book_slope", level_count)
    slope = _slope_usd(book.bid, count) + _slope_usd(book.ask, count)
    slope *= SLOPE_UNIT_USD / 2
    slope /= book.mid
    return slope


@book_feature("number")
def book_convexity(book: Snapshots, level_count: float) -> FloatArray:
    """How late the price moves as the book is taken: 1 less twice the mean relative distance.

    Join a level's distance from the mid to the notional up to and including it by straight lines
    from the origin, over the best ``level_count`` levels. The area below, over half the rectangle
    of the last point, is 1 less the convexity, the mean of both sides; in [-1, 1]. 0 for a
    straight book, above where depth stands near the mid and the price runs away behind it, below
    where it stands far out. Null where a side's last level stands at the mid.
    """
    count = book.whole_level("book_convexity", level_count)
    return (_convexity(book.bid, count) + _convexity(book.ask, count)) / 2


def _slope_usd(side: Side, count: int) -> FloatArray:
    return side.distance_products.over(count) / side.depth_squares.over(count)


def _convexity(side: Side, count: int) -> FloatArray:
    rectangle = side.distance_usd.at(count - 1) * side.cumulative_usd.at(count - 1)
    return 1 - side.twice_area.over(count) / rectangle
