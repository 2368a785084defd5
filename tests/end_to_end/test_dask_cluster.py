"""The same backtest on a Dask cluster of real processes: the same bytes, and no work lost."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from margincast.backtest.replay import replay
from margincast.core.errors import InputError, SpecError
from margincast.features import reductions
from margincast.training.execution.environment import differences, environment
from margincast.training.execution.opening import open_execution

cloudpickle = pytest.importorskip("cloudpickle", reason="Dask is not installed")
distributed = pytest.importorskip("distributed", reason="Dask is not installed")

from margincast.training.execution import cluster  # noqa: E402  # needs what was asked for above
from margincast.training.execution.cluster_pool import ClusterPool  # noqa: E402  # likewise

pytestmark = pytest.mark.slow

MODELS = ("margincast", "static", "ewma_fhs")

# the workers cannot import a test
cloudpickle.register_pickle_by_value(sys.modules[__name__])


@dataclass
class Processes:
    """A scheduler and its workers, each a process that a test may kill."""

    folder: Path
    running: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    def start(self, kind: str, *arguments: str, **environment: str) -> int:
        with (self.folder / f"{len(self.running)}.log").open("wb") as log:
            process = subprocess.Popen(  # noqa: S603  # Dask's own command
                [sys.executable, "-m", "dask", kind, "--host", "127.0.0.1", *arguments],
                cwd=self.folder,
                env=os.environ | environment,
                stdout=log,
                stderr=log,
            )
        self.running.append(process)
        return process.pid

    def scheduler(self) -> str:
        file = self.folder / "scheduler.json"
        self.start("scheduler", "--port", "0", "--no-dashboard", "--scheduler-file", str(file))
        # not there, then there and empty, then whole
        wait_until(lambda: file.exists() and file.read_text().endswith("}"), "a scheduler")
        address = json.loads(file.read_text())["address"]
        assert isinstance(address, str)
        return address

    def worker(self, address: str, **environment: str) -> int:
        return self.start(
            "worker", address, "--no-nanny", "--no-dashboard", "--nthreads", "1",
            "--memory-limit", "0", **environment,
        )  # fmt: skip

    def kill(self, pid: int) -> None:
        process = next(process for process in self.running if process.pid == pid)
        process.kill()
        process.wait(20)

    def end(self) -> None:
        for process in reversed(self.running):
            process.kill()
            process.wait(20)


def wait_until(reached: Callable[[], bool], what: str) -> None:
    until = time.monotonic() + 60
    while not reached():
        assert time.monotonic() < until, f"waited for {what}"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory) -> Iterator[SimpleNamespace]:
    """A scheduler alone."""
    processes = Processes(tmp_path_factory.mktemp("dask"))
    try:
        yield SimpleNamespace(processes=processes, address=processes.scheduler())
    finally:
        processes.end()


@pytest.fixture(scope="module")
def dask(scheduler) -> SimpleNamespace:
    """The scheduler with two workers of one thread."""
    for _ in range(2):
        scheduler.processes.worker(scheduler.address)
    with distributed.Client(scheduler.address, set_as_default=False, timeout=60) as client:
        client.wait_for_workers(2, timeout=60)
    return scheduler


def place_of_work(shared: np.ndarray, task: int, threads: int) -> tuple[int, int, float]:
    time.sleep(0.15)
    return os.getpid(), threads, float(shared.sum()) * task


def refuse(shared: None, task: str, threads: int) -> None:
    raise SpecError(task, ["no"])


def fail(shared: None, task: str, threads: int) -> None:
    raise FileNotFoundError(task)


def test_a_scheduler_without_workers_says_how_to_start_some(scheduler, monkeypatch):
    # the first test: the fixture of the others starts the workers
    monkeypatch.setattr(cluster, "WORKER_SECONDS", 0.2)
    with (
        pytest.raises(InputError, match=r"no worker; start some.*dask worker tcp"),
        open_execution(scheduler.address, threads=1),
    ):
        pass


def test_forecasts_are_those_of_this_machine_to_the_last_byte(
    dask, small_workload, trained, tmp_path
):
    counted = []
    with open_execution(dask.address, threads=1) as execution:
        assert execution.description.startswith(
            "2 thread(s) of 2 worker(s) of the Dask cluster tcp"
        )
        replay(
            small_workload,
            MODELS,
            execution=execution,
            store=tmp_path,
            on_fold=lambda name, minutes, fold: counted.append((name, minutes, fold.start)),
        )
    assert len(counted) == len(set(counted)) == len(MODELS) * 2 * 2
    here = {path.name: path.read_bytes() for path in (trained.out / ".folds").iterdir()}
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == here


def test_features_of_books_and_trades_are_those_of_this_machine(
    dask, command, workspace, market, tmp_path
):
    cache = tmp_path / "cache"
    build = [
        "features", "build", workspace / "features" / "demo-1m.toml", "--data", market,
        "--set", "data.book_known_after=0s",
    ]  # fmt: skip
    there = command(*build, "--out", tmp_path / "1", "--cache", cache, "--cluster", dask.address)
    assert there.code == 0, there.errors
    assert "on 2 thread(s) of 2 worker(s)" in there.errors
    here = command(*build, "--out", tmp_path / "2", "--cache", "none")
    assert here.code == 0, here.errors
    made, expected = (pl.read_parquet(tmp_path / out / "features.parquet") for out in "12")
    assert_frame_equal(made, expected, check_exact=True)
    # what workers made was kept here: four tables, all lines of the set
    (line,) = [text for text in there.errors.splitlines() if "read from the cache" in text]
    lines = int(line.split()[2])
    assert sum(1 for _ in cache.rglob("*.parquet")) == lines > 4


def test_a_worker_that_does_not_see_the_data_names_the_file(tmp_path):
    absent = tmp_path / "BTC.parquet"
    task = reductions._Task(0, "BTC", "book", (), (absent,), reduce=None)
    with pytest.raises(InputError, match=r"does not see \S+BTC\.parquet .*book of BTC.*share"):
        reductions._reduced(None, task, 1)


def test_tasks_go_to_all_workers_one_thread_each_and_come_with_their_results(dask):
    with open_execution(dask.address, threads=1) as execution:
        done = list(execution.map(place_of_work, np.ones(4), list(range(8))))
    assert sorted((task, value) for task, (_, _, value) in done) == [
        (task, 4.0 * task) for task in range(8)
    ]
    assert {threads for _, (_, threads, _) in done} == {1}
    assert len({process for _, (process, _, _) in done} - {os.getpid()}) == 2


def test_an_error_of_a_task_is_the_one_it_raised(dask):
    with open_execution(dask.address, threads=1) as execution:
        with pytest.raises(SpecError, match="1 problem in this spec") as raised:
            list(execution.map(refuse, None, ["a.toml", "a.toml"]))
        assert raised.value.problems == ("no",)
        # not mistaken for a scheduler that is gone
        with pytest.raises(FileNotFoundError, match=r"^bars$"):
            list(execution.map(fail, None, ["bars"]))


def test_what_was_not_done_when_a_job_ends_is_not_done_for_nobody(dask):
    with open_execution(dask.address, threads=1) as execution:
        results = execution.map(place_of_work, np.ones(4), list(range(200)))
        next(results)
        results.close()
        wait_until(lambda: not execution.client.run_on_scheduler(tasks_of), "an idle cluster")


def tasks_of(dask_scheduler) -> int:
    return len(dask_scheduler.tasks)


def test_a_worker_of_another_release_is_refused_by_name(dask, tmp_path):
    (tmp_path / "margincast").mkdir()
    (tmp_path / "margincast" / "__init__.py").write_text("")
    other = dask.processes.worker(dask.address, PYTHONPATH=str(tmp_path))
    try:
        with distributed.Client(dask.address, set_as_default=False) as client:
            client.wait_for_workers(3, timeout=60)
        with (
            pytest.raises(InputError, match=r"worker tcp://\S+ has another release") as raised,
            open_execution(dask.address, threads=1),
        ):
            pass
        assert str(raised.value).count("worker tcp") == 1
        assert "requirements.lock" in str(raised.value)
    finally:
        dask.processes.kill(other)


def test_a_worker_that_joins_later_with_other_libraries_does_nothing():
    here = {**environment(), "lightgbm": "1.0"}
    assert differences(environment(), environment()) == ""
    with pytest.raises(InputError, match=r"joined .* later has lightgbm \S+ there and 1\.0 here"):
        cluster.checked(b"", shared=None, here=here)


# Clusters that cannot be used


def test_no_scheduler_is_an_error_before_the_work(command, workspace, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 0.2)
    ending = command(
        "backtest", workspace / "training" / "demo.toml", "--out", tmp_path / "out",
        "--cluster", "tcp://127.0.0.1:9",
    )  # fmt: skip
    assert ending.code == 2
    assert "no Dask scheduler answers at 'tcp://127.0.0.1:9'" in ending.errors
    assert "leave out --cluster" in ending.errors
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("address", ["", "scheduler", "http://127.0.0.1:8786"])
def test_what_is_no_address_says_what_one_looks_like(address):
    with (
        pytest.raises(InputError, match="such as --cluster tcp://HOST:8786"),
        open_execution(address, threads=1),
    ):
        pass


def test_without_dask_the_flag_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "margincast.training.execution.cluster", None)
    with (
        pytest.raises(InputError, match=r"install margincast\[cluster\]"),
        open_execution("tcp://127.0.0.1:8786", threads=1),
    ):
        pass


# What ends processes of the cluster comes last


def test_the_work_of_lost_workers_is_redone(dask):
    """One worker is killed mid-run; then all are, with the data they held, and one comes anew."""
    with distributed.Client(dask.address, set_as_default=False) as client:
        pids = set(client.run(os.getpid).values())
    assert len(pids) == 2
    tasks, seen = list(range(12)), []
    with open_execution(dask.address, threads=1) as execution:
        for task, (pid, _, value) in execution.map(place_of_work, np.ones(4), tasks):
            assert value == 4.0 * task
            seen.append(task)
            if len(seen) == 2:
                dask.processes.kill(pid)
                pids.discard(pid)
            if len(seen) == 5:
                assert pid in pids
                dask.processes.kill(pids.pop())
                threading.Timer(0.5, dask.processes.worker, [dask.address]).start()
    assert sorted(seen) == tasks


def test_a_pool_whose_workers_are_all_lost_says_so_and_begins_anew(dask):
    with open_execution(dask.address, threads=1) as execution:
        pool = ClusterPool(execution, np.ones(4))
        pid, _, _ = pool.submit(place_of_work, 1).result(60)
        asked = [pool.submit(place_of_work, task) for task in range(20)]
        dask.processes.kill(pid)
        dask.processes.worker(dask.address)
        lost = [future for future in asked if isinstance(future.exception(60), BrokenExecutor)]
        assert lost
        pool.restart()
        assert pool.submit(place_of_work, 3).result(60)[2] == 12.0
        with pytest.raises(SpecError):
            pool.submit(refuse, "a.toml").result(60)
        pool.close()


def test_a_scheduler_that_is_gone_mid_run_is_named(dask):
    with open_execution(dask.address, threads=1) as execution:
        execution.client._timeout = 0.5  # how long it tries to connect again
        results = execution.map(place_of_work, np.ones(4), list(range(50)))
        next(results)
        dask.processes.kill(dask.processes.running[0].pid)
        with pytest.raises(InputError, match=r"was lost.*the same command continues"):
            list(results)
