"""Conditional scale: how wide the horizon's range is expected to be, before asking for its tail.

The margin is scale times a standardised quantile. The scale is a log-linear regression on
volatilities over several windows (the heterogeneous autoregression of Corsi 2009,
doi:10.1093/jjfinec/nbp001, in logs and on range-based volatilities), with the rhythm of the week
as sines and cosines. Being log-linear it extrapolates to a volatility never seen; trees cannot.
"""

from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import pandas as pd

from margincast.core.errors import InsufficientHistoryError
from margincast.core.types import FloatArray
from margincast.models.protocol import require_features

SMALLEST = 1e-5
"""Volatilities and ranges below a tenth of a basis point are taken as this, so logs stay finite."""

HOURS_PER_WEEK = 168.0


@dataclass
class HarScale:
    """Log-linear HAR regression of the horizon's log range.

    Attributes:
        columns: volatility features, short to long. Where one is not known its left neighbour's
            value stands in (a contract a week old has no monthly volatility); the first must be
            known, otherwise the scale is NaN.
        seasonal_harmonics: harmonics k of the week; each adds sin and cos of 2 pi k hour / 168.
        ridge: penalty on all but the intercept, times the number of rows.
        coefficients: fitted; intercept first, shape (1 + len(columns) + 2 harmonics,).
    """

    columns: tuple[str, ...]
    seasonal_harmonics: tuple[int, ...]
    ridge: float
    coefficients: FloatArray = field(default_factory=lambda: np.empty(0))

    def fit(self, frame: pd.DataFrame, log_range: FloatArray) -> Self:
        """Estimate by ridge least squares of log(log_range).

        Args:
            frame: n decisions with ``ts`` and the columns.
            log_range: log(high / low) over the horizon, shape (n,), finite.

        Raises:
            InsufficientHistoryError: fewer usable decisions than coefficients.
            InputError: a column is absent.
        """
        design = self._design(frame)
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
        solution = np.linalg.solve(gram + penalty, moment)
        self.coefficients = np.asarray(solution, dtype=np.float64)
        return self

    def predict(self, frame: pd.DataFrame) -> FloatArray:
        """Return the expected range as a fraction, shape (n,); NaN where it is not known."""
        # column by column and not @, so that a row's bits do not hang on how many rows there are
        log_scale = np.zeros(len(frame))
        for values, coefficient in zip(self._design(frame).T, self.coefficients, strict=True):
            log_scale += coefficient * values
        return np.exp(log_scale)

    def parameters(self) -> dict[str, Any]:
        """Return columns, harmonics, ridge and coefficients, JSON-like."""
        return {
            "columns": list(self.columns),
            "seasonal_harmonics": list(self.seasonal_harmonics),
            "ridge": self.ridge,
            "coefficients": self.coefficients.tolist(),
        }

    @classmethod
    def from_parameters(cls, parameters: dict[str, Any]) -> Self:
        """Rebuild a fitted scale from :meth:`parameters`."""
        return cls(
            columns=tuple(parameters["columns"]),
            seasonal_harmonics=tuple(parameters["seasonal_harmonics"]),
            ridge=float(parameters["ridge"]),
            coefficients=np.array(parameters["coefficients"], dtype=np.float64),
        )

    def _design(self, frame: pd.DataFrame) -> FloatArray:
        require_features(frame, self.columns, "HAR scale")
        volatilities = _carry_right(frame[list(self.columns)].to_numpy(np.float64))
        logs = np.log(np.maximum(volatilities, SMALLEST))
        angle = 2 * np.pi * hour_of_week(frame["ts"]) / HOURS_PER_WEEK
        waves = [wave(k * angle) for k in self.seasonal_harmonics for wave in (np.sin, np.cos)]
        return np.asarray(np.column_stack([np.ones(len(frame)), logs, *waves]), dtype=np.float64)


def hour_of_week(ts: "pd.Series[pd.Timestamp]") -> FloatArray:
    """Hours since Monday 00:00 UTC, shape (n,)."""
    times = ts.dt
    hours = times.day_of_week * 24 + times.hour + times.minute / 60 + times.second / 3600
    return hours.to_numpy(np.float64)


def _carry_right(values: FloatArray) -> FloatArray:
    """Fill each NaN with the nearest known value to its left in the row."""
    filled = values.copy()
    for column in range(1, filled.shape[1]):
        unknown = np.isnan(filled[:, column])
        filled[unknown, column] = filled[unknown, column - 1]
    return filled
