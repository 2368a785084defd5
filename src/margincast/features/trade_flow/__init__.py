"""Trade-flow features: how much was traded, which side pressed, and what it moved.

Flow that presses one way and a price that gives way to it come before the moves a margin must
cover. Trades come over the same wire as books and vanish with them. So an interval without a trade
means "nothing was traded" only if a snapshot of the book shows that the feed was up, and a trade
was known not long before (``reduction.LONGEST_PAUSE``): trades may end, or begin, without the book.
An interval without a snapshot is not known, whatever trades it holds. Where there is no book at
all, an interval without a trade is not known. Means are over the window's known intervals.

``summaries`` says what an interval's trades leave behind, ``reduction`` runs a feature set, and the
functions themselves stand in ``activity``, ``pressure``, ``impact``, ``sizes``, ``arrivals`` and
``execution`` (trades met with the book). All of them look back one window and no further, but for
``execution``, whose outcomes come from trades some seconds older.
"""

from margincast.features.trade_flow import (
    activity,
    arrivals,
    execution,
    impact,
    pressure,
    sizes,
)
from margincast.features.trade_flow.reduction import column_units, reduce_trades

__all__ = [
    "activity",
    "arrivals",
    "column_units",
    "execution",
    "impact",
    "pressure",
    "reduce_trades",
    "sizes",
]
