"""How often the band around a forecast holds the true quantile, on markets whose truth is known.

Each market is a draw of a few contracts that move together, with a volatility the features show,
outcomes whose horizons overlap, and Student-t tails. ``--effect 0`` is a market whose form the
forecaster has; with ``--effect 0.3`` a covariate widens the tail smoothly, which trees follow in
steps: the difference is what the band leaves out. Nothing is timed.

Run: ``OMP_NUM_THREADS=1 python benchmarks/band_coverage.py --markets 20``
"""

import argparse
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.signal import lfilter
from scipy.stats import norm
from scipy.stats import t as student_t

from margincast.core.types import SIDES, FloatArray
from margincast.models.catalogue import OURS, make_forecaster
from margincast.models.protocol import Forecaster, Panel
from margincast.models.uncertainty import forecast_band
from margincast.specs.loading import load_spec
from margincast.specs.training import TrainingJob

LEVELS = (0.99, 0.995, 0.999)
DEGREES = 4
HOURS_APART = 4
CONTRACTS = 4
JUDGED = 100
"""Decisions of each contract after the history, a day apart."""

MODEL = load_spec(
    Path(__file__).resolve().parents[1] / "training" / "perp-8h.toml",
    TrainingJob,
    [
        "model.stride=1",
        "model.minimum_rows=1",
        'model.scale.columns=["volatility_1h"]',
        "model.scale.seasonal_harmonics=[]",
        "model.head.rounds=40",
        "model.head.num_leaves=4",
        "model.head.learning_rate=0.05",
        "model.head.min_data_factor=10.0",
        "model.head.feature_fraction=0.5",
        "model.head.bagging_fraction=0.5",
        "model.tail.threshold_level=0.99",
        "model.tail.from_level=0.999",
        "model.calibration.folds=5",
        'model.calibration.prior="90d"',
        "model.calibration.online.everybody_rate=0.0",
        "model.calibration.online.contract_rate=0.0",
        'model.peers.ewma_column="volatility_1h"',
        'model.peers.history="3650d"',
    ],
).model


def main() -> None:
    """Draw markets, band their forecasts and count."""
    parser = argparse.ArgumentParser(description="coverage of the forecast band")
    parser.add_argument("--markets", type=int, default=20, help="independent markets")
    parser.add_argument("--days", type=int, default=730, help="history of each, in days")
    parser.add_argument("--replications", type=int, default=10, help="fits of each band")
    parser.add_argument("--coverage", type=float, default=0.9, help="stated coverage")
    parser.add_argument("--effect", type=float, default=0.0, help="log width a covariate adds")
    parser.add_argument("--model", default=OURS, help="forecaster")
    parser.add_argument("--seed", type=int, default=1, help="of the first market")
    arguments = parser.parse_args()

    def make() -> Forecaster:
        return make_forecaster(arguments.model, MODEL, SIDES, LEVELS, overlap=2.0, threads=1)

    held, widths, errors = [], [], []
    for number in range(arguments.markets):
        panel, rows, truth = market(arguments.seed + number, arguments.days, arguments.effect)
        band = forecast_band(
            make,
            panel,
            rows,
            replications=arguments.replications,
            coverage=arguments.coverage,
            seed=number,
            block=timedelta(days=7),
        )
        inside = (band.lower <= truth) & (truth <= band.upper)
        held.append(inside.mean(axis=(0, 1)))
        widths.append(np.log(band.upper / band.lower).mean(axis=(0, 1)) / 2)
        errors.append(np.square(np.log(band.forecast.quantiles / truth)).mean(axis=(0, 1)))
        print(f"market {number + 1} of {arguments.markets}: {np.round(held[-1], 2)}", flush=True)
    share, spread = np.mean(held, axis=0), np.std(held, axis=0) / np.sqrt(len(held))
    print(
        f"{arguments.model}, {arguments.days} days x {CONTRACTS} contracts, effect "
        f"{arguments.effect:g}, {arguments.replications} replications, stated {arguments.coverage}"
    )
    print("level   held           half-width  rms error of log forecast")
    for level, s, e, w, r in zip(
        LEVELS, share, spread, np.mean(widths, axis=0), np.mean(errors, axis=0) ** 0.5, strict=True
    ):
        print(f"{level:<7g} {s:.3f} +- {e:.3f}  {w:.3f}       {r:.3f}")


def market(seed: int, days: int, effect: float) -> tuple[Panel, Panel, FloatArray]:
    """Draw a market; return history, decisions to judge and their true quantiles (n, 1, levels).

    The horizon is 8 hours, twice the time between decisions. Volatility, covariate and
    standardised outcomes each have a part that all contracts share.
    """
    generator = np.random.default_rng(seed)
    steps = (days + JUDGED) * 24 // HOURS_APART

    def wandering(persistence: float, shared: float) -> FloatArray:
        """Normal autoregressions of unit variance, shape (steps, contracts)."""

        def path(columns: int) -> FloatArray:
            shocks = generator.normal(size=(steps, columns))
            shocks[1:] *= np.sqrt(1 - persistence**2)
            return np.asarray(lfilter([1.0], [1.0, -persistence], shocks, axis=0))

        return np.sqrt(shared) * path(1) + np.sqrt(1 - shared) * path(CONTRACTS)

    volatility = 0.01 * np.exp(0.5 * wandering(0.98, 0.6))
    covariate = wandering(0.9, 0.3)
    width = volatility * np.exp(effect * np.tanh(covariate))
    outcomes = {
        side: (width * student_t.isf(norm.sf(wandering(0.5, 0.6)) / 2, DEGREES)).ravel()
        for side in SIDES
    }
    times = pd.date_range("2020-01-01", periods=steps, freq=f"{HOURS_APART}h", tz="UTC", unit="us")
    frame = pd.DataFrame(
        {
            "symbol": np.tile([f"C{k}" for k in range(CONTRACTS)], steps),
            "ts": times.repeat(CONTRACTS),
            "volatility_1h": volatility.ravel(),
            "covariate": covariate.ravel(),
            "idle": wandering(0.9, 0.3).ravel(),
            "other": wandering(0.0, 0.0).ravel(),
        }
    )
    decided = frame["ts"].dt.tz_localize(None).to_numpy("datetime64[us]")
    panel = Panel(
        frame,
        dict.fromkeys(["covariate", "idle", "other"], "number"),
        outcomes,
        (volatility * np.exp(0.3 * generator.normal(size=volatility.shape))).ravel(),
        decided + np.timedelta64(8, "h"),
    )
    cut = np.datetime64(times[0].tz_localize(None) + pd.Timedelta(days=days))
    judged = (decided >= cut) & ((decided - cut) % np.timedelta64(24, "h") == np.timedelta64(0))
    quantiles = student_t.isf((1 - np.array(LEVELS)) / 2, DEGREES)
    truth = width.ravel()[judged][:, None, None] * quantiles
    return panel.rows(panel.label_end < cut), panel.rows(judged), truth


if __name__ == "__main__":
    main()
