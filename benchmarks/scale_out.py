"""A backtest of ``perp-8h``'s shape: one process, two local processes, two workers of a cluster.

Three models, a year of quarterly refits, made-up numbers of the shape. One process with two threads
leaves the cores to LightGBM; two processes with one thread each share out models and refits; the
Dask workers are two processes of this machine, so that what they cost on top is the cluster's own.
The forecasts must be the same to the last byte. Wall times need two free cores: the load average is
printed, and CPU time beside them.

Run: ``OMP_NUM_THREADS=2 python -m benchmarks.scale_out``
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from benchmarks.fold_overhead import WORKSPACE, panel_of

from margincast.backtest.replay import replay
from margincast.core.execution import Execution, Result, Shared, Task
from margincast.data.bars import BarTable
from margincast.features.loading import load_feature_set
from margincast.features.pipeline import FeatureTable
from margincast.features.sources import Sources
from margincast.models.catalogue import OURS
from margincast.specs.loading import load_spec
from margincast.specs.training import TrainingJob
from margincast.training.execution.cluster import dask_cluster
from margincast.training.execution.local import LocalExecution
from margincast.training.market import Market
from margincast.training.workload import Workload

MODELS = (OURS, "lightgbm_raw", "har_fhs")
CORES = 2


@dataclass(frozen=True)
class OneProcess:
    """All tasks here, one after the other, every thread for the model that is fitted."""

    threads: int
    description: str = "one process"

    def map(
        self, work: Callable[[Shared, Task, int], Result], shared: Shared, tasks: Sequence[Task]
    ) -> Iterator[tuple[Task, Result]]:
        """Do work on every task; see :meth:`margincast.core.execution.Execution.map`."""
        for task in tasks:
            yield task, work(shared, task, self.threads)


def main() -> None:
    """Run the backtest in every way and print wall and CPU time, and whether the bytes agree."""
    parser = argparse.ArgumentParser(description="a backtest in one process, two, and on Dask")
    parser.add_argument("--contracts", type=int, default=10)
    parser.add_argument("--hours", type=int, default=3 * 8766)
    arguments = parser.parse_args()
    workload = workload_of(arguments.contracts, arguments.hours)
    print(f"{len(workload.frame):,} decisions, {', '.join(MODELS)}; load {os.getloadavg()[0]:.1f}")
    found: dict[str, dict[str, bytes]] = {}
    walls = {}
    with dask_workers(CORES) as address, dask_cluster(address) as cluster:
        ways: dict[str, Execution] = {
            f"1 process x {CORES} threads": OneProcess(CORES),
            f"{CORES} processes x 1 thread": LocalExecution(CORES),
            f"{CORES} Dask workers x 1 thread": cluster,
            f"{CORES} Dask workers, again": cluster,
        }
        for name, execution in ways.items():
            with tempfile.TemporaryDirectory() as folder:
                store = Path(folder)
                wall, cpu = time.perf_counter(), _cpu_seconds()
                replay(workload, MODELS, execution=execution, store=store)
                walls[name] = time.perf_counter() - wall
                found[name] = {path.name: path.read_bytes() for path in store.iterdir()}
            ratio = walls[name] / next(iter(walls.values()))
            print(
                f"{name:>28}: wall {walls[name]:6.1f} s, ratio {ratio:.2f}; CPU of this process "
                f"and those it ended {_cpu_seconds() - cpu:.1f} s",
                flush=True,
            )
    first = next(iter(found.values()))
    same = all(files == first for files in found.values())
    print(f"{len(first)} files of forecasts, {'the same bytes' if same else 'DIFFERENT BYTES'}")


def workload_of(contracts: int, hours: int) -> Workload:
    """Make a workload of the shape; its last year is tested."""
    job = load_spec(WORKSPACE / "training" / "perp-8h.toml", TrainingJob)
    panel = panel_of(job, contracts, hours)
    end = panel.frame["ts"].max()
    period = {"start": (end - timedelta(days=365)).to_pydatetime(), "end": end.to_pydatetime()}
    job = job.model_copy(update={"backtest": job.backtest.model_copy(update=period)})
    feature_set = load_feature_set(WORKSPACE / job.features.set)
    bars = BarTable({}, feature_set.grid.interval, ())
    return Workload(
        job,
        feature_set,
        Market(Sources(bars), "made up", ()),
        FeatureTable(panel.frame, panel.units, feature_set.digest(), ()),
        {job.target.horizons_minutes[0]: panel},
        (),
    )


@contextmanager
def dask_workers(count: int) -> Iterator[str]:
    """Start a scheduler and workers of one thread on this machine; yield the address."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "scheduler.json"
        options = ["--host", "127.0.0.1", "--no-dashboard"]
        started = [_dask("scheduler", *options, "--port", "0", "--scheduler-file", str(file))]
        while not (file.exists() and file.read_text(encoding="utf-8").endswith("}")):
            time.sleep(0.1)
        address = json.loads(file.read_text(encoding="utf-8"))["address"]
        workers = ["--nworkers", str(count), "--nthreads", "1", "--memory-limit", "0"]
        started.append(_dask("worker", address, *options, *workers, "--local-directory", folder))
        try:
            yield address
        finally:
            for process in reversed(started):
                process.terminate()
                process.wait()


def _dask(*arguments: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(  # noqa: S603  # Dask's own command
        [sys.executable, "-m", "dask", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _cpu_seconds() -> float:
    own, ended = (
        resource.getrusage(resource.RUSAGE_SELF),
        resource.getrusage(resource.RUSAGE_CHILDREN),
    )
    return own.ru_utime + own.ru_stime + ended.ru_utime + ended.ru_stime


if __name__ == "__main__":
    main()
