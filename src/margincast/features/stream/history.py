"""What a stream needs of a history: its last rows, as far as columns look back to them."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import polars as pl

from margincast.data.schemas import book_columns
from margincast.data.states import StateTable
from margincast.features.pipeline import with_surfaces
from margincast.features.plan import Plan
from margincast.features.sources import Sources
from margincast.features.stream.bounds import TRADE_MEMORY, Bounds
from margincast.features.stream.snapshots import Known


class History:
    """What was known of a market at one time.

    Attributes:
        bars: by contract, regular bars that were closed.
        chains: by symbol, its option chains.
    """

    def __init__(self, plan: Plan, bounds: Bounds, sources: Sources, at: datetime) -> None:
        """Look at what was read.

        Args:
            plan: the set.
            bounds: how far its columns look back.
            sources: the history.
            at: the last decision; nothing known later is taken.
        """
        self._bounds, self._sources, self._at = bounds, sources, at
        self._plan = plan
        self._interval = plan.feature_set.grid.interval
        closed = pl.col("ts") + self._interval <= at
        bars = ((symbol, frame.filter(closed)) for symbol, frame in sources.bars.frames.items())
        self.bars = {symbol: frame for symbol, frame in bars if len(frame)}
        self.chains = {
            symbol: rows
            for symbol, rows in self._known("options").items()
            if "strike" in rows.columns
        }

    @property
    def contracts(self) -> list[str]:
        """Contracts of which there are snapshots or trades."""
        books, trades = self._sources.books, self._sources.trades
        tables = [table.frames for table in (books, trades) if table is not None]
        return sorted({symbol for frames in tables for symbol in frames})

    def states(self) -> Mapping[str, StateTable]:
        """Rows of the tables beside bars that still matter, with the leader's chain fitted."""
        recent = pl.col("known_at") >= self._at - self._bounds.states
        tables = {
            name: replace(
                table,
                frames={symbol: rows.filter(recent) for symbol, rows in self._known(name).items()},
            )
            for name, table in self._sources.states.items()
        }
        fitted, _ = with_surfaces(self._plan, replace(self._sources, states=tables))
        return fitted.states

    def levels(self, symbol: str) -> int | None:
        """Book levels of a contract; None without a book."""
        books = self._sources.books
        return None if books is None else books.levels.get(symbol)

    def snapshots(self, symbol: str) -> Known | None:
        """Last snapshots of a contract; None without a book."""
        books = self._sources.books
        if books is None or symbol not in books.frames:
            return None
        intervals = max(self._bounds.book, self._bounds.trades)
        start = self._start(intervals, max(self._bounds.snapshots, TRADE_MEMORY))
        names = book_columns(books.levels[symbol])
        rows = books.frames[symbol].select("ts", "known_at", *names)
        rows = rows.filter(pl.col("known_at") <= self._at)
        # the one before is compared with, however long ago it was
        recent = pl.col("known_at") > start
        frame = pl.concat([rows.filter(~recent).tail(1), rows.filter(recent)]).collect()
        values = np.array([frame[name].to_numpy() for name in names], dtype=np.float64)
        ts, known_at = (frame[name].to_physical().to_numpy() for name in ("ts", "known_at"))
        return Known(ts, known_at, values)

    def trades(self, symbol: str) -> pl.DataFrame | None:
        """Last trades of a contract; None where there are none."""
        table = self._sources.trades
        if table is None or symbol not in table.frames:
            return None
        start = self._start(self._bounds.trades, TRADE_MEMORY)
        rows = table.frames[symbol].select("ts", "known_at", "price", "size", "side")
        rows = rows.filter(pl.col("known_at") <= self._at)
        # the one before tells for how long none was made
        recent = pl.col("known_at") > start
        return pl.concat([rows.filter(~recent).tail(1), rows.filter(recent)]).collect()

    def _known(self, table: str) -> dict[str, pl.DataFrame]:
        states = self._sources.states.get(table)
        frames = {} if states is None else states.frames
        known = pl.col("known_at") <= self._at
        tables = ((symbol, rows.filter(known)) for symbol, rows in frames.items())
        return {symbol: rows for symbol, rows in tables if len(rows)}

    def _start(self, intervals: int, memory: timedelta) -> datetime:
        return self._at - (intervals + self._bounds.decided + 1) * self._interval - memory
