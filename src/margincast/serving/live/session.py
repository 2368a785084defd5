"""A live session: who receives rows, who makes margins, and who watches, side by side.

Responsible for the two clocks of live mode. The engine goes on with the feed; the watchdog looks
every few milliseconds whether the feed, the engine, the disk and the champion are there, also when
nothing comes. Every step is a method that a test can call; :meth:`Session.run` calls them in
threads.
"""

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import InitVar, dataclass, field
from datetime import UTC
from typing import Any, TypeVar

import pandas as pd

from margincast.core.errors import MargincastError, PublishedMeanwhileError
from margincast.margin.override import Override
from margincast.serving.live.board_keeper import BoardKeeper
from margincast.serving.live.champion_watch import ChampionWatch
from margincast.serving.live.clock import Clock
from margincast.serving.live.engine import Decision, Engine
from margincast.serving.live.events import Event, Reader
from margincast.serving.live.faults import EVERYTHING, Fault
from margincast.serving.live.folder import LiveFolder, LiveStatus
from margincast.serving.live.inbox import Inbox
from margincast.serving.live.machine import Machine
from margincast.serving.live.receipt import Receipt
from margincast.serving.live.sightings import Sightings
from margincast.serving.live.watchdog import Verdict, Watchdog
from margincast.serving.scored import Scored
from margincast.serving.snapshot import Header
from margincast.specs.live import LiveMode

ROWS_AT_ONCE = 500
"""Rows taken in before the engine looks at the time again."""
IDLE_SECONDS = 0.02
UNREADABLE = "publications cannot be read"

Found = TypeVar("Found")
Publish = Callable[[Scored, Sequence[Override]], int]
"""Publishes the levels of a decision; returns the number of the publication."""
CaughtUp = Callable[[], int | None]
"""Goes on from what somebody else published since; returns its number, or None for nothing."""


@dataclass
class Session:
    """Everything a live engine is made of.

    Attributes:
        spec: what is a fault, and when it is over.
        engine: makes margins.
        reader: reads lines.
        clock: what time it is.
        keeper: what is shown.
        folder: where other processes read it.
        champion: who makes the forecasts.
        overrides: margins set by hand that are in force.
        publish: makes a numbered publication of a decision; None where none is made.
        caught_up: goes on from what somebody else published.
        told: of faults, recoveries and champions, in words.
        number: of the publication that is gone on from; 0 where there is none.
        before: how an engine that is gone stood; its fallbacks go on, and end as any other.
    """

    spec: LiveMode
    engine: Engine
    reader: Reader
    clock: Clock
    keeper: BoardKeeper
    folder: LiveFolder
    champion: ChampionWatch
    overrides: Callable[[], tuple[Override, ...]]
    publish: Publish | None
    caught_up: CaughtUp
    told: Callable[[str], None]
    number: InitVar[int] = 0
    before: InitVar[LiveStatus | None] = None
    watchdog: Watchdog = field(init=False)
    sightings: Sightings = field(init=False)
    inbox: Inbox = field(init=False)
    machine: Machine = field(init=False)
    decisions: int = 0
    skipped: int = 0
    verdict: Verdict = field(default_factory=lambda: Verdict({}, (), {}))
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stop: threading.Event = field(default_factory=threading.Event)
    _wake: threading.Event = field(default_factory=threading.Event)
    _good: set[str] = field(default_factory=set)
    _problems: Mapping[str, str] = field(default_factory=dict)
    _back: set[str] = field(default_factory=set)
    _number: int = field(init=False)
    _catches_up_us: int = 0

    def __post_init__(self, number: int, before: LiveStatus | None) -> None:
        self._number = number
        now_us = self.clock.elapsed_us()
        self.watchdog = Watchdog(self.spec.recovery)
        self.inbox = Inbox(self.spec.feed.queue_rows)
        contracts = frozenset(self.engine.maker.symbols) & self.engine.maker.known
        self.sightings = Sightings(self.spec.watch, self.engine.model.interval, contracts, now_us)
        self.machine = Machine(self.spec.watch, self.clock, self.folder, self.inbox)
        if before is not None:
            self.watchdog.go_on(self._ours(before.fallbacks()), now_us)
        self.verdict = self.watchdog.look({}, now_us)
        self.keeper.judged(self.verdict, self.clock.now(), self._remade)

    # --- rows -----------------------------------------------------------------------------------

    def receive(self, lines: Iterable[bytes]) -> Receipt:
        """Take lines of a feed, from any thread."""
        events: list[Event] = []
        refused: dict[str, int] = {}
        with self._lock:
            for line in lines:
                if not line.strip():
                    continue
                found = self.reader.read(line)
                if isinstance(found, Event):
                    events.append(found)
                else:
                    refused[found.reason] = refused.get(found.reason, 0) + 1
                    self.sightings.refuse(found)
        dropped = self.inbox.put(events, self.clock.elapsed_us())
        return Receipt(len(events) - dropped, refused, dropped)

    # --- the engine -----------------------------------------------------------------------------

    def work(self, seconds: float = IDLE_SECONDS) -> None:
        """Take in what waits, and decide where it is time to."""
        self.machine.answered(self.clock.elapsed_us())
        for _, event in self.inbox.take(ROWS_AT_ONCE, seconds):
            self.clock.hear(event.row.get("received_at", event.ts))
            self.decide_if_due()
            with self._lock:
                given = self.sightings.see(event, self.clock.now(), self.clock.elapsed_us())
            if given:
                self.engine.take(event)
        self.catch_up()
        self.decide_if_due()
        with self._lock:
            back, self._back = self._back, set()
        if back:
            self.keeper.came_back(back, self.clock.now(), self._remade)
            self._wake.set()
        self.machine.answered(self.clock.elapsed_us())

    def drain(self) -> None:
        """Take in all that waits."""
        while self.inbox.load().waiting:
            self.work(0.0)

    def decide_if_due(self) -> Decision | None:
        """Decide, where the bar's close is past and its rows are there or were waited for."""
        now = self.clock.now()
        if now < self.engine.next_close:
            return None
        wait = self.spec.feed.wait_for_rows
        if now < self.engine.next_close + wait and not self.engine.is_complete():
            return None
        self.skipped += self.engine.skip_to(now - wait)
        return self._decide()

    def _decide(self) -> Decision:
        if self.champion.next is not None:
            self.engine.swap(self.champion.next)
            self.told(f"champion {self.champion.next.version} makes the forecasts from now on")
            self.champion.next = None
        symbols = self.engine.maker.symbols
        reasons = self.keeper.reasons(symbols)
        overrides = self.overrides()
        decision = self.engine.decide(reasons, overrides)
        self.decisions += 1
        with self._lock:
            self._good |= decision.good
            self._problems = decision.problems
        if decision.scored is not None:
            self._show(decision.scored, reasons, overrides)
        return decision

    def _show(
        self, scored: Scored, reasons: Mapping[str, str], overrides: Sequence[Override]
    ) -> None:
        try:
            scored = self._on_record(scored, reasons, overrides)
            self.machine.publication = None
        except (MargincastError, OSError) as error:
            # what is not on the record is not in force
            self.machine.publication = "the newest decision could not be put on the record"
            self.told(str(error))
            return
        self.engine.commit(scored)
        current = self.keeper.board.current
        revision = 0
        if current is not None and current.header.number == self._number:
            revision = current.header.revision + 1
        header = Header(self._number, self.clock.now(), self.keeper.by, "live", revision)
        self.keeper.decided(scored.columns, reasons, header, self._remade)
        self._wake.set()

    def _on_record(
        self, scored: Scored, reasons: Mapping[str, str], overrides: Sequence[Override]
    ) -> Scored:
        """Publish; where somebody was faster, levels that go on from what he published."""
        if self.publish is None:
            return scored
        try:
            self._number = self.publish(scored, overrides)
        except PublishedMeanwhileError:
            self._number = self.caught_up() or self._number
            at = scored.inputs.background.at.astype("datetime64[us]").item().replace(tzinfo=UTC)
            everybody = {symbol: reasons.get(symbol, "") for symbol in self.engine.maker.symbols}
            scored = self.engine.remake(at, everybody, overrides)
            self._number = self.publish(scored, overrides)
        return scored

    def catch_up(self) -> None:
        """Go on from what somebody else published since, and show it."""
        now_us = self.clock.elapsed_us()
        if now_us < self._catches_up_us:
            return
        self._catches_up_us = now_us + 1000 * self.spec.watch.champion_every_milliseconds
        try:
            number = self.caught_up()
        except MargincastError as error:
            if self.machine.publication != UNREADABLE:
                self.told(str(error))
            self.machine.publication = UNREADABLE
            return
        if self.machine.publication == UNREADABLE:
            self.machine.publication = None
        if number is not None:
            self._number = number
            self.machine.publication = None
            self.show_first()
            self._wake.set()

    def show_first(self) -> None:
        """Show what is known before the next decision."""
        symbols = self.engine.maker.symbols
        reasons = self.keeper.reasons(symbols)
        levels = self._remade({symbol: reasons.get(symbol, "") for symbol in symbols})
        header = Header(self._number, self.clock.now(), self.keeper.by, "live")
        self.keeper.decided(levels, reasons, header, self._remade)

    def _remade(self, reasons: Mapping[str, str]) -> pd.DataFrame:
        return self.engine.remake(self.clock.now(), reasons, self.overrides()).levels

    # --- the watchdog ---------------------------------------------------------------------------

    def look(self) -> Verdict:
        """Look once at everything, show what fell back, and write it down."""
        now_us = self.clock.elapsed_us()
        with self._lock:
            faults = self._ours(self.sightings.faults(now_us))
            for symbol, problem in self._problems.items():
                faults.setdefault(symbol, {})[Fault.NO_FORECAST] = problem
            good, self._good = self._good, set()
        everything = {**self.champion.faults_at(now_us), **self.machine.faults(now_us)}
        if everything:
            faults[EVERYTHING] = everything
        verdict = self.watchdog.look(faults, now_us, good)
        back = self.keeper.judged(verdict, self.clock.now(), self._remade)
        with self._lock:
            self._back |= set(back)
        self._tell(verdict)
        self.verdict = verdict
        try:
            self.folder.write(self.keeper.board.current, self.status(), self.clock.now())
            self.machine.disk = None
        except OSError as error:
            self.machine.disk = f"the live folder cannot be written: {error.strerror}"
        return verdict

    def _ours(self, found: Mapping[str, Found]) -> dict[str, Found]:
        """Return what is said of contracts; an index has no margin that could fall back."""
        ours = {EVERYTHING, *self.engine.maker.symbols}
        return {subject: one for subject, one in found.items() if subject in ours}

    def status(self) -> dict[str, Any]:
        """Return counts and fallbacks, JSON-like."""
        load = self.inbox.load()
        with self._lock:
            refused = [
                {"table": table, "reason": reason, "lines": count}
                for (table, reason), count in self.reader.refused.items()
            ]
            withheld = [
                {"symbol": symbol, "fault": str(fault), "rows": count}
                for (symbol, fault), count in self.sightings.withheld.items()
            ]
        return {
            "decisions": self.decisions,
            "skipped_decisions": self.skipped,
            "model_version": self.engine.model.version,
            "rows": dict(self.reader.taken),
            "refused": refused,
            "withheld": withheld,
            "waiting": load.waiting,
            "dropped": load.dropped,
            "fallbacks": {
                subject or "all": {"fault": str(one.fault), "reason": one.reason}
                for subject, one in self.verdict.fallbacks.items()
            },
        }

    def _tell(self, verdict: Verdict) -> None:
        for subject in verdict.fell:
            self.told(f"{subject or 'everything'} falls back: {verdict.fallbacks[subject].reason}")
        for subject, was in verdict.recovered.items():
            self.told(f"{subject or 'everything'} is back after {was.fault}")

    # --- threads --------------------------------------------------------------------------------

    def start(self) -> list[threading.Thread]:
        """Start engine, watchdog and the look at the champion; they end with :meth:`stop`."""
        loops = (
            ("engine", self._engine_loop),
            ("watchdog", self._watchdog_loop),
            ("champion", self._champion_loop),
        )
        threads = [
            threading.Thread(target=self._guarded, args=one, name=one[0], daemon=True)
            for one in loops
        ]
        for thread in threads:
            thread.start()
        return threads

    def stop(self) -> None:
        """End the threads after their present step."""
        self._stop.set()
        self._wake.set()

    def _guarded(self, name: str, loop: Callable[[], None]) -> None:
        try:
            loop()
        except Exception as error:  # noqa: BLE001  # whatever it is, margins must fall back
            self.machine.stopped = f"the {name} stopped: {type(error).__name__}"
            self.told(f"the {name} stopped: {error!r}")

    def _engine_loop(self) -> None:
        while not self._stop.is_set():
            self.work()

    def _watchdog_loop(self) -> None:
        before = self.clock.elapsed_us()
        while not self._stop.is_set():
            self._wake.clear()
            now_us = self.clock.elapsed_us()
            self.machine.unwatched_us, before = now_us - before, now_us
            self.look()
            self._wake.wait(self.spec.watch.every_milliseconds / 1000.0)

    def _champion_loop(self) -> None:
        seconds = self.spec.watch.champion_every_milliseconds / 1000.0
        while not self._stop.wait(seconds):
            self.champion.look(self.clock.elapsed_us())
