"""Everything features are built from, read and checked: what was known of the market, and when."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from margincast.data.bars import BarTable
from margincast.data.book import BookTable
from margincast.data.states import StateTable
from margincast.data.trades import TradeTable


@dataclass(frozen=True)
class Sources:
    """Market data of a feature set.

    Attributes:
        bars: regular bars, on the feature set's grid.
        books: order books; None without any.
        trades: trades; None without any.
        states: by name of the table (``funding``, ``open_interest``, ``liquidations``,
            ``implied_vol``, ``options``), those that were read.
    """

    bars: BarTable
    books: BookTable | None = None
    trades: TradeTable | None = None
    states: Mapping[str, StateTable] = field(default_factory=dict)
