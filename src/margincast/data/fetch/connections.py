"""Several files at once over a bounded number of connections, until all are done or the run stops.

The history of a few hundred contracts is tens of thousands of files: fetched one by one it takes a
day, over too many connections it is an attack. The bound is the politeness.
"""

import fcntl
import os
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, SimpleQueue

from margincast.core.errors import InputError
from margincast.data.fetch.client import Client, Pace, Patience, StoppedError
from margincast.data.fetch.download import Outcome, fetch_file

MOST_CONNECTIONS = 16
MOST_FAILURES_IN_A_ROW = 20
"""So many files failed one after another means the archive, not a file: the rest is not tried."""

_LEAVE_SECONDS = 1.0


def fetch_files(
    address: str, paths: Sequence[str], out: Path, *, connections: int, patience: Patience
) -> Generator[Outcome, None, None]:
    """Fetch files of an archive below a folder, in the order in which they finish.

    Closing the iterator, or an interrupt while it waits, stops the run within a second; the threads
    are daemons, so that one stuck in the network does not keep the process alive.

    Args:
        address: base address of the archive.
        paths: different paths below it.
        out: folder to write into, made where it does not exist.
        connections: at most so many requests at a time, 1 to ``MOST_CONNECTIONS``.
        patience: time-outs and retries.

    Yields:
        One outcome a path.

    Raises:
        InputError: the folder cannot be written to or another run fetches into it, or
            ``connections`` is out of bounds.
    """
    if not 1 <= connections <= MOST_CONNECTIONS:
        raise InputError(f"--connections {connections}: 1 to {MOST_CONNECTIONS} are allowed")
    waiting: SimpleQueue[str] = SimpleQueue()
    for path in paths:
        waiting.put(path)
    finished: SimpleQueue[Outcome | BaseException] = SimpleQueue()
    pace = Pace()

    def connect() -> Client:
        return Client(address, patience, pace)

    threads = [
        threading.Thread(target=_work, args=(connect, waiting, finished, out), daemon=True)
        for _ in range(min(connections, len(paths)))
    ]
    with _only_run_in(out):
        try:
            for thread in threads:
                thread.start()
            yield from _collect(paths, finished)
        finally:
            pace.stop()
            for thread in threads:
                if thread.ident is not None:
                    thread.join(_LEAVE_SECONDS / len(threads))


def _work(
    connect: Callable[[], Client],
    waiting: "SimpleQueue[str]",
    finished: "SimpleQueue[Outcome | BaseException]",
    out: Path,
) -> None:
    try:
        with connect() as client:
            while not client.pace.stopped:
                finished.put(fetch_file(client, waiting.get_nowait(), out))
    except (Empty, StoppedError):
        return
    except BaseException as error:  # noqa: BLE001  # raised again in the caller's thread
        finished.put(error)


def _collect(
    paths: Sequence[str], finished: "SimpleQueue[Outcome | BaseException]"
) -> Iterator[Outcome]:
    left = dict.fromkeys(paths)
    failures_in_a_row = 0
    while left and failures_in_a_row < MOST_FAILURES_IN_A_ROW:
        outcome = finished.get()
        if isinstance(outcome, BaseException):
            raise outcome
        del left[outcome.path]
        failures_in_a_row = failures_in_a_row + 1 if outcome.result == "failed" else 0
        yield outcome
    for path in left:
        yield Outcome(
            path, "failed", 0, f"not tried: {MOST_FAILURES_IN_A_ROW} files in a row failed before"
        )


@contextmanager
def _only_run_in(out: Path) -> Iterator[None]:
    """Hold the folder for this run: two writers of one partial file would spoil it."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        folder = os.open(out, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise InputError(
            f"cannot write into {out}: {error.strerror}; name another folder with --out"
        ) from None
    try:
        _lock(folder, out)
        yield
    finally:
        os.close(folder)


def _lock(folder: int, out: Path) -> None:
    # the kernel gives the lock back however the process ends, and no lock file is left behind
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InputError(
            f"another fetch is writing into {out}; wait for it, or name another folder with --out"
        ) from None
