"""How much faster two workers finish a study than one: the same trials, their start included.

On the clock, so what else the machine does counts; its load is printed. Where others use the cores
the CPU time says what two free cores would give at least: that of one worker, over that of the
process which runs the study and half of what its two workers used. Budget: 1.7 times as fast.

Run: ``OMP_NUM_THREADS=1 python benchmarks/tuning_workers.py [JOB.toml --data DIR]``
"""

import os
import resource
import tempfile
import time
from pathlib import Path

from margincast.models.protocol import Panel
from margincast.specs.training import TrainingJob
from margincast.training.tuning.storage import open_storage
from margincast.training.tuning.tune import Tuned, tune_head
from study_case import arguments_of, study_case

BUDGET = 1.7


def main() -> None:
    """Run the same study with one worker and with two."""
    arguments = arguments_of(__doc__ or "", trials=24)
    job, panels, levels = study_case(arguments)
    seconds: dict[int, float] = {}
    own: dict[int, float] = {}
    of_workers: dict[int, float] = {}
    found: dict[int, Tuned] = {}
    for workers in (1, 2):
        load = os.getloadavg()[0]
        started, cpu, children = time.perf_counter(), time.process_time(), _of_children()
        found[workers] = _study(job, panels, levels, workers)
        seconds[workers] = time.perf_counter() - started
        own[workers] = time.process_time() - cpu
        of_workers[workers] = _of_children() - children
        print(
            f"{workers} worker(s): {seconds[workers]:.1f} s (load before: {load:.1f}), CPU "
            f"{own[workers]:.1f} s here and {of_workers[workers]:.1f} s in workers"
        )
    assert found[1].model == found[2].model, "the same trials must choose the same head"
    ratio = seconds[1] / seconds[2]
    verdict = "kept" if ratio >= BUDGET else "NOT REACHED"
    print(f"{arguments.trials} trials {ratio:.2f} times as fast, budget {BUDGET} ({verdict})")
    free = own[1] / (own[2] + of_workers[2] / 2)
    print(f"by CPU time, on two free cores: {free:.2f} times as fast at least")


def _of_children() -> float:
    """CPU seconds of processes that were started here and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _study(job: TrainingJob, panels: list[Panel], levels: tuple[float, ...], workers: int) -> Tuned:
    tuning = job.tuning.model_copy(update={"workers": workers})
    with tempfile.TemporaryDirectory() as folder:
        return tune_head(
            job.model_copy(update={"tuning": tuning}),
            panels,
            levels,
            workers,
            storage=open_storage("sqlite:///studies.db", Path(folder)),
        )


if __name__ == "__main__":
    main()
