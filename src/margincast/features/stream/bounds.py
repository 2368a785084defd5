"""How much of the past a stream must keep, from what every column declares to look back to."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from margincast.features.alignment import LONGEST_SILENCE
from margincast.features.library import Window, look_up
from margincast.features.lines import Column
from margincast.features.order_book import FLOW_GAP, memory_of
from margincast.features.plan import Plan
from margincast.features.trade_flow.execution import AFTER

TRADE_MEMORY = AFTER + 2 * FLOW_GAP
"""How long before an interval the trades and snapshots were known that its summaries hang on."""


@dataclass(frozen=True)
class Bounds:
    """Rows a stage looks back to, the decision's own among them.

    Attributes:
        bars: regular bars, for a contract's own columns.
        leader: regular bars, for the columns of the leader that every contract sees.
        book: intervals of snapshots.
        trades: intervals of trades.
        decided: rows of a contract's own columns, for those beside the leader.
        snapshots: how far back from a snapshot the functions of the book look, beyond the one
            before it.
        states: how long ago a row of another table was known that still matters.
    """

    bars: int
    leader: int
    book: int
    trades: int
    decided: int
    snapshots: timedelta
    states: timedelta

    @classmethod
    def of(cls, plan: Plan) -> "Bounds":
        """Read the bounds of a plan."""
        feature_set = plan.feature_set
        interval = feature_set.grid.interval
        windows = [length // interval for entry in feature_set.book for length in entry.windows]
        bars, leader, decided = map(_longest, (plan.own, plan.of_leader, plan.against))
        standing = [length for _, length in feature_set.standing if length is not None]
        rows = max(bars, leader) + decided
        return cls(
            bars=bars,
            leader=leader,
            book=max(windows, default=1),
            trades=max(_rows_of_trades(plan), default=1),
            decided=decided,
            snapshots=memory_of(feature_set.book, interval),
            states=rows * interval + max([LONGEST_SILENCE + interval, *standing]),
        )


def _longest(columns: Sequence[Column]) -> int:
    return max((column.look_back for column in columns), default=1)


def _rows_of_trades(plan: Plan) -> list[int]:
    grid = plan.feature_set.grid
    return [
        look_up("trades", entry.function).look_back(
            Window.over(length, grid.interval, grid.minimum_present)
        )
        for entry in plan.feature_set.trades
        for length in entry.windows
    ]
