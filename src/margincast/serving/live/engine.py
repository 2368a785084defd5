"""The engine: events in, margin levels out, one decision after the other.

Responsible for the order of things between a row of the feed and a new margin: rows go to the
features, a bar's close makes a decision, the champion forecasts, the policy's chain makes levels.
Pure of threads, files and clocks, so that a test can drive it through any history.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import InitVar, dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np

from margincast.core.errors import InputError
from margincast.features.handing_over import to_models
from margincast.features.stream import FeatureStream
from margincast.margin.override import Override
from margincast.serving.live.books import RecentBooks
from margincast.serving.live.events import Event
from margincast.serving.live.maker import Maker, now_us
from margincast.serving.live.model import LiveModel
from margincast.serving.scored import Scored


@dataclass(frozen=True)
class Decision:
    """What came of a bar's close.

    Attributes:
        at: the close.
        good: contracts with a usable forecast.
        problems: why the others' newest forecast cannot be used, by contract.
        scored: levels of all contracts; None where none are published at this decision.
    """

    at: datetime
    good: frozenset[str]
    problems: Mapping[str, str]
    scored: Scored | None


@dataclass
class Engine:
    """A stream of features, a model and a maker of levels, as they stand.

    Attributes:
        stream: the features.
        model: the champion.
        maker: the levels.
        books: for the cost of liquidation.
        tables: what the stream takes.
        decided_at: the last decision.
        next_close: the next bar's close at which the model is asked.
        refused: rows that the stream's rules refuse, by table and contract.
    """

    stream: FeatureStream
    model: LiveModel
    maker: Maker
    books: RecentBooks
    tables: frozenset[str]
    decided_at: InitVar[datetime]
    next_close: datetime = field(init=False)
    refused: Counter[tuple[str, str]] = field(default_factory=Counter)
    _published_in: int | None = None

    def __post_init__(self, decided_at: datetime) -> None:
        self.next_close = self._after(decided_at)
        self._publishes(now_us(decided_at))

    def take(self, event: Event) -> str | None:
        """Give a row to the features; returns why it was refused, if it was."""
        if event.table not in self.tables:
            return None
        try:
            if event.table == "bars":
                self.stream.update_bar(event.symbol, event.row)
            elif event.table == "book":
                self.stream.update_book(event.symbol, event.row)
            elif event.table == "trades":
                self.stream.update_trade(event.symbol, event.row)
            else:
                row = _liquidated(event.row) if event.table == "liquidations" else event.row
                self.stream.update_state(event.table, event.symbol, row)
        except InputError as error:
            self.refused[event.table, event.symbol] += 1
            return str(error)
        return None

    def is_complete(self) -> bool:
        """Say whether every contract's bar of the next decision is there."""
        if "bars" not in self.tables:
            return False
        return not any(
            self.stream.awaits_bar(symbol, self.next_close) for symbol in self.maker.decided_on
        )

    def decide(self, reasons: Mapping[str, str], overrides: Sequence[Override] = ()) -> Decision:
        """Take the next decision; what it leaves behind is for :meth:`commit`.

        Args:
            reasons: why a contract is in fallback, whatever its forecast will be.
            overrides: margins set by hand that are in force, oldest first.
        """
        at = self.next_close
        self.next_close = self._after(at)
        frame = to_models(self.stream.decide(at), self.stream.units)
        moment = now_us(at)
        for symbol in self.maker.symbols:
            new = self.stream.new_books(symbol)
            if new is not None:
                self.books.add(symbol, new)
        good: frozenset[str] = frozenset()
        if len(frame):
            good = frozenset(self.maker.take(frame, self.model.decide(frame, self.stream)))
        problems = {
            symbol: problem
            for symbol in self.maker.symbols
            if (problem := self.maker.problem(symbol)) is not None
        }
        scored = None
        if self._publishes(moment):
            scored = self.maker.make(
                self.maker.after_last(moment),
                self.maker.symbols,
                reasons,
                self.books.at(moment),
                overrides,
            )
        return Decision(at, good, problems, scored)

    def commit(self, scored: Scored) -> None:
        """Go on from levels of all contracts that were put in force."""
        self.maker.publish(scored)

    def skip_to(self, latest: datetime) -> int:
        """Leave out decisions that are past already, but for the last; returns how many.

        Args:
            latest: a decision up to here would be the last one that is past.
        """
        skipped = 0
        while (later := self._after(self.next_close)) <= latest:
            self.next_close = later
            skipped += 1
        return skipped

    def swap(self, model: LiveModel) -> None:
        """Go on with another model of the same features, from the next decision on."""
        self.model = model
        self.maker.origin = replace(self.maker.origin, model_version=model.version)

    def remake(
        self, at: datetime, reasons: Mapping[str, str], overrides: Sequence[Override] = ()
    ) -> Scored:
        """Make the levels of some contracts between two decisions; nothing of it is remembered.

        Args:
            at: the moment; taken after the last publication whatever the clock says.
            reasons: by contract, why it is in fallback; empty where it came back.
            overrides: see :meth:`decide`.
        """
        moment = self.maker.after_last(now_us(at))
        symbols = tuple(sorted(reasons))
        return self.maker.make(moment, symbols, reasons, self.books.at(moment), overrides)

    def _publishes(self, at: np.datetime64) -> bool:
        """Say whether a decision is the first of its period of publication."""
        rhythm = self.maker.policy.publication
        if rhythm is None:
            return True
        period = int(at.astype(np.int64)) // (rhythm.every // timedelta(microseconds=1))
        first = period != self._published_in
        self._published_in = period
        return first

    def _after(self, at: datetime) -> datetime:
        later = at + self.model.interval
        while not self.model.is_decision(now_us(later)):
            later += self.model.interval
        return later


def _liquidated(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a liquidation order as the features know it: USD by the side that was closed."""
    usd = row["price"] * row["size"]
    long = row["side"] == "sell"  # a sell closes a long
    amounts = {
        "long_liquidated_usd": usd if long else 0.0,
        "short_liquidated_usd": 0.0 if long else usd,
    }
    return {name: row[name] for name in ("ts", "received_at") if name in row} | amounts
