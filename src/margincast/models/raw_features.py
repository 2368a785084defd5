"""What the peers that learn from raw features share: their matrix, their history, their order.

Checks and conventions under the forecasts of the machine-learning peers: features enter as they
are, levels that no outcome is expected to exceed are refused, and quantiles leave without crossing.
"""

import numpy as np
import numpy.typing as npt
import pandas as pd

from margincast.core.errors import InputError, InsufficientHistoryError
from margincast.core.types import FloatArray
from margincast.models.protocol import require_features


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


def require_exceedances(rows: int, levels: tuple[float, ...]) -> None:
    """Refuse to learn a level that no outcome is expected to exceed.

    Raises:
        InsufficientHistoryError: ``rows`` decisions expect less than one exceedance of a level.
    """
    level = max(levels)
    if rows * (1 - level) < 1:
        raise InsufficientHistoryError(
            f"level {level:g} needs at least {1 / (1 - level):,.0f} training decisions, found "
            f"{rows:,}; use more history, more contracts or a lower level"
        )


def rows_a_leaf(exceedances: float, level: float) -> int:
    """Rows a leaf must hold to expect that many exceedances of a level."""
    return round(exceedances / (1 - level))


def rearranged(quantiles: FloatArray) -> FloatArray:
    """Return quantiles that do not cross and are at least 0; levels along the last axis.

    Sorting never moves a quantile away from the truth (Chernozhukov et al. 2010,
    doi:10.3982/ECTA7880).
    """
    return np.sort(np.maximum(quantiles, 0.0), axis=-1)
