"""Raw LightGBM: quantile loss on untransformed outcomes with the library's defaults.

The peer that shows why the scale comes first: it cannot extrapolate to a volatility never seen,
and its default leaves hold too few exceedances to know a tail.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import lightgbm as lgb
import numpy as np
import numpy.typing as npt
import pandas as pd

from margincast.core.threads import available_threads
from margincast.core.types import Side
from margincast.models.head import booster_from_text, booster_text
from margincast.models.protocol import Panel, TailForecast, Unit, require_features

DEFAULTS: dict[str, Any] = {
    "objective": "quantile",
    "deterministic": True,
    "force_row_wise": True,
    "verbosity": -1,
}
"""Everything else is LightGBM's own default (31 leaves, 100 rounds, 20 rows a leaf)."""


@dataclass
class LightGbmRaw:
    """LightGBM quantile regression with defaults, one model a side and level.

    Attributes:
        sides: sides to forecast.
        levels: increasing levels; crossing quantiles are rearranged.
        stride: train on every n-th decision, the same rows as our model.
        minimum_rows: see :meth:`~margincast.models.protocol.Panel.thinned`.
        seed: of LightGBM.
        threads: OpenMP threads.
    """

    sides: tuple[Side, ...]
    levels: tuple[float, ...]
    stride: int
    minimum_rows: int
    seed: int
    threads: int
    name: str = "lightgbm_raw"
    _units: Mapping[str, Unit] = field(default_factory=dict, repr=False)
    _boosters: dict[tuple[Side, float], lgb.Booster] = field(default_factory=dict, repr=False)

    def fit(self, panel: Panel) -> Self:
        """Train on raw features and raw outcomes."""
        fitting = panel.thinned(self.stride, self.minimum_rows)
        self._units = dict(panel.units)
        shared = DEFAULTS | {"num_threads": self.threads, "seed": self.seed}
        bins = lgb.Dataset(self._matrix(fitting.frame), params=shared).construct()
        for side in self.sides:
            for level in self.levels:
                bins.set_label(fitting.outcomes[side])
                self._boosters[side, level] = lgb.train(shared | {"alpha": level}, bins)
        return self

    def predict(self, frame: pd.DataFrame) -> TailForecast:
        """Forecast, rearranged so that levels do not cross, at least 0."""
        matrix = self._matrix(frame)
        quantiles = np.stack(
            [
                np.stack([self._predict(matrix, side, level) for level in self.levels], axis=1)
                for side in self.sides
            ],
            axis=1,
        )
        return TailForecast(self.sides, self.levels, np.sort(np.maximum(quantiles, 0.0), axis=2))

    def parameters(self) -> dict[str, Any]:
        """Return what was chosen, JSON-like."""
        return {
            "name": self.name,
            "sides": list(self.sides),
            "levels": list(self.levels),
            "stride": self.stride,
            "minimum_rows": self.minimum_rows,
            "seed": self.seed,
            "units": [list(item) for item in self._units.items()],
            "lightgbm": DEFAULTS,
        }

    def save(self, directory: Path) -> None:
        """Write ``model.json`` and one text file a side and level."""
        text = json.dumps(self.parameters(), indent=1, sort_keys=True) + "\n"
        (directory / "model.json").write_text(text, encoding="utf-8")
        for (side, level), booster in self._boosters.items():
            path = directory / f"{side}-{level:g}.txt"
            path.write_text(booster_text(booster), encoding="utf-8")

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read what :meth:`save` wrote."""
        record = json.loads((directory / "model.json").read_text(encoding="utf-8"))
        model = cls(
            tuple(record["sides"]),
            tuple(record["levels"]),
            record["stride"],
            record["minimum_rows"],
            record["seed"],
            available_threads(),
        )
        model._units = dict(record["units"])
        for side in model.sides:
            for level in model.levels:
                text = (directory / f"{side}-{level:g}.txt").read_text(encoding="utf-8")
                model._boosters[side, level] = booster_from_text(text)
        return model

    def _matrix(self, frame: pd.DataFrame) -> npt.NDArray[np.float32]:
        require_features(frame, tuple(self._units), self.name)
        return frame[list(self._units)].to_numpy(np.float32)

    def _predict(
        self, matrix: npt.NDArray[np.float32], side: Side, level: float
    ) -> npt.NDArray[np.float64]:
        predicted = self._boosters[side, level].predict(matrix, num_threads=self.threads)
        return np.asarray(predicted, dtype=np.float64)
