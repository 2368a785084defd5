"""Raw LightGBM: quantile loss on untransformed outcomes, with the library's defaults or tuned.

The peer that shows why the scale comes first: it cannot extrapolate to a volatility never seen.
With its defaults the leaves also hold too few exceedances to know a tail; the tuned variant mends
that, so that what is left of its loss is due to the raw outcome alone.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import lightgbm as lgb
import numpy as np

from margincast.core.types import Side
from margincast.models.head import booster_from_text, booster_text
from margincast.models.protocol import Panel, TailForecast
from margincast.models.raw_features import (
    RawLearner,
    feature_matrix,
    rearranged,
    rows_a_leaf,
)
from margincast.models.record import read_record, write_record

_ALWAYS: Mapping[str, Any] = {
    "objective": "quantile",
    "deterministic": True,
    "force_row_wise": True,
    "feature_pre_filter": False,
    "verbosity": -1,
}


@dataclass(frozen=True)
class Settings:
    """What is set of LightGBM; everything else is the library's own default.

    Attributes:
        rounds: trees.
        parameters: by LightGBM's names.
        leaf_exceedances: exceedances a leaf must expect, ``min_data_in_leaf = leaf_exceedances /
            (1 - level)``; None leaves the default.
    """

    rounds: int
    parameters: Mapping[str, Any]
    leaf_exceedances: float | None


DEFAULTS = Settings(100, {}, None)
"""LightGBM's own: 31 leaves, learning rate 0.1, 100 rounds, 20 rows a leaf."""

TUNED = Settings(
    60, {"num_leaves": 8, "learning_rate": 0.05, "feature_fraction": 0.3}, leaf_exceedances=10.0
)
"""Chosen on quarterly refits over 2021: of 40 to 200 rounds, learning rates 0.05 and 0.1, all
features or three in ten, with and without bagging (8 h), then of 40 to 100 rounds at 1 h and 24 h,
where more and fewer are a little sharper."""


@dataclass(kw_only=True)
class LightGbmRaw(RawLearner):
    """LightGBM quantile regression on raw outcomes, one model a side and level.

    Attributes:
        settings: of LightGBM.
    """

    settings: Settings = DEFAULTS
    _boosters: dict[tuple[Side, float], lgb.Booster] = field(default_factory=dict, repr=False)

    def fit(self, panel: Panel) -> Self:
        """Train on raw features and raw outcomes.

        Raises:
            InsufficientHistoryError: the rows trained on expect no exceedance of a level.
            InputError: a feature is absent or infinite.
        """
        fitting = self.thinned(panel)
        matrix = feature_matrix(fitting.frame, tuple(panel.units), self.name)
        chosen = self.settings
        shared = {
            **_ALWAYS,
            **chosen.parameters,
            "num_threads": self.threads,
            "seed": self.seed,
        }
        bins = lgb.Dataset(matrix, params=shared).construct()
        boosters = {}
        for side in self.sides:
            bins.set_label(fitting.outcomes[side])
            for level in self.levels:
                own: dict[str, Any] = {"alpha": level}
                if chosen.leaf_exceedances is not None:
                    own["min_data_in_leaf"] = rows_a_leaf(chosen.leaf_exceedances, level)
                boosters[side, level] = lgb.train(shared | own, bins, chosen.rounds)
        self._units, self._boosters = dict(panel.units), boosters
        return self

    def predict(self, panel: Panel) -> TailForecast:
        """Forecast, rearranged so that levels do not cross, at least 0."""
        matrix = feature_matrix(panel.frame, tuple(self._units), self.name)
        quantiles = np.empty((len(panel), len(self.sides), len(self.levels)))
        for i, side in enumerate(self.sides):
            for j, level in enumerate(self.levels):
                booster = self._boosters[side, level]
                predicted = booster.predict(matrix, num_threads=self.threads)
                quantiles[:, i, j] = np.asarray(predicted, dtype=np.float64)
        return TailForecast(self.sides, self.levels, rearranged(quantiles))

    def parameters(self) -> dict[str, Any]:
        """Return what was chosen, JSON-like."""
        return super().parameters() | {
            "settings": asdict(self.settings),
        }

    def save(self, directory: Path) -> None:
        """Write ``model.json`` and one text file a side and level."""
        write_record(directory, self.parameters())
        for (side, level), booster in self._boosters.items():
            path = directory / f"{side}-{level:g}.txt"
            path.write_text(booster_text(booster), encoding="utf-8")

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read what :meth:`save` wrote."""
        record = read_record(directory)
        fields = cls.fields_of(record)
        boosters = {
            (side, level): booster_from_text(
                (directory / f"{side}-{level:g}.txt").read_text(encoding="utf-8")
            )
            for side in fields["sides"]
            for level in fields["levels"]
        }
        return cls(**fields, settings=Settings(**record["settings"]), _boosters=boosters)
