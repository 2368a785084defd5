"""Stage sources in parallel: a process a core, a thread each, results in the order asked for."""

import multiprocessing
import os
import shutil
import signal
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from polars.exceptions import PanicException

from margincast.core.errors import InputError
from margincast.data.formats.format import Format, Hints, Options
from margincast.data.formats.mapping import mapped_format, mapping_from
from margincast.data.formats.registry import FORMATS
from margincast.data.formats.source import Source, Stamp, stamp_of
from margincast.data.ingestion.ingest import Identified, Request, Staged, identify, stage
from margincast.specs.loading import load_spec
from margincast.specs.mapping import MappingSpec

Answer = TypeVar("Answer")

_THREADS = "POLARS_MAX_THREADS"

_rows_read: Any = None  # a shared integer, given to each worker when it begins


@dataclass(frozen=True)
class Task:
    """A source to stage, in a form that travels to another process.

    Attributes:
        source: the file.
        hints: what the user says about it.
        options: how to build books.
        mapping: TOML description of flat files of no known kind.
        root: the store.
        staging: folder for sources that are not committed.
        now: time of the ingest.
        digest: SHA-256 of the source, where it was taken already.
        stamps: what the source, and the files it is read together with, were like when the digest
            was taken.
    """

    source: Source
    hints: Hints
    options: Options
    mapping: Path | None
    root: Path
    staging: Path
    now: datetime
    digest: str | None = None
    stamps: tuple[Stamp, ...] = ()

    def request(self) -> Request:
        """Return the request, its formats found anew."""
        return Request(self.source, self.hints, self.options, known_formats(self.mapping))


def known_formats(mapping: Path | None) -> tuple[Format, ...]:
    """Return all formats, the user's mapping first.

    Raises:
        SpecError: the mapping is faulty.
    """
    if mapping is None:
        return FORMATS
    return (mapped_format(mapping_from(load_spec(mapping, MappingSpec).fields())), *FORMATS)


def recognised(task: Task) -> tuple[Task, Identified] | str:
    """Identify a task's source, and note in the task what it was like; or say why not."""

    def look() -> tuple[Task, Identified]:
        before = stamp_of(task.source.path)  # taken first: a change from here on is noticed
        found = identify(task.request())
        others = found.form.companions(task.source, found.match)
        stamps = (before, *(stamp_of(path) for path in others))
        return replace(task, digest=found.digest, stamps=stamps), found

    return answer_or_reason(task.source, look)


def answer_or_reason(source: Source, work: Callable[[], Answer]) -> Answer | str:
    """Do a piece of work on a source; where it fails, say why instead, and let the others go on."""
    try:
        return work()
    except InputError as error:
        reason = str(error)
        return reason if str(source) in reason else f"{source}: {reason}"
    except (Exception, PanicException) as error:  # noqa: BLE001  # one source must not end the others
        return (
            f"{source} cannot be read: {type(error).__name__}: {error}; the file is damaged, or of "
            "a kind its format does not expect: please report it"
        )


def stage_all(
    tasks: Sequence[Task], workers: int, remark: Callable[[str], None]
) -> Generator[Staged | str]:
    """Stage sources, in their order; of one that cannot be staged, the reason.

    Args:
        tasks: the sources.
        workers: processes; with one, the work is done in this process.
        remark: told now and then how many rows were read.

    Raises:
        InputError: a worker was ended from outside.
    """
    if workers <= 1:
        count = 0

        def progressed(rows: int) -> None:
            nonlocal count
            count += rows
            remark(f"{count:,} rows read")

        for task in tasks:
            yield _staged(task, progressed)
        return
    context = multiprocessing.get_context("spawn")
    rows_read = context.Value("q", 0)
    with _one_thread_each():
        executor = ProcessPoolExecutor(workers, context, initializer=_begin, initargs=(rows_read,))
        try:
            futures = [executor.submit(_work, task) for task in tasks]
            for task, future in zip(tasks, futures, strict=True):
                yield _result(future, task, lambda: remark(f"{rows_read.value:,} rows read"))
        except BaseException:
            # Ctrl-C too: what is committed stays, what is staged is cleaned by the next ingest
            for process in multiprocessing.active_children():
                process.terminate()
            raise
        finally:
            executor.shutdown(wait=True, cancel_futures=True)


def _result(future: "Future[Staged | str]", task: Task, tick: Callable[[], None]) -> Staged | str:
    while True:
        try:
            return future.result(timeout=0.5)
        except TimeoutError:
            tick()
        except BrokenProcessPool:
            raise InputError(
                f"a worker was ended from outside near {task.source}, for want of memory perhaps; "
                "what was finished is kept: run the same command again, with fewer --workers"
            ) from None


def _begin(rows_read: Any) -> None:  # noqa: ANN401  # multiprocessing gives its values no public type
    global _rows_read  # noqa: PLW0603  # the way a worker process is given what it shares
    _rows_read = rows_read
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interrupt means
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this process when the one that gives it work has ended, however that came."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "a worker is the child of another process"
    parent.join()
    os._exit(1)


def _work(task: Task) -> Staged | str:
    return _staged(task, _progressed)


def _progressed(rows: int) -> None:
    with _rows_read.get_lock():
        _rows_read.value += rows


def _staged(task: Task, progressed: Callable[[int], None]) -> Staged | str:
    def work() -> Staged:
        identified = identify(task.request(), task.digest)
        folder = task.staging / identified.identity
        try:
            staged = stage(identified, task.root, task.staging, task.now, progressed)
            _require_unchanged(task)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return staged

    return answer_or_reason(task.source, work)


def _require_unchanged(task: Task) -> None:
    """Check that what was read is what the digest was taken of."""
    for stamp in task.stamps:
        if stamp_of(stamp.path) != stamp:
            raise InputError(
                f"{task.source}: {stamp.path} changed while it was read; ingest it when it is "
                "complete"
            )


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Let the processes that start meanwhile use one thread each: the cores are taken."""
    before = os.environ.get(_THREADS)
    os.environ[_THREADS] = "1"
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(_THREADS, None)
        else:
            os.environ[_THREADS] = before
