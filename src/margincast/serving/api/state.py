"""What one worker of the service holds: margins in force, keys, limits and counters.

Responsible for bringing them up to date while requests are answered: a new publication is read and
indexed beside the one in force, then takes its place at once.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

from margincast.core.errors import MargincastError
from margincast.core.time import format_duration
from margincast.serving.api.keys import KeyFile, KeyRing
from margincast.serving.api.metrics import Metrics, forget_dead_workers, resident_bytes
from margincast.serving.api.past import Past
from margincast.serving.api.problem import Refusal
from margincast.serving.api.rate import RateLimit
from margincast.serving.api.report_file import ReportFile
from margincast.serving.api.view import View
from margincast.serving.board import Board, Change
from margincast.serving.ledger import Ledger
from margincast.serving.live.folder import LiveFolder, table_of
from margincast.serving.live.keeping import kept
from margincast.serving.live.reader import LiveReader
from margincast.serving.publications.publication import Publication
from margincast.serving.snapshot import Snapshot
from margincast.specs.service import LiveEngine, Service

LOG = logging.getLogger("margincast.service")
Found = TypeVar("Found")


@dataclass(frozen=True)
class Standing:
    """How the service stands.

    Attributes:
        status: ``ok``; ``fallback``: contracts have margins without a forecast; ``stale``: the
            publication is older than allowed; ``empty``: there is none.
        reason: why, in words; empty when it is ok.
    """

    status: str
    reason: str


@dataclass
class State:
    """A worker's state.

    Args:
        service: the configuration.
        workspace: where its paths start.
        rate: token buckets, shared with the other workers.
    """

    service: Service
    workspace: Path
    rate: RateLimit
    board: Board = field(default_factory=Board)
    metrics: Metrics = field(default_factory=Metrics)
    view: View | None = None
    streams: int = 0
    unreadable: str = ""
    """What cannot be read at the moment, and is therefore not served; empty: nothing."""

    def __post_init__(self) -> None:
        self.past = Past(self.workspace / self.service.publications.folder)
        self.key_file = KeyFile(self.workspace / self.service.access.keys_file)
        self.audit = Ledger(self.workspace / self.service.access.audit_file)
        self.keys = KeyRing(())
        monitor, live = self.service.monitor, self.service.live
        self.engine = (
            None
            if live is None
            else LiveReader(
                LiveFolder(self.workspace / live.folder),
                timedelta(milliseconds=live.longest_silence_milliseconds),
            )
        )
        self.report = ReportFile(None if monitor is None else self.workspace / monitor.report)
        self._keys_seen: tuple[int, int] | None = None
        self._keys_problem = ""
        self._engine_problem = ""
        self._following = asyncio.Lock()
        self._record: Publication | None = None
        self._shown_since = self.seconds()
        # looks wait for no question of a caller, however many of them are being computed
        self._looking = ThreadPoolExecutor(2, "look")

    def now(self) -> datetime:
        """Return the time by the clock."""
        return datetime.now(UTC)

    def seconds(self) -> float:
        """Return the time of a clock that nobody sets, seconds."""
        return time.monotonic()

    def in_force(self) -> View:
        """Return what is answered from.

        Raises:
            Refusal: nothing was published yet.
        """
        view = self.view
        if view is None:
            raise Refusal(
                503,
                "nothing is published yet; publish with `margincast score POLICY --publish`",
                [(b"retry-after", b"5")],
            )
        return view

    async def record_of(self, view: View) -> Publication | None:
        """Return the publication that some margins rest on; None where it is not kept.

        Args:
            view: what a question is answered from; another may be in force meanwhile.
        """
        number, record = view.snapshot.header.number, self._record
        if record is None or record.number != number:
            try:
                record = await asyncio.to_thread(self.past.publication, number)
            except (MargincastError, OSError) as error:
                LOG.error("publication %d cannot be read: %s", number, error)  # noqa: TRY400  # no bug
                return None
            self._record = record
        return record

    def standing(self) -> Standing:
        """Return how the service stands now."""
        if self.view is None:
            return Standing("empty", self.unreadable or "nothing is published yet")
        snapshot, allowed = self.view.snapshot, self.service.publications.max_age
        header = snapshot.header
        age = self.now() - header.published_at
        # a clock that was set back makes nothing younger than it has been shown for
        shown_for = timedelta(seconds=self.seconds() - self._shown_since)
        if max(abs(age), shown_for) > allowed:
            made = f"it was made at {header.published_at:%F %H:%M} UTC"
            limit = format_duration(allowed)
            old = (
                f"publication {header.number} is older than {limit}, {made}"
                if age >= timedelta()
                else f"{made} says publication {header.number}, which is in the future"
            )
            return Standing("stale", "; ".join(filter(None, (old, self.unreadable))))
        if header.problem:
            return Standing("fallback", header.problem)
        if snapshot.fallbacks:
            return Standing("fallback", _fallback_reason(snapshot))
        return Standing("ok", self.unreadable)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep everything up to date while the block runs."""
        forget_dead_workers()
        with self.board.listening(self._take):
            if self.engine is not None:
                await self.follow_once()
            await self.look()
            tasks = [asyncio.create_task(self._look_again())]
            if self.service.live is not None:
                tasks.append(asyncio.create_task(self._follow(self.service.live)))
            try:
                yield
            finally:
                self.board.close()
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                self._looking.shutdown(wait=False, cancel_futures=True)
                self.past.close()
                self.rate.close()

    async def look(self) -> None:
        """Look once for new keys and publications."""
        self._look_at_keys()
        self.report.look()
        # while a live engine is there, what it publishes is what it shows
        if self.engine is None or not self.engine.is_alive(self.seconds()):
            await self._look_at_store()
        await self._fall_back_if_stale()
        self.metrics.resident.set(resident_bytes())
        self.metrics.show_status(self.standing().status)

    async def _look_at_store(self) -> None:
        shown = self.board.current
        number = shown.header.number if shown is not None else 0
        try:
            found = await self._apart(lambda: self.past.newer_than(number))
        except (MargincastError, OSError) as error:
            # the message may name folders: it is for the log, not for callers
            if not self.unreadable:
                LOG.error("a new publication cannot be read: %s", error)  # noqa: TRY400  # no bug
            self.metrics.unreadable.inc()
            self.unreadable = "the newest publication cannot be read; see the service's log"
        else:
            self.unreadable = ""
            if found is not None:
                self._record, snapshot = found
                self.board.show(snapshot)

    async def _fall_back_if_stale(self) -> None:
        standing = self.standing()
        shown = self.board.current
        if standing.status == "stale" and shown is not None and not shown.header.problem:
            await self.fall_back(standing.reason)

    async def fall_back(self, reason: str) -> None:
        """Answer from the larger of the base schedule and the margins shown last."""
        shown = self.board.current
        if shown is None:
            return
        levels = await self._apart(lambda: kept(table_of(shown).to_pandas(), reason))
        header = replace(shown.header, revision=shown.header.revision + 1, problem=reason)
        # whatever was put up meanwhile is newer than this
        if self.board.current is shown:
            self.board.show(Snapshot.of(levels, header))

    async def _follow(self, live: LiveEngine) -> None:
        while True:
            await self.follow_once()
            await asyncio.sleep(live.look_every_milliseconds / 1_000.0)

    async def follow_once(self) -> None:
        """Show what the live engine shows, or fallbacks once it is gone."""
        engine = self.engine
        assert engine is not None
        async with self._following:
            snapshot = await self._apart(lambda: engine.look(self.now(), self.seconds()))
            if engine.problem and engine.problem != self._engine_problem:
                LOG.error("the live engine's margins cannot be read: %s", engine.problem)
            self._engine_problem = engine.problem
        shown = self.board.current
        if snapshot is None or (
            # what an engine left behind is no news where there is a later publication
            not engine.is_alive(self.seconds())
            and shown is not None
            and shown.header.number > snapshot.header.number
        ):
            return
        self.board.show(snapshot)

    async def _apart(self, work: Callable[[], Found]) -> Found:
        """Do what reads the disk in a thread of its own."""
        return await asyncio.get_running_loop().run_in_executor(self._looking, work)

    def _take(self, change: Change | None) -> None:
        if change is None:
            return
        snapshot = change.now
        before = None if change.before is None else change.before.header.published_at
        if snapshot.header.published_at != before:
            self._shown_since = self.seconds()
        self.view = View(snapshot, self.view)
        self.metrics.publication.set(snapshot.header.number)
        self.metrics.published_at.set(snapshot.header.published_at.timestamp())
        self.metrics.contracts.set(len(snapshot.contracts))
        self.metrics.fallbacks.set(len(snapshot.fallbacks))
        LOG.info("serving publication %s", snapshot.header.version)

    async def _look_again(self) -> None:
        every = self.service.publications.look_every.total_seconds()
        while True:
            await asyncio.sleep(every)
            try:
                await self.look()
            except Exception:
                # whatever it is, the margins in force are served on and the next look comes
                LOG.exception("looking for a new publication failed")

    def _look_at_keys(self) -> None:
        try:
            status = self.key_file.path.stat()
            seen = (status.st_mtime_ns, status.st_ino)
        except OSError:
            # it is not there, or says below why it cannot be read
            seen = None
        if seen is None or seen != self._keys_seen:
            try:
                self.keys = KeyRing(self.key_file.read())
                self._keys_seen, self._keys_problem = seen, ""
            except MargincastError as error:
                # keys that were valid stay so until the file can be read again
                if str(error) != self._keys_problem:
                    LOG.error("keys cannot be read: %s", error)  # noqa: TRY400  # no bug
                self._keys_problem = str(error)

    def wait_for(self, caller: str) -> float:
        """Take a caller's token; return the seconds to wait, 0.0 if there was one."""
        return self.rate.take(caller, time.monotonic())


def _fallback_reason(snapshot: Snapshot) -> str:
    count = len(snapshot.fallbacks)
    symbol = snapshot.fallbacks[0]
    side = next(one for one in snapshot.contracts[symbol].values() if one.is_fallback)
    more = f", and {count - 1} more" if count > 1 else ""
    return f"{symbol} {side.side}: {side.rows[0]['reason']}{more}"
