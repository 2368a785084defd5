"""Choose where a job's refits, trials and features run: ``--cluster ADDRESS``, or this machine."""

from collections.abc import Iterator
from contextlib import contextmanager

from margincast.core.errors import InputError
from margincast.core.execution import Execution
from margincast.training.execution.local import LocalExecution


@contextmanager
def open_execution(cluster: str | None, threads: int) -> Iterator[Execution]:
    """Connect to a Dask cluster, or take this machine's cores.

    Args:
        cluster: address of a Dask scheduler; None for this machine.
        threads: cores to use here.

    Raises:
        InputError: the cluster cannot be used, or Dask is not installed.
    """
    if cluster is None:
        yield LocalExecution(threads)
        return
    try:
        # a second of imports, and an extra of the package
        from margincast.training.execution.cluster import dask_cluster  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise InputError(
            f"--cluster needs Dask, which is not installed ({error}); install margincast[cluster], "
            "here and on the workers"
        ) from error
    with dask_cluster(cluster) as execution:
        yield execution
