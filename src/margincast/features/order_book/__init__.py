"""Order-book features: what closing a position costs now, and how firmly the book stands.

Liquidation cost enters the margin as it is, and thin or one-sided books precede large moves. Every
function reads blocks of snapshots (:mod:`.snapshots`); :func:`reduce_book` reduces the snapshots
known by each decision to statistics (:mod:`.statistics`). One file a question: ``spread`` (what
the best quotes say), ``depth`` (how much stands where), ``cost`` (what closing costs), ``flow``
(what was added, taken and put back).
"""

from margincast.features.order_book.cost import cost_to_buy, cost_to_sell, depth_shortage
from margincast.features.order_book.depth import (
    ask_depth_usd_within,
    bid_depth_usd_within,
    book_convexity,
    book_slope,
    depth_asymmetry,
    imbalance,
    imbalance_within,
    log_depth_usd,
)
from margincast.features.order_book.flow import (
    FLOW_GAP,
    depth_recovery,
    order_flow_imbalance,
    order_flow_imbalance_at,
    quote_intensity,
)
from margincast.features.order_book.reduction import (
    column_units,
    on_decisions,
    over_windows,
    reduce_book,
    summarise_book,
)
from margincast.features.order_book.spread import (
    effective_spread,
    microprice_deviation,
    relative_spread,
)
from margincast.features.order_book.summary import BookSummary, memory_of

__all__ = [
    "FLOW_GAP",
    "BookSummary",
    "ask_depth_usd_within",
    "bid_depth_usd_within",
    "book_convexity",
    "book_slope",
    "column_units",
    "cost_to_buy",
    "cost_to_sell",
    "depth_asymmetry",
    "depth_recovery",
    "depth_shortage",
    "effective_spread",
    "imbalance",
    "imbalance_within",
    "log_depth_usd",
    "memory_of",
    "microprice_deviation",
    "on_decisions",
    "order_flow_imbalance",
    "order_flow_imbalance_at",
    "over_windows",
    "quote_intensity",
    "reduce_book",
    "relative_spread",
    "summarise_book",
]
