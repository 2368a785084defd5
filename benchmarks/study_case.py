"""What the benchmarks of tuning search on: a job's own history, or made-up numbers of its shape."""

import argparse
from pathlib import Path

import numpy as np

from fold_overhead import panel_of
from margincast.backtest.replay import walk_forward_folds
from margincast.features.cache import FeatureCache
from margincast.models.catalogue import OURS
from margincast.models.margincast import MargincastForecaster
from margincast.models.protocol import Panel
from margincast.specs.loading import find_workspace, load_spec
from margincast.specs.training import TrainingJob
from margincast.training.workload import build_workload, describe, forecaster_for

WORKSPACE = Path(__file__).resolve().parents[1]
SPEC = WORKSPACE / "training" / "perp-8h.toml"
# every trial to the end, and the same ones whoever does them
COMPARABLE = (
    "tuning.sampler=random",
    "tuning.pruner=none",
    "tuning.patience_trials=0",
    "tuning.held_out_share=0.2",
)


def arguments_of(description: str, trials: int) -> argparse.Namespace:
    """Read the command line that these benchmarks share."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("spec", nargs="?", type=Path, default=SPEC, help="a training job")
    parser.add_argument("--data", type=Path, help="market data; without it numbers are made up")
    parser.add_argument("--cache", type=Path, help="folder of built features")
    parser.add_argument("--trials", type=int, default=trials)
    return parser.parse_args()


def study_case(
    arguments: argparse.Namespace, *overrides: str
) -> tuple[TrainingJob, list[Panel], tuple[float, ...]]:
    """Return the job, its history before the test period, and the levels of its head."""
    spec, data = arguments.spec, arguments.data
    job = load_spec(
        spec, TrainingJob, [*COMPARABLE, f"tuning.trials={arguments.trials}", *overrides]
    )
    if data is None:
        panel = panel_of(job)
        levels = tuple(x for x in job.target.levels if x < job.model.tail.from_level)
        print(f"{len(panel):,} made-up decisions x {len(panel.units)} features")
        return job, [panel], (*levels, job.model.tail.threshold_level)
    cache = None if arguments.cache is None else FeatureCache(arguments.cache)
    workload = build_workload(job, find_workspace(spec), data, cache)
    model = forecaster_for(workload, OURS, next(iter(workload.panels)), threads=1)
    assert isinstance(model, MargincastForecaster)
    print(describe(workload))
    histories = [
        panel.rows(np.asarray(walk_forward_folds(job, panel)[0].training))
        for panel in workload.panels.values()
    ]
    return job, histories, model.head_levels
