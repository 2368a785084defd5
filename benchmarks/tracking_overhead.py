"""What writing a study of 200 trials to MLflow costs, against running it.

A few real trials are run and timed; 200 like them are then written as ``margincast train`` writes a
study (run, best trials as child runs, table of all, figures) to an SQLite store of its own, its
making not counted. CPU time of both, one thread. Budget: 3 %.

Run: ``OMP_NUM_THREADS=1 python benchmarks/tracking_overhead.py [JOB.toml --data DIR]``
"""

import tempfile
import time
from pathlib import Path

import numpy as np
import optuna

from margincast.training.tracking import Tracker
from margincast.training.tracking.study import log_study
from margincast.training.tuning.tune import tune_head
from study_case import arguments_of, study_case

STUDY = 200
BUDGET = 0.03


def main() -> None:
    """Time some trials, then the tracking of 200."""
    arguments = arguments_of(__doc__ or "", trials=12)
    job, panels, levels = study_case(arguments, "tuning.workers=1")
    started = time.process_time()
    tuned = tune_head(job, panels, levels, threads=1)
    trial = (time.process_time() - started) / arguments.trials
    study = like(tuned.study, STUDY)
    with tempfile.TemporaryDirectory() as folder:
        tracker = Tracker("sqlite:///mlruns/mlflow.db", "overhead", Path(folder))
        started = time.process_time()
        with tracker.run("job") as run:
            written = log_study(tracker, study, run, job.tuning.objectives, job.tracking.trial_runs)
        tracking = time.process_time() - started
    ratio = tracking / (STUDY * trial)
    print(f"a trial {trial:.2f} s; {STUDY} trials and {written} runs logged in {tracking:.2f} s")
    print(f"ratio {ratio:.4f}, budget {BUDGET} ({'kept' if ratio <= BUDGET else 'EXCEEDED'})")


def like(study: optuna.Study, count: int) -> optuna.Study:
    """Return a study of so many trials, drawn from the finished ones and jittered in value."""
    rng = np.random.default_rng(1)
    finished = [trial for trial in study.trials if trial.state.is_finished() and trial.values]
    made = optuna.create_study(directions=study.directions)
    for _ in range(count):
        one = finished[rng.integers(len(finished))]
        made.add_trial(
            optuna.trial.create_trial(
                params=draw(rng, one.distributions),
                distributions=one.distributions,
                values=[float(value * rng.lognormal(0, 0.01)) for value in one.values],
                user_attrs=one.user_attrs,
                system_attrs=one.system_attrs,
            )
        )
    return made


def draw(
    rng: np.random.Generator, space: dict[str, optuna.distributions.BaseDistribution]
) -> dict[str, float]:
    """Draw parameters from a search space."""
    found: dict[str, float] = {}
    for name, bounds in space.items():
        if isinstance(bounds, optuna.distributions.IntDistribution):
            found[name] = int(rng.integers(bounds.low, bounds.high + 1))
        else:
            assert isinstance(bounds, optuna.distributions.FloatDistribution)
            found[name] = float(rng.uniform(bounds.low, bounds.high))
    return found


if __name__ == "__main__":
    main()
