"""What is shown live: the margins of the last decision, and fallbacks from the moment of a fault.

Responsible for one order between two threads: the engine, which makes margins, and the watchdog,
which takes them back. A margin that was made while its contract fell back is not shown.
"""

import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

import pandas as pd

from margincast.margin.level_inputs import TableColumns
from margincast.serving.board import Board
from margincast.serving.live.keeping import at_least
from margincast.serving.live.watchdog import Verdict
from margincast.serving.snapshot import Header, Snapshot, contracts_of

Made = Callable[[Mapping[str, str]], pd.DataFrame]
"""Makes the levels of some contracts: by contract, why it falls back, or nothing."""


@dataclass
class BoardKeeper:
    """Puts margins on the board, and fallbacks in their place.

    Attributes:
        board: where the snapshots hang.
        by: who publishes.
    """

    board: Board
    by: str
    _verdict: Verdict = field(default_factory=lambda: Verdict({}, (), {}))
    _shown: dict[str, str] = field(default_factory=dict)
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def reasons(self, symbols: Collection[str]) -> dict[str, str]:
        """Return why contracts are in fallback now; those that are not are absent."""
        with self._lock:
            return self._reasons(symbols)

    def decided(
        self,
        levels: pd.DataFrame | TableColumns,
        reasons: Mapping[str, str],
        header: Header,
        make: Made,
    ) -> None:
        """Show the levels of a decision.

        Args:
            levels: of all contracts, or their columns.
            reasons: with which they were made.
            header: of the new snapshot.
            make: makes fallbacks anew, of contracts that fell back meanwhile.
        """
        with self._lock:
            snapshot = Snapshot.of(levels, header)
            now = self._reasons(snapshot.symbols)
            changed = {symbol: why for symbol, why in now.items() if reasons.get(symbol) != why}
            if changed:
                snapshot = snapshot.replaced(header, contracts_of(make(changed)))
            # made as fallbacks, and good again since: they come back as any other
            made = {symbol: why for symbol, why in reasons.items() if symbol in snapshot.contracts}
            self._shown = made | now
            self.board.show(self._with_problem(snapshot))

    def judged(self, verdict: Verdict, at: datetime, make: Made) -> tuple[str, ...]:
        """Show what a look found; returns the contracts that came back and need a margin.

        Args:
            verdict: of the look.
            at: its time.
            make: makes fallbacks; none is shown below the margin that was shown before it.
        """
        with self._lock:
            self._verdict = verdict
            current = self.board.current
            if current is None:
                return ()
            now = self._reasons(current.symbols)
            # words change while a fault lasts; the margin stays, and its first reason with it
            fell = {symbol: why for symbol, why in now.items() if symbol not in self._shown}
            back = tuple(symbol for symbol in self._shown if symbol not in now)
            problem = self._problem()
            if fell:
                header = _next(current.header, at)
                made = at_least(make(fell), current)
                current = current.replaced(header, contracts_of(made))
                self._shown |= fell
            if fell or problem != current.header.problem:
                self.board.show(self._with_problem(current))
            return back

    def came_back(self, symbols: Collection[str], at: datetime, make: Made) -> None:
        """Show the margins of contracts that are good again."""
        with self._lock:
            current = self.board.current
            now = self._reasons(symbols)
            good = {symbol: "" for symbol in symbols if symbol not in now and symbol in self._shown}
            if current is None or not good:
                return
            changed = contracts_of(make(good))
            for symbol in good:
                del self._shown[symbol]
            self.board.show(
                self._with_problem(current.replaced(_next(current.header, at), changed))
            )

    def _reasons(self, symbols: Collection[str]) -> dict[str, str]:
        found = {symbol: self._verdict.of(symbol) for symbol in symbols}
        return {symbol: one.reason for symbol, one in found.items() if one is not None}

    def _problem(self) -> str:
        everything = self._verdict.of("")
        return "" if everything is None else everything.reason

    def _with_problem(self, snapshot: Snapshot) -> Snapshot:
        return replace(snapshot, header=replace(snapshot.header, problem=self._problem()))


def _next(header: Header, at: datetime) -> Header:
    return replace(header, revision=header.revision + 1, published_at=at)
