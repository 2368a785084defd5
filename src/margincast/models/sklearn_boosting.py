"""Gradient boosting of scikit-learn with quantile loss on untransformed outcomes.

A peer: the histogram booster most people reach for first, at its best here (leaves that hold
enough exceedances to know a tail, few rounds), still bound to raw outcomes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import joblib
import numpy as np
import numpy.typing as npt
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.ensemble._hist_gradient_boosting.predictor import TreePredictor
from threadpoolctl import threadpool_limits

from margincast.core.threads import available_threads
from margincast.core.types import FloatArray, Side
from margincast.models._skops import load_estimator, save_estimator
from margincast.models.protocol import Panel, TailForecast, Unit, require_features
from margincast.models.raw_features import (
    ever_known,
    feature_matrix,
    rearranged,
    require_exceedances,
    rows_a_leaf,
)
from margincast.models.record import read_record, write_record

ROUNDS = 60
LEAVES = 8
LEARNING_RATE = 0.05
FEATURE_SHARE = 0.3
LEAF_EXCEEDANCES = 10.0
"""The same as of :data:`margincast.models.lightgbm_raw.TUNED`, chosen on refits over 2021."""


@dataclass
class SklearnBoosting:
    """Histogram gradient boosting with quantile loss, one model a side and level.

    Features that are not known need no filling: each split learns which way they go. Features that
    no training row knows are left out (``never_known`` in :meth:`parameters`).

    Attributes:
        sides: sides to forecast.
        levels: increasing levels; crossing quantiles are rearranged.
        stride: train on every n-th decision, the same rows as our model.
        minimum_rows: see :meth:`~margincast.models.protocol.Panel.thinned`.
        seed: of the features each split may look at.
        threads: boosters fitted side by side, each on one thread; changes nothing but speed.
        name: name of the peer.
    """

    sides: tuple[Side, ...]
    levels: tuple[float, ...]
    stride: int
    minimum_rows: int
    seed: int
    threads: int
    name: str = "sklearn_gbq"
    _units: Mapping[str, Unit] = field(default_factory=dict, repr=False)
    _known: tuple[str, ...] = ()
    _boosters: dict[tuple[Side, float], HistGradientBoostingRegressor] = field(
        default_factory=dict, repr=False
    )

    def fit(self, panel: Panel) -> Self:
        """Train on raw features and raw outcomes.

        Raises:
            InsufficientHistoryError: the rows trained on expect no exceedance of a level.
            InputError: a feature is absent or infinite.
        """
        fitting = panel.thinned(self.stride, self.minimum_rows)
        require_exceedances(len(fitting), self.levels)
        columns = tuple(panel.units)
        known = ever_known(feature_matrix(fitting.frame, columns, self.name), columns)
        matrix = feature_matrix(fitting.frame, known, self.name)
        pairs = [(side, level) for side in self.sides for level in self.levels]
        fits = joblib.Parallel(n_jobs=self.threads, prefer="threads")(
            joblib.delayed(_fit)(self._booster(level), matrix, fitting.outcomes[side])
            for side, level in pairs
        )
        self._units, self._known = dict(panel.units), known
        self._boosters = dict(zip(pairs, fits, strict=True))
        return self

    def predict(self, panel: Panel) -> TailForecast:
        """Forecast, rearranged so that levels do not cross, at least 0."""
        require_features(panel.frame, tuple(self._units), self.name)
        matrix = feature_matrix(panel.frame, self._known, self.name)
        quantiles = np.empty((len(panel), len(self.sides), len(self.levels)))
        with threadpool_limits(1, user_api="openmp"):
            for i, side in enumerate(self.sides):
                for j, level in enumerate(self.levels):
                    quantiles[:, i, j] = self._boosters[side, level].predict(matrix)
        return TailForecast(self.sides, self.levels, rearranged(quantiles))

    def parameters(self) -> dict[str, Any]:
        """Return what was chosen, JSON-like."""
        return {
            "name": self.name,
            "sides": list(self.sides),
            "levels": list(self.levels),
            "stride": self.stride,
            "minimum_rows": self.minimum_rows,
            "seed": self.seed,
            "boosting": {f"{level:g}": self._booster(level).get_params() for level in self.levels},
            "units": [list(item) for item in self._units.items()],
            "never_known": [column for column in self._units if column not in self._known],
        }

    def save(self, directory: Path) -> None:
        """Write ``model.json`` and one JSON file a side and level."""
        write_record(directory, self.parameters())
        for (side, level), booster in self._boosters.items():
            save_estimator(booster, directory / f"{side}-{level:g}.json")

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read what :meth:`save` wrote.

        Raises:
            InputError: a file asks for types a booster is not made of.
        """
        record = read_record(directory)
        model = cls(
            tuple(record["sides"]),
            tuple(record["levels"]),
            record["stride"],
            record["minimum_rows"],
            record["seed"],
            available_threads(),
            record["name"],
        )
        model._units = dict(record["units"])
        never = record["never_known"]
        model._known = tuple(column for column in model._units if column not in never)
        for side in model.sides:
            for level in model.levels:
                model._boosters[side, level] = load_estimator(
                    directory / f"{side}-{level:g}.json",
                    HistGradientBoostingRegressor,
                    [TreePredictor],
                )
        return model

    def _booster(self, level: float) -> HistGradientBoostingRegressor:
        return HistGradientBoostingRegressor(
            loss="quantile",
            quantile=level,
            max_iter=ROUNDS,
            max_leaf_nodes=LEAVES,
            learning_rate=LEARNING_RATE,
            max_features=FEATURE_SHARE,
            min_samples_leaf=rows_a_leaf(LEAF_EXCEEDANCES, level),
            # a held-out part at random would share its horizons with the rest
            early_stopping=False,
            random_state=self.seed,
        )


def _fit(
    booster: HistGradientBoostingRegressor,
    matrix: npt.NDArray[np.float32],
    outcome: FloatArray,
) -> HistGradientBoostingRegressor:
    # OpenMP's limit belongs to the thread that sets it; its own threads collapse on shared cores
    with threadpool_limits(1, user_api="openmp"):
        booster.fit(matrix, outcome)
    return booster
