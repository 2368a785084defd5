"""HAR quantile regression peers: the margin read straight off volatilities of several windows.

The quantile of the outcome is linear in volatilities (or its logarithm in their logarithms), with
or without the rhythm of the week: the heterogeneous autoregression of Corsi 2009
(doi:10.1093/jjfinec/nbp001) under the pinball loss (Zikes and Barunik 2016,
arXiv:1308.4276). A level whose exceedances are too few for that many coefficients takes
the slopes of a lower level, times the quantile of what was standardised by it (extrapolation from
an intermediate level, Wang, Li and He 2012, doi:10.1080/01621459.2012.716382).
"""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from margincast.core.errors import InputError, InsufficientHistoryError
from margincast.core.types import BoolArray, FloatArray, Side
from margincast.models.checks import require_exceedance
from margincast.models.filtered_historical import POOLED
from margincast.models.protocol import Panel, TailForecast
from margincast.models.quantile_regression import quantile_regression
from margincast.models.record import read_record, write_record
from margincast.models.scale import (
    SMALLEST,
    SMALLEST_SHARE,
    rarely_known,
    volatilities_of,
    week_waves,
)

EVIDENCE = 50.0
"""Independent exceedances a coefficient needs.

Over 2021 (14 contracts, quarterly refits, mean pinball over 0.99, 0.995 and 0.999 relative to
EWMA-FHS) the log-linear model had 0.959, 0.947 and 0.949 at 24 h with 25, 50 and 100, and 1.07 with
each level on its own; at 8 h and 1 h the three lay within 0.005 of each other.
"""

LOWEST_ANCHOR = 0.8
"""Slopes come from this level or above: what moves the middle is not what moves the tail."""

ROUNDING = 1e-9
"""Sines and cosines below this are 0."""

CONTRACT_PRIOR = 5.0
"""Independent exceedances that everybody's factor counts as against a contract's own; on the same
decisions 0.003 below no factors of contracts."""


@dataclass
class HarQuantile:
    """Quantile regression on HAR volatilities, pooled over contracts.

    Attributes:
        name: name of the peer.
        logarithmic: regress logarithms on logarithms; else outcomes on volatilities.
        columns: volatility features, the windows of each short to long; see
            :func:`~margincast.models.scale.known_volatilities` where one is not known.
        seasonal_harmonics: harmonics of the week; in the linear model they multiply the volatility.
        sides: sides to forecast.
        levels: increasing levels; crossing quantiles are rearranged.
        overlap: consecutive decisions of a contract that share one horizon.
    """

    name: str
    logarithmic: bool
    columns: tuple[str, ...]
    seasonal_harmonics: tuple[int, ...]
    sides: tuple[Side, ...]
    levels: tuple[float, ...]
    overlap: float
    _unused: tuple[str, ...] = field(default=(), repr=False)
    _dropped: tuple[str, ...] = field(default=(), repr=False)
    _anchors: tuple[float, ...] = field(default=(), repr=False)
    _coefficients: FloatArray = field(default_factory=lambda: np.empty(0), repr=False)
    _factors: dict[str, FloatArray] = field(default_factory=dict, repr=False)
    _beyond: FloatArray = field(default_factory=lambda: np.empty(0), repr=False)

    def fit(self, panel: Panel) -> Self:
        """Estimate slopes at the anchor of each level, factors per contract, and the mean beyond.

        Raises:
            InsufficientHistoryError: no exceedance of a level, or fewer independent exceedances of
                the lowest anchor than coefficients, are to be expected.
            InputError: a column is absent, or none was chosen.
        """
        if not self.columns:
            raise InputError(
                f"{self.name} regresses on volatilities and was given none; name some in "
                "model.scale.columns, or leave this peer out"
            )
        volatilities = volatilities_of(panel.frame, self.columns, self.name)
        self._unused = rarely_known(volatilities, self.columns)
        design, width = self._design(panel.frame)
        known: BoolArray = np.asarray(np.isfinite(design).all(axis=1))
        self._anchors = self._anchor_levels(int(known.sum()), len(known), design.shape[1])
        panel, design, width = panel.rows(known), design[known], width[known]
        self._fit_slopes(panel, design, width)
        anchored = self._anchored(design, width)
        self._fit_factors(panel, anchored)
        self._fit_beyond(panel, self._quantiles(panel.frame, anchored))
        return self

    def predict(self, panel: Panel) -> TailForecast:
        """Forecast each row by its own volatilities and hour; unknown where they are not known."""
        quantiles = self._quantiles(panel.frame, self._anchored(*self._design(panel.frame)))
        beyond = np.maximum.accumulate(quantiles * self._beyond, axis=2)
        return TailForecast(self.sides, self.levels, quantiles, beyond)

    def parameters(self) -> dict[str, Any]:
        """Return columns, harmonics and what was estimated, JSON-like.

        Coefficients have shape (sides, levels, 1 + columns + 2 harmonics), intercept first.
        """
        return {
            "name": self.name,
            "logarithmic": self.logarithmic,
            "columns": list(self.columns),
            "seasonal_harmonics": list(self.seasonal_harmonics),
            "sides": list(self.sides),
            "levels": list(self.levels),
            "overlap": self.overlap,
            "unused": list(self._unused),
            "dropped": list(self._dropped),
            "anchor_levels": list(self._anchors),
            "coefficients": self._coefficients.tolist(),
            "factors": {name: values.tolist() for name, values in self._factors.items()},
            "beyond": self._beyond.tolist(),
        }

    def save(self, directory: Path) -> None:
        """Write ``model.json``."""
        write_record(directory, self.parameters())

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read what :meth:`save` wrote."""
        record = read_record(directory)
        model = cls(
            name=record["name"],
            logarithmic=record["logarithmic"],
            columns=tuple(record["columns"]),
            seasonal_harmonics=tuple(record["seasonal_harmonics"]),
            sides=tuple(record["sides"]),
            levels=tuple(record["levels"]),
            overlap=record["overlap"],
        )
        model._unused = tuple(record["unused"])
        model._dropped = tuple(record["dropped"])
        model._anchors = tuple(record["anchor_levels"])
        model._coefficients = np.array(record["coefficients"], dtype=np.float64)
        model._factors = {name: np.array(values) for name, values in record["factors"].items()}
        model._beyond = np.array(record["beyond"], dtype=np.float64)
        return model

    def _design(self, frame: pd.DataFrame) -> tuple[FloatArray, FloatArray]:
        """Return intercept, volatilities and waves, (n, 1 + columns + 2 harmonics), and width."""
        volatilities = volatilities_of(frame, self.columns, self.name)
        width = self._width(volatilities)
        waves = week_waves(frame["ts"], self.seasonal_harmonics)
        # a sine of whole half turns is not quite 0, and without ridge noise is a regressor as well
        waves[np.abs(waves) < ROUNDING] = 0.0
        if self.logarithmic:
            regressors = np.log(volatilities)
        else:
            # a busy hour moves the price in proportion to how much it moves anyway
            regressors, waves = volatilities, waves * width[:, None]
        unused = [column in self._unused for column in self.columns]
        regressors = np.where(unused, 0.0, regressors)
        return np.column_stack([np.ones(len(frame)), regressors, waves]), width

    def _width(self, volatilities: FloatArray) -> FloatArray:
        """Geometric mean of the windows of the first feature, shape (n,)."""
        feature = [column.rpartition("_")[0] for column in self.columns]
        first = [
            name == feature[0] and column not in self._unused
            for name, column in zip(feature, self.columns, strict=True)
        ]
        return np.asarray(np.exp(np.log(volatilities[:, first]).mean(axis=1)))

    def _anchor_levels(self, known: int, rows: int, coefficients: int) -> tuple[float, ...]:
        """Return for each level the highest one, up to itself, that has enough evidence."""
        for level in self.levels:
            require_exceedance(known, level)
        used = coefficients - len(self._unused)
        needed = math.ceil(round(used * self.overlap / (1 - LOWEST_ANCHOR), 6))
        if known < needed:
            raise InsufficientHistoryError(
                f"{self.name} has {used} coefficients and needs at least {needed:,} decisions with "
                f"a known {self.columns[0]}, found {known:,} of {rows:,}; use more history, more "
                "contracts or fewer columns in model.scale.columns"
            )
        highest = max(LOWEST_ANCHOR, 1 - EVIDENCE * used * self.overlap / known)
        return tuple(min(level, highest) for level in self.levels)

    def _fit_slopes(self, panel: Panel, design: FloatArray, width: FloatArray) -> None:
        anchors = sorted(set(self._anchors))
        positions = [anchors.index(anchor) for anchor in self._anchors]
        # an error in logarithms costs in proportion to the width it multiplies
        weights = width if self.logarithmic else None
        per_side = []
        for side in self.sides:
            outcome = panel.outcomes[side]
            response = np.log(np.maximum(outcome, SMALLEST)) if self.logarithmic else outcome
            fits = quantile_regression(design, response, anchors, weights)
            per_side.append([fits[position].coefficients for position in positions])
            names = self._names()
            self._dropped = tuple(names[column] for column in fits[0].dropped)
        self._coefficients = np.array(per_side)

    def _fit_factors(self, panel: Panel, anchored: FloatArray) -> None:
        """Take quantiles of outcome / anchored forecast: everybody's and each contract's."""
        symbols = panel.frame["symbol"].to_numpy(dtype=str)
        members = {str(name): np.flatnonzero(symbols == name) for name in np.unique(symbols)}
        shape = (len(self.sides), len(self.levels))
        self._factors = {name: np.empty(shape) for name in (POOLED, *members)}
        for i, side in enumerate(self.sides):
            for j, level in enumerate(self.levels):
                standardised = panel.outcomes[side] / anchored[:, i, j]
                pooled = _log_quantile(standardised, level)
                self._factors[POOLED][i, j] = math.exp(pooled)
                for name, rows in members.items():
                    shown = len(rows) * (1 - level) / self.overlap
                    share = shown / (shown + CONTRACT_PRIOR)
                    own = _log_quantile(standardised[rows], level)
                    self._factors[name][i, j] = math.exp(share * own + (1 - share) * pooled)

    def _fit_beyond(self, panel: Panel, forecast: FloatArray) -> None:
        """Take the mean of outcomes at or beyond the forecast over the mean of those forecasts."""
        self._beyond = np.ones((len(self.sides), len(self.levels)))
        for i, side in enumerate(self.sides):
            outcome = panel.outcomes[side]
            for j in range(len(self.levels)):
                reached = outcome >= forecast[:, i, j]
                if reached.any():
                    self._beyond[i, j] = outcome[reached].sum() / forecast[reached, i, j].sum()

    def _quantiles(self, frame: pd.DataFrame, anchored: FloatArray) -> FloatArray:
        """Forecasts of anchor levels times the factors of each row's contract, rearranged."""
        names, positions = np.unique(frame["symbol"].to_numpy(dtype=str), return_inverse=True)
        everybody = self._factors[POOLED]
        factors = np.array([self._factors.get(str(name), everybody) for name in names])
        return np.sort(anchored * factors.reshape(-1, *everybody.shape)[positions], axis=2)

    def _anchored(self, design: FloatArray, width: FloatArray) -> FloatArray:
        """Forecasts of the anchor levels, shape (n, sides, levels)."""
        # column by column and not @, so that a row's bits do not hang on how many rows there are
        linear = np.zeros((len(design), *self._coefficients.shape[:2]))
        for column, values in enumerate(design.T):
            linear += values[:, None, None] * self._coefficients[:, :, column]
        if self.logarithmic:
            return np.exp(linear)
        # lines may cross zero where volatilities are far apart; no tail is that narrow
        return np.maximum(linear, SMALLEST_SHARE * width[:, None, None])

    def _names(self) -> list[str]:
        waves = [f"{wave} {k}" for k in self.seasonal_harmonics for wave in ("sin", "cos")]
        return ["intercept", *self.columns, *waves]


def _log_quantile(standardised: FloatArray, level: float) -> float:
    # a contract whose price stood still has none; the logarithm takes it as very small
    return math.log(max(float(np.quantile(standardised, level)), SMALLEST))
