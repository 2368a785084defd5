"""Where a contract's tables have rows on the grid of decisions: data that was there, or was not.

Before a margin is decided on what a model saw, one must be able to say what it could have seen.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import numpy.typing as npt
import polars as pl

from margincast.core.types import BoolArray
from margincast.data.intervals import bar_open
from margincast.data.quality import Finding
from margincast.data.schemas import BARS
from margincast.features.alignment import with_states
from margincast.features.sharing import run
from margincast.features.sources import Sources
from margincast.features.trade_flow.reduction import LONGEST_PAUSE, known_intervals
from margincast.specs.features import FeatureSet

Times = npt.NDArray[np.int64]
"""Decision times, microseconds since 1970."""

MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, eq=False)
class Rows:
    """Where rows are, on a grid of decisions.

    Attributes:
        begin: first decision, microseconds since 1970.
        step: distance between decisions, microseconds.
        counted: rows there before each decision of the grid, and in all; shape (n + 1,).
    """

    begin: int
    step: int
    counted: npt.NDArray[np.int64]

    @classmethod
    def of(cls, begin: int, step: int, there: BoolArray) -> "Rows":
        """Count rows on a grid of decisions, ``there`` of shape (n,)."""
        return cls(begin, step, np.concatenate([[0], np.cumsum(there, dtype=np.int64)]))

    @classmethod
    def at(cls, decided: Times, step: int) -> "Rows":
        """Count rows at decisions, on the grid from the first to the last; none is no grid."""
        if not len(decided):
            return cls.of(0, step, np.zeros(0, dtype=np.bool_))
        there = np.zeros((decided[-1] - decided[0]) // step + 1, dtype=np.bool_)
        there[(decided - decided[0]) // step] = True
        return cls.of(int(decided[0]), step, there)

    def from_first_to_last(self) -> "Rows":
        """Cut the grid to where the first and the last row are; to nothing where there is none."""
        first = int(np.searchsorted(self.counted, 0, side="right")) - 1
        last = max(first, int(np.searchsorted(self.counted, self.counted[-1])))
        return Rows(self.begin + first * self.step, self.step, self.counted[first : last + 1])

    def filled(self) -> "Rows":
        """Take every row of the grid for there."""
        return Rows(self.begin, self.step, np.arange(len(self.counted)))

    def outside(self, times: Times) -> BoolArray:
        """Whether times lie before the grid or after it."""
        place = self._place(times)
        return (place < 0) | (place >= len(self.counted) - 1)

    def short(self, times: Times, look_back: int) -> BoolArray:
        """Whether the look-back reaches behind the grid's first row."""
        return self._place(times) + 1 < look_back

    def incomplete(self, times: Times, look_back: int) -> BoolArray:
        """Whether rows of the look-back are missing or lie outside the grid."""
        last = len(self.counted) - 1
        end = np.clip(self._place(times) + 1, 0, last)
        start = np.clip(self._place(times) + 1 - look_back, 0, last)
        return np.asarray(self.counted[end] - self.counted[start] < look_back)

    def _place(self, times: Times) -> npt.NDArray[np.int64]:
        return (times - self.begin) // self.step


@dataclass(frozen=True, eq=False)
class Table:
    """Rows of one table, or of one column of it.

    Attributes:
        name: of the table, or of a bars column that not every venue gives.
        rows: where they are.
        there: where the table is there at all: between its rows too, unless a row stands for the
            present, or is taken for a sign that others would be known.
    """

    name: str
    rows: Rows
    there: Rows

    def not_there(self, times: Times) -> BoolArray:
        """Where the table has not begun, has ended, or nothing of it stands."""
        return self.there.incomplete(times, 1)


class Presence:
    """Where the tables of one contract have rows, found out as far as it is asked.

    Args:
        sources: what features are built from.
        feature_set: the set, for its grid and how long rows stand.
        symbol: the contract.
        states: its rows of other tables.
        to_the_end: whether its bars count up to the last one of any contract, as the leader's do.

    Attributes:
        findings: what was odd about the tables that were looked at.
    """

    def __init__(
        self,
        sources: Sources,
        feature_set: FeatureSet,
        symbol: str,
        states: Mapping[str, pl.DataFrame],
        *,
        to_the_end: bool = False,
    ) -> None:
        self._sources, self._set, self._symbol, self._states = sources, feature_set, symbol, states
        self._bars = sources.bars.frames.get(symbol)
        if to_the_end and self._bars is not None:
            self._bars = sources.bars_to_the_end(symbol)
        self._interval = feature_set.grid.interval
        self._found: dict[tuple[str, str], Table | None] = {}
        self.findings: list[Finding] = []

    def table(self, table: str, name: str) -> Table | None:
        """Find a table's rows by a column of it; None where the contract has none of it."""
        # prices and volume of a bar are there together
        column = "close" if name in BARS.required else name
        if (table, column) not in self._found:
            self._found[table, column] = self._read(table, column)
        return self._found[table, column]

    def _read(self, table: str, column: str) -> Table | None:
        if table in ("book", "trades"):
            return self._of_intervals(table, column)
        if self._bars is None:
            return None
        values = self._beside_bars(self._bars, table, column)
        if values is None:
            return None
        step = self._interval // MICROSECOND
        begin = int(self._bars["ts"].to_physical()[0]) + step
        rows = Rows.of(begin, step, values.is_not_null().to_numpy())
        name = label_of(table, column)
        if (table, column) == ("bars", "close"):
            return Table(name, rows, rows.filled())
        standing = rows.from_first_to_last()
        return Table(name, standing, standing)

    def _beside_bars(self, bars: pl.DataFrame, table: str, column: str) -> pl.Series | None:
        rows = bars if table == "bars" else self._states.get(table)
        if rows is not None and table == "options":
            # a chain gives its columns only when it is fitted: here it counts that it was there
            rows = rows.select("ts", "known_at", pl.lit(1.0).alias(column))
        if rows is None or column not in rows.columns:
            return None
        if table == "bars":
            return rows[column]
        standing = self._set.standing
        return with_states(bars.select("ts"), self._interval, {table: rows}, standing, [column])[
            column
        ]

    def _of_intervals(self, table: str, column: str) -> Table | None:
        books, trades = self._sources.books, self._sources.trades
        book = None if books is None else books.frames.get(self._symbol)
        trade_rows = None if trades is None else trades.frames.get(self._symbol)
        if (book if table == "book" else trade_rows) is None:
            return None
        if column == "side":
            assert trade_rows is not None
            known = trade_rows.select(pl.col("side").count()).collect(engine="streaming").item()
            return self.table(table, "") if known else None
        feed = book if table == "book" else trade_rows
        assert feed is not None
        if table == "trades" and book is not None:
            return self._of_trades_beside(book, feed)
        rows = self._rows_at(_opens(feed, self._interval)["ts"])
        return Table(table, rows, rows.filled())

    def _of_trades_beside(self, book: pl.LazyFrame, trades: pl.LazyFrame) -> Table:
        """Find where trades are known: a snapshot was, and a trade not long before."""
        up, traded = _opens(book, self._interval), _opens(trades, self._interval)
        self._compare_spans(up["ts"], traded["ts"])
        whole = pl.datetime_range(
            up["ts"][0], up["ts"][-1], self._interval, time_unit="us", eager=True
        ).alias("ts")
        rows, there = (
            self._rows_at(run(known_intervals(intervals, traded.lazy(), self._interval))["ts"])
            for intervals in (up.lazy().select("ts"), whole.to_frame().lazy())
        )
        return Table("trades", rows, there)

    def _rows_at(self, opens: pl.Series) -> Rows:
        """Rows on the grid, by the opens of their intervals."""
        step = self._interval // MICROSECOND
        return Rows.at(opens.to_physical().to_numpy() + step, step)

    def _compare_spans(self, up: pl.Series, traded: pl.Series) -> None:
        """Report trades that begin or end apart from the book: one of the two may be cut off."""
        begins, ends = (sorted((up[place], traded[place])) for place in (0, -1))
        apart = begins[1] - begins[0], ends[1] - ends[0]
        if max(apart) <= LONGEST_PAUSE:
            return
        trades, book = (f"{span[0]:%F %H:%M} to {span[-1]:%F %H:%M}" for span in (traded, up))
        self.findings.append(
            Finding(
                "trades",
                self._symbol,
                f"trades are there from {trades}, the book from {book} (UTC)",
                sum(apart, timedelta()) // self._interval,
                (ends[1] - begins[0]) // self._interval + 1,
                "features of trades are not known where one of the two is not there",
                severity="warning",
            )
        )


def _opens(feed: pl.LazyFrame, interval: timedelta) -> pl.DataFrame:
    """Open of each bar in which rows were known (``ts``), and when the last of them was."""
    rows = feed.select(bar_open(interval).alias("ts"), "known_at").group_by("ts")
    return rows.agg(pl.col("known_at").max()).sort("ts").collect(engine="streaming")


def label_of(table: str, column: str) -> str:
    """Name of a table, or of a column that not every venue gives."""
    if column == "side":
        return "aggressor side"
    return column if table == "bars" and column not in BARS.required else table
