"""How long a bundle of ``perp-8h``'s size takes to verify and load: what a restart waits for.

Forty contracts, sixty features, two sides, the spec's rounds and leaves, and all specs that
``train`` puts into a bundle; ``--rounds`` and ``--horizons`` make it larger. Reading every file and
comparing its SHA-256 is part of it. Budget: 200 ms. What Python takes to import the models is no
part of it, is paid once a process, and is printed apart.

Run: ``OMP_NUM_THREADS=1 python -m benchmarks.bundle_load``
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.fold_overhead import WORKSPACE, panel_of

from margincast.features.loading import load_feature_set
from margincast.models.catalogue import LOADERS, OURS, make_forecaster
from margincast.models.horizons import HorizonForecaster
from margincast.serving.bundle import read_bundle, write_bundle
from margincast.serving.manifest import BundleMetadata, verify_bundle
from margincast.specs.loading import load_spec
from margincast.specs.training import TrainingJob

BUDGET_SECONDS = 0.2
CONTRACTS = 40
IMPORTS = (
    "import time; t = time.perf_counter(); import margincast.serving.bundle, "
    "margincast.models.catalogue; print(time.perf_counter() - t)"
)


def main() -> None:
    """Write a bundle once, load it many times, and print the median and the largest."""
    parser = argparse.ArgumentParser(description="verify and load a bundle")
    parser.add_argument("--rounds", type=int, default=None, help="default: the spec's")
    parser.add_argument("--horizons", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=31)
    arguments = parser.parse_args()

    rounds = [] if arguments.rounds is None else [f"model.head.rounds={arguments.rounds}"]
    job = load_spec(WORKSPACE / "training" / "perp-8h.toml", TrainingJob, rounds)
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "bundle"
        write(job, bundle, arguments.horizons)
        files = [path for path in bundle.rglob("*") if path.is_file()]
        size = sum(path.stat().st_size for path in files)
        verify = timed(lambda: verify_bundle(bundle), arguments.repeats)
        load = timed(lambda: read_bundle(bundle, LOADERS), arguments.repeats)
    print(f"{len(files)} files, {size / 1e3:,.0f} kB, {job.model.head.rounds} rounds")
    print(f"verify {verify[len(verify) // 2] * 1e3:.1f} ms")
    median, largest = load[len(load) // 2], load[-1]
    kept = "kept" if largest <= BUDGET_SECONDS else "EXCEEDED"
    print(f"verify and load {median * 1e3:.1f} ms, at most {largest * 1e3:.1f} ms")
    print(f"ratio to the budget of {BUDGET_SECONDS * 1e3:.0f} ms: {median / BUDGET_SECONDS:.2f}")
    print(f"budget {kept} by the slowest of {len(load)}")
    answer = subprocess.run(  # noqa: S603  # our own interpreter on the text above
        [sys.executable, "-c", IMPORTS], capture_output=True, text=True, check=True
    )
    print(f"imports of a fresh process, apart: {float(answer.stdout):.1f} s")


def write(job: TrainingJob, directory: Path, horizons: int) -> None:
    """Fit on made-up numbers and write what ``train`` would."""
    panel = panel_of(job, CONTRACTS, hours=2 * 8766)
    target = job.target
    fitted = make_forecaster(
        OURS, job.model, target.sides, target.levels, overlap=8.0, threads=1
    ).fit(panel)
    minutes = [60 * (number + 1) for number in range(horizons)]
    feature_set = load_feature_set(WORKSPACE / job.features.set)
    metadata = BundleMetadata(
        job=job.name,
        horizons_minutes=tuple(minutes),
        sides=target.sides,
        levels=target.levels,
        feature_columns=tuple(panel.units),
        spec_digest=job.digest(),
        feature_set_hash=feature_set.digest(),
        training_data_digest="0" * 64,
        trained_until="2024-06-01T00:00:00",
    )
    specs = {
        "training": job.model_dump(mode="json"),
        "features": feature_set.model_dump(mode="json"),
        "contracts": sorted(panel.frame["symbol"].unique().tolist()),
    }
    model = HorizonForecaster(OURS, dict.fromkeys(minutes, fitted), target.monotone)
    write_bundle(model, directory, loaders=LOADERS, metadata=metadata, specs=specs)


def timed(call: Callable[[], object], repeats: int) -> list[float]:
    """Wall seconds of each call, in order of size."""
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return sorted(seconds)


if __name__ == "__main__":
    main()
