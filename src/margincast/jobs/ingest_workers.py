"""Stage sources in parallel: a process a core, a thread each, results in the order asked for."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from margincast.core.errors import InputError
from margincast.data.formats.format import Format, Hints, Options
from margincast.data.formats.mapping import mapped_format, mapping_from
from margincast.data.formats.registry import FORMATS
from margincast.data.formats.source import Source
from margincast.data.ingestion.ingest import Request, Staged, identify, stage
from margincast.specs.loading import load_spec
from margincast.specs.mapping import MappingSpec

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
    """

    source: Source
    hints: Hints
    options: Options
    mapping: Path | None
    root: Path
    staging: Path
    now: datetime

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


def stage_all(
    tasks: Sequence[Task], workers: int, remark: Callable[[str], None]
) -> Iterator[Staged | str]:
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


def _work(task: Task) -> Staged | str:
    return _staged(task, _progressed)


def _progressed(rows: int) -> None:
    with _rows_read.get_lock():
        _rows_read.value += rows


def _staged(task: Task, progressed: Callable[[int], None]) -> Staged | str:
    try:
        return stage(identify(task.request()), task.root, task.staging, task.now, progressed)
    except InputError as error:
        return str(error)


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
