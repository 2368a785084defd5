"""A small market and a small job for tests of tuning."""

from pathlib import Path

import numpy as np
import pandas as pd

from margincast.models.protocol import Panel
from margincast.specs.loading import load_spec
from margincast.specs.training import TrainingJob

JOB = Path(__file__).resolve().parents[3] / "training" / "perp-8h.toml"
LEVELS = (0.9, 0.95)


def job(*overrides: str) -> TrainingJob:
    """A job of six trials over two keys on the panel below."""
    return load_spec(
        JOB,
        TrainingJob,
        [
            'model.scale.columns=["fast"]',
            "model.scale.seasonal_harmonics=[]",
            "model.stride=1",
            "model.minimum_rows=1",
            "model.head.rounds=10",
            "model.head.min_data_factor=10.0",
            "model.head.bagging_fraction=1.0",
            "model.head.feature_fraction=1.0",
            "tuning.trials=6",
            "tuning.exceedance_ratio_min=0.0",
            "tuning.exceedance_ratio_max=100.0",
            "tuning.space={}",
            "tuning.space.rounds={low=2, high=40, log=true, integer=true}",
            "tuning.space.learning_rate={low=0.01, high=0.5, log=true, integer=false}",
            *overrides,
        ],
    )


def simulated_panel(seed: int, count: int = 1200) -> Panel:
    """One contract whose width doubles with a feature that the scale does not see."""
    rng = np.random.default_rng(seed)
    ts = pd.date_range("2024-01-01", periods=count, freq="h", tz="UTC", unit="us")
    scale = 0.01 * rng.lognormal(0, 0.6, count)
    activity = rng.normal(0, 1, count)
    width = scale * np.where(activity > 0, 2.0, 1.0)
    frame = pd.DataFrame({"symbol": "BTC", "ts": ts, "fast": scale, "activity": activity})
    return Panel(
        frame=frame,
        units={"fast": "fraction", "activity": "number"},
        outcomes={
            "long": width * np.abs(rng.standard_t(4, count)),
            "short": width * np.abs(rng.standard_t(4, count)),
        },
        log_range=width * np.exp(rng.normal(0, 0.3, count)),
        label_end=ts.tz_localize(None).to_numpy("datetime64[us]") + np.timedelta64(8, "h"),
    )
