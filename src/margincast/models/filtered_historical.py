"""Filtered historical simulation: the classical peers, a volatility times its own past quantiles.

Outcomes of a trailing history are divided by a volatility known at their decision; the quantile
of these standardised outcomes times today's volatility is the forecast (Hull and White 1998,
doi:10.21314/JOR.1998.001; Barone-Adesi et al. 1999). With the volatility constant it is plain
historical simulation: the ``static`` peer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, Protocol, Self

import numpy as np
import pandas as pd

from margincast.core.types import BoolArray, FloatArray, Side
from margincast.models.checks import require_exceedance
from margincast.models.protocol import Panel, TailForecast, require_features
from margincast.models.record import read_record, write_record
from margincast.models.scale import SMALLEST, HarScale

Filter = Literal["none", "column", "har"]
POOLED = "(pooled)"


class TailEstimator(Protocol):
    """How quantiles and the means beyond them are taken from standardised outcomes."""

    def suffices(self, rows: int, level: float) -> bool:
        """Whether this many rows say enough about a level."""
        ...

    def estimate(
        self, standardised: FloatArray, levels: Sequence[float]
    ) -> tuple[FloatArray, FloatArray]:
        """Return quantiles and the means beyond them, each of shape (levels,)."""
        ...


@dataclass(frozen=True)
class EmpiricalTail:
    """Empirical quantile (type 7) and the mean of what lies at or beyond it.

    Attributes:
        minimum_exceedances: expected exceedances below which rows do not suffice.
    """

    minimum_exceedances: float

    def suffices(self, rows: int, level: float) -> bool:
        """Whether the rows expect enough exceedances."""
        return rows * (1 - level) >= self.minimum_exceedances

    def estimate(
        self, standardised: FloatArray, levels: Sequence[float]
    ) -> tuple[FloatArray, FloatArray]:
        """Return quantiles and the means beyond them, each of shape (levels,)."""
        quantiles: FloatArray = np.quantile(standardised, levels)
        beyond = [standardised[standardised >= quantile].mean() for quantile in quantiles]
        return quantiles, np.array(beyond)


@dataclass(frozen=True)
class StandardisedTails:
    """Quantiles of standardised outcomes and the means beyond them, per contract and pooled.

    Attributes:
        quantiles: per contract (and under :data:`POOLED`), shape (sides, levels).
        shortfalls: means beyond them, likewise.
    """

    quantiles: dict[str, FloatArray] = field(default_factory=dict)
    shortfalls: dict[str, FloatArray] = field(default_factory=dict)

    @classmethod
    def of_panel(
        cls,
        panel: Panel,
        scale: FloatArray,
        *,
        sides: tuple[Side, ...],
        levels: tuple[float, ...],
        history: timedelta | None,
        tail: TailEstimator,
    ) -> Self:
        """Take the tails of outcome / scale over a panel's trailing history.

        Args:
            panel: labelled decisions.
            scale: of each decision, shape (n,); NaN where not known.
            sides: sides wanted.
            levels: increasing levels wanted.
            history: trailing history, longer for levels for which it does not suffice (pooled);
                None takes all.
            tail: estimator; contracts whose rows do not suffice for a level take the pool's.

        Raises:
            InsufficientHistoryError: all decisions together expect no exceedance of a level.
        """
        ts = panel.frame["ts"]
        known = np.isfinite(scale)
        recent = known.copy()
        if history is not None:
            recent &= (ts >= ts.max() - history).to_numpy()
        symbols = panel.frame["symbol"].to_numpy(dtype=object)
        outcomes = [panel.outcomes[side] for side in sides]

        def estimate_into(
            table: tuple[FloatArray, FloatArray], rows: BoolArray, chosen: list[int]
        ) -> None:
            for i, outcome in enumerate(outcomes if chosen else []):
                standardised = outcome[rows] / scale[rows]
                estimates = tail.estimate(standardised, [levels[j] for j in chosen])
                for values, estimated in zip(table, estimates, strict=True):
                    values[i, chosen] = estimated

        shape = (len(sides), len(levels))
        pooled = np.empty(shape), np.empty(shape)
        soon = [j for j, level in enumerate(levels) if tail.suffices(int(recent.sum()), level)]
        late = [j for j in range(len(levels)) if j not in soon]
        for j in late:
            require_exceedance(int(known.sum()), levels[j])
        estimate_into(pooled, recent, soon)
        estimate_into(pooled, known, late)
        tails = cls()
        tails._keep(POOLED, *pooled)
        for symbol in np.unique(symbols[recent].astype(str)):
            own = recent & (symbols == symbol)
            table = pooled[0].copy(), pooled[1].copy()
            rows = int(own.sum())
            chosen = [j for j, level in enumerate(levels) if tail.suffices(rows, level)]
            estimate_into(table, own, chosen)
            tails._keep(str(symbol), *table)
        return tails

    def forecast(
        self,
        symbols: "pd.Series[str]",
        scale: FloatArray,
        sides: tuple[Side, ...],
        levels: tuple[float, ...],
    ) -> TailForecast:
        """Return scale x standardised quantile and expected shortfall of n decisions.

        Args:
            symbols: contracts; one never seen has the pooled tail.
            scale: shape (n,).
            sides: sides the tails were taken for.
            levels: levels likewise.
        """
        names, positions = np.unique(symbols.to_numpy(dtype=str), return_inverse=True)

        def rows_of(table: Mapping[str, FloatArray]) -> FloatArray:
            return np.stack([table.get(str(name), table[POOLED]) for name in names])[positions]

        wide = scale[:, None, None]
        return TailForecast(
            sides, levels, wide * rows_of(self.quantiles), wide * rows_of(self.shortfalls)
        )

    def parameters(self) -> dict[str, Any]:
        """Return both tables, JSON-like."""
        return {
            "quantiles": {name: values.tolist() for name, values in self.quantiles.items()},
            "shortfalls": {name: values.tolist() for name, values in self.shortfalls.items()},
        }

    @classmethod
    def from_parameters(cls, record: Mapping[str, Any]) -> Self:
        """Rebuild the tables from :meth:`parameters`."""
        return cls(
            {name: np.array(values) for name, values in record["quantiles"].items()},
            {name: np.array(values) for name, values in record["shortfalls"].items()},
        )

    def _keep(self, name: str, quantiles: FloatArray, beyond: FloatArray) -> None:
        # a level taken from the pool may lie below the contract's own lower one
        self.quantiles[name] = np.maximum.accumulate(quantiles, axis=1)
        self.shortfalls[name] = np.maximum.accumulate(beyond, axis=1)


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
    _tails: StandardisedTails = field(default_factory=StandardisedTails, repr=False)

    def fit(self, panel: Panel) -> Self:
        """Take standardised quantiles and mean excesses, per contract and pooled."""
        if self.filter == "har":
            self.har.fit(panel.frame, panel.log_range)
        self._tails = StandardisedTails.of_panel(
            panel,
            self._scale(panel.frame),
            sides=self.sides,
            levels=self.levels,
            history=self.history,
            tail=EmpiricalTail(self.minimum_exceedances),
        )
        return self

    def predict(self, panel: Panel) -> TailForecast:
        """Forecast scale x standardised quantile."""
        frame = panel.frame
        return self._tails.forecast(frame["symbol"], self._scale(frame), self.sides, self.levels)

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
            **self._tails.parameters(),
        }

    def save(self, directory: Path) -> None:
        """Write ``model.json``."""
        write_record(directory, self.parameters())

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read what :meth:`save` wrote."""
        record = read_record(directory)
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
        model._tails = StandardisedTails.from_parameters(record)
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
