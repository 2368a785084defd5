"""Tasks on a Dask cluster that is already there: a scheduler, and workers on any machines.

Workers must run the same source and libraries as this process, so that a forecast does not hang on
where it was made; one that does not is refused by name. What all tasks need travels to each worker
once. A task whose worker is lost is given to another one.
"""

import socket
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any

import cloudpickle
from distributed import Client, Future, as_completed
from distributed.client import ClosedClientError
from distributed.comm.addressing import get_address_host_port
from distributed.scheduler import KilledWorker
from threadpoolctl import threadpool_limits

from margincast.core.errors import InputError
from margincast.core.execution import Result, Shared, Task
from margincast.training.execution.environment import differences, environment

CONNECT_SECONDS = 10.0
"""How long a scheduler may take to answer."""
WORKER_SECONDS = 10.0
"""How long its first worker may take to join."""
RESTART_SECONDS = 60.0
"""How long workers that were all lost may take to come back."""
ROUNDS = 3
"""Times that work is sent anew after all workers that held it were lost."""
LOST = (OSError, TimeoutError, ClosedClientError)
"""What Dask's client raises when its scheduler is gone, or was too long."""
KEPT = "what was finished is kept, the same command continues from there"


@contextmanager
def dask_cluster(address: str) -> Iterator["ClusterExecution"]:
    """Connect to a cluster and see that its workers compute as this process does.

    Args:
        address: of the scheduler, such as ``tcp://scheduler:8786``.

    Raises:
        InputError: nobody answers there, there is no worker, or one has another environment.
    """
    with warnings.catch_warnings():
        # what differs between versions is said below, as an error and in full
        warnings.filterwarnings("ignore", module="distributed")
        try:
            # a name that leads nowhere is found out here, before a client that waits for it
            socket.getaddrinfo(*get_address_host_port(address))
            client = Client(
                address, timeout=CONNECT_SECONDS, set_as_default=False, name="margincast"
            )
        except (OSError, ValueError, ImportError) as error:
            raise InputError(
                f"no Dask scheduler answers at {address!r} ({str(error).splitlines()[0]}); start "
                "one (dask scheduler) and give its address, such as --cluster tcp://HOST:8786, or "
                "leave out --cluster to work on this machine"
            ) from error
    try:
        _wait_for_a_worker(client, address, WORKER_SECONDS)
        _require_environment(client, address)
        yield ClusterExecution(client, address)
    finally:
        with suppress(*LOST):
            client.close(timeout=CONNECT_SECONDS)


class ClusterExecution:
    """Threads of a cluster's workers; see :class:`~margincast.core.execution.Execution`.

    A task has one thread: a worker runs as many at a time as it was started with threads.

    Attributes:
        client: connection to the scheduler.
        address: of the scheduler.
    """

    def __init__(self, client: Client, address: str) -> None:
        self.client = client
        self.address = address

    @property
    def description(self) -> str:
        """Where tasks run, for people."""
        workers = _workers_of(self.client)
        threads = sum(worker["nthreads"] for worker in workers.values())
        return f"{threads} thread(s) of {len(workers)} worker(s) of the Dask cluster {self.address}"

    def map(
        self, work: Callable[[Shared, Task, int], Result], shared: Shared, tasks: Sequence[Task]
    ) -> Iterator[tuple[Task, Result]]:
        """Do work on every task; see :meth:`margincast.core.execution.Execution.map`."""
        waiting = dict(enumerate(tasks))
        for _ in range(ROUNDS):
            if waiting:
                yield from self._round(work, shared, waiting)
        if waiting:
            raise InputError(
                f"the Dask cluster {self.address} lost all its workers {ROUNDS} times in a row "
                f"with {len(waiting)} piece(s) of work left; look at the workers' logs; {KEPT}"
            )

    def send(self, shared: object) -> "Future[Any]":
        """Send what many tasks need to every worker, and return what stands for it.

        Raises:
            InputError: the cluster was lost.
        """
        with self._scheduler_errors():
            _wait_for_a_worker(self.client, self.address, RESTART_SECONDS)
            # to all at once: a worker that has the data would be given all tasks otherwise
            sent: list[Future[Any]] = self.client.scatter([shared], broadcast=True, hash=False)
            return sent[0]

    def _round(
        self,
        work: Callable[[Shared, Task, int], Result],
        shared: Shared,
        waiting: dict[int, Task],
    ) -> Iterator[tuple[Task, Result]]:
        """Send what waits and yield what comes back; what was lost with its data still waits."""
        here = environment()
        futures: dict[Any, int] = {}
        try:
            data = self.send(shared)
            with self._scheduler_errors():
                # in bytes, because the scheduler would load what work and tasks are made of
                sent = self.client.map(
                    checked,
                    [cloudpickle.dumps((work, task)) for task in waiting.values()],
                    shared=data,
                    here=here,
                    pure=False,
                    key="margincast",
                )
            futures = dict(zip(sent, waiting, strict=True))
            for future in as_completed(sent, loop=self.client.loop):
                number = futures.pop(future)
                try:
                    result = _result_of(future)
                except CancelledError:
                    continue  # lost with its data: it still waits
                yield waiting.pop(number), result
        finally:
            with suppress(*LOST, CancelledError):
                self.client.cancel(list(futures))

    @contextmanager
    def _scheduler_errors(self) -> Iterator[None]:
        try:
            yield
        except LOST as error:
            raise InputError(
                f"the Dask scheduler {self.address} was lost ({error or type(error).__name__}); "
                f"{KEPT}, on the cluster or without it"
            ) from error


def _result_of(future: "Future[Any]") -> Any:  # noqa: ANN401  # what the task returns
    """Return a finished task's result, or raise what it raised.

    Raises:
        CancelledError: the task or its result was lost.
        InputError: the task ended every worker it was given to.
    """
    if future.status == "error":
        error = future.exception()
        if isinstance(error, KilledWorker):
            raise InputError(
                f"a piece of work ended one worker after the other, the last {error.last_worker}; "
                f"want of memory is the likeliest cause: give workers more of it; {KEPT}"
            ) from error
    result = future.result()
    future.release()
    return result


def checked(piece: bytes, *, shared: Any, here: Mapping[str, str]) -> Any:  # noqa: ANN401  # any work's
    """Run on a worker: do a piece of work, unless this worker joined with another environment."""
    differing = differences(here, environment())
    if differing:
        raise InputError(f"a worker that joined the Dask cluster later has {differing}; {_INSTALL}")
    _one_thread_for_matrices()
    work, task = cloudpickle.loads(piece)
    return work(shared, task, 1)


@cache
def _one_thread_for_matrices() -> None:
    """Hold BLAS at one thread, for a worker of as many threads as cores and for equal sums."""
    threadpool_limits(1, "blas")


_INSTALL = "install the same release and libraries on scheduler and workers (requirements.lock)"


def _wait_for_a_worker(client: Client, address: str, seconds: float) -> None:
    try:
        client.wait_for_workers(1, timeout=seconds)
    except TimeoutError as error:
        raise InputError(
            f"the Dask cluster {address} has no worker; start some on machines with cores to spare "
            f"(dask worker {address} --nworkers CORES --nthreads 1)"
        ) from error


def _require_environment(client: Client, address: str) -> None:
    here = environment()
    problems = []
    try:
        client.run_on_scheduler(environment)
    except ModuleNotFoundError as error:
        problems.append(f"the scheduler has another release of margincast, or none ({error})")
    for name, there in sorted(client.run(environment, on_error="return").items()):
        if isinstance(there, Exception):
            problems.append(f"worker {name} has another release of margincast, or none ({there})")
        elif differing := differences(here, there):
            problems.append(f"worker {name} has {differing}")
    if problems:
        raise InputError(
            f"the Dask cluster {address} would not compute what this machine does:\n"
            + "\n".join(f"  - {problem}" for problem in problems)
            + f"\n{_INSTALL}"
        )


def _workers_of(client: Client) -> dict[str, Any]:
    return dict(client.scheduler_info(n_workers=-1)["workers"])
