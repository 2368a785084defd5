"""A pool on a Dask cluster for work that is asked for piece by piece: the trials of a study.

Where :meth:`ClusterExecution.map` has all tasks at once, a study decides on the next one when it
has seen the last. The answers are futures of the standard library, as those of a local pool are.
"""

from collections.abc import Callable
from concurrent.futures import BrokenExecutor, CancelledError, Future
from contextlib import suppress
from typing import Any

import cloudpickle
from distributed import Future as DaskFuture
from distributed.scheduler import KilledWorker

from margincast.core.execution import Result, Shared, Task
from margincast.training.execution.cluster import LOST, ClusterExecution, checked
from margincast.training.execution.environment import environment


class ClusterPool:
    """Work on one cluster over the same shared data.

    Args:
        execution: the cluster.
        shared: what all pieces need; sent to every worker once.

    Raises:
        InputError: the cluster was lost.
    """

    def __init__(self, execution: ClusterExecution, shared: object) -> None:
        self._execution = execution
        self._shared = shared
        self._asked: set[DaskFuture[Any]] = set()
        self._data = execution.send(shared)

    def submit(self, work: Callable[[Shared, Task, int], Result], task: Task) -> "Future[Result]":
        """Ask for one piece; its future holds the result, or what was raised.

        ``BrokenExecutor`` says that the piece was lost with all that held its data, or ended one
        worker after the other.
        """
        answer: Future[Result] = Future()
        try:
            asked = self._execution.client.submit(
                checked,
                cloudpickle.dumps((work, task)),
                shared=self._data,
                here=environment(),
                pure=False,
            )
        except LOST as error:
            # lost since the last answer: the caller hears of it as of any other piece
            answer.set_exception(BrokenExecutor(f"a piece of work was lost ({error})"))
            return answer
        self._asked.add(asked)
        asked.add_done_callback(lambda done: self._settle(done, answer))
        return answer

    def restart(self) -> None:
        """Send the data anew; pieces that are not answered yet are dropped.

        Raises:
            InputError: the cluster was lost.
        """
        self.close()
        self._data = self._execution.send(self._shared)

    def close(self) -> None:
        """Drop what is not answered yet."""
        with suppress(*LOST, CancelledError):
            self._execution.client.cancel(list(self._asked))
        self._asked.clear()

    def _settle(self, done: "DaskFuture[Any]", answer: "Future[Any]") -> None:
        """Hand on what became of a piece; runs in a thread of the client."""
        self._asked.discard(done)
        try:
            result = done.result()
        except (CancelledError, KilledWorker) as error:
            answer.set_exception(BrokenExecutor(f"a piece of work was lost ({error})"))
        except BaseException as error:  # noqa: BLE001  # whatever the work raised is its answer
            answer.set_exception(error)
        else:
            answer.set_result(result)
