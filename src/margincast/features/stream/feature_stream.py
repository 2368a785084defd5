"""The feature rows of a decision, from updates that came one at a time."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Self

import polars as pl

from margincast.core.errors import InputError, did_you_mean
from margincast.core.types import FloatArray
from margincast.data.quality import Finding
from margincast.data.schemas import TIMESTAMP
from margincast.data.states import STATE_TABLES
from margincast.features.implied_vol import tenors_in
from margincast.features.library import Unit
from margincast.features.plan import Plan
from margincast.features.sources import Sources
from margincast.features.stream.bounds import Bounds
from margincast.features.stream.clock import (
    NEVER_US,
    decision_time,
    instant,
    microseconds,
)
from margincast.features.stream.columns import BarColumns, one_decision
from margincast.features.stream.contract import Contract, Setting
from margincast.features.stream.counts import Counts
from margincast.features.stream.history import History
from margincast.features.stream.leader import Leader
from margincast.features.stream.snapshots import Known
from margincast.features.stream.states import States
from margincast.specs.features import FeatureSet


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
        bars_kept: int = 0,
    ) -> None:
        """Start without history.

        Args:
            feature_set: which features.
            tables: what will be given: ``bars``, ``book``, ``trades`` and the tables beside them.
                Without ``bars``, bars are those of the book's mid price.
            book_known_after: time from a snapshot's ``ts`` until it can have been known, where it
                does not say when it was received; needed for ``book``.
            bars_kept: bars of each contract to keep at least, for :meth:`last_bars`.

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
            own=BarColumns(plan, plan.own, plan.clock),
            read_beside_leader=tuple(
                sorted({name for column in plan.against for name in column.reads})
            ),
            has_book="book" in tables,
            has_trades="trades" in tables,
            mid_bars="bars" not in tables,
            book_known_after=book_known_after or timedelta(0),
            counts=self._counts,
            bars_kept=bars_kept,
        )
        self._leader = Leader(self._setting)
        self._states = States(bounds.states, tenors_in(self._leader.read), self._counts)
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
        bars_kept: int = 0,
    ) -> Self:
        """Start where a batch has come to.

        Args:
            feature_set: which features.
            sources: history; only what was known at ``decided_at`` is taken from it.
            decided_at: the last decision; updates go on after it.
            book_known_after: see :class:`FeatureStream`.
            bars_of_book: whether bars are those of the book's mid price.
            bars_kept: see :class:`FeatureStream`.

        Raises:
            InputError: see :class:`FeatureStream`; or the decision is off the grid.
        """
        given = {"book": sources.books, "trades": sources.trades}
        tables = [name for name, table in given.items() if table is not None]
        tables += [*([] if bars_of_book else ["bars"]), *sources.states]
        stream = cls(feature_set, tables, book_known_after, bars_kept)
        decided_us = stream._decision(decided_at)
        setting = stream._setting
        history = History(setting.plan, setting.bounds, sources, instant(decided_us))
        stream._fill(history, decided_us)
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
            InputError: the row has no time, or is an option of a chain.
        """
        self._require(table)
        self._states.add(table, symbol, row, self._decided_us)

    def update_chain(self, symbol: str, chain: Sequence[Mapping[str, Any]]) -> None:
        """Take the options of a chain at one time, and fit them; decisions then read the surface.

        Args:
            symbol: name of the chain.
            chain: one row an option, with the columns of its ``StateTable``: ``ts``, ``expiry``,
                ``option_type``, ``strike``, ``underlying_price``, ``implied_volatility`` and, where
                they are known, ``bid_price`` and ``ask_price``.

        Raises:
            InputError: an option lacks one of them, or their times differ.
        """
        self._require("options")
        self._states.add_chain(symbol, chain, self._decided_us)

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
        self._leader.look(self._contracts.get(grid.leader), tables, decided_us)
        warm_up_us = microseconds(grid.warm_up - grid.interval)
        symbols = [
            symbol
            for symbol in sorted(ready)
            if decided_us >= ready[symbol].first_close_us + warm_up_us
        ]
        if not symbols:
            return pl.DataFrame(schema=self._schema())
        rows = pl.concat([self._leader.row(ready[symbol]) for symbol in symbols])
        return one_decision(plan, rows.hstack([pl.Series("symbol", symbols)]))

    def last_bars(self, symbol: str, rows: int) -> dict[str, FloatArray] | None:
        """Give regular bars of a contract, the last one closing at the last decision.

        Args:
            symbol: the contract.
            rows: bars, at most ``bars_kept``; fewer at the contract's start.

        Returns:
            The bars' columns that the set reads, open, high, low and close among them; NaN where
            the bar is missing or stale. None for a contract without bars.
        """
        contract = self._contracts.get(symbol)
        if contract is None or contract.bars.first_us is None:
            return None
        return contract.bars.arrays(self._decided_us, rows)[1]

    def new_books(self, symbol: str) -> Known | None:
        """Give the snapshots that the last decision was the first to know, sound ones alone."""
        contract = self._contracts.get(symbol)
        return None if contract is None else contract.new_books

    def awaits_bar(self, symbol: str, decided_at: datetime) -> bool:
        """Say whether the bar that closes at a coming decision was not given yet."""
        contract = self._contracts.get(symbol)
        return contract is None or not contract.bars.came(microseconds(decided_at))

    def _fill(self, history: History, decided_us: int) -> None:
        for symbol, bars in history.bars.items():
            self._contract(symbol).bars.fill(bars)
        for table, states in history.states().items():
            for symbol, rows in states.frames.items():
                self._states.fill(table, symbol, rows)
        for symbol, chain in history.chains.items():
            self._states.fill_chain(symbol, chain)
        for symbol in history.contracts:
            contract = self._contract(symbol)
            levels = history.levels(symbol)
            if levels is not None:
                contract.expect_levels(levels)
            contract.fill(history.snapshots(symbol), history.trades(symbol), decided_us)
        self._decided_us = decided_us

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
        return decision_time(decided_at, interval, self._decided_us)

    def _schema(self) -> pl.Schema:
        known = {"symbol": pl.String(), "ts": TIMESTAMP, "close": pl.Float64()}
        return pl.Schema(known | dict.fromkeys(self.units, pl.Float64()))
