"""Workers of a study on a Dask cluster: the folds travel once, heads go out, numbers come back.

Only the job's own process writes to the study's storage, so a cluster needs no access to it.
"""

from concurrent.futures import Future

from margincast.specs.training import Head
from margincast.training.execution.cluster import ClusterExecution
from margincast.training.execution.cluster_pool import ClusterPool
from margincast.training.tuning.folds import StudyFolds
from margincast.training.tuning.objective import StepScore
from margincast.training.tuning.workers import score_number


class ClusterWorkers:
    """Threads of a cluster's workers, a step of a trial each.

    Args:
        execution: the cluster.
        folds: what the study works on.

    Raises:
        InputError: the cluster was lost.
    """

    def __init__(self, execution: ClusterExecution, folds: StudyFolds) -> None:
        self._pool = ClusterPool(execution, folds)

    def submit(self, head: Head, step: int) -> "Future[StepScore]":
        """See :class:`~margincast.training.tuning.workers.Workers`."""
        return self._pool.submit(_score, (head, step))

    def restart(self) -> None:
        """See :class:`~margincast.training.tuning.workers.Workers`."""
        self._pool.restart()

    def close(self) -> None:
        """See :class:`~margincast.training.tuning.workers.Workers`."""
        self._pool.close()


def _score(folds: StudyFolds, asked: tuple[Head, int], threads: int) -> StepScore:
    return score_number(folds, *asked, threads)
