"""Tasks side by side on this machine: each once, none lost, never more threads than cores."""

import os
import signal
import sys
from pathlib import Path

import cloudpickle
import numpy as np
import pytest

from margincast.core.errors import InputError, SpecError
from margincast.training.execution import local
from margincast.training.execution.local import LocalExecution

# the processes cannot import a test
cloudpickle.register_pickle_by_value(sys.modules[__name__])


def scaled_sum(shared: np.ndarray, task: float, threads: int) -> float:
    return float(shared.sum() * task)


def place_of_work(shared: np.ndarray, task: int, threads: int) -> tuple[int, int, str, bool]:
    environment = os.environ["OMP_NUM_THREADS"]
    return os.getpid(), threads, environment, isinstance(shared, np.memmap)


def refuse(shared: None, task: str, threads: int) -> None:
    raise SpecError(task, ["no"])


def die_once(folder: Path, task: int, threads: int) -> int:
    with (folder / f"{task}").open("a") as begun:
        begun.write("x")
    mark = folder / "died"
    if task == 2 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return task * 10


def die(shared: None, task: int, threads: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("threads", [1, 2])
def test_every_task_is_done_once_and_comes_with_its_result(threads):
    shared = np.arange(5.0)
    done = list(LocalExecution(threads).map(scaled_sum, shared, [1.0, 2.0, 3.0]))
    assert sorted(done) == [(1.0, 10.0), (2.0, 20.0), (3.0, 30.0)]


@pytest.mark.parametrize(
    ("cores", "tasks", "threads_each"), [(2, 3, 1), (5, 2, 2), (4, 1, 4), (1, 3, 1)]
)
def test_processes_and_their_threads_together_are_no_more_than_cores(cores, tasks, threads_each):
    shared = np.zeros(100_000)
    found = [
        place for _, place in LocalExecution(cores).map(place_of_work, shared, list(range(tasks)))
    ]
    processes = {process for process, _, _, _ in found}
    assert {threads for _, threads, _, _ in found} == {threads_each}
    assert len(processes) * threads_each <= cores
    if min(cores, tasks) > 1:
        assert os.getpid() not in processes
        assert {environment for _, _, environment, _ in found} == {str(threads_each)}
        assert all(mapped for _, _, _, mapped in found), "each process would hold its own copy"


@pytest.mark.parametrize("threads", [1, 2])
def test_an_error_of_a_task_is_the_users_error_whole(threads):
    with pytest.raises(SpecError, match="1 problem in this spec") as raised:
        list(LocalExecution(threads).map(refuse, None, ["a.toml", "a.toml"]))
    assert raised.value.problems == ("no",)


def test_work_of_a_killed_process_is_redone_and_nothing_finished_is_repeated(tmp_path):
    finished = []
    for task, result in LocalExecution(2).map(die_once, tmp_path, [0, 1, 2, 3, 4, 5]):
        finished.append((task, result))
    assert sorted(finished) == [(task, task * 10) for task in range(6)]
    assert (tmp_path / "2").read_text() == "xx"


def test_a_task_that_ends_every_process_says_what_to_do(monkeypatch):
    monkeypatch.setattr(local, "ATTEMPTS", 1)
    with pytest.raises(InputError, match=r"1 times in a row.*OMP_NUM_THREADS=1"):
        list(LocalExecution(2).map(die, None, [0, 1]))


def test_no_tasks_are_no_work():
    assert list(LocalExecution(2).map(die, None, [])) == []
