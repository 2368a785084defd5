"""Conditional scale: how wide the horizon's range is expected to be, before asking for its tail.

The margin is scale times a standardised quantile. The scale is a log-linear regression on
volatilities over several windows (the heterogeneous autoregression of Corsi 2009,
doi:10.1093/jjfinec/nbp001, in logs and on range-based volatilities), with the rhythm of the week
as sines and cosines. Being log-linear it extrapolates to a volatility never seen; trees cannot.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal, Self

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, RegressorMixin

from margincast.core.errors import InsufficientHistoryError
from margincast.core.types import BoolArray, FloatArray, Times
from margincast.models.protocol import Columns, require_features

SMALLEST = 1e-5
"""Volatilities and ranges below a tenth of a basis point are taken as this, so logs stay finite."""

SMALLEST_SHARE = 0.1
"""A volatility counts as at least this share of the next longer window's."""

HOURS_PER_WEEK = 168.0

HOUR_OF_WEEK = "hour_of_week"
"""Name of the weekly rhythm where a forecast is explained."""


@dataclass
class HarScale(RegressorMixin, BaseEstimator):
    """Log-linear HAR regression of the horizon's log range; a scikit-learn regressor.

    Attributes:
        columns: volatility features, the windows of each short to long; see
            :func:`known_volatilities` for what happens where one is not known.
        seasonal_harmonics: harmonics k of the week; each adds sin and cos of 2 pi k hour / 168.
        ridge: penalty on all but the intercept, times the number of rows.
        coefficients: fitted; intercept first, shape (1 + len(columns) + 2 harmonics,).
        centre: mean of each term over the training decisions, same shape; the average conditions
            an explanation starts from.
        unused: columns left out because fewer than half of the training decisions knew them (the
            leading contract is not in the data, say); their coefficient is 0.
    """

    columns: tuple[str, ...]
    seasonal_harmonics: tuple[int, ...]
    ridge: float
    coefficients: FloatArray = field(init=False, default_factory=lambda: np.empty(0))
    centre: FloatArray = field(init=False, default_factory=lambda: np.empty(0))
    unused: tuple[str, ...] = field(init=False, default=())

    def fit(self, frame: pd.DataFrame, log_range: FloatArray) -> Self:
        """Estimate by ridge least squares of log(log_range), elasticities summing to 1.

        A market three times as wild has ranges three times as wide. Without the constraint the sum
        comes out a little below 1, because volatility returns to its mean in the sample, and a
        scale that met a lasting change would stay too small by the factor^(sum - 1).

        Args:
            frame: n decisions with ``ts`` and the columns.
            log_range: log(high / low) over the horizon, shape (n,), finite.

        Raises:
            InsufficientHistoryError: fewer usable decisions than coefficients.
            InputError: a column is absent.
        """
        self.unused = ()
        design = self._design(frame)
        self.unused = rarely_known(design[:, 1 : 1 + len(self.columns)], self.columns)
        used = np.ones(design.shape[1], dtype=bool)
        used[1 : 1 + len(self.columns)] = [column not in self.unused for column in self.columns]
        design = design[:, used]
        known = np.isfinite(design).all(axis=1)
        if known.sum() < design.shape[1]:
            raise InsufficientHistoryError(
                f"the HAR scale has {design.shape[1]} coefficients and needs at least as many "
                f"decisions with a known {self.columns[0]}, found {known.sum():,} of "
                f"{len(design):,}; use more history, or another first column in "
                "model.scale.columns"
            )
        design = design[known]
        response = np.log(np.maximum(log_range[known], SMALLEST))
        # einsum and not @: the matrix library sums in another order on every number of threads
        gram = np.einsum("ni,nj->ij", design, design)
        moment = np.einsum("ni,n->i", design, response)
        penalty = self.ridge * len(design) * np.eye(design.shape[1])
        penalty[0, 0] = 0.0
        self.coefficients = np.zeros(len(used))
        elasticities = np.arange(len(used))[used] - 1 < len(self.columns)
        elasticities[0] = False
        solution = _summing_to_one(gram + penalty, moment, elasticities)
        self.coefficients[used] = solution
        self.centre = np.zeros(len(used))
        self.centre[used] = design.mean(axis=0)
        return self

    def predict(self, columns: Columns) -> FloatArray:
        """Return the expected range as a fraction, shape (n,); NaN where it is not known."""
        # column by column and not @, so that a row's bits do not hang on how many rows there are
        design = self._design(columns, order="F")
        log_scale = np.zeros(len(design))
        for values, coefficient in zip(design.T, self.coefficients, strict=True):
            log_scale += coefficient * values
        return np.exp(log_scale)

    def contributions(self, frame: pd.DataFrame) -> dict[str, FloatArray]:
        """Split log(scale / average scale) into what each column and the hour of the week add.

        Returns:
            Coefficient x (log volatility - its training mean) by column, shape (n,), then
            :data:`HOUR_OF_WEEK`; the sum is log(predict(frame) / average). A column that is not
            known counts as what stands in for it (:func:`known_volatilities`).
        """
        parts = self.coefficients * (self._design(frame) - self.centre)
        waves = 1 + len(self.columns)
        return {
            **{column: parts[:, i] for i, column in enumerate(self.columns, start=1)},
            HOUR_OF_WEEK: parts[:, waves:].sum(axis=1),
        }

    @property
    def average(self) -> float:
        """The scale where every term is at its training mean."""
        return float(np.exp(self.coefficients @ self.centre))

    def parameters(self) -> dict[str, Any]:
        """Return columns, harmonics, ridge, coefficients and training means, JSON-like."""
        return {
            "columns": list(self.columns),
            "seasonal_harmonics": list(self.seasonal_harmonics),
            "ridge": self.ridge,
            "coefficients": self.coefficients.tolist(),
            "centre": self.centre.tolist(),
            "unused": list(self.unused),
        }

    @classmethod
    def from_parameters(cls, parameters: dict[str, Any]) -> Self:
        """Rebuild a fitted scale from :meth:`parameters`."""
        scale = cls(
            columns=tuple(parameters["columns"]),
            seasonal_harmonics=tuple(parameters["seasonal_harmonics"]),
            ridge=float(parameters["ridge"]),
        )
        scale.coefficients = np.array(parameters["coefficients"], dtype=np.float64)
        scale.centre = np.array(parameters["centre"], dtype=np.float64)
        scale.unused = tuple(parameters["unused"])
        return scale

    def _design(self, columns: Columns, order: Literal["C", "F"] = "C") -> FloatArray:
        known = volatilities_of(columns, self.columns, "HAR scale", order=order)
        waves = week_waves(columns["ts"], self.seasonal_harmonics)
        design = np.empty((len(known), 1 + len(self.columns) + waves.shape[1]), order=order)
        design[:, 0] = 1.0
        logs = design[:, 1 : 1 + len(self.columns)]
        np.log(known, out=logs)
        logs[:, [column in self.unused for column in self.columns]] = 0.0
        design[:, 1 + len(self.columns) :] = waves
        return design


def _summing_to_one(normal: FloatArray, moment: FloatArray, summed: BoolArray) -> FloatArray:
    """Solve the normal equations under the constraint that the ``summed`` coefficients add to 1."""
    if not summed.any():
        return np.asarray(np.linalg.solve(normal, moment))
    constraint = summed.astype(np.float64)[:, None]
    bordered = np.block([[normal, constraint], [constraint.T, np.zeros((1, 1))]])
    return np.asarray(np.linalg.solve(bordered, np.append(moment, 1.0))[:-1])


def volatilities_of(
    table: Columns, columns: tuple[str, ...], model: str, *, order: Literal["C", "F"] = "C"
) -> FloatArray:
    """Return a table's volatilities as :func:`known_volatilities`, shape (n, columns).

    Raises:
        InputError: a column is absent; names the model that needs it.
    """
    require_features(table, columns, model)
    values = np.empty((len(table["ts"]), len(columns)), order=order)
    for position, column in enumerate(columns):
        values[:, position] = table[column]
    return known_volatilities(values, columns)


def rarely_known(volatilities: FloatArray, columns: tuple[str, ...]) -> tuple[str, ...]:
    """Return the columns, the first excepted, that fewer than half of the decisions know."""
    rarely = np.isfinite(volatilities).mean(axis=0) < 0.5
    rarely[:1] = False  # without the first column there is no scale
    return tuple(np.array(columns)[rarely].tolist())


def week_waves(ts: "pd.Series[pd.Timestamp] | Times", harmonics: tuple[int, ...]) -> FloatArray:
    """Return sine and cosine of each harmonic of the week, shape (n, 2 harmonics)."""
    # a week has few decision times, a panel many rows
    hours, row_of = np.unique(hour_of_week(ts), return_inverse=True)
    angle = 2 * np.pi * hours / HOURS_PER_WEEK
    waves = [wave(k * angle) for k in harmonics for wave in (np.sin, np.cos)]
    return np.column_stack([np.empty((len(hours), 0)), *waves])[row_of]


def hour_of_week(ts: "pd.Series[pd.Timestamp] | Times") -> FloatArray:
    """Hours since Monday 00:00 UTC, shape (n,)."""
    # of a series with a time zone this is UTC
    seconds = np.asarray(ts, dtype="datetime64[s]").astype(np.int64)
    # the first of January 1970 was a Thursday
    day, in_day = seconds // 86400, seconds % 86400
    return np.asarray(
        (day + 3) % 7 * 24 + in_day // 3600 + in_day % 3600 // 60 / 60 + in_day % 60 / 3600
    )


def known_volatilities(values: FloatArray, columns: Sequence[str]) -> FloatArray:
    """Mend one row's volatilities where a longer or shorter window of the same feature can.

    Columns of one feature (equal but for the window at the end of the name) stand short to long.
    A window that is not known takes the next shorter one's value: a contract a week old has no
    monthly volatility. A window shows at least :data:`SMALLEST_SHARE` of the next longer one: a
    bar that traded at one price says little about the hours to come. Where a feature's shortest
    window is not known it stays NaN.

    Args:
        values: volatilities, shape (n, columns).
        columns: their names.

    Returns:
        A mended copy, in the order of the values in memory.
    """
    mended = values.copy(order="K")
    same = [
        left.rpartition("_")[0] == right.rpartition("_")[0] for left, right in pairwise(columns)
    ]
    for column, neighbours in enumerate(same, start=1):
        if neighbours:
            unknown = np.isnan(mended[:, column])
            mended[unknown, column] = mended[unknown, column - 1]
    for column, neighbours in reversed(list(enumerate(same))):
        if neighbours:
            least = SMALLEST_SHARE * mended[:, column + 1]
            mended[:, column] = np.maximum(mended[:, column], least)
    return np.maximum(mended, SMALLEST)
