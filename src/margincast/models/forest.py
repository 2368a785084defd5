"""Quantile random forest: quantiles of the training outcomes that share leaves with a decision.

A peer. A forest weighs training outcomes by how often they fall into the same leaf as the decision;
the quantile of the weighted outcomes is the forecast (Meinshausen 2006, Journal of Machine Learning
Research 7, 983-999; library quantile-forest). It knows no outcome larger than the largest seen.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import joblib
import numpy as np
import numpy.typing as npt
import pandas as pd
from quantile_forest import RandomForestQuantileRegressor
from quantile_forest._quantile_forest_fast import QuantileForest
from sklearn.tree._tree import Tree

from margincast.core.types import FloatArray, Side
from margincast.models._skops import load_estimator, save_estimator
from margincast.models.protocol import Panel, TailForecast, require_features
from margincast.models.raw_features import (
    RawLearner,
    ever_known,
    feature_matrix,
    rearranged,
)
from margincast.models.record import read_record, write_record

TREES = 60
ROWS_A_TREE = 8_000
ROWS_A_LEAF = 60
FEATURE_SHARE = 0.2
"""Chosen on quarterly refits over 2021 (8 h): leaves of 20 to 300 rows, splits on raw and on log
outcomes, features not known filled by their median or by a number below all; leaves of 20 were
worse, the rest alike. Trees see few rows each, so that many fit into the time of one."""
CHUNK_ROWS = 500
"""Decisions forecast at a time: their neighbours' outcomes fit into a few megabytes."""


@dataclass(kw_only=True)
class QuantileRandomForest(RawLearner):
    """One quantile random forest a side, all levels from the same forest.

    The library takes no missing values: a feature that is not known is replaced by its median over
    the training rows (counted in :meth:`parameters`), one that no training row knows is left out.
    """

    _medians: Mapping[str, float] = field(default_factory=dict, repr=False)
    _filled: Mapping[str, int] = field(default_factory=dict, repr=False)
    _forests: dict[Side, RandomForestQuantileRegressor] = field(default_factory=dict, repr=False)

    def fit(self, panel: Panel) -> Self:
        """Grow the forests on raw features.

        Raises:
            InsufficientHistoryError: the rows trained on expect no exceedance of a level.
            InputError: a feature is absent or infinite.
        """
        fitting = self.thinned(panel)
        columns = tuple(panel.units)
        known = ever_known(feature_matrix(fitting.frame, columns, self.name), columns)
        matrix = feature_matrix(fitting.frame, known, self.name)
        medians = np.nanmedian(matrix, axis=0)
        self._units = dict(panel.units)
        self._medians = dict(zip(known, map(float, medians), strict=True))
        unknown = np.isnan(matrix).sum(axis=0)
        self._filled = {name: int(n) for name, n in zip(known, unknown, strict=True) if n}
        matrix = np.where(np.isnan(matrix), medians, matrix)
        with joblib.parallel_config("threading", n_jobs=self.threads):
            self._forests = {
                side: self._forest(len(fitting)).fit(matrix, fitting.outcomes[side])
                for side in self.sides
            }
        return self

    def predict(self, panel: Panel) -> TailForecast:
        """Forecast quantiles and the mean of the weighted outcomes ranked above them."""
        matrix = self._matrix(panel.frame)
        shape = (len(panel), len(self.sides), len(self.levels))
        quantiles, shortfall = np.empty(shape), np.empty(shape)
        with joblib.parallel_config("threading", n_jobs=self.threads):
            for i, side in enumerate(self.sides):
                forest = self._forests[side]
                worst = _WorstOfLeaves.of(forest, min(self.levels))
                for start in range(0, len(panel), CHUNK_ROWS):
                    rows = slice(start, start + CHUNK_ROWS)
                    leaves = forest.apply(matrix[rows])
                    quantiles[rows, i], shortfall[rows, i] = worst.tail(leaves, self.levels)
        return TailForecast(self.sides, self.levels, rearranged(quantiles), shortfall)

    def parameters(self) -> dict[str, Any]:
        """Return what was chosen and what was filled, JSON-like."""
        return super().parameters() | {
            "forest": self._forest(ROWS_A_TREE).get_params(),
            "medians": [list(item) for item in self._medians.items()],
            "rows_filled": dict(self._filled),
            "never_known": [column for column in self._units if column not in self._medians],
        }

    def save(self, directory: Path) -> None:
        """Write ``model.json`` and one JSON file a side."""
        write_record(directory, self.parameters())
        for side, forest in self._forests.items():
            save_estimator(forest, directory / f"{side}.json")

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read what :meth:`save` wrote.

        Raises:
            InputError: a file asks for types a forest is not made of.
        """
        record = read_record(directory)
        fields = cls.fields_of(record)
        forests = {
            side: load_estimator(
                directory / f"{side}.json", RandomForestQuantileRegressor, [QuantileForest, Tree]
            )
            for side in fields["sides"]
        }
        return cls(
            **fields,
            _medians=dict(record["medians"]),
            _filled=dict(record["rows_filled"]),
            _forests=forests,
        )

    def _matrix(self, frame: pd.DataFrame) -> npt.NDArray[np.float32]:
        require_features(frame, tuple(self._units), self.name)
        matrix = feature_matrix(frame, tuple(self._medians), self.name)
        medians = np.fromiter(self._medians.values(), np.float32, len(self._medians))
        return np.where(np.isnan(matrix), medians, matrix)

    def _forest(self, rows: int) -> RandomForestQuantileRegressor:
        return RandomForestQuantileRegressor(
            n_estimators=TREES,
            min_samples_leaf=ROWS_A_LEAF,
            max_samples_leaf=None,
            max_features=FEATURE_SHARE,
            max_samples=min(rows, ROWS_A_TREE),
            random_state=self.seed,
        )


@dataclass(frozen=True)
class _WorstOfLeaves:
    """The largest outcomes of every leaf: all that quantiles of high levels need.

    The library sums weights over all training rows for each decision; the upper tail of the same
    distribution costs a fraction of that.

    Attributes:
        outcomes: shape (trees, nodes, kept), ascending, -1 where a leaf holds fewer.
        counts: outcomes drawn into each leaf, shape (trees, nodes).
        kept: largest outcomes of a decision's neighbours that the lowest level may need.
    """

    outcomes: FloatArray
    counts: npt.NDArray[np.intp]
    kept: int

    @classmethod
    def of(cls, forest: RandomForestQuantileRegressor, lowest_level: float) -> Self:
        """Read a fitted forest's leaves."""
        members = np.asarray(forest.forest_.y_train_leaves)[:, :, 0]
        counts = (members > 0).sum(axis=2)
        most = int(counts.max(axis=1).sum())
        kept = min(most, math.ceil((1 - lowest_level) * most) + 2)
        # members count from 1 in ascending order of the outcome; 0 fills a leaf up
        outcomes = np.concatenate([[-1.0], np.asarray(forest.forest_.y_train)[0]])
        largest = np.sort(members, axis=2)[:, :, -kept:]
        return cls(outcomes[largest], counts, kept)

    def tail(
        self, leaves: npt.NDArray[np.intp], levels: tuple[float, ...]
    ) -> tuple[FloatArray, FloatArray]:
        """Return quantiles (type 7) and the means of what ranks above, both of shape (n, levels).

        Args:
            leaves: leaf of each decision in each tree, shape (n, trees).
            levels: none below the one the leaves were read for.
        """
        trees = np.arange(leaves.shape[1])
        count = self.counts[trees, leaves].sum(axis=1)
        neighbours = self.outcomes[trees, leaves].reshape(len(leaves), -1)
        kept = min(self.kept, neighbours.shape[1])
        descending = -np.sort(np.partition(-neighbours, kept - 1, axis=1)[:, :kept], axis=1)
        means = np.cumsum(descending, axis=1) / np.arange(1, kept + 1)
        rows = np.arange(len(leaves))[:, None]
        position = (count[:, None] - 1) * np.array(levels)
        above = count[:, None] - 1 - np.ceil(position).astype(np.intp)
        below = count[:, None] - 1 - np.floor(position).astype(np.intp)
        upper, lower = descending[rows, above], descending[rows, below]
        quantiles = lower + (position - np.floor(position)) * (upper - lower)
        # the mean of equal outcomes may end a rounding error below them
        return quantiles, np.maximum(means[rows, above], quantiles)
