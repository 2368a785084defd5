"""What a trial of a study costs on top of the LightGBM calls it contains.

Sampling, scoring and the writes to an SQLite storage are timed with the calls: binning, training
and predicting. Budget: 1.1 times those calls.

Run: ``OMP_NUM_THREADS=1 python benchmarks/trial_overhead.py [JOB.toml --data DIR]``
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar
from unittest import mock

import lightgbm as lgb

from margincast.training.tuning.folds import prepare_folds
from margincast.training.tuning.running import StudyRun
from margincast.training.tuning.storage import open_storage
from margincast.training.tuning.study import open_study
from margincast.training.tuning.workers import OneThread
from study_case import arguments_of, study_case

BUDGET = 1.1
P = ParamSpec("P")
R = TypeVar("R")


def main() -> None:
    """Run a study and print what its trials cost."""
    arguments = arguments_of(__doc__ or "", trials=12)
    job, panels, levels = study_case(arguments)
    started = time.process_time()
    folds = prepare_folds(job, panels, levels)
    print(f"prepared once: {time.process_time() - started:.2f} s")
    spent = {"cpu": 0.0, "wall": 0.0}

    def timed(call: Callable[P, R]) -> Callable[P, R]:
        def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
            cpu, wall = time.thread_time(), time.perf_counter()
            try:
                return call(*args, **kwargs)
            finally:
                spent["cpu"] += time.thread_time() - cpu
                spent["wall"] += time.perf_counter() - wall

        return wrapper

    workers = OneThread(folds, threads=1)
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.object(lgb, "train", timed(lgb.train)),
        mock.patch.object(lgb.Booster, "predict", timed(lgb.Booster.predict)),
        mock.patch.object(lgb.Dataset, "construct", timed(lgb.Dataset.construct)),
    ):
        study, _ = open_study(job, open_storage("sqlite:///studies.db", Path(folder)), {})
        cpu, wall = time.process_time(), time.perf_counter()
        StudyRun(study, job, folds, workers, lambda _: None).finish()
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        workers.close()
    ratio = cpu / spent["cpu"]
    count = len(study.trials)
    print(
        f"{count} trials of {len(folds.steps)} folds: {cpu / count:.2f} s each, LightGBM in it "
        f"{spent['cpu'] / count:.2f} s (on the clock {wall / count:.2f} and "
        f"{spent['wall'] / count:.2f})"
    )
    print(f"ratio {ratio:.3f}, budget {BUDGET} ({'kept' if ratio <= BUDGET else 'EXCEEDED'})")
    print(f"ratio on the clock {wall / spent['wall']:.3f}")


if __name__ == "__main__":
    main()
