"""The trades' sums of a decision: new trades summed up by interval, windows over intervals."""

from collections.abc import Sequence
from datetime import timedelta

import numpy as np
import polars as pl

from margincast.data.schemas import TIMESTAMP
from margincast.features.sharing import run
from margincast.features.stream.bounds import TRADE_MEMORY
from margincast.features.stream.clock import NEVER_US, microseconds
from margincast.features.stream.last_intervals import LastIntervals
from margincast.features.stream.snapshots import Known
from margincast.features.stream.trades import Trade
from margincast.features.trade_flow.execution import DEPTH_LEVELS, EXECUTION
from margincast.features.trade_flow.reduction import flow_intervals


class Flow:
    """Interval sums of one contract's trades, as many as windows look back to."""

    def __init__(
        self, columns: Sequence[pl.Expr], interval: timedelta, rows: int, *, has_book: bool
    ) -> None:
        """Start without any.

        Args:
            columns: what is wanted, over regular intervals.
            interval: distance between decisions.
            rows: intervals to keep.
            has_book: whether snapshots say when the feed was up.
        """
        self._columns = columns
        self._interval = interval
        self._rows = rows
        self._has_book = has_book
        self._read = {name for column in columns for name in column.meta.root_names()}
        self._levels = 0 if EXECUTION.isdisjoint(self._read) else DEPTH_LEVELS
        self._trades = _frame_of([])
        self._snapshots: Known | None = None
        self._names: list[str] = []
        self._held = LastIntervals(0, rows, interval)
        self._summed_us = NEVER_US

    def start_at(self, time_us: int) -> None:
        """Say that what was known before a time is no part of an interval that is wanted."""
        self._summed_us = time_us

    def add_snapshots(self, known: Known) -> None:
        """Take in what trades are met with: when the feed was up, the best levels if need be."""
        if not self._columns:
            return
        new = known.of_levels(min(known.levels, self._levels))
        self._snapshots = new if self._snapshots is None else self._snapshots.and_then(new)

    def sum_up(self, trades: Sequence[Trade], decided_us: int) -> None:
        """Sum up the intervals since the decision before.

        Args:
            trades: those known since then.
            decided_us: the decision.
        """
        if not self._columns:
            return
        if trades:
            new = _frame_of(trades)
            self._trades = pl.concat([self._trades, new]) if len(self._trades) else new
        snapshots = self._snapshots
        is_up = snapshots is not None and snapshots.known_at[-1] > self._summed_us
        self._held.go_on_to(decided_us - microseconds(self._interval))
        # before the first trade it is not known whether any come
        if len(self._trades) and (is_up if self._has_book else trades):
            self._put(self._sums(snapshots))
        self._summed_us = decided_us
        old_us = decided_us - microseconds(TRADE_MEMORY)
        known_at = self._trades["known_at"].to_physical().to_numpy()
        # the last one, too: it tells for how long none was made
        forgotten = min(int(np.searchsorted(known_at, old_us, side="right")), len(known_at) - 1)
        self._trades = self._trades[max(forgotten, 0) :]
        if snapshots is not None:
            # the last one, too: it tells whether there is a newer one
            first = int(np.searchsorted(snapshots.known_at, old_us, side="right"))
            self._snapshots = snapshots.after(min(first, len(snapshots) - 1))

    def columns(self, count: int) -> pl.DataFrame | None:
        """Give the trades' columns at the last decisions; None before any interval was known.

        Returns:
            So many rows, the last one at the decision last summed up to.
        """
        if not self._names:
            return None
        frame = pl.DataFrame(
            [
                pl.Series(name, values, nan_to_null=True)
                for name, values in zip(self._names, self._held.values, strict=True)
            ]
        )
        return run(frame.lazy().select(self._columns).tail(count))

    def _sums(self, snapshots: Known | None) -> pl.DataFrame:
        book = None if snapshots is None else snapshots.frame().lazy()
        return flow_intervals(self._trades.lazy(), book, self._read, self._interval, few=True)

    def _put(self, sums: pl.DataFrame) -> None:
        if not self._names:
            self._names = [name for name in sums.columns if name != "ts"]
            empty = self._held
            self._held = LastIntervals(len(self._names), self._rows, self._interval)
            self._held.go_on_to(empty.last_us)
        opens = sums["ts"].to_physical().to_numpy()
        # those before were summed up when all of their trades were at hand
        new = opens >= self._summed_us
        values = np.array([sums[name].to_numpy() for name in self._names])
        self._held.put(opens[new], values[:, new])


def _frame_of(trades: Sequence[Trade]) -> pl.DataFrame:
    _, known_at, price, size, side = zip(*trades, strict=True) if trades else [()] * 5
    return pl.DataFrame(
        [
            pl.Series("known_at", known_at, pl.Int64).cast(TIMESTAMP),
            pl.Series("price", price, pl.Float64),
            pl.Series("size", size, pl.Float64),
            pl.Series("side", side, pl.String),
        ]
    )
