"""What the quantile head costs on top of LightGBM: fit against bare ``lightgbm.train``.

Both train one model a side and level on the same matrix, label, weight, parameters and shared
bins; the head also builds the matrix from the feature frame. Budget: 1.15 times the bare training.

Run: ``OMP_NUM_THREADS=1 python benchmarks/training_overhead.py``
"""

import argparse
import time
from pathlib import Path

import lightgbm as lgb
import numpy as np

from margincast.core.threads import available_threads
from margincast.core.types import FloatArray
from margincast.models.head import QuantileHead, dataset_parameters, training_parameters
from margincast.models.protocol import Panel
from margincast.models.scale import HarScale
from margincast.specs.features import FeatureSet
from margincast.specs.loading import load_spec
from margincast.specs.training import TrainingJob
from simulated_panel import simulated_panel

WORKSPACE = Path(__file__).resolve().parents[1]
LEVELS = (0.99, 0.995)
BUDGET = 1.15


def main() -> None:
    """Fit both ways in turn and compare the fastest of each."""
    parser = argparse.ArgumentParser(description="quantile head against bare LightGBM")
    parser.add_argument("--days", type=int, default=8, help="length of the market, in days")
    parser.add_argument("--repeats", type=int, default=7, help="runs of each")
    arguments = parser.parse_args()

    job = load_spec(WORKSPACE / "training" / "demo.toml", TrainingJob)
    feature_set = load_spec(WORKSPACE / job.features.set, FeatureSet)
    feature_set = feature_set.model_copy(update={"book": (), "trades": ()})
    panel = simulated_panel(job, feature_set, arguments.days)
    spec = job.model.scale
    scale = HarScale(spec.columns, spec.seasonal_harmonics, spec.ridge)
    width = scale.fit(panel.frame, panel.log_range).predict(panel.frame)
    panel, width = panel.rows(np.isfinite(width)), width[np.isfinite(width)]
    head = QuantileHead(job.model.head, panel.units, job.target.sides, LEVELS, available_threads())
    ours, bare = [], []
    for _ in range(arguments.repeats):
        started = time.process_time()
        head.fit(panel.frame, width, panel.outcomes)
        ours.append(time.process_time() - started)
        bare.append(_bare(head, panel, width))
    ratio = min(ours) / min(bare)
    print(
        f"{len(panel):,} rows x {len(panel.units) + 1} columns, {len(head.boosters)} models of "
        f"{job.model.head.rounds} rounds, {head.threads} thread(s)"
    )
    print(f"quantile head {min(ours):.3f} s, bare lightgbm.train {min(bare):.3f} s")
    print(f"ratio {ratio:.3f}, budget {BUDGET} ({'kept' if ratio <= BUDGET else 'EXCEEDED'})")


def _bare(head: QuantileHead, panel: Panel, width: FloatArray) -> float:
    """Seconds that plain LightGBM takes for the same models; the matrix is made beforehand."""
    matrix = head.design(panel.frame, width)
    labels = {side: panel.outcomes[side] / width for side in head.sides}
    weight = width / width.mean()
    threads = {"num_threads": head.threads}
    started = time.process_time()
    bins = lgb.Dataset(matrix, params=dataset_parameters(head.chosen) | threads).construct()
    for side in head.sides:
        for level in head.levels:
            bins.set_label(labels[side])
            bins.set_weight(weight)
            parameters = training_parameters(head.chosen, level) | threads
            lgb.train(parameters, bins, num_boost_round=head.chosen.rounds)
    return time.process_time() - started


if __name__ == "__main__":
    main()
