"""Filtered historical simulation: the classical peers, a volatility times its own past quantiles.

Outcomes of a trailing history are divided by a volatility known at their decision; the quantile
of these standardised outcomes times today's volatility is the forecast (Hull and White 1998,
doi:10.21314/JOR.1998.001; Barone-Adesi et al. 1999). With the volatility constant it is plain
historical simulation: the ``static`` peer.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import pandas as pd

from margincast.core.errors import InsufficientHistoryError
from margincast.core.types import BoolArray, FloatArray, Side
from margincast.models.protocol import Panel, TailForecast, require_features
from margincast.models.scale import SMALLEST, HarScale

Filter = Literal["none", "column", "har"]
POOLED = "(pooled)"


@dataclass
class FilteredHistorical:
    """Filtered historical simulation with one of three filters.

    Attributes:
        name: name of the peer.
        filter: ``none`` (static), ``column`` (a volatility feature) or ``har``.
        column: the volatility feature of ``column``.
        har: columns and harmonics of ``har`` (unfitted).
        history: trailing history of standardised outcomes, longer where it is too short for a
            level; None takes all.
        minimum_exceedances: contracts that expect fewer in the history use the pooled quantile.
        sides: sides to forecast.
        levels: increasing levels.
    """

    name: str
    filter: Filter
    column: str
    har: HarScale
    history: timedelta | None
    minimum_exceedances: float
    sides: tuple[Side, ...]
    levels: tuple[float, ...]
    _quantiles: dict[str, FloatArray] = field(default_factory=dict, repr=False)
    _shortfalls: dict[str, FloatArray] = field(default_factory=dict, repr=False)

    def fit(self, panel: Panel) -> Self:
        """Take standardised quantiles and mean excesses, per contract and pooled."""
        if self.filter == "har":
            self.har.fit(panel.frame, panel.log_range)
        ts = panel.frame["ts"]
        scale = self._scale(panel.frame)
        known = np.isfinite(scale)
        recent = known.copy()
        if self.history is not None:
            recent &= (ts >= ts.max() - self.history).to_numpy()
        symbols = panel.frame["symbol"].to_numpy(dtype=object)
        shape = (len(self.sides), len(self.levels))
        pooled, pooled_beyond = np.empty(shape), np.empty(shape)
        for j, level in enumerate(self.levels):
            rows = self._pool(recent, known, level)
            for i, side in enumerate(self.sides):
                standardised = panel.outcomes[side][rows] / scale[rows]
                pooled[i, j], pooled_beyond[i, j] = _quantile_and_beyond(standardised, level)
        self._quantiles, self._shortfalls = {}, {}
        self._keep(POOLED, pooled, pooled_beyond)
        for symbol in np.unique(symbols[recent].astype(str)):
            own = recent & (symbols == symbol)
            quantiles, beyond = pooled.copy(), pooled_beyond.copy()
            for j, level in enumerate(self.levels):
                if own.sum() * (1 - level) < self.minimum_exceedances:
                    continue
                for i, side in enumerate(self.sides):
                    standardised = panel.outcomes[side][own] / scale[own]
                    quantiles[i, j], beyond[i, j] = _quantile_and_beyond(standardised, level)
            self._keep(str(symbol), quantiles, beyond)
        return self

    def predict(self, frame: pd.DataFrame) -> TailForecast:
        """Forecast scale x standardised quantile."""
        scale = self._scale(frame)[:, None, None]
        names, positions = np.unique(frame["symbol"].to_numpy(dtype=str), return_inverse=True)

        def rows_of(table: Mapping[str, FloatArray]) -> FloatArray:
            return np.stack([table.get(str(name), table[POOLED]) for name in names])[positions]

        return TailForecast(
            self.sides,
            self.levels,
            scale * rows_of(self._quantiles),
            scale * rows_of(self._shortfalls),
        )

    def parameters(self) -> dict[str, Any]:
        """Return the filter and what was estimated, JSON-like."""
        return {
            "name": self.name,
            "filter": self.filter,
            "column": self.column,
            "har": self.har.parameters(),
            "history_days": None if self.history is None else self.history / timedelta(days=1),
            "minimum_exceedances": self.minimum_exceedances,
            "sides": list(self.sides),
            "levels": list(self.levels),
            "quantiles": {name: values.tolist() for name, values in self._quantiles.items()},
            "shortfalls": {name: values.tolist() for name, values in self._shortfalls.items()},
        }

    def save(self, directory: Path) -> None:
        """Write ``model.json``."""
        text = json.dumps(self.parameters(), indent=1, sort_keys=True) + "\n"
        (directory / "model.json").write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read what :meth:`save` wrote."""
        record = json.loads((directory / "model.json").read_text(encoding="utf-8"))
        days = record["history_days"]
        model = cls(
            name=record["name"],
            filter=record["filter"],
            column=record["column"],
            har=HarScale.from_parameters(record["har"]),
            history=None if days is None else timedelta(days=days),
            minimum_exceedances=record["minimum_exceedances"],
            sides=tuple(record["sides"]),
            levels=tuple(record["levels"]),
        )
        model._quantiles = {key: np.array(value) for key, value in record["quantiles"].items()}
        model._shortfalls = {key: np.array(value) for key, value in record["shortfalls"].items()}
        return model

    def _scale(self, frame: pd.DataFrame) -> FloatArray:
        if self.filter == "none":
            return np.ones(len(frame))
        if self.filter == "har":
            return self.har.predict(frame)
        require_features(frame, (self.column,), self.name)
        # maximum keeps NaN: an unknown volatility gives an unknown forecast
        values: FloatArray = frame[self.column].to_numpy(np.float64)
        return np.maximum(values, SMALLEST)

    def _pool(self, recent: BoolArray, known: BoolArray, level: float) -> BoolArray:
        """Rows of the pooled quantile: recent ones, or all where those are too few for a level.

        Raises:
            InsufficientHistoryError: even all of them expect no exceedance.
        """
        if recent.sum() * (1 - level) >= self.minimum_exceedances:
            return recent
        if known.sum() * (1 - level) < 1:
            raise InsufficientHistoryError(
                f"level {level:g} needs at least {1 / (1 - level):,.0f} decisions, found "
                f"{known.sum():,}; use more history, more contracts or a lower level"
            )
        return known

    def _keep(self, name: str, quantiles: FloatArray, beyond: FloatArray) -> None:
        # a level taken from the pool may lie below the contract's own lower one
        self._quantiles[name] = np.maximum.accumulate(quantiles, axis=1)
        self._shortfalls[name] = np.maximum.accumulate(beyond, axis=1)


def _quantile_and_beyond(standardised: FloatArray, level: float) -> tuple[float, float]:
    """Return the empirical quantile (type 7) and the mean of what lies at or beyond it."""
    quantile = float(np.quantile(standardised, level))
    return quantile, float(standardised[standardised >= quantile].mean())
