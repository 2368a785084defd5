"""Our forecaster: conditional scale x quantile head, a Pareto tail above, conformal factors.

The forecast that becomes the margin. Stages: :mod:`~margincast.models.scale` says how wide the
horizon will be, :mod:`~margincast.models.head` which multiple of that is exceeded with
probability 1 - level, :mod:`~margincast.models.calibration` corrects both by what happened out of
fold, :mod:`~margincast.models.tail` extends to levels no tree can see. Crossing quantiles are
removed by rearrangement (Chernozhukov et al. 2010, doi:10.3982/ECTA7880).
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from margincast.core.errors import InsufficientHistoryError
from margincast.core.threads import available_threads
from margincast.core.types import FloatArray, Side
from margincast.models.calibration import pooled_factors
from margincast.models.folds import purged_folds
from margincast.models.head import (
    QuantileHead,
    booster_from_text,
    booster_text,
)
from margincast.models.protocol import Panel, TailForecast, Unit
from margincast.models.scale import HarScale
from margincast.models.tail import GeneralisedPareto, fit_generalised_pareto
from margincast.specs.loading import validate_spec
from margincast.specs.training import Model

MINIMUM_EXPECTED_EXCEEDANCES = 10
"""Below this a quantile is little more than the largest outcome seen."""


@dataclass(frozen=True)
class _Fitted:
    scale: HarScale
    head: QuantileHead
    factors: dict[tuple[Side, float], tuple[float, dict[str, float]]]
    tails: dict[Side, GeneralisedPareto]


@dataclass
class MargincastForecaster:
    """Scale, quantile head, Pareto tail and conformal calibration in one forecaster.

    Attributes:
        chosen: ``[model]`` of the training spec.
        sides: sides to forecast.
        levels: increasing levels to forecast.
        overlap: consecutive decisions of a contract that share one horizon.
        threads: OpenMP threads; changes nothing but speed.
    """

    chosen: Model
    sides: tuple[Side, ...]
    levels: tuple[float, ...]
    overlap: float
    threads: int
    name: str = "margincast"
    _fitted: _Fitted | None = field(default=None, repr=False)

    @property
    def head_levels(self) -> tuple[float, ...]:
        """Levels LightGBM is trained at: those below the tail, and the tail's threshold."""
        below = {level for level in self.levels if level < self.chosen.tail.from_level}
        return tuple(sorted(below | {self.chosen.tail.threshold_level}))

    def fit(self, panel: Panel) -> Self:
        """Fit all stages; see :class:`~margincast.models.protocol.Forecaster`."""
        thinned = panel.thinned(self.chosen.stride, self.chosen.minimum_rows)
        self._require_history(len(thinned))
        out_of_fold = self._out_of_fold(thinned)
        known = np.isfinite(out_of_fold).all(axis=(1, 2))
        symbols = thinned.frame["symbol"].to_numpy(dtype=object)[known]
        codes, names = pd.factorize(symbols)
        overlap = max(1.0, self.overlap * len(thinned) / len(panel))
        factors: dict[tuple[Side, float], tuple[float, dict[str, float]]] = {}
        tails = {}
        for i, side in enumerate(self.sides):
            outcome = thinned.outcomes[side][known]
            for j, level in enumerate(self.head_levels):
                forecast = np.maximum(out_of_fold[known, i, j], np.finfo(np.float64).tiny)
                factors[side, level] = pooled_factors(
                    outcome,
                    forecast,
                    symbols,
                    level,
                    overlap=overlap,
                    prior_exceedances=self.chosen.calibration.contract_prior,
                )
                if level == self.chosen.tail.threshold_level:
                    factor = _factors(names, factors[side, level])[codes]
                    excess = outcome / (forecast * factor) - 1.0
                    tails[side] = fit_generalised_pareto(excess[excess > 0])
        scale, head = self._fit_stages(thinned)
        self._fitted = _Fitted(scale, head, factors, tails)
        return self

    def predict(self, frame: pd.DataFrame) -> TailForecast:
        """Forecast quantiles and expected shortfall for every row."""
        fitted = self._require_fitted()
        threshold = self.chosen.tail.threshold_level
        codes, symbols = pd.factorize(frame["symbol"])
        base = self._raw(fitted.scale, fitted.head, frame)
        for i, side in enumerate(self.sides):
            for j, level in enumerate(self.head_levels):
                base[:, i, j] *= _factors(symbols, fitted.factors[side, level])[codes]
        base = np.sort(base, axis=2)
        quantiles = np.empty((len(frame), len(self.sides), len(self.levels)))
        shortfall = np.empty_like(quantiles)
        for i, side in enumerate(self.sides):
            tail = fitted.tails[side]
            anchor = base[:, i, self.head_levels.index(threshold)]
            for k, level in enumerate(self.levels):
                if level < self.chosen.tail.from_level:
                    quantiles[:, i, k] = base[:, i, self.head_levels.index(level)]
                else:
                    survival = (1 - level) / (1 - threshold)
                    quantiles[:, i, k] = anchor * (1 + tail.excess_quantile(survival))
            quantiles[:, i] = np.sort(quantiles[:, i], axis=1)
            for k, level in enumerate(self.levels):
                shortfall[:, i, k] = self._shortfall(base[:, i], quantiles[:, i, k], level, tail)
        return TailForecast(self.sides, self.levels, quantiles, shortfall)

    def parameters(self) -> dict[str, Any]:
        """Return chosen and estimated parameters, JSON-like."""
        fitted = self._require_fitted()
        return {
            "chosen": self.chosen.model_dump(mode="json"),
            "overlap": self.overlap,
            "sides": list(self.sides),
            "levels": list(self.levels),
            "units": [list(item) for item in fitted.head.units.items()],
            "scale": fitted.scale.parameters(),
            "tails": {side: asdict(tail) for side, tail in fitted.tails.items()},
            "factors": [
                {"side": side, "level": level, "everybody": everybody, "contracts": contracts}
                for (side, level), (everybody, contracts) in fitted.factors.items()
            ],
        }

    def save(self, directory: Path) -> None:
        """Write ``model.json`` and one LightGBM text file a side and level."""
        fitted = self._require_fitted()
        record = json.dumps(self.parameters() | {"name": self.name}, indent=1, sort_keys=True)
        (directory / "model.json").write_text(record + "\n", encoding="utf-8")
        for (side, level), booster in fitted.head.boosters.items():
            path = directory / _booster_file(side, level)
            path.write_text(booster_text(booster), encoding="utf-8")

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read what :meth:`save` wrote."""
        record = json.loads((directory / "model.json").read_text(encoding="utf-8"))
        model = cls(
            chosen=validate_spec(record["chosen"], Model, "model.json in the bundle"),
            sides=tuple(record["sides"]),
            levels=tuple(record["levels"]),
            overlap=float(record["overlap"]),
            threads=available_threads(),
        )
        units: Mapping[str, Unit] = dict(record["units"])
        head = QuantileHead(model.chosen.head, units, model.sides, model.head_levels, model.threads)
        for side in model.sides:
            for level in model.head_levels:
                text = (directory / _booster_file(side, level)).read_text(encoding="utf-8")
                head.boosters[side, level] = booster_from_text(text)
        model._fitted = _Fitted(
            HarScale.from_parameters(record["scale"]),
            head,
            {
                (entry["side"], entry["level"]): (entry["everybody"], entry["contracts"])
                for entry in record["factors"]
            },
            {side: GeneralisedPareto(**tail) for side, tail in record["tails"].items()},
        )
        return model

    def _fit_stages(self, panel: Panel) -> tuple[HarScale, QuantileHead]:
        chosen = self.chosen
        scale = HarScale(chosen.scale.columns, chosen.scale.seasonal_harmonics, chosen.scale.ridge)
        scale.fit(panel.frame, panel.log_range)
        width = scale.predict(panel.frame)
        known = np.isfinite(width)
        fitting = panel.rows(known)
        head = QuantileHead(
            chosen.head, panel.units, self.sides, self.head_levels, self.threads
        ).fit(fitting.frame, width[known], fitting.outcomes)
        return scale, head

    def _out_of_fold(self, panel: Panel) -> FloatArray:
        result = np.full((len(panel), len(self.sides), len(self.head_levels)), np.nan)
        decided = panel.decided
        for training, held_out in purged_folds(
            decided, panel.label_end, self.chosen.calibration.folds
        ):
            self._require_history(int(training.sum()))
            scale, head = self._fit_stages(panel.rows(training))
            result[held_out] = self._raw(scale, head, panel.frame[held_out])
        return result

    def _raw(self, scale: HarScale, head: QuantileHead, frame: pd.DataFrame) -> FloatArray:
        width = scale.predict(frame)
        return head.predict(frame, width) * width[:, None, None]

    def _shortfall(
        self, base: FloatArray, quantile: FloatArray, level: float, tail: GeneralisedPareto
    ) -> FloatArray:
        """Mean outcome beyond a level's quantile, shape (n,).

        Above the tail's threshold in closed form; below it the quantiles in between are joined
        by straight lines (the trapezoid rule over the levels).
        """
        threshold = self.chosen.tail.threshold_level
        anchor = base[:, self.head_levels.index(threshold)]
        if level >= threshold:
            excess = quantile / np.maximum(anchor, np.finfo(np.float64).tiny) - 1.0
            beyond = anchor * (tail.scale + tail.shape * excess) / (1.0 - tail.shape)
            # a bounded tail (negative shape) may end before the head's quantile
            return quantile + np.maximum(beyond, 0.0)
        beyond = anchor * (1 + tail.mean_excess_beyond(0.0)) * (1 - threshold)
        between = [i for i, at in enumerate(self.head_levels) if level <= at <= threshold]
        grid = [self.head_levels[i] for i in between]
        area = np.trapezoid(base[:, between], grid, axis=1)
        return np.asarray((area + beyond) / (1 - level))

    def _require_history(self, rows: int) -> None:
        level = max(self.head_levels)
        needed = round(MINIMUM_EXPECTED_EXCEEDANCES / (1 - level))
        if rows < needed:
            folds = self.chosen.calibration.folds
            raise InsufficientHistoryError(
                f"level {level:g} needs at least {needed:,} training decisions "
                f"({MINIMUM_EXPECTED_EXCEEDANCES} expected exceedances), found {rows:,} in a "
                f"calibration fold; that is about {needed * folds // (folds - 1):,} decisions in "
                "all: use more history or contracts, or lower levels"
            )

    def _require_fitted(self) -> _Fitted:
        if self._fitted is None:
            raise RuntimeError("the forecaster is not fitted; call fit or load first")
        return self._fitted


def _factors(symbols: Iterable[object], factors: tuple[float, dict[str, float]]) -> FloatArray:
    """Factor of each contract; everybody's for a contract not seen in training."""
    everybody, contracts = factors
    return np.array([contracts.get(str(symbol), everybody) for symbol in symbols])


def _booster_file(side: Side, level: float) -> str:
    return f"{side}-{level:g}.txt"
