"""A small model of two contracts whose tail is heavier the larger ``stress`` is."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from margincast.models.protocol import Panel
from margincast.specs.loading import load_spec
from margincast.specs.training import TrainingJob

SIDES = ("long", "short")
LEVELS = (0.9, 0.95, 0.99)
COLUMNS = ("volatility_1h", "volatility_1d")
MODEL = load_spec(
    Path(__file__).resolve().parents[2] / "training" / "perp-8h.toml",
    TrainingJob,
    [
        "model.stride=1",
        "model.minimum_rows=1",
        f"model.scale.columns={list(COLUMNS)}",
        "model.scale.seasonal_harmonics=[1, 7]",
        "model.head.rounds=15",
        "model.head.num_leaves=4",
        "model.head.learning_rate=0.1",
        "model.head.min_data_factor=10.0",
        "model.head.feature_fraction=1.0",
        "model.head.bagging_fraction=0.7",
        "model.tail.threshold_level=0.95",
        "model.tail.from_level=0.99",
        "model.calibration.folds=3",
        'model.calibration.prior="10d"',
    ],
).model
EVERY = [(side, level) for side in SIDES for level in LEVELS]


def simulated(seed: int = 0, hours: int = 1500) -> Panel:
    """Two contracts whose tail is heavier the larger ``stress`` is; ``idle`` says nothing."""
    rng = np.random.default_rng(seed)
    parts = []
    for symbol in ("BTC", "SOL"):
        volatility = 0.01 * np.exp(np.cumsum(rng.normal(0, 0.05, hours)) / 3)
        stress = rng.normal(0, 1, hours)
        move = volatility * np.exp(0.4 * stress) * rng.standard_t(4, hours)
        parts.append(
            pd.DataFrame(
                {
                    "symbol": symbol,
                    "ts": pd.date_range("2024-01-01", periods=hours, freq="h", tz="UTC", unit="us"),
                    "volatility_1h": volatility * np.exp(rng.normal(0, 0.2, hours)),
                    "volatility_1d": volatility * np.exp(rng.normal(0, 0.1, hours)),
                    "stress": stress,
                    "idle": 0.0,
                    "move": move * (1.4 if symbol == "SOL" else 1.0),
                    "log_range": volatility * np.exp(rng.normal(0, 0.3, hours)),
                }
            )
        )
    frame = pd.concat(parts).sort_values(["ts", "symbol"], ignore_index=True)
    move, log_range = frame.pop("move").to_numpy(), frame.pop("log_range").to_numpy()
    decided = frame["ts"].dt.tz_localize(None).to_numpy("datetime64[us]")
    return Panel(
        frame,
        {
            "stress": "number",
            "idle": "number",
            "volatility_1h": "fraction",
            "volatility_1d": "fraction",
        },
        {"long": np.maximum(0.0, -move), "short": np.maximum(0.0, move)},
        log_range,
        decided + np.timedelta64(1, "h"),
    )


def other_days() -> Panel:
    """Rows of other days, some with a volatility never seen and a feature not known."""
    panel = simulated(1, 200)
    rng = np.random.default_rng(2)
    frame = panel.frame.copy()
    frame["volatility_1h"] *= rng.lognormal(0, 1.5, len(frame))
    frame.loc[::5, "stress"] = np.nan
    frame.loc[::7, "volatility_1d"] = np.nan
    frame.loc[::11, "symbol"] = "NEW"
    return replace(panel, frame=frame)
