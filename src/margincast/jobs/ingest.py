"""``margincast data ingest``: files of any known kind into the store, in parallel, resumable."""

import os
import re
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from types import FrameType

from margincast.core.errors import InputError
from margincast.core.threads import available_threads
from margincast.core.time import parse_duration
from margincast.data.formats.format import Hints, Options
from margincast.data.formats.source import Source, files_in, members_of
from margincast.data.ingestion.commit import clean, commit, parts_by_partition
from margincast.data.ingestion.ingest import Identified, check_settings
from margincast.data.store import STAGING, Record, Store
from margincast.jobs.console import output, progress, say
from margincast.jobs.ingest_tables import account_tables
from margincast.jobs.ingest_workers import (
    Task,
    answer_or_reason,
    known_formats,
    recognised,
    stage_all,
)

TERMINATED = 128 + signal.SIGTERM
"""Exit code of a process that was asked to end, as shells give it."""


@dataclass(frozen=True)
class Refused:
    """A source that is not in the store, and why."""

    source: str
    reason: str


@dataclass(frozen=True)
class IngestSummary:
    """What an ingest did.

    Attributes:
        added: manifest records written.
        present: records of sources that were there already.
        refused: sources that could not be ingested.
    """

    added: tuple[Record, ...]
    present: tuple[Record, ...]
    refused: tuple[Refused, ...]


def run(
    paths: Sequence[Path],
    out: Path,
    *,
    hints: Hints | None = None,
    options: Options | None = None,
    mapping: Path | None = None,
    workers: int | None = None,
) -> IngestSummary:
    """Ingest files and folders; a file that cannot be read is refused and the others go on.

    Args:
        paths: files, archives and folders.
        out: the store; made where there is none.
        hints: what the user says about all sources.
        options: how to build books.
        mapping: TOML description of flat files of no known kind.
        workers: processes; all cores when None.

    Returns:
        What was done; it is printed as well.

    Raises:
        InputError: a path does not exist, there is no source at all, or another ingest writes to
            the store.
    """
    known_formats(mapping)  # a faulty mapping is told before the work begins
    store = Store(out)
    files = files_in(paths)
    with _ending_in_order(), store.locked():
        records = store.records()
        left = clean(store, records)
        if left:
            say(f"removed {left} file(s) of an ingest that was ended from outside")
        staging = out / STAGING / f"{os.getpid()}"
        now = datetime.now(UTC)
        refused: list[Refused] = []
        tasks = [
            Task(source, hints or Hints(), options or Options(), mapping, out, staging, now)
            for source in _sources(files, refused)
        ]
        identified = _identified(tasks, refused)
        fresh, present = _split(identified, records, refused)
        added = _ingest(store, records, fresh, refused, workers or available_threads())
    summary = IngestSummary(tuple(added), tuple(present), tuple(refused))
    for table in account_tables(summary.added):
        output.print(table)
    listed = False
    for one in summary.refused:
        # the list of what was tried is much the same for all files: once it is enough
        text, _, tried = one.reason.partition("\n")
        say(f"refused: {text.removesuffix(' Tried:') if listed or not tried else one.reason}")
        listed = listed or bool(tried)
    say(
        f"{len(added)} source(s) ingested, {len(present)} were there already, "
        f"{len(refused)} refused"
    )
    return summary


def parse_book_every(text: str) -> timedelta:
    """Read ``100ms``, ``1s``, ... or ``0``, which keeps the book after every message.

    Raises:
        InputError: the text is no such duration.
    """
    if text.strip() == "0":
        return timedelta(0)
    milliseconds = re.fullmatch(r"\s*(\d+)ms\s*", text)
    if milliseconds and int(milliseconds[1]):
        return timedelta(milliseconds=int(milliseconds[1]))
    try:
        return parse_duration(text)
    except ValueError as error:
        raise InputError(f"--book-every: {error}; milliseconds are written '100ms'") from None


@contextmanager
def _ending_in_order() -> Iterator[None]:
    """Let a request to end (SIGTERM) do what Ctrl-C does: end the workers, keep what is there."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may say what signals do
        return

    def end(_number: int, _frame: FrameType | None) -> None:
        sys.exit(TERMINATED)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    except SystemExit:
        say("ended from outside; what was finished is kept, the same command continues from there")
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def _sources(files: Sequence[Path], refused: list[Refused]) -> list[Source]:
    sources: list[Source] = []
    for file in files:
        try:
            sources += members_of(file)
        except InputError as error:
            refused.append(Refused(str(file), str(error)))
    return list(dict.fromkeys(sources))


def _identified(tasks: Sequence[Task], refused: list[Refused]) -> list[tuple[Task, Identified]]:
    found = []
    for task in tasks:
        answer = recognised(task)
        if isinstance(answer, str):
            refused.append(Refused(str(task.source), answer))
        else:
            found.append(answer)
    return found


def _split(
    identified: Sequence[tuple[Task, Identified]],
    records: dict[str, Record],
    refused: list[Refused],
) -> tuple[list[Task], list[Record]]:
    """Tell sources that are to be read from those that are there."""
    fresh: dict[str, Task] = {}
    present: dict[str, Record] = {}
    for task, source in identified:
        record = records.get(source.identity)
        if record is None:
            if source.identity in fresh:
                say(f"{task.source} is the same as {fresh[source.identity].source}: read once")
            fresh.setdefault(source.identity, task)
            continue
        try:
            check_settings(source, record)
        except InputError as error:
            refused.append(Refused(str(task.source), str(error)))
        else:
            present[source.identity] = record
    return list(fresh.values()), list(present.values())


def _ingest(
    store: Store,
    records: dict[str, Record],
    tasks: Sequence[Task],
    refused: list[Refused],
    workers: int,
) -> list[Record]:
    added: list[Record] = []
    if not tasks:
        return added
    present = parts_by_partition(records)
    with (
        progress("ingest", len(tasks)) as counter,
        # closed at once however this ends, so that no worker is left behind
        closing(stage_all(tasks, min(workers, len(tasks)), counter.remark)) as results,
    ):
        for task, staged in zip(tasks, results, strict=True):
            outcome: Record | str
            if isinstance(staged, str):
                outcome = staged
            else:
                outcome = answer_or_reason(task.source, partial(commit, store, staged, present))
            if isinstance(outcome, str):
                refused.append(Refused(str(task.source), outcome))
                counter.advance(f"{task.source}: refused")
            else:
                added.append(outcome)
                counter.advance(f"{task.source}: {outcome.rows_out:,} rows")
    return added
