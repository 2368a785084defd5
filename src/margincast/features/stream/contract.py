"""One contract in a stream: its buffers, and the rows of its own columns decided on so far."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import polars as pl

from margincast.data.states import StateTable
from margincast.features.contract import states_of
from margincast.features.order_book import column_units
from margincast.features.plan import Plan
from margincast.features.stream.bars import Bars
from margincast.features.stream.book import Book
from margincast.features.stream.bounds import Bounds
from margincast.features.stream.clock import instant, microseconds
from margincast.features.stream.columns import BarColumns, frame_of, with_nulls
from margincast.features.stream.counts import Counts
from margincast.features.stream.flow import Flow
from margincast.features.stream.mid_bars import MidBars
from margincast.features.stream.snapshots import Known, Snapshots, levels_of
from margincast.features.stream.trades import Trades, size_by_interval
from margincast.features.trade_flow.reduction import window_columns


@dataclass(frozen=True)
class Setting:
    """What all contracts of a stream share.

    Attributes:
        plan: the set's columns.
        bounds: how far they look back.
        own: a contract's own columns and the clock, prepared.
        read_beside_leader: what columns of a contract beside the leader read of each.
        has_book: whether snapshots are given.
        has_trades: whether trades are given.
        mid_bars: whether bars are those of the mid price.
        book_known_after: time from a snapshot's ``ts`` until it can have been known.
        counts: where irregular rows are counted.
        bars_kept: bars to keep at least.
    """

    plan: Plan
    bounds: Bounds
    own: BarColumns
    read_beside_leader: tuple[str, ...]
    has_book: bool
    has_trades: bool
    mid_bars: bool
    book_known_after: timedelta
    counts: Counts
    bars_kept: int


class Contract:
    """One contract's last events.

    Attributes:
        bars: its bars.
        trades: its trades.
        row: its own columns at the last decision; None before the first.
        rows: of these, what is read beside the leader, at the last decisions on the grid.
        new_books: sound snapshots that the last decision was the first to know.
    """

    def __init__(self, symbol: str, setting: Setting) -> None:
        plan, bounds = setting.plan, setting.bounds
        grid = plan.feature_set.grid
        self._symbol = symbol
        self._setting = setting
        self._interval = grid.interval
        expressions = [column.expression for column in (*plan.own, *plan.of_leader)]
        read = {name for expression in expressions for name in expression.meta.root_names()}
        kept = max(max(bounds.bars, bounds.leader) + bounds.decided, setting.bars_kept)
        read |= {"open", "high", "low", "close"} if setting.bars_kept else set()
        self.bars = Bars(symbol, grid.interval, kept, read, setting.counts)
        self.trades = Trades(symbol, setting.counts)
        self.row: pl.DataFrame | None = None
        self.rows: pl.DataFrame | None = None
        self.new_books: Known | None = None
        self._snapshots: Snapshots | None = None
        self._book = Book(plan.feature_set, bounds.book + bounds.decided)
        self._mid_bars = MidBars(self.bars, grid.interval)
        entries = plan.feature_set.trades if setting.has_trades else ()
        self._flow = Flow(
            window_columns(entries, grid.interval, grid.minimum_present),
            grid.interval,
            bounds.trades + bounds.decided,
            has_book=setting.has_book,
        )
        self._has_traded = False
        self._of_book = list(column_units(plan.feature_set.book, grid.interval))
        self._of_trades = [name for name in plan.reduced if name not in self._of_book]

    def add_snapshot(self, snapshot: Mapping[str, Any], decided_us: int) -> None:
        """Take a snapshot in.

        Raises:
            InputError: it breaks a rule that no feed breaks.
        """
        if self._snapshots is None:
            self.expect_levels(levels_of(snapshot, f"snapshot of {self._symbol}"))
        assert self._snapshots is not None
        self._snapshots.add(snapshot, decided_us)

    def expect_levels(self, levels: int) -> None:
        """Say how many levels each side of the book has."""
        setting = self._setting
        self._snapshots = Snapshots(self._symbol, levels, setting.book_known_after, setting.counts)

    def fill(self, known: Known | None, trades: pl.DataFrame | None, decided_us: int) -> None:
        """Set snapshots and trades of the past, those known by a decision."""
        if known is not None and len(known):
            assert self._snapshots is not None
            self._snapshots.go_on_after(known)
            self._book.add(known)
            self._mid_bars.remember(known)
            self._flow.add_snapshots(known)
        if trades is not None:
            self._has_traded = True
            self.trades.fill(trades)
        rows = self._setting.bounds.trades + self._setting.bounds.decided
        self._flow.start_at(decided_us - rows * microseconds(self._interval))
        self._take_in(decided_us)

    def advance(self, decided_us: int, tables: Mapping[str, StateTable], *, always: bool) -> bool:
        """Go on to a decision: take in what is known by then, and compute its row.

        Args:
            decided_us: the decision.
            tables: rows of the tables beside bars.
            always: compute the row without a bar too, since other contracts read it.

        Returns:
            Whether the contract has a bar that closes there.
        """
        self._take_in(decided_us)
        known = self.bars.known(decided_us)
        if self.bars.first_us is not None and (known or always):
            self._compute(decided_us, tables)
        return known

    @property
    def first_close_us(self) -> int:
        """Close of the contract's first bar."""
        assert self.bars.first_us is not None
        return self.bars.first_us + microseconds(self._interval)

    def _take_in(self, decided_us: int) -> None:
        setting = self._setting
        new = None if self._snapshots is None else self._snapshots.take(decided_us)
        self.new_books = new
        trades = self.trades.take(decided_us)
        self._has_traded = self._has_traded or bool(trades)
        if new is not None and len(new):
            self._book.add(new)
            if setting.mid_bars:
                traded = size_by_interval(trades, self._interval) if setting.has_trades else None
                self._mid_bars.add(new, traded)
            self._flow.add_snapshots(new)
        self._flow.sum_up(trades, decided_us)

    def _compute(self, decided_us: int, tables: Mapping[str, StateTable]) -> None:
        bounds = self._setting.bounds
        step = microseconds(self._interval)
        next_us = self.first_close_us
        if self.rows is not None:
            next_us = max(next_us, microseconds(self.rows["ts"][-1]) + step)
        # rows that no decision asked for are computed now, as far as they are looked back to
        count = min((decided_us - next_us) // step + 1, bounds.decided)
        part = self._setting.own.last(
            self.bars.frame(decided_us, bounds.bars + count - 1),
            states_of(tables, self._symbol),
            count,
            instant(self.first_close_us),
        )
        if self._of_book:
            part = part.hstack(frame_of(self._of_book, self._book.columns(decided_us, count)))
        if self._of_trades:
            # without a trade so far it is not known whether any come
            flow = self._flow.columns(count) if self._has_traded else None
            part = with_nulls(part, self._of_trades) if flow is None else part.hstack(flow)
        self.row = part.tail(1)
        # regular rows that end at the decision: the last ones are those that are looked back to
        read = [name for name in self._setting.read_beside_leader if name in part.columns]
        part = part[["ts", *read]]
        if self.rows is not None and count < bounds.decided:
            part = pl.concat([self.rows, part]).tail(bounds.decided).rechunk()
        self.rows = part
