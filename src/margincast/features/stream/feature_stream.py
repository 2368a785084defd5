"""The feature rows of a decision, from updates that came one at a time."""

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from typing import Any, Self

import numpy as np
import polars as pl

from margincast.core.errors import InputError, did_you_mean
from margincast.core.time import format_duration
from margincast.data.bars import BarTable
from margincast.data.quality import Finding
from margincast.data.schemas import TIMESTAMP, book_columns
from margincast.data.states import StateTable
from margincast.features.library import Unit
from margincast.features.pipeline import across_contracts, beside_the_leader, leader_columns
from margincast.features.plan import Plan
from margincast.features.sources import Sources
from margincast.features.stream.bounds import TRADE_MEMORY, Bounds
from margincast.features.stream.clock import NEVER_US, instant, microseconds
from margincast.features.stream.contract import Contract, Setting, joined
from margincast.features.stream.counts import Counts
from margincast.features.stream.snapshots import Known
from margincast.features.stream.states import States
from margincast.specs.features import FeatureSet

STATE_TABLES = ("funding", "open_interest", "liquidations", "implied_vol", "options")
"""Tables beside bars, books and trades that a stream takes rows of."""


class FeatureStream:
    """Features of a set from the last events, equal to those of a batch over the whole history.

    Updates may come in any order of tables and contracts. A row counts from the time at which it
    could have been known, as in a batch: a bar from its close, a trade or snapshot from its
    reception, where it says one. One that is given only after a decision that could have known it
    is late, and counts from that decision on.

    The stream keeps the rows that its columns declare to look back to, and no more. It is not safe
    to be shared between threads.

    Example:
        >>> stream = FeatureStream(feature_set, tables=("bars",))  # doctest: +SKIP
        >>> stream.update_bar("BTCUSDT", bar)  # doctest: +SKIP
        >>> rows = stream.decide(bar["ts"] + timedelta(hours=1))  # doctest: +SKIP
    """

    def __init__(
        self,
        feature_set: FeatureSet,
        tables: Collection[str],
        book_known_after: timedelta | None = None,
    ) -> None:
        """Start without history.

        Args:
            feature_set: which features.
            tables: what will be given: ``bars``, ``book``, ``trades`` and the tables beside them.
                Without ``bars``, bars are those of the book's mid price.
            book_known_after: time from a snapshot's ``ts`` until it can have been known, where it
                does not say when it was received; needed for ``book``.

        Raises:
            InputError: a table is not one, neither bars nor book are given, or the set is wrong.
        """
        allowed = ("bars", "book", "trades", *STATE_TABLES)
        for table in tables:
            if table not in allowed:
                raise InputError(
                    f"a stream takes no table '{table}'{did_you_mean(table, allowed)}; there are "
                    f"{', '.join(allowed)}"
                )
        if "bars" not in tables and "book" not in tables:
            raise InputError("a stream needs bars, or a book from which to make them")
        if "book" in tables and (book_known_after is None or book_known_after < timedelta(0)):
            raise InputError(
                f"book_known_after is {book_known_after}; say how long after its ts a snapshot can "
                "have been known, zero or longer"
            )
        self._tables = frozenset(tables)
        self._counts = Counts()
        plan = Plan.of(feature_set)
        bounds = Bounds.of(plan)
        self._setting = Setting(
            plan=plan,
            bounds=bounds,
            has_book="book" in tables,
            has_trades="trades" in tables,
            mid_bars="bars" not in tables,
            book_known_after=book_known_after or timedelta(0),
            counts=self._counts,
        )
        self._states = States(bounds.states, self._counts)
        self._contracts: dict[str, Contract] = {}
        self._decided_us = NEVER_US

    @classmethod
    def warm(
        cls,
        feature_set: FeatureSet,
        sources: Sources,
        decided_at: datetime,
        book_known_after: timedelta | None = None,
        *,
        bars_of_book: bool = False,
    ) -> Self:
        """Start where a batch has come to.

        Args:
            feature_set: which features.
            sources: history; only what was known at ``decided_at`` is taken from it.
            decided_at: the last decision; updates go on after it.
            book_known_after: see :class:`FeatureStream`.
            bars_of_book: whether bars are those of the book's mid price.

        Raises:
            InputError: see :class:`FeatureStream`; or the decision is off the grid.
        """
        given = {"book": sources.books, "trades": sources.trades}
        tables = [name for name, table in given.items() if table is not None]
        tables += [*([] if bars_of_book else ["bars"]), *sources.states]
        stream = cls(feature_set, tables, book_known_after)
        stream._fill(sources, stream._decision(decided_at))
        return stream

    @property
    def units(self) -> Mapping[str, Unit]:
        """Unit of every feature column, in order."""
        return self._setting.plan.units

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What was irregular so far, and what was done about it."""
        return self._counts.findings()

    def update_bar(self, symbol: str, bar: Mapping[str, Any]) -> None:
        """Take a bar: ``ts`` (its open), ``open``, ``high``, ``low``, ``close``, ``volume``, ...

        Raises:
            InputError: a value breaks a rule of the table, or the bar was given before.
        """
        self._require("bars")
        self._contract(symbol).bars.add(bar, self._decided_us)

    def update_book(self, symbol: str, snapshot: Mapping[str, Any]) -> None:
        """Take a snapshot: ``ts``, ``bid_price_0``, ``bid_size_0``, ``ask_price_0``, ... .

        ``received_at`` and ``is_valid`` count where they are there. The first snapshot says how
        many levels the book has.

        Raises:
            InputError: the snapshot has no time, or no numbers.
        """
        self._require("book")
        self._contract(symbol).add_snapshot(snapshot, self._decided_us)

    def update_trade(self, symbol: str, trade: Mapping[str, Any]) -> None:
        """Take a trade: ``ts``, ``price``, ``size``, ``side``; ``received_at`` where it is known.

        Raises:
            InputError: a value breaks a rule of the table.
        """
        self._require("trades")
        self._contract(symbol).trades.add(trade, self._decided_us)

    def update_state(self, table: str, symbol: str, row: Mapping[str, Any]) -> None:
        """Take a row of another table, with the columns of its ``StateTable``.

        ``known_at`` says when the row could have been known, where that is not at its ``ts``; a
        row that covers an interval could be at its close.

        Raises:
            InputError: the row has no time.
        """
        self._require(table)
        self._states.add(table, symbol, row, self._decided_us)

    def decide(self, decided_at: datetime) -> pl.DataFrame:
        """Give the feature rows of a decision.

        Args:
            decided_at: a bar close, later than any decision before.

        Returns:
            ``symbol``, ``ts`` (the decision), ``close`` and the features (float64, null where not
            known), one row a contract that has a bar there and its warm-up behind it, by symbol.

        Raises:
            InputError: the decision is off the grid, or not after the one before.
        """
        decided_us = self._decision(decided_at)
        plan = self._setting.plan
        grid = plan.feature_set.grid
        tables = self._states.tables(decided_us)
        leads = bool(plan.against or plan.of_leader)
        ready = {}
        for symbol, contract in self._contracts.items():
            always = leads and symbol == grid.leader
            if contract.advance(decided_us, tables, always=always):
                ready[symbol] = contract
        self._decided_us = decided_us
        leader = self._contracts.get(grid.leader)
        seen = self._seen_of_leader(leader, tables, decided_us)
        parts = []
        beside = None if leader is None else leader.rows
        if beside is not None:
            beside = self._with_seen(beside, seen)
        for symbol in sorted(ready):
            contract = ready[symbol]
            if decided_us < contract.first_close_us + microseconds(grid.warm_up - grid.interval):
                continue
            assert contract.rows is not None
            rows = beside_the_leader(plan, self._with_seen(contract.rows, seen), beside)
            parts.append(rows.tail(1))
        names = ["symbol", "ts", "close", *plan.units]
        if not parts:
            return pl.DataFrame(schema=self._schema())
        return across_contracts(plan, pl.concat(parts)).select(names).sort("symbol")

    def _seen_of_leader(
        self, leader: Contract | None, tables: Mapping[str, StateTable], decided_us: int
    ) -> pl.DataFrame | None:
        """Columns of the leader that every contract sees, at the last decisions."""
        plan, bounds = self._setting.plan, self._setting.bounds
        if not plan.of_leader or leader is None or leader.bars.first_us is None:
            return None
        grid = plan.feature_set.grid
        frame = leader.bars.frame(decided_us, bounds.leader + bounds.decided - 1)
        bars = BarTable({grid.leader: frame}, grid.interval, ())
        seen = leader_columns(plan, Sources(bars, states=tables))
        return None if seen is None else seen.tail(bounds.decided)

    def _with_seen(self, rows: pl.DataFrame, seen: pl.DataFrame | None) -> pl.DataFrame:
        return joined(rows, seen, [column.name for column in self._setting.plan.of_leader])

    def _fill(self, sources: Sources, decided_us: int) -> None:
        at = instant(decided_us)
        interval = self._setting.plan.feature_set.grid.interval
        for symbol, frame in sources.bars.frames.items():
            closed = frame.filter(pl.col("ts") + interval <= at)
            if len(closed):
                self._contract(symbol).bars.fill(closed)
        for table, states in sources.states.items():
            for symbol, rows in states.frames.items():
                self._states.fill(table, symbol, rows, decided_us)
        books = {} if sources.books is None else sources.books.frames
        trades = {} if sources.trades is None else sources.trades.frames
        for symbol in sorted({*books, *trades}):
            contract = self._contract(symbol)
            known = None
            if sources.books is not None and symbol in books:
                levels = sources.books.levels[symbol]
                contract.expect_levels(levels)
                known = self._last_snapshots(books[symbol], levels, at)
            flow = self._last_trades(trades[symbol], at) if symbol in trades else None
            contract.fill(known, flow, decided_us)
        self._decided_us = decided_us

    def _last_snapshots(self, book: pl.LazyFrame, levels: int, at: datetime) -> Known:
        bounds = self._setting.bounds
        intervals = max(bounds.book, bounds.trades) + bounds.decided + 1
        interval = self._setting.plan.feature_set.grid.interval
        start = at - intervals * interval - max(bounds.snapshots, TRADE_MEMORY)
        names = book_columns(levels)
        rows = book.select("ts", "known_at", *names).filter(pl.col("known_at") <= at)
        # the one before is compared with, however long ago it was
        recent = pl.col("known_at") > start
        frame = pl.concat([rows.filter(~recent).tail(1), rows.filter(recent)]).collect()
        values = np.array([frame[name].to_numpy() for name in names], dtype=np.float64)
        ts, known_at = (frame[name].to_physical().to_numpy() for name in ("ts", "known_at"))
        return Known(ts, known_at, values)

    def _last_trades(self, trades: pl.LazyFrame, at: datetime) -> pl.DataFrame:
        bounds = self._setting.bounds
        interval = self._setting.plan.feature_set.grid.interval
        start = at - (bounds.trades + bounds.decided + 1) * interval - TRADE_MEMORY
        known = trades.filter((pl.col("known_at") <= at) & (pl.col("known_at") > start))
        return known.select("ts", "known_at", "price", "size", "side").collect()

    def _contract(self, symbol: str) -> Contract:
        if symbol not in self._contracts:
            self._contracts[symbol] = Contract(symbol, self._setting)
        return self._contracts[symbol]

    def _require(self, table: str) -> None:
        if table not in self._tables:
            raise InputError(
                f"the stream was made for {', '.join(sorted(self._tables))} and is given a row of "
                f"{table}; name it in tables"
            )

    def _decision(self, decided_at: datetime) -> int:
        interval = self._setting.plan.feature_set.grid.interval
        if decided_at.tzinfo is None:
            raise InputError(f"decision at {decided_at}: the time has no time zone; give UTC")
        decided_us = microseconds(decided_at)
        if decided_us % microseconds(interval):
            raise InputError(
                f"decision at {decided_at}: off the {format_duration(interval)} grid; decide at "
                "the close of a bar"
            )
        if decided_us <= self._decided_us:
            raise InputError(
                f"decision at {decided_at}: the one before was at {instant(self._decided_us)}; "
                "decide in order of time, once each"
            )
        return decided_us

    def _schema(self) -> pl.Schema:
        known = {"symbol": pl.String(), "ts": TIMESTAMP, "close": pl.Float64()}
        return pl.Schema(known | dict.fromkeys(self.units, pl.Float64()))
