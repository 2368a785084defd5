"""What a forecast costs on top of its trees: a bundle's predict against ``Booster.predict``.

The bundle goes from the feature frame to calibrated quantiles and expected shortfalls; the
baseline only runs the same trees over a ready matrix. Budget: 1.3 times the bare trees.

Run: ``OMP_NUM_THREADS=1 python benchmarks/scoring_overhead.py``
"""

import argparse
import tempfile
import time
from pathlib import Path

import lightgbm as lgb
import numpy as np

from margincast.core.threads import available_threads
from margincast.models.catalogue import LOADERS, OURS, make_forecaster
from margincast.models.head import QuantileHead
from margincast.models.horizons import HorizonForecaster
from margincast.models.protocol import Forecaster, Panel
from margincast.models.scale import HarScale
from margincast.serving.bundle import read_bundle, write_bundle
from margincast.serving.manifest import BundleMetadata
from margincast.specs.features import FeatureSet
from margincast.specs.loading import load_spec
from margincast.specs.training import TrainingJob
from simulated_panel import simulated_panel

WORKSPACE = Path(__file__).resolve().parents[1]
BUDGET = 1.3


def main() -> None:
    """Predict both ways in turn and compare the fastest of each."""
    parser = argparse.ArgumentParser(description="bundle predict against bare Booster.predict")
    parser.add_argument("--days", type=int, default=20, help="length of the market, in days")
    parser.add_argument("--rounds", type=int, default=100, help="boosting rounds")
    parser.add_argument("--repeats", type=int, default=15, help="runs of each")
    arguments = parser.parse_args()

    job = load_spec(
        WORKSPACE / "training" / "demo.toml",
        TrainingJob,
        [f"model.head.rounds={arguments.rounds}", "model.stride=5"],
    )
    feature_set = load_spec(WORKSPACE / job.features.set, FeatureSet)
    feature_set = feature_set.model_copy(update={"book": (), "trades": ()})
    panel = simulated_panel(job, feature_set, arguments.days)
    forecaster, trees = _served(job, feature_set, panel)
    matrix, threads = _matrix(job, forecaster, panel), available_threads()
    ours, bare = [], []
    for _ in range(arguments.repeats):
        started = time.process_time()
        forecaster.predict(panel)
        ours.append(time.process_time() - started)
        started = time.process_time()
        for booster in trees:
            booster.predict(matrix, num_threads=threads)
        bare.append(time.process_time() - started)
    ratio = min(ours) / min(bare)
    print(
        f"{len(panel):,} decisions, {len(trees)} models of {arguments.rounds} rounds, "
        f"{threads} thread(s)"
    )
    print(f"bundle predict {min(ours):.3f} s, bare Booster.predict {min(bare):.3f} s")
    print(f"ratio {ratio:.3f}, budget {BUDGET} ({'kept' if ratio <= BUDGET else 'EXCEEDED'})")


def _served(
    job: TrainingJob, feature_set: FeatureSet, panel: Panel
) -> tuple[Forecaster, list[lgb.Booster]]:
    """Fit, write as a bundle, verify and load; return the model and its trees alone."""
    target = job.target
    (minutes,) = target.horizons_minutes
    fitted = make_forecaster(
        OURS,
        job.model,
        target.sides,
        target.levels,
        overlap=target.horizons[0] / feature_set.grid.interval,
        threads=available_threads(),
    ).fit(panel)
    metadata = BundleMetadata(
        job=job.name,
        horizons_minutes=(minutes,),
        sides=target.sides,
        levels=target.levels,
        feature_columns=tuple(panel.units),
        spec_digest=job.digest(),
        feature_set_hash=feature_set.digest(),
        training_data_digest="0" * 64,
        trained_until="2024-06-01T00:00:00",
    )
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder) / "bundle"
        served = HorizonForecaster(OURS, {minutes: fitted}, target.monotone)
        write_bundle(served, directory, loaders=LOADERS, metadata=metadata, specs={})
        trees = [lgb.Booster(model_file=path) for path in sorted(directory.glob("model/*/*.txt"))]
        return read_bundle(directory, LOADERS).forecaster.forecasters[minutes], trees


def _matrix(
    job: TrainingJob, forecaster: Forecaster, panel: Panel
) -> "np.ndarray[tuple[int, ...], np.dtype[np.float32]]":
    """Return the matrix the trees read, made as the model makes it."""
    scale = HarScale.from_parameters(forecaster.parameters()["scale"])
    head = QuantileHead(job.model.head, panel.units, job.target.sides, (), 1)
    return head.design(panel.frame, scale.predict(panel.frame))


if __name__ == "__main__":
    main()
