"""Quantile head: which multiple of the scale is exceeded with probability 1 - level.

LightGBM with ``objective="quantile"`` on outcome / scale with the scale as weight: the weighted
pinball loss of the standardised outcome then *is* the pinball loss of the outcome. Facts of
LightGBM that shape the code (read from its source): leaf values are overwritten by the leaf's
empirical percentile, so a leaf must expect many exceedances (``min_data_in_leaf``) and
``lambda_l2`` does nothing; ``refit`` destroys quantile models; bins do not depend on the label,
so one ``Dataset`` serves every side and level.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import lightgbm as lgb
import numpy as np
import numpy.typing as npt
import pandas as pd

from margincast.core.types import FloatArray, Side
from margincast.models.protocol import Columns, Unit, require_features
from margincast.specs.training import Head


def dataset_parameters(chosen: Head) -> dict[str, Any]:
    """Return LightGBM's parameters that shape the bins; they hang on no side or level.

    ``deterministic`` with ``force_row_wise`` gives the same model for any thread count.
    """
    return {
        "max_bin": chosen.max_bin,
        "deterministic": True,
        "force_row_wise": True,
        "feature_pre_filter": False,
        "verbosity": -1,
    }


def training_parameters(chosen: Head, level: float) -> dict[str, Any]:
    """Return LightGBM's parameters for one level."""
    return dataset_parameters(chosen) | {
        "objective": "quantile",
        "alpha": level,
        "num_leaves": chosen.num_leaves,
        "learning_rate": chosen.learning_rate,
        "min_data_in_leaf": min_data_in_leaf(chosen, level),
        "feature_fraction": chosen.feature_fraction,
        "bagging_fraction": chosen.bagging_fraction,
        "bagging_freq": 1 if chosen.bagging_fraction < 1 else 0,
        "seed": chosen.seed,
    }


def min_data_in_leaf(chosen: Head, level: float) -> int:
    """Rows of average weight a leaf must hold to expect ``min_data_factor`` exceedances.

    LightGBM judges a split by the child's share of its parent's weight (the hessian), so rows
    twice as wide as the average count about twice.
    """
    return round(chosen.min_data_factor / (1 - level))


_ROWS_AT_ONCE = 4_096
"""Rows of a matrix that stay in the processor's cache while its columns are filled."""


@dataclass
class QuantileHead:
    """One LightGBM model a side and level on the standardised outcome.

    Attributes:
        chosen: parameters of LightGBM.
        units: feature columns and their units; ``fraction`` columns enter divided by the scale.
        sides: sides, order of axis 1 of predictions.
        levels: levels, order of axis 2.
        threads: OpenMP threads.
        boosters: fitted models by (side, level).
    """

    chosen: Head
    units: Mapping[str, Unit]
    sides: tuple[Side, ...]
    levels: tuple[float, ...]
    threads: int
    boosters: dict[tuple[Side, float], lgb.Booster] = field(default_factory=dict)

    def design(self, columns: Columns, scale: FloatArray) -> npt.NDArray[np.float32]:
        """Return the training matrix, shape (n, features + 1): scale-free features, log scale."""
        require_features(columns, tuple(self.units), "quantile head")
        matrix = np.empty((len(scale), len(self.units) + 1), dtype=np.float32)
        read = [np.asarray(columns[column], np.float64) for column in self.units]
        for start in range(0, len(scale), _ROWS_AT_ONCE):
            rows = slice(start, start + _ROWS_AT_ONCE)
            for position, (values, unit) in enumerate(zip(read, self.units.values(), strict=True)):
                own = values[rows]
                matrix[rows, position] = own / scale[rows] if unit == "fraction" else own
        matrix[:, -1] = np.log(scale)
        return matrix

    def fit(
        self,
        frame: pd.DataFrame,
        scale: FloatArray,
        outcomes: Mapping[Side, FloatArray],
    ) -> Self:
        """Train every side and level on shared bins.

        Args:
            frame: n decisions.
            scale: conditional scale, shape (n,), positive and finite.
            outcomes: adverse excursions per side, shape (n,), finite.
        """
        matrix = self.design(frame, scale)
        self.boosters = {}
        bins = self.bins(matrix)
        for side in self.sides:
            for level in self.levels:
                self.boosters[side, level] = self.train(
                    bins, outcomes[side] / scale, scale / scale.mean(), level
                )
        return self

    def bins(self, matrix: npt.NDArray[np.float32]) -> lgb.Dataset:
        """Bin a training matrix once; labels and weights are set per side and level."""
        names = [*self.units, "log_scale"]
        parameters = dataset_parameters(self.chosen) | {"num_threads": self.threads}
        dataset = lgb.Dataset(matrix, feature_name=names, params=parameters, free_raw_data=True)
        return dataset.construct()

    def train(
        self, bins: lgb.Dataset, label: FloatArray, weight: FloatArray, level: float
    ) -> lgb.Booster:
        """Train one booster on prepared bins."""
        bins.set_label(label)
        bins.set_weight(weight)
        return lgb.train(
            training_parameters(self.chosen, level) | {"num_threads": self.threads},
            bins,
            num_boost_round=self.chosen.rounds,
        )

    def predict(self, columns: Columns, scale: FloatArray) -> FloatArray:
        """Return standardised quantiles, shape (n, sides, levels), at least 0."""
        matrix = self.design(columns, scale)
        result = np.empty((len(scale), len(self.sides), len(self.levels)))
        for i, side in enumerate(self.sides):
            for j, level in enumerate(self.levels):
                booster = self.boosters[side, level]
                result[:, i, j] = np.asarray(booster.predict(matrix, num_threads=self.threads))
        return np.maximum(result, 0.0)


def booster_text(booster: lgb.Booster) -> str:
    """Return a booster as text; the thread count, which changes nothing, is written as 0."""
    return re.sub(r"\[num_threads: \d+\]", "[num_threads: 0]", booster.model_to_string())


def booster_from_text(text: str) -> lgb.Booster:
    """Read a booster from text; no code in the text is run."""
    return lgb.Booster(model_str=text)
