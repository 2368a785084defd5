"""Gradient boosting of scikit-learn with quantile loss on untransformed outcomes.

A peer: the histogram booster most people reach for first, at its best here (leaves that hold
enough exceedances to know a tail, few rounds), still bound to raw outcomes.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import joblib
import numpy as np
import numpy.typing as npt
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.ensemble._hist_gradient_boosting.predictor import TreePredictor
from threadpoolctl import threadpool_limits

from margincast.core.types import FloatArray, Side
from margincast.models._skops import load_estimator, save_estimator
from margincast.models.protocol import Panel, TailForecast, require_features
from margincast.models.raw_features import (
    RawLearner,
    ever_known,
    feature_matrix,
    rearranged,
    rows_a_leaf,
)
from margincast.models.record import read_record, write_record

ROUNDS = 60
LEAVES = 8
LEARNING_RATE = 0.05
FEATURE_SHARE = 0.3
LEAF_EXCEEDANCES = 10.0
"""The same as of :data:`margincast.models.lightgbm_raw.TUNED`, chosen on refits over 2021."""


@dataclass(kw_only=True)
class SklearnBoosting(RawLearner):
    """Histogram gradient boosting with quantile loss, one model a side and level.

    Features that are not known need no filling: each split learns which way they go. Features that
    no training row knows are left out (``never_known`` in :meth:`parameters`).
    """

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
        fitting = self.thinned(panel)
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
        return super().parameters() | {
            "boosting": {f"{level:g}": self._booster(level).get_params() for level in self.levels},
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
        fields = cls.fields_of(record)
        boosters = {
            (side, level): load_estimator(
                directory / f"{side}-{level:g}.json",
                HistGradientBoostingRegressor,
                [TreePredictor],
            )
            for side in fields["sides"]
            for level in fields["levels"]
        }
        known = tuple(name for name in fields["_units"] if name not in record["never_known"])
        return cls(**fields, _known=known, _boosters=boosters)

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
