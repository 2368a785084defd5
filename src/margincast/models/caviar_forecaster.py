"""CAViaR peers: the margin from a quantile recursion that all contracts share.

Few contracts have the exceedances that the parameters of an extreme quantile take, so each side has
one recursion, in units of a contract's own long-run volatility, estimated on all contracts at
:data:`SHAPE_LEVEL` (or at the level itself where that is lower). What a level and a contract have
of their own is a factor on it, pooled with everybody's.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np

from margincast.core.errors import InsufficientHistoryError
from margincast.core.types import FloatArray, Side
from margincast.models.caviar import Caviar, estimate_caviar
from margincast.models.caviar_returns import (
    ReturnGrid,
    return_grid,
    returns_per_step,
)
from margincast.models.closes import ContractCloses, contract_closes, most_frequent_step
from margincast.models.protocol import Panel, TailForecast, require_features
from margincast.models.record import read_record, write_record
from margincast.models.scale import SMALLEST

SHAPE_LEVEL = 0.975
"""Higher levels take this level's recursion times a factor: their own would fit noise. (Quarterly
refits, July 2020 to December 2021, asymmetric slope: pinball relative to EWMA-FHS 0.889 at 1 h,
0.886 at 8 h and 0.925 at 24 h; with the recursion of 0.99 it is 0.885, 0.888 and 0.972.)"""

PRIOR_EXCEEDANCES = 5.0
"""Weight of everybody's factor in a contract's, in independent exceedances; chosen likewise."""

PRIOR_RETURNS = 500
"""Returns that the median contract's volatility is worth in a contract's own."""

SMALLEST_FACTOR = 1e-6
"""A contract's own factor is 0 where its price was pinned; its logarithm is taken of this."""

POOLED = "(pooled)"


@dataclass(frozen=True)
class Memory:
    """Where a contract's filters stood at the end of training.

    Attributes:
        decided: last decision, microseconds since 1970.
        close: decision price then.
        means: exponential means then, shape (sides, shape levels, columns).
    """

    decided: int
    close: float
    means: FloatArray


@dataclass
class CaviarForecaster:
    """CAViaR of adverse excursions, one recursion a side, factors a contract and level.

    Attributes:
        name: ``caviar_sav`` or ``caviar_as``.
        asymmetric: asymmetric slope instead of symmetric absolute value.
        sides: sides to forecast.
        levels: increasing levels.
        overlap: consecutive decisions that share one horizon, at least 1.
        step: time between decisions, microseconds; fitted.
    """

    name: str
    asymmetric: bool
    sides: tuple[Side, ...]
    levels: tuple[float, ...]
    overlap: float
    step: int = 0
    _volatility: dict[str, float] = field(default_factory=dict, repr=False)
    _shapes: list[list[Caviar]] = field(default_factory=list, repr=False)
    _factors: dict[str, FloatArray] = field(default_factory=dict, repr=False)
    _excess: FloatArray = field(default_factory=lambda: np.empty(0), repr=False)
    _memory: dict[str, Memory] = field(default_factory=dict, repr=False)

    def fit(self, panel: Panel) -> Self:
        """Estimate the recursions, then the factors, and remember where every filter ends."""
        closes = self._closes(panel)
        self._require_history(sum(len(one.rows) for one in closes.values()))
        self.step = most_frequent_step(closes.values())
        self._measure_volatility(closes)
        grids = {name: self._grid(name, one) for name, one in closes.items()}
        rows = np.concatenate([grid.rows for grid in grids.values()])
        outcomes = {side: panel.outcomes[side][rows] for side in self.sides}
        self._estimate(grids, outcomes)
        self._measure_factors(grids, outcomes)
        self._memory = {
            name: Memory(
                int(closes[name].decided[-1]),
                float(closes[name].close[-1]),
                np.array([[grid.means(one.persistence)[-1] for one in s] for s in self._shapes]),
            )
            for name, grid in grids.items()
        }
        return self

    def predict(self, panel: Panel) -> TailForecast:
        """Forecast recursion x factor; NaN where the close is not known (or not positive).

        A contract whose decisions follow its training goes on from there; any other starts from
        the steady state, at its own volatility or, never seen, at the usual one.
        """
        shape = (len(panel), len(self.sides), len(self.levels))
        quantiles, beyond = np.full(shape, np.nan), np.full(shape, np.nan)
        for name, one in self._closes(panel).items():
            memory = self._memory.get(name)
            if memory is not None and memory.decided < one.decided[0]:
                grid = self._grid(name, one.after(memory.decided, memory.close))
                base = self._base(name, grid, memory.means)
            else:
                grid = self._grid(name, one)
                base = self._base(name, grid, None)
            raw = np.maximum(base * self._factors.get(name, self._factors[POOLED]), SMALLEST)
            ordered = np.sort(raw, axis=2)
            quantiles[grid.rows] = ordered
            # a rearranged quantile may lie above the shortfall of the level it came from
            beyond[grid.rows] = np.maximum.accumulate(
                np.maximum(raw * self._excess, ordered), axis=2
            )
        return TailForecast(self.sides, self.levels, quantiles, beyond)

    def parameters(self) -> dict[str, Any]:
        """Return the recursions, the factors and where every filter ended, JSON-like."""
        return {
            "name": self.name,
            "asymmetric": self.asymmetric,
            "sides": list(self.sides),
            "levels": list(self.levels),
            "overlap": self.overlap,
            "step_microseconds": self.step,
            "volatility": self._volatility,
            "shape_levels": list(self._shape_levels),
            "shapes": [[asdict(one) for one in side] for side in self._shapes],
            "factors": {name: values.tolist() for name, values in self._factors.items()},
            "shortfall_over_quantile": self._excess.tolist(),
            "memory": {
                name: asdict(one) | {"means": one.means.tolist()}
                for name, one in self._memory.items()
            },
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
            asymmetric=record["asymmetric"],
            sides=tuple(record["sides"]),
            levels=tuple(record["levels"]),
            overlap=record["overlap"],
            step=record["step_microseconds"],
        )
        model._volatility = record["volatility"]
        model._shapes = [
            [Caviar(one["persistence"], one["constant"], tuple(one["slopes"])) for one in side]
            for side in record["shapes"]
        ]
        model._factors = {name: np.array(values) for name, values in record["factors"].items()}
        model._excess = np.array(record["shortfall_over_quantile"])
        model._memory = {
            name: Memory(**(one | {"means": np.array(one["means"])}))
            for name, one in record["memory"].items()
        }
        return model

    @property
    def _shape_levels(self) -> tuple[float, ...]:
        return tuple(sorted({min(level, SHAPE_LEVEL) for level in self.levels}))

    def _closes(self, panel: Panel) -> dict[str, ContractCloses]:
        require_features(panel.frame, ("close",), self.name)
        return dict(contract_closes(panel.frame))

    def _grid(self, name: str, closes: ContractCloses) -> ReturnGrid:
        volatility = self._volatility.get(name, self._volatility[POOLED])
        return return_grid(closes, self.step, volatility, asymmetric=self.asymmetric)

    def _require_history(self, rows: int) -> None:
        for level in self.levels:
            # one part in a million: 1 - 0.99 is a little more than a hundredth
            if rows * (1 - level) < 1 - 1e-6:
                raise InsufficientHistoryError(
                    f"level {level:g} needs at least {1 / (1 - level):,.0f} decisions with a known "
                    f"close, found {rows:,}; use more history, more contracts or a lower level"
                )

    def _measure_volatility(self, closes: Mapping[str, ContractCloses]) -> None:
        """Take each contract's mean |return|, pooled with the median contract's."""
        sizes = {name: np.abs(returns_per_step(one, self.step)[0]) for name, one in closes.items()}
        means = [float(values.mean()) for values in sizes.values() if len(values)]
        if not means:
            raise InsufficientHistoryError(
                f"{self.name} reacts to returns, and they need two decisions of one contract, "
                f"found one of each of {len(closes):,}; use more history"
            )
        usual = max(float(np.median(means)), SMALLEST)
        self._volatility = {POOLED: usual}
        for name, values in sizes.items():
            total = float(values.sum()) + PRIOR_RETURNS * usual
            self._volatility[name] = total / (len(values) + PRIOR_RETURNS)

    def _estimate(
        self, grids: Mapping[str, ReturnGrid], outcomes: Mapping[Side, FloatArray]
    ) -> None:
        volatility = np.concatenate(
            [np.full(len(grid.rows), self._volatility[name]) for name, grid in grids.items()]
        )

        def means_at(persistence: float) -> FloatArray:
            return np.concatenate([grid.means(persistence) for grid in grids.values()])

        # weighted by the volatility, the loss of standardised outcomes is that of the raw ones
        self._shapes = [
            [
                estimate_caviar(means_at, outcomes[side] / volatility, volatility, level)
                for level in self._shape_levels
            ]
            for side in self.sides
        ]

    def _base(self, name: str, grid: ReturnGrid, starts: FloatArray | None) -> FloatArray:
        """Recursion of each side at each level before its factor, shape (n, sides, levels).

        ``starts`` are the means before the first step, shape (sides, shape levels, columns).
        """
        base = np.empty((len(grid.rows), len(self.sides), len(self.levels)))
        position = [self._shape_levels.index(min(level, SHAPE_LEVEL)) for level in self.levels]
        for i, shapes in enumerate(self._shapes):
            for m, shape in enumerate(shapes):
                start = None if starts is None else starts[i, m]
                quantile = shape.quantile(grid.means(shape.persistence, start))
                base[:, i, [j for j, own in enumerate(position) if own == m]] = quantile[:, None]
        return base * self._volatility.get(name, self._volatility[POOLED])

    def _measure_factors(
        self, grids: Mapping[str, ReturnGrid], outcomes: Mapping[Side, FloatArray]
    ) -> None:
        """Set outcome / recursion quantiles, pooled in logarithms, and the mean excess beyond."""
        base = [self._base(name, grid, None) for name, grid in grids.items()]
        outcome = np.stack([outcomes[side] for side in self.sides], axis=1)
        ratios = outcome[:, :, None] / np.maximum(np.concatenate(base), SMALLEST)
        pieces = np.split(ratios, np.cumsum([len(grid.rows) for grid in grids.values()])[:-1])
        levels = np.array(self.levels)
        everybody = self._quantiles(ratios)
        self._factors = {POOLED: everybody}
        for name, own in zip(grids, pieces, strict=True):
            shown = len(own) * (1 - levels) / self.overlap
            weight = shown / (shown + PRIOR_EXCEEDANCES)
            self._factors[name] = self._quantiles(own) ** weight * everybody ** (1 - weight)
        calibrated = np.concatenate(
            [own / self._factors[name] for name, own in zip(grids, pieces, strict=True)]
        )
        # where the pooled factors cover every outcome the excess is nothing, not a mean of nothing
        self._excess = np.ones_like(everybody)
        beyond = calibrated >= 1.0
        np.divide(
            np.where(beyond, calibrated, 0.0).sum(axis=0),
            beyond.sum(axis=0),
            out=self._excess,
            where=beyond.any(axis=0),
        )

    def _quantiles(self, ratios: FloatArray) -> FloatArray:
        """Empirical quantile (type 7) of ratios (n, sides, levels) at each side and level."""
        columns = [
            np.quantile(ratios[:, :, j], level, axis=0) for j, level in enumerate(self.levels)
        ]
        return np.maximum(np.stack(columns, axis=1), SMALLEST_FACTOR)
