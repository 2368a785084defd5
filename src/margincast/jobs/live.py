"""``margincast live``: margins that follow a feed, event by event, and fall back when it fails."""

import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Literal

from margincast.core.errors import InputError, LedgerError, MargincastError
from margincast.jobs.by_hand import overrides_in_force
from margincast.jobs.console import output, say
from margincast.jobs.live_start import Start
from margincast.jobs.person import acting_person
from margincast.jobs.setting import Setting
from margincast.jobs.situation import NoChampionError, Situation
from margincast.margin.override import Override
from margincast.margin.schedule import require_policy_fits
from margincast.serving.board import Board
from margincast.serving.champion import Champion, moment_of_use, resolve_champion
from margincast.serving.ledger import LEDGER, Ledger
from margincast.serving.live.board_keeper import BoardKeeper
from margincast.serving.live.champion_watch import ChampionWatch
from margincast.serving.live.clock import Clock, FeedClock, SystemClock
from margincast.serving.live.events import Reader
from margincast.serving.live.folder import LEVELS, SOCKET, LiveFolder, LiveStatus
from margincast.serving.live.listener import Listener, read_feed
from margincast.serving.live.publisher import Publisher
from margincast.serving.live.receipt import Receipt
from margincast.serving.live.session import Session
from margincast.serving.margin_overrides import overrides_at
from margincast.serving.publications.store import store_of
from margincast.serving.registry import Registry
from margincast.specs.live import LiveMode
from margincast.specs.loading import load_spec
from margincast.specs.schedule import BaseSchedule
from margincast.specs.serving import MarginPolicy

ClockName = Literal["system", "feed"]


@dataclass(frozen=True)
class Prepared:
    """A session that is ready to start, and what it was made of."""

    session: Session
    folder: LiveFolder


def prepare(
    spec: Path,
    data: Path | None,
    out: Path | None,
    overrides: Sequence[str],
    *,
    clock: ClockName = "system",
    publish: bool = False,
    by: str | None = None,
    board: Board | None = None,
) -> Prepared:
    """Load champion, data and policy of a live file, and go through the past.

    Args:
        spec: the live file.
        data: folder that data paths start at.
        out: folder for the live levels; ``out/live-NAME`` of the workspace if not given.
        overrides: ``section.key=value`` texts; those of ``data.*`` say where the data so far lies,
            those of ``policy.*`` change the policy, the others the live file.
        clock: the machine's, or ``feed`` for a recorded feed.
        publish: whether decisions become numbered publications.
        by: who publishes.
        board: where snapshots hang; a new one if not given.

    Raises:
        NoChampionError: there is no model that may set margins; there is nothing to follow.
        InputError: policy, schedule or data cannot be used.
    """
    of_data = [text for text in overrides if text.startswith("data.")]
    of_policy = [text for text in overrides if text.startswith("policy.")]
    own = [text for text in overrides if text not in {*of_data, *of_policy}]
    live = load_spec(spec, LiveMode, own)
    setting = Setting.of(spec, data, out, f"live-{live.name}", None, keeps_features=False)
    workspace = setting.workspace
    changes = [text.removeprefix("policy.") for text in of_policy]
    policy = load_spec(workspace / live.policy, MarginPolicy, changes)
    schedule = load_spec(workspace / policy.schedule.file, BaseSchedule)
    require_policy_fits(policy, schedule)
    start = Start(policy, schedule, setting, of_data)
    registry = Registry(policy.tracking.uri, workspace)

    def resolve() -> Champion:
        return resolve_champion(registry, policy.model.registered_model)

    try:
        champion = resolve()
    except MargincastError as error:
        raise NoChampionError(str(error)) from error
    situation = start.situation(champion)
    _require_tables(live, situation)
    store = store_of(workspace, policy.name)
    before = store.before(situation.newest)
    engine, first = start.engine(
        situation, before, overrides_in_force(workspace, policy, situation.newest)
    )
    folder = LiveFolder(setting.out)
    folder.prepare()
    watch = ChampionWatch(
        resolve,
        lambda found: start.successor(found, engine.model),
        live.watch.longest_store_outage,
        say,
        serving=champion,
    )
    person = acting_person(by)
    number = 0 if before is None else before.number
    publisher = Publisher(store, engine.maker, lambda: _digest(watch), person, say, follows=number)
    replayed = clock == "feed"
    session = Session(
        live,
        engine,
        Reader(
            live.feed.tables,
            frozenset(first.inputs.symbols),
            live.feed.line_bytes,
            {
                name: frozenset(table.frames)
                for name, table in situation.market.sources.states.items()
            },
        ),
        _clock(clock, situation.newest),
        BoardKeeper(board or Board(), person),
        folder,
        watch,
        _by_hand(workspace, policy),
        publisher if publish else None,
        _nothing if replayed else publisher.caught_up,
        say,
        number,
        None if replayed else _stood(folder),
    )
    session.catch_up()
    session.show_first()
    say(
        f"{engine.model.version}: {len(first.inputs.symbols)} contracts, data as of "
        f"{situation.newest:%F %H:%M} UTC, next decision at {engine.next_close:%F %H:%M} UTC"
    )
    return Prepared(session, folder)


def run(
    spec: Path,
    data: Path | None,
    out: Path | None,
    overrides: Sequence[str],
    *,
    clock: ClockName = "system",
    publish: bool = False,
    by: str | None = None,
    listen: bool = False,
    feed: BinaryIO | None = None,
) -> bool:
    """Follow a feed until it ends, or until a signal where a socket is listened to.

    Args:
        spec: see :func:`prepare`, and so on.
        data: folder of the data so far.
        out: folder for the live levels.
        overrides: of the specs.
        clock: the machine's or the feed's.
        publish: whether decisions are published.
        by: who publishes.
        listen: whether rows come over a socket in ``out`` too; it then ends by a signal.
        feed: lines of JSON; standard input if not given.

    Returns:
        Whether nothing is in fallback at the end.
    """
    prepared = prepare(spec, data, out, overrides, clock=clock, publish=publish, by=by)
    session, folder = prepared.session, prepared.folder
    line_bytes = session.spec.feed.line_bytes
    threads = [] if clock == "feed" else session.start()
    listener = Listener(folder.path / SOCKET, session.receive, line_bytes) if listen else None
    try:
        source = feed or sys.stdin.buffer
        if clock == "feed":
            _replay(source, session, line_bytes)
        else:
            with _ended_by_signal() as ended:

                def goes_on() -> bool:
                    return not ended.is_set() and session.machine.stopped is None

                reading = threading.Thread(
                    target=read_feed, args=(source, session.receive, line_bytes), daemon=True
                )
                reading.start()
                # a part that stopped ends the whole: who started it may start it again
                while goes_on() and (listen or reading.is_alive()):
                    ended.wait(0.1)
                while goes_on() and session.inbox.load().waiting:
                    ended.wait(0.01)
    finally:
        if listener is not None:
            listener.close()
        session.stop()
        for thread in threads:
            thread.join(timeout=5.0)
    verdict = session.look()
    _say_end(session)
    return not verdict.fallbacks


def _replay(feed: BinaryIO, session: Session, line_bytes: int) -> None:
    """Take a recorded feed in one thread: each row in turn, whatever the time it takes."""

    def receive(lines: Iterable[bytes]) -> Receipt:
        receipt = session.receive(lines)
        session.drain()
        session.look()
        return receipt

    read_feed(feed, receive, line_bytes)


@contextmanager
def _ended_by_signal() -> Iterator[threading.Event]:
    """Give an event that is set by an interrupt or a request to end."""
    ended = threading.Event()
    before = {
        number: signal.signal(number, lambda *_: ended.set())
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield ended
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _require_tables(live: LiveMode, situation: Situation) -> None:
    """Check that the feed gives what the features read.

    Raises:
        InputError: a table is not followed; its features would stand still.
    """
    market = situation.market.sources
    given = {"bars": situation.places.bars, "book": market.books, "trades": market.trades}
    read = {name for name, table in given.items() if table} | set(market.states) - {"options"}
    absent = sorted(read - set(live.feed.tables))
    if absent:
        raise InputError(
            f"live file {live.name}: the features of {situation.model.version} read "
            f"{', '.join(absent)}, which feed.tables does not name; name them, and send their rows"
        )


def _say_end(session: Session) -> None:
    status = session.status()
    rows = ", ".join(f"{count:,} {table}" for table, count in status["rows"].items())
    refused = sum(one["lines"] for one in status["refused"])
    say(
        f"{session.decisions:,} decisions ({session.skipped:,} skipped) of {rows or 'no rows'}; "
        f"{refused:,} lines refused, {status['dropped']:,} dropped"
    )
    for one in status["refused"][:5]:
        say(f"{one['lines']} lines of {one['table'] or 'no table'} refused: {one['reason']}")
    for finding in session.engine.stream.findings:
        say(
            f"{finding.count} rows of {finding.table} of {finding.symbol}: {finding.what}; "
            f"{finding.action}"
        )
    for subject, one in session.verdict.fallbacks.items():
        say(f"{subject or 'everything'} is in fallback: {one.reason}")
    output.print(f"live levels: {session.folder.path / LEVELS}", soft_wrap=True)


def _nothing() -> None:
    """Go on from no publication that was made after the recorded rows."""


def _stood(folder: LiveFolder) -> LiveStatus | None:
    """Return how the engine before stood; of a damaged heartbeat nothing is known."""
    try:
        return folder.status()
    except InputError as error:
        say(str(error))
        return None


def _clock(name: ClockName, newest: datetime) -> Clock:
    return FeedClock(newest) if name == "feed" else SystemClock()


def _digest(watch: ChampionWatch) -> str:
    return "" if watch.serving is None else watch.serving.version.bundle_digest


def _by_hand(workspace: Path, policy: MarginPolicy) -> Callable[[], tuple[Override, ...]]:
    """Return what reads the margins set by hand, when a margin is made."""

    def read() -> tuple[Override, ...]:
        try:
            entries = Ledger(workspace / LEDGER).read()
        except LedgerError:
            return ()  # the look at the champion says so, and everything falls back
        return overrides_at(entries, policy, moment_of_use(entries))

    return read
