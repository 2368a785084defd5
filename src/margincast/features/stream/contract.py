"""One contract in a stream: its buffers, and the rows of its own columns decided on so far."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import polars as pl

from margincast.data.schemas import TIMESTAMP
from margincast.data.states import StateTable
from margincast.features.order_book import column_units
from margincast.features.pipeline import own_columns, states_of
from margincast.features.plan import Plan
from margincast.features.stream.bars import Bars
from margincast.features.stream.book import Book
from margincast.features.stream.bounds import TRADE_MEMORY, Bounds
from margincast.features.stream.clock import instant, microseconds
from margincast.features.stream.counts import Counts
from margincast.features.stream.mid_bars import MidBars
from margincast.features.stream.snapshots import Known, Snapshots, levels_of
from margincast.features.stream.trades import Trades
from margincast.features.trade_flow.execution import DEPTH_LEVELS
from margincast.features.trade_flow.reduction import window_columns


@dataclass(frozen=True)
class Setting:
    """What all contracts of a stream share.

    Attributes:
        plan: the set's columns.
        bounds: how far they look back.
        has_book: whether snapshots are given.
        has_trades: whether trades are given.
        mid_bars: whether bars are those of the mid price.
        book_known_after: time from a snapshot's ``ts`` until it can have been known.
        counts: where irregular rows are counted.
    """

    plan: Plan
    bounds: Bounds
    has_book: bool
    has_trades: bool
    mid_bars: bool
    book_known_after: timedelta
    counts: Counts


class Contract:
    """One contract's last events.

    Attributes:
        bars: its bars.
        trades: its trades.
        rows: its own columns at the last decisions, on the grid; None before the first.
    """

    def __init__(self, symbol: str, setting: Setting) -> None:
        plan, bounds = setting.plan, setting.bounds
        grid = plan.feature_set.grid
        self._symbol = symbol
        self._setting = setting
        self._interval = grid.interval
        expressions = [column.expression for column in (*plan.own, *plan.of_leader)]
        read = {name for expression in expressions for name in expression.meta.root_names()}
        kept = max(bounds.bars, bounds.leader) + bounds.decided
        self.bars = Bars(symbol, grid.interval, kept, read, setting.counts)
        self.trades = Trades(
            symbol,
            window_columns(plan.feature_set.trades, grid.interval, grid.minimum_present),
            grid.interval,
            bounds.trades + bounds.decided,
            memory=TRADE_MEMORY,
            counts=setting.counts,
        )
        self.rows: pl.DataFrame | None = None
        self._snapshots: Snapshots | None = None
        self._book = Book(plan.feature_set, bounds.book + bounds.decided)
        self._mid_bars = MidBars(self.bars, grid.interval)
        self._quotes = pl.DataFrame(schema={"known_at": TIMESTAMP})
        self._summed_us: int | None = None
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
            self._add_quotes(known)
        if trades is not None:
            self.trades.fill(trades)
        if self._setting.has_trades:
            rows = self._setting.bounds.trades + self._setting.bounds.decided
            self._summed_us = decided_us - rows * microseconds(self._interval)
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
        traded = self.trades.take(decided_us)
        if new is not None and len(new):
            self._book.add(new)
            if setting.mid_bars:
                self._mid_bars.add(new, traded if setting.has_trades else None)
            self._add_quotes(new)
        if setting.has_trades:
            quotes = self._quotes if setting.has_book else None
            self.trades.sum_up(decided_us, self._summed_us, quotes)
            self._summed_us = decided_us
            if len(self._quotes):
                old = instant(decided_us) - TRADE_MEMORY
                self._quotes = self._quotes.filter(pl.col("known_at") > old)

    def _add_quotes(self, known: Known) -> None:
        """Keep what trades are met with: the best levels of the last snapshots."""
        if not self._setting.has_trades or not self._setting.plan.feature_set.trades:
            return
        new = known.frame(min(known.levels, DEPTH_LEVELS))
        held = self._quotes
        self._quotes = new if held.is_empty() else pl.concat([held, new], rechunk=True)

    def _compute(self, decided_us: int, tables: Mapping[str, StateTable]) -> None:
        plan, bounds = self._setting.plan, self._setting.bounds
        step = microseconds(self._interval)
        next_us = self.first_close_us
        if self.rows is not None:
            next_us = max(next_us, microseconds(self.rows["ts"][-1]) + step)
        # rows that no decision asked for are computed now, as far as they are looked back to
        count = min((decided_us - next_us) // step + 1, bounds.decided)
        part = own_columns(
            plan,
            self.bars.frame(decided_us, bounds.bars + count - 1),
            states_of(tables, self._symbol),
            instant(self.first_close_us),
        ).tail(count)
        for reduced, names in (
            (self._book.columns(decided_us, count), self._of_book),
            (self.trades.columns(decided_us, count), self._of_trades),
        ):
            part = joined(part, reduced, names)
        rows = part if self.rows is None else pl.concat([self.rows, part])
        oldest = instant(decided_us) - (bounds.decided - 1) * self._interval
        self.rows = rows.filter(pl.col("ts") >= oldest)


def joined(part: pl.DataFrame, others: pl.DataFrame | None, names: Sequence[str]) -> pl.DataFrame:
    """Join columns by decision time; null where they are not known."""
    if not names:
        return part
    if others is None:
        return part.with_columns(pl.lit(None, dtype=pl.Float64).alias(name) for name in names)
    return part.join(others.select("ts", *names), on="ts", how="left", maintain_order="left")
