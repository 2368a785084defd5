"""Trials on a Dask cluster: the folds travel to each worker once, the study stays here.

Dask gives a step whose worker is lost to another one by itself; only when the folds are lost with
the last worker that held them are they sent anew. A step has one thread, and one process bins a
fold once, so that workers of one thread each serve best (``dask worker --nthreads 1``).
"""

from concurrent.futures import BrokenExecutor, CancelledError, Future
from functools import partial
from typing import TypeAlias

from distributed import Client
from distributed import Future as Remote
from distributed.scheduler import KilledWorker

from margincast.specs.training import Head
from margincast.training.tuning.folds import StudyFolds
from margincast.training.tuning.objective import StepScore
from margincast.training.tuning.workers import score_number

RemoteScore: TypeAlias = "Remote[StepScore]"


class ClusterWorkers:
    """Workers of a cluster that is already there; see :class:`Workers`.

    Args:
        client: connection to the scheduler.
        folds: what the study works on.
    """

    def __init__(self, client: Client, folds: StudyFolds) -> None:
        self._client = client
        self._folds = folds
        self._sent = self._scatter()
        self._asked: set[RemoteScore] = set()

    def submit(self, head: Head, step: int) -> "Future[StepScore]":
        """See :class:`~margincast.training.tuning.workers.Workers`."""
        answer: Future[StepScore] = Future()
        remote = self._client.submit(score_number, self._sent, head, step, threads=1, pure=False)
        self._asked.add(remote)
        remote.add_done_callback(partial(_hand_over, answer=answer))
        remote.add_done_callback(self._asked.discard)
        return answer

    def restart(self) -> None:
        """See :class:`~margincast.training.tuning.workers.Workers`."""
        self._drop()
        self._sent = self._scatter()

    def close(self) -> None:
        """See :class:`~margincast.training.tuning.workers.Workers`."""
        self._drop()

    def _scatter(self) -> "Remote[StudyFolds]":
        sent: list[Remote[StudyFolds]] = self._client.scatter(
            [self._folds], broadcast=True, hash=False
        )
        return sent[0]

    def _drop(self) -> None:
        self._client.cancel(list(self._asked), asynchronous=False)
        self._asked.clear()
        self._sent.release()


def _hand_over(remote: RemoteScore, *, answer: "Future[StepScore]") -> None:
    """Give what came back to whoever waits; a lost worker is told apart from a refused fit."""
    try:
        answer.set_result(remote.result())
    except (KilledWorker, CancelledError) as error:
        answer.set_exception(BrokenExecutor(str(error)))
    except Exception as error:  # noqa: BLE001  # it is raised where the answer is read
        answer.set_exception(error)
