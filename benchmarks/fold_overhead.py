"""What a fold of ``perp-8h`` costs on top of the LightGBM calls it contains.

Twenty contracts, four years of hourly decisions, sixty features, two sides, three levels: made-up
numbers of that shape (trees take as long on them as on real ones). The whole ``fit`` is timed,
scale, forward-chained calibration and tail included, and within it every call of LightGBM: binning
and training. Budget: 1.15 times those calls.

Run: ``OMP_NUM_THREADS=1 python benchmarks/fold_overhead.py``
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar
from unittest import mock

import lightgbm as lgb
import numpy as np
import pandas as pd

from margincast.core.threads import available_threads
from margincast.models.catalogue import OURS, make_forecaster
from margincast.models.protocol import Panel
from margincast.specs.loading import load_spec
from margincast.specs.training import TrainingJob

WORKSPACE = Path(__file__).resolve().parents[1]
CONTRACTS, HOURS, FEATURES, HORIZON = 20, 4 * 8766, 60, 8
BUDGET = 1.15
P = ParamSpec("P")
R = TypeVar("R")


def main() -> None:
    """Fit a few times and print the fastest."""
    parser = argparse.ArgumentParser(description="a fold against the LightGBM calls it contains")
    parser.add_argument("--repeats", type=int, default=3, help="fits")
    arguments = parser.parse_args()

    job = load_spec(WORKSPACE / "training" / "perp-8h.toml", TrainingJob)
    panel = panel_of(job)
    whole, library = min(_timed(job, panel) for _ in range(arguments.repeats))
    ratio = whole / library
    print(
        f"{len(panel):,} decisions x {len(panel.units)} features, every {job.model.stride}th used"
    )
    print(f"fit {whole:.2f} s, LightGBM in it {library:.2f} s")
    print(f"ratio {ratio:.3f}, budget {BUDGET} ({'kept' if ratio <= BUDGET else 'EXCEEDED'})")


def panel_of(job: TrainingJob, contracts: int = CONTRACTS, hours: int = HOURS) -> Panel:
    """Make decisions of the shape, with the columns the job's scale reads."""
    rng = np.random.default_rng(1)
    rows = contracts * hours
    ts = pd.date_range("2020-01-01", periods=hours, freq="h", tz="UTC", unit="us")
    volatility = np.exp(rng.normal(-4.5, 0.5, (rows, 1)))
    scale = {
        name: (volatility[:, 0] * rng.lognormal(0.0, 0.3, rows)) for name in job.model.scale.columns
    }
    others = {f"feature_{i}": rng.normal(size=rows) for i in range(FEATURES - len(scale))}
    names = np.array([f"C{i:02d}" for i in range(contracts)], dtype=object)
    frame = pd.DataFrame(
        {"symbol": np.tile(names, hours), "ts": np.repeat(ts, contracts), "close": 1.0}
        | scale
        | others
    )
    move = volatility[:, 0] * rng.standard_t(4.0, rows)
    end = frame["ts"].dt.tz_localize(None).to_numpy() + np.timedelta64(HORIZON, "h")
    units = dict.fromkeys(scale, "fraction") | dict.fromkeys(others, "number")
    outcomes = {"long": np.maximum(-move, 0.0), "short": np.maximum(move, 0.0)}
    return Panel(frame, units, outcomes, volatility[:, 0] * rng.lognormal(0.5, 0.4, rows), end)


def _timed(job: TrainingJob, panel: Panel) -> tuple[float, float]:
    """CPU seconds of one fit, and of LightGBM within it."""
    spent = 0.0

    def timed(call: Callable[P, R]) -> Callable[P, R]:
        def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
            nonlocal spent
            started = time.process_time()
            try:
                return call(*args, **kwargs)
            finally:
                spent += time.process_time() - started

        return wrapper

    target = job.target
    model = make_forecaster(
        OURS, job.model, target.sides, target.levels, overlap=HORIZON, threads=available_threads()
    )
    with (
        mock.patch.object(lgb, "train", timed(lgb.train)),
        mock.patch.object(lgb.Dataset, "construct", timed(lgb.Dataset.construct)),
    ):
        started = time.process_time()
        model.fit(panel)
        whole = time.process_time() - started
    return whole, spent


if __name__ == "__main__":
    main()
