"""How much faster two workers finish a study than one: the same trials, their start included.

On the clock, so what else the machine does counts; its load is printed. Budget: 1.7 times as fast.

Run: ``python benchmarks/tuning_workers.py [JOB.toml --data DIR]``
"""

import os
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
    found: dict[int, Tuned] = {}
    for workers in (1, 2):
        load = os.getloadavg()[0]
        started = time.perf_counter()
        found[workers] = _study(job, panels, levels, workers)
        seconds[workers] = time.perf_counter() - started
        print(f"{workers} worker(s): {seconds[workers]:.1f} s (load before: {load:.1f})")
    assert found[1].model == found[2].model, "the same trials must choose the same head"
    ratio = seconds[1] / seconds[2]
    verdict = "kept" if ratio >= BUDGET else "NOT REACHED"
    print(f"{arguments.trials} trials {ratio:.2f} times as fast, budget {BUDGET} ({verdict})")


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
