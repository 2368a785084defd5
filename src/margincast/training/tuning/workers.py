"""Who does the work of a trial: a thread of this process, or processes that share the folds.

Only the process that runs the study writes to its storage; workers are asked for the score of one
head on one step and answer with numbers. A worker that dies costs that step only.
"""

import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Protocol, TypeAlias

import joblib
from joblib.externals.loky.process_executor import ProcessPoolExecutor

from margincast.core.execution import Execution
from margincast.specs.training import Head
from margincast.training.execution.local import LocalExecution
from margincast.training.tuning.folds import StudyFolds
from margincast.training.tuning.objective import StepScore, score_step

HELD_OUT = -1
"""Number of the step that is the held-out stretch."""

WorkerLostError = BrokenExecutor
"""What a future raises whose worker died."""


class Workers(Protocol):
    """Whoever can score heads; the order of answers is theirs."""

    def submit(self, head: Head, step: int) -> "Future[StepScore]":
        """Ask for the score of a head on a step (``HELD_OUT``: on the held-out stretch)."""
        ...

    def restart(self) -> None:
        """Begin anew after a worker died; what was asked for and not answered is lost."""
        ...

    def close(self) -> None:
        """Let go of everything; answers still to come are dropped."""
        ...


MakeWorkers: TypeAlias = Callable[[StudyFolds, int, int], Workers]
"""From folds, trials under way at a time and cores to whoever scores them."""


def local_workers(folds: StudyFolds, workers: int, threads: int) -> Workers:
    """Return workers that together use at most ``threads`` cores of this machine."""
    processes = min(workers, threads)
    if processes == 1:
        return OneThread(folds, threads)
    return LocalProcesses(folds, processes, threads // processes)


def workers_on(execution: Execution) -> MakeWorkers:
    """Return who makes the workers of a study where a job's other work runs."""
    if isinstance(execution, LocalExecution):
        return local_workers
    # imported where it is used: Dask is an extra, and slow to import
    from margincast.training.execution.cluster import ClusterExecution  # noqa: PLC0415
    from margincast.training.tuning.cluster import ClusterWorkers  # noqa: PLC0415

    assert isinstance(execution, ClusterExecution), f"no workers of a study on {execution}"
    return lambda folds, _workers, _threads: ClusterWorkers(execution, folds)


def score_number(folds: StudyFolds, head: Head, step: int, threads: int) -> StepScore:
    """Score a head on a step by its number."""
    chosen = folds.held_out if step == HELD_OUT else folds.steps[step]
    assert chosen is not None, "no time was held out"
    return score_step(folds, chosen, head, threads)


class OneThread:
    """One step after the other in this process; a thread, so that Ctrl-C is heard at once."""

    def __init__(self, folds: StudyFolds, threads: int) -> None:
        self._folds = folds
        self._threads = threads
        self._pool = ThreadPoolExecutor(max_workers=1)

    def submit(self, head: Head, step: int) -> "Future[StepScore]":
        """See :class:`Workers`."""
        return self._pool.submit(score_number, self._folds, head, step, self._threads)

    def restart(self) -> None:
        """Nothing to do: a thread does not die alone."""

    def close(self) -> None:
        """See :class:`Workers`."""
        self._pool.shutdown(wait=True, cancel_futures=True)


class LocalProcesses:
    """Processes that map the prepared folds from one file and bin them once each.

    Args:
        folds: what the study works on.
        processes: how many.
        threads: OpenMP threads of each.
    """

    def __init__(self, folds: StudyFolds, processes: int, threads: int) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="margincast-tuning-")
        self._path = Path(self._folder.name) / "folds"
        joblib.dump(folds, self._path)
        self._processes = processes
        self._threads = threads
        self._pool = self._start()

    def _start(self) -> ProcessPoolExecutor:
        # loky's processes begin as new programs: no copy of this one's threads and locks, and no
        # need for a guarded main module
        return ProcessPoolExecutor(
            max_workers=self._processes,
            initializer=_load,
            initargs=(self._path, self._threads, os.getpid()),
            env={"OMP_NUM_THREADS": str(self._threads)},
        )

    def process_ids(self) -> list[int]:
        """Return the system's numbers of the worker processes."""
        return list(self._pool._processes)  # noqa: SLF001  # loky names them nowhere else

    def submit(self, head: Head, step: int) -> "Future[StepScore]":
        """See :class:`Workers`."""
        try:
            future: Future[StepScore] = self._pool.submit(_score, head, step)
        except BrokenExecutor as error:
            # a worker died since the last answer: the caller hears of it as of any other
            future = Future()
            future.set_exception(error)
        return future

    def restart(self) -> None:
        """See :class:`Workers`."""
        self._pool.shutdown(wait=True, kill_workers=True)
        self._pool = self._start()

    def close(self) -> None:
        """See :class:`Workers`."""
        self._pool.shutdown(wait=True, kill_workers=True)
        self._folder.cleanup()


_loaded: dict[str, tuple[StudyFolds, int]] = {}
"""What this worker process scores on."""


def _load(path: Path, threads: int, parent: int) -> None:
    """Map the folds, and end with the process that asked for them, however that ends."""
    _loaded["folds"] = joblib.load(path, mmap_mode="r"), threads
    threading.Thread(target=_end_with, args=(parent, path.parent), daemon=True).start()


def _end_with(parent: int, folder: Path) -> None:
    """End when the process that started this one is gone; it can no longer clean up."""
    while os.getppid() == parent:
        time.sleep(1.0)
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


def _score(head: Head, step: int) -> StepScore:
    folds, threads = _loaded["folds"]
    return score_number(folds, head, step, threads)
