"""What the peers that learn from raw features share: their settings, their matrix, their order.

Checks and conventions under the forecasts of the machine-learning peers: features enter as they
are, levels that no outcome is expected to exceed are refused, and quantiles leave without crossing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from margincast.core.errors import InputError
from margincast.core.threads import available_threads
from margincast.core.types import FloatArray, Side
from margincast.models.checks import require_exceedance
from margincast.models.protocol import Panel, Unit, require_features


@dataclass(kw_only=True)
class RawLearner:
    """Settings of a learner on raw features and raw outcomes, and their record.

    Attributes:
        name: name of the peer.
        sides: sides to forecast.
        levels: increasing levels; crossing quantiles are rearranged.
        stride: train on every n-th decision, the same rows as our model.
        minimum_rows: see :meth:`~margincast.models.protocol.Panel.thinned`.
        seed: of whatever the learner draws.
        threads: work done side by side; changes nothing but speed.
    """

    name: str
    sides: tuple[Side, ...]
    levels: tuple[float, ...]
    stride: int
    minimum_rows: int
    seed: int
    threads: int
    _units: Mapping[str, Unit] = field(default_factory=dict, repr=False)

    def thinned(self, panel: Panel) -> Panel:
        """Return the decisions to train on.

        Raises:
            InsufficientHistoryError: they expect no exceedance of a level.
        """
        fitting = panel.thinned(self.stride, self.minimum_rows)
        require_exceedance(len(fitting), max(self.levels))
        return fitting

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
        }

    @staticmethod
    def fields_of(record: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields that :meth:`parameters` describes, as keyword arguments."""
        return {
            "name": record["name"],
            "sides": tuple(record["sides"]),
            "levels": tuple(record["levels"]),
            "stride": record["stride"],
            "minimum_rows": record["minimum_rows"],
            "seed": record["seed"],
            "threads": available_threads(),
            "_units": dict(record["units"]),
        }


def feature_matrix(
    frame: pd.DataFrame, columns: tuple[str, ...], model: str
) -> npt.NDArray[np.float32]:
    """Return raw features as a matrix, shape (n, features); NaN is "not known".

    Raises:
        InputError: a column is absent, or holds an infinite value.
    """
    require_features(frame, columns, model)
    matrix = frame[list(columns)].to_numpy(np.float32)
    infinite = np.isinf(matrix)
    if infinite.any():
        row, position = np.argwhere(infinite)[0]
        raise InputError(
            f"feature {columns[position]} is infinite in {int(infinite[:, position].sum()):,} of "
            f"{len(frame):,} rows, first at row {row:,}; {model} takes numbers, and NaN for what "
            "is not known"
        )
    return matrix


def ever_known(matrix: npt.NDArray[np.float32], columns: tuple[str, ...]) -> tuple[str, ...]:
    """Return the columns of a matrix that hold a number in at least one row.

    Nothing can be learned of the others, and scikit-learn fails on them.
    """
    known = np.flatnonzero(~np.isnan(matrix).all(axis=0))
    return tuple(columns[position] for position in known)


def rows_a_leaf(exceedances: float, level: float) -> int:
    """Rows a leaf must hold to expect that many exceedances of a level."""
    return round(exceedances / (1 - level))


def rearranged(quantiles: FloatArray) -> FloatArray:
    """Return quantiles that do not cross and are at least 0; levels along the last axis.

    Sorting never moves a quantile away from the truth (Chernozhukov et al. 2010,
    doi:10.3982/ECTA7880).
    """
    return np.sort(np.maximum(quantiles, 0.0), axis=-1)
