"""Where independent pieces of work run: here, in processes of this machine, or on a cluster.

A refit, a trial or a contract's features know nothing of each other. Whoever has many of them hands
them to an execution and takes the results as they come; where they ran changes no number.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar

Shared = TypeVar("Shared")
Task = TypeVar("Task")
Result = TypeVar("Result")


class Execution(Protocol):
    """Runs tasks side by side, as many at a time as there are cores for."""

    @property
    def description(self) -> str:
        """Where tasks run, for people."""
        ...

    def map(
        self, work: Callable[[Shared, Task, int], Result], shared: Shared, tasks: Sequence[Task]
    ) -> Iterator[tuple[Task, Result]]:
        """Do work on every task; yield each task with its result as soon as it is done.

        Args:
            work: a function of a module (not of another function): given ``shared``, a task and
                the threads it may use, returns a result. It may be called twice for a task whose
                first worker was lost.
            shared: what all tasks need; sent to each process once, and not to be changed.
            tasks: small, picklable, all different pieces of work.

        Raises:
            MargincastError: the first that a task raised, as it was raised there.
            InputError: workers were lost again and again, or the cluster cannot be reached.
        """
        ...
