"""Tasks in processes of this machine, one a core, or in this process where there is one core.

Refits of different models and folds use the cores fully with one process a core and one thread
each; LightGBM's own threads do not (its rows are too few), and collapse when cores are shared
(``benchmarks/scale_out.py``). Large arrays are mapped into memory once for all processes.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from joblib import Parallel, delayed, parallel_config
from joblib.externals.loky.process_executor import TerminatedWorkerError

from margincast.core.errors import InputError
from margincast.core.execution import Result, Shared, Task

ATTEMPTS = 3
"""Times that tasks are given to new processes after one was ended from outside."""
_MAPPED_BYTES = 100_000
"""Arrays larger than this are mapped: what tasks share is sent with each of them otherwise."""


@dataclass(frozen=True)
class LocalExecution:
    """Processes of this machine; see :class:`~margincast.core.execution.Execution`.

    Attributes:
        threads: cores to use; threads of all processes together are never more.
    """

    threads: int

    @property
    def description(self) -> str:
        """Where tasks run, for people."""
        return f"{self.threads} core(s) of this machine"

    def map(
        self, work: Callable[[Shared, Task, int], Result], shared: Shared, tasks: Sequence[Task]
    ) -> Iterator[tuple[Task, Result]]:
        """Do work on every task; see :meth:`margincast.core.execution.Execution.map`."""
        if min(self.threads, len(tasks)) <= 1:
            for task in tasks:
                yield task, work(shared, task, self.threads)
            return
        waiting = dict(enumerate(tasks))
        for _ in range(ATTEMPTS):
            try:
                for number, result in self._side_by_side(work, shared, waiting):
                    yield waiting.pop(number), result
            except TerminatedWorkerError:
                # its work is redone; what others had finished of it too, if it was not yielded yet
                continue
            return
        raise InputError(
            f"{ATTEMPTS} times in a row a process was ended from outside while it worked, for want "
            "of memory perhaps; what was finished is kept: run the same command again with fewer "
            f"cores (OMP_NUM_THREADS={max(1, self.threads // 2)}), a shorter history or fewer "
            "contracts"
        )

    def _side_by_side(
        self,
        work: Callable[[Shared, Task, int], Result],
        shared: Shared,
        waiting: dict[int, Task],
    ) -> Iterator[tuple[int, Result]]:
        processes = min(self.threads, len(waiting))
        each = self.threads // processes
        with parallel_config(backend="loky", inner_max_num_threads=each):
            done: Iterator[tuple[int, Result]] = Parallel(
                n_jobs=processes,
                return_as="generator_unordered",
                mmap_mode="r",
                max_nbytes=_MAPPED_BYTES,
                pre_dispatch="n_jobs",
            )(
                delayed(_numbered)(number, work, shared, task, each)
                for number, task in list(waiting.items())
            )
            yield from done


def _numbered(
    number: int,
    work: Callable[[Shared, Task, int], Result],
    shared: Shared,
    task: Task,
    threads: int,
) -> tuple[int, Result]:
    return number, work(shared, task, threads)
