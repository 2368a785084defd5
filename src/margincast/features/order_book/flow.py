"""What was added to the book, taken from it and put back: how it changes between snapshots."""

from datetime import timedelta

import numpy as np
import numpy.typing as npt

from margincast.core.errors import InputError
from margincast.features.order_book.sides import FloatArray
from margincast.features.order_book.snapshots import Snapshots, book_feature

FLOW_GAP = timedelta(seconds=3)
"""Longest time between two snapshots across which order flow is inferred."""

RECOVERY_LEVELS = 5
"""Book levels whose depth is watched for drops; all of a feed that has fewer."""

DROP_SHARE = 0.2
"""Share of that depth that must vanish from one snapshot to the next to be called a drop."""

_GAP = FLOW_GAP // timedelta(microseconds=1)


@book_feature("number", look_back=2)
def order_flow_imbalance(book: Snapshots, level_count: float) -> FloatArray:
    """Net size added to bids and taken from asks since the snapshot before, over average depth.

    Equation (10) of Cont, Kukanov and Stoikov (2014) doi:10.1093/jjfinec/nbt003 at each of the best
    ``level_count`` levels, summed, and divided by the mean of bid and ask size at these levels in
    the two snapshots; in [-4, 4]. A level missing from either snapshot adds nothing. Null for a
    first snapshot and after a hole longer than ``FLOW_GAP``.
    """
    count = book.whole_level("order_flow_imbalance", level_count)
    flow, depth = book.total_flow.over(count), book.total_flow_depth.over(count)
    return _since_before(book, flow / depth)


@book_feature("number", look_back=2)
def order_flow_imbalance_at(book: Snapshots, level: float) -> FloatArray:
    """Order-flow imbalance of one book level, 1 the best; in [-4, 4].

    One element of the multi-level order flow of Xu, Gould and Howison (2018)
    doi:10.1142/S2382626619500114, over the mean size at the level in the two snapshots as in
    :func:`order_flow_imbalance`. Null for a first snapshot, after a hole longer than ``FLOW_GAP``,
    and where neither side holds anything at the level in both snapshots.
    """
    place = book.whole_level("order_flow_imbalance_at", level) - 1
    return _since_before(book, book.flow.at(place) / book.flow_depth.at(place))


@book_feature("number", argument="nothing", look_back=2)
def quote_intensity(book: Snapshots) -> FloatArray:
    """Changes of the best quotes a second, as far as snapshots show them.

    1 over the seconds since the snapshot before where a best price or size is not what it was,
    else 0: at most one change a snapshot is seen. Null for a first snapshot, for one of the same
    time as the one before, and after a hole longer than ``FLOW_GAP``.
    """
    changed = np.zeros(max(len(book.ts) - 1, 0), dtype=np.bool_)
    for quote in (book.bid.price[0], book.bid.size[0], book.ask.price[0], book.ask.size[0]):
        changed |= quote[1:] != quote[:-1]
    passed = np.where(book.passed > 0, book.passed, np.nan)
    return _since_before(book, changed * 1e6 / passed)


def _recovery_memory(seconds: float) -> timedelta:
    if not 0 < seconds <= 3600:
        raise InputError(
            f"feature 'depth_recovery' is asked for {seconds:g} seconds; list times above 0 and up "
            "to 3600"
        )
    return timedelta(seconds=seconds) + 2 * FLOW_GAP


@book_feature("number", memory=_recovery_memory, look_back=2)
def depth_recovery(book: Snapshots, seconds: float) -> FloatArray:
    """Resilience: share of a drop in depth that was put back within ``seconds``.

    Depth is the USD notional of both sides in the best ``RECOVERY_LEVELS`` levels. It dropped in a
    snapshot that has lost at least ``DROP_SHARE`` of the depth of the one before; 0 where it stands
    as low ``seconds`` later, 1 where it is back, negative where it fell further. Null at snapshots
    without a drop in the last snapshot at or before ``seconds`` ago, and across holes longer than
    ``FLOW_GAP``. It looks back ``seconds`` plus twice ``FLOW_GAP``.

    Resilience as the return of depth: Kyle (1985) doi:10.2307/1913210, section 1; Large (2007)
    doi:10.1016/j.finmar.2006.09.001.
    """
    _recovery_memory(seconds)
    count = min(RECOVERY_LEVELS, book.levels) - 1
    depth = book.bid.cumulative_usd.at(count) + book.ask.cumulative_usd.at(count)
    lost = np.zeros_like(depth)
    lost[1:] = depth[:-1] - depth[1:]
    dropped = np.zeros(len(depth), dtype=np.bool_)
    dropped[1:] = (lost[1:] >= DROP_SHARE * depth[:-1]) & (book.passed <= _GAP)
    then = book.ts - round(seconds * 1e6)
    at: npt.NDArray[np.intp] = np.searchsorted(book.ts, then, side="right") - 1
    known = (at >= 0) & dropped[at] & (then - book.ts[at] <= _GAP)
    return np.where(known, (depth - depth[at]) / lost[at], np.nan)


def _since_before(book: Snapshots, change: FloatArray) -> FloatArray:
    """One value a snapshot, from the second on, not known across a hole."""
    values = np.empty(len(book.ts))
    values[:1] = np.nan
    values[1:] = change
    far = book.passed > _GAP
    if far.any():
        values[1:][far] = np.nan
    return values
