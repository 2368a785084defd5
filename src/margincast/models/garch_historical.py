"""GARCH peers: the margin as a GARCH volatility over the horizon times its own past quantiles.

Filtered historical simulation (Barone-Adesi, Giannopoulos and Vosper 1999,
doi:10.1002/(SICI)1096-9934(199908)19:5<583::AID-FUT5>3.0.CO;2-S) and, with a generalised Pareto
tail on the standardised outcomes, GARCH-EVT (McNeil and Frey 2000,
doi:10.1016/S0927-5398(00)00012-8).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np

from margincast.core.types import FloatArray, Side
from margincast.models.checks import require_exceedance
from margincast.models.filtered_historical import (
    EmpiricalTail,
    StandardisedTails,
    TailEstimator,
)
from margincast.models.garch_filter import GarchFilter
from margincast.models.protocol import Panel, TailForecast
from margincast.models.record import read_record, write_record
from margincast.models.tail import fit_generalised_pareto

Tail = Literal["empirical", "generalised_pareto"]

THRESHOLD_LEVEL = 0.95
"""Where the generalised Pareto tail begins."""

OWN_TAIL_EXCEEDANCES = 200.0
"""Independent exceedances of the threshold that a contract must expect for a generalised Pareto
tail of its own. On 2021 the pooled tail was better at 8 h (55 a contract and year) and 24 h (18),
the contract's own at 1 h (440)."""


@dataclass(frozen=True)
class ParetoTail:
    """Generalised Pareto tail above an empirical quantile; below it, the empirical one.

    Attributes:
        threshold_level: level of that quantile.
        minimum_exceedances: independent exceedances of it that rows must expect to suffice.
        overlap: neighbouring rows that share one horizon and count together.
    """

    threshold_level: float
    minimum_exceedances: float
    overlap: float

    def suffices(self, rows: int, level: float) -> bool:  # noqa: ARG002 (one fit for all levels)
        """Whether the rows expect enough independent exceedances of the threshold."""
        expected = rows * (1 - self.threshold_level) / self.overlap
        return expected >= self.minimum_exceedances

    def estimate(
        self, standardised: FloatArray, levels: Sequence[float]
    ) -> tuple[FloatArray, FloatArray]:
        """Return quantiles and the means beyond them, each of shape (levels,).

        Raises:
            InsufficientHistoryError: fewer excesses than the fit needs.
        """
        quantiles, beyond = EmpiricalTail(0.0).estimate(standardised, levels)
        if max(levels) <= self.threshold_level:
            return quantiles, beyond
        threshold = float(np.quantile(standardised, self.threshold_level))
        tail = fit_generalised_pareto(standardised[standardised > threshold] - threshold)
        for j, level in enumerate(levels):
            if level > self.threshold_level:
                excess = tail.excess_quantile((1 - level) / (1 - self.threshold_level))
                quantiles[j] = threshold + excess
                beyond[j] = quantiles[j] + tail.mean_excess_beyond(excess)
        return quantiles, beyond


@dataclass
class GarchHistorical:
    """Filtered historical simulation with a GARCH filter.

    Attributes:
        name: name of the peer.
        asymmetric: GJR-GARCH instead of GARCH.
        tail: empirical quantiles or a generalised Pareto tail.
        history: trailing history of standardised outcomes, longer where it is too short for a
            level; None takes all.
        minimum_exceedances: contracts that expect fewer in the history use the pooled quantile
            (empirical tail; see :data:`OWN_TAIL_EXCEEDANCES` for the other).
        sides: sides to forecast.
        levels: increasing levels.
        overlap: consecutive decisions that share one horizon: its length in steps.
    """

    name: str
    asymmetric: bool
    tail: Tail
    history: timedelta | None
    minimum_exceedances: float
    sides: tuple[Side, ...]
    levels: tuple[float, ...]
    overlap: float
    _filter: GarchFilter = field(init=False, repr=False)
    _tails: StandardisedTails = field(default_factory=StandardisedTails, repr=False)

    def __post_init__(self) -> None:
        """Make the unfitted filter."""
        self._filter = GarchFilter(self.asymmetric, max(1, math.ceil(self.overlap)))

    def fit(self, panel: Panel) -> Self:
        """Estimate the filters, then the tails of outcomes over their volatility."""
        for level in self.levels:
            require_exceedance(len(panel), level)
        self._filter.fit(panel.frame)
        scale = self._filter.volatility(panel.frame)
        self._tails = StandardisedTails.of_panel(
            panel,
            scale,
            sides=self.sides,
            levels=self.levels,
            history=self.history,
            tail=self._estimator(),
        )
        return self

    def predict(self, panel: Panel) -> TailForecast:
        """Forecast volatility over the horizon x standardised quantile."""
        frame = panel.frame
        volatility = self._filter.volatility(frame)
        return self._tails.forecast(frame["symbol"], volatility, self.sides, self.levels)

    def parameters(self) -> dict[str, Any]:
        """Return the filters and what was estimated, JSON-like."""
        return {
            "name": self.name,
            "asymmetric": self.asymmetric,
            "tail": self.tail,
            "history_days": None if self.history is None else self.history / timedelta(days=1),
            "minimum_exceedances": self.minimum_exceedances,
            "sides": list(self.sides),
            "levels": list(self.levels),
            "overlap": self.overlap,
            "filter": self._filter.parameters(),
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
            asymmetric=record["asymmetric"],
            tail=record["tail"],
            history=None if days is None else timedelta(days=days),
            minimum_exceedances=record["minimum_exceedances"],
            sides=tuple(record["sides"]),
            levels=tuple(record["levels"]),
            overlap=record["overlap"],
        )
        model._filter = GarchFilter.from_parameters(record["filter"])
        model._tails = StandardisedTails.from_parameters(record)
        return model

    def _estimator(self) -> TailEstimator:
        if self.tail == "generalised_pareto":
            return ParetoTail(THRESHOLD_LEVEL, OWN_TAIL_EXCEEDANCES, max(1.0, self.overlap))
        return EmpiricalTail(self.minimum_exceedances)
