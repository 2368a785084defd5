"""Our forecaster: conditional scale x quantile head, a Pareto tail above, conformal factors.

The forecast that becomes the margin. Stages: :mod:`~margincast.models.scale` says how wide the
horizon will be, :mod:`~margincast.models.head` which multiple of that is exceeded with
probability 1 - level, :mod:`~margincast.models.calibration` corrects both by what happened out of
fold, :mod:`~margincast.models.tail` extends to levels no tree can see. Crossing quantiles are
removed by rearrangement (Chernozhukov et al. 2010, doi:10.3982/ECTA7880).
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np

from margincast.core.errors import InsufficientHistoryError
from margincast.core.threads import available_threads
from margincast.core.types import FloatArray, Side
from margincast.models.calibration import ConformalFactors, fit_factors
from margincast.models.folds import forward_chain
from margincast.models.head import (
    QuantileHead,
    booster_from_text,
    booster_text,
)
from margincast.models.online import QuantileTracking
from margincast.models.parts import CALIBRATION, ONLINE, Stages
from margincast.models.protocol import Columns, Panel, TailForecast, Unit
from margincast.models.record import read_record, write_record
from margincast.models.scale import HarScale
from margincast.models.tail import GeneralisedPareto, fit_shrunken_pareto
from margincast.specs.loading import validate_spec
from margincast.specs.training import Model

MINIMUM_EXPECTED_EXCEEDANCES = 10
"""Below this a quantile is little more than the largest outcome seen."""


@dataclass(frozen=True)
class _Fitted:
    scale: HarScale
    head: QuantileHead
    factors: ConformalFactors
    tail: GeneralisedPareto
    until: np.datetime64


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
    def until(self) -> np.datetime64:
        """The last decision the fit has seen."""
        return self._require_fitted().until

    @property
    def tracking(self) -> QuantileTracking:
        """How forecasts are corrected by what follows them."""
        online = self.chosen.calibration.online
        return QuantileTracking(online.everybody_rate, online.contract_rate, online.lowest)

    @property
    def head_levels(self) -> tuple[float, ...]:
        """Levels LightGBM is trained at: those below the tail, and the tail's threshold."""
        below = {level for level in self.levels if level < self.chosen.tail.from_level}
        return tuple(sorted(below | {self.chosen.tail.threshold_level}))

    def fit(self, panel: Panel) -> Self:
        """Fit all stages; see :class:`~margincast.models.protocol.Forecaster`."""
        thinned = panel.thinned(self.chosen.stride, self.chosen.minimum_rows)
        self._require_history(len(thinned))
        chained = self._chained(thinned)
        known = np.asarray(np.isfinite(chained).all(axis=(1, 2)))
        tested = thinned.rows(known)
        tiny = np.finfo(np.float64).tiny
        scores = self._outcomes(tested) / np.maximum(chained[known], tiny)
        symbols = tested.frame["symbol"].to_numpy(dtype=object)
        calibration = self.chosen.calibration
        factors = fit_factors(
            scores,
            symbols,
            self.head_levels,
            span=(tested.decided.max() - tested.decided.min()).item(),
            prior_span=calibration.prior,
            overlap=max(1.0, self.overlap * len(thinned) / len(panel)),
            prior_exceedances=calibration.contract_prior,
        )
        threshold = self.head_levels.index(self.chosen.tail.threshold_level)
        beyond = (scores / np.exp(factors.logs(symbols)))[:, :, threshold] - 1.0
        days = tested.decided[(beyond > 0).any(axis=1)].astype("datetime64[D]")
        tail = fit_shrunken_pareto(beyond[beyond > 0], len(np.unique(days)))
        scale, head = self._fit_stages(thinned)
        self._fitted = _Fitted(scale, head, factors, tail, panel.decided.max())
        return self

    def predict(self, panel: Panel) -> TailForecast:
        """Forecast quantiles and expected shortfall for every row."""
        return self.finished(panel, *self.uncorrected(panel))

    def finished(self, panel: Panel, base: FloatArray, quantiles: FloatArray) -> TailForecast:
        """Return the forecasts that :meth:`uncorrected` ones of a whole panel become."""
        corrections = self._corrections(panel, quantiles, self._require_fitted())
        return self.corrected(base, quantiles, corrections)

    def uncorrected(self, panel: Panel) -> tuple[FloatArray, FloatArray]:
        """Return the calibrated forecasts at the head's levels and at those served.

        Nothing of it hangs on another row or on an outcome; shape (n, S, J) and (n, S, L).
        """
        return self._uncorrected(panel, self._require_fitted())

    def corrected(self, base: FloatArray, quantiles: FloatArray, logs: FloatArray) -> TailForecast:
        """Return the forecasts that :meth:`uncorrected` ones become by online corrections."""
        quantiles = np.sort(quantiles * np.exp(logs), axis=2)
        shortfall = np.stack(
            [
                self._shortfall(base, quantiles[:, :, k], level)
                for k, level in enumerate(self.levels)
            ],
            axis=2,
        )
        return TailForecast(
            self.sides, self.levels, quantiles, np.maximum.accumulate(shortfall, axis=2)
        )

    def stages(self, panel: Panel) -> Stages:
        """Return what :meth:`predict` multiplies; see :mod:`~margincast.models.parts`."""
        fitted = self._require_fitted()
        everybody = fitted.factors.everybody
        _, quantiles = self._uncorrected(panel, fitted)
        anchors, multipliers = self._tail(fitted)
        return Stages(
            scale=fitted.scale,
            head=fitted.head,
            log_factors={CALIBRATION: fitted.factors.logs(panel.frame["symbol"]) - everybody},
            average_log_factors=everybody,
            anchors=anchors,
            log_multipliers={ONLINE: self._corrections(panel, quantiles, fitted)},
            average_log_multipliers=np.tile(np.log(multipliers), (len(self.sides), 1)),
        )

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
            "tail": asdict(fitted.tail),
            "log_factors": fitted.factors.everybody.tolist(),
            "contract_log_factors": {
                name: own.tolist() for name, own in fitted.factors.contracts.items()
            },
            "until": str(fitted.until),
        }

    def save(self, directory: Path) -> None:
        """Write ``model.json`` and one LightGBM text file a side and level."""
        fitted = self._require_fitted()
        write_record(directory, self.parameters() | {"name": self.name})
        for (side, level), booster in fitted.head.boosters.items():
            path = directory / _booster_file(side, level)
            path.write_text(booster_text(booster), encoding="utf-8")

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read what :meth:`save` wrote."""
        record = read_record(directory)
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
            ConformalFactors(
                np.array(record["log_factors"]),
                {name: np.array(own) for name, own in record["contract_log_factors"].items()},
            ),
            GeneralisedPareto(**record["tail"]),
            np.datetime64(record["until"], "us"),
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

    def _chained(self, panel: Panel) -> FloatArray:
        """Forecasts of models that were fitted on what lay before; NaN in the first block."""
        result = np.full((len(panel), len(self.sides), len(self.head_levels)), np.nan)
        blocks = forward_chain(panel.decided, panel.label_end, self.chosen.calibration.folds)
        for training, block in blocks:
            if training.sum() >= self._needed:
                scale, head = self._fit_stages(panel.rows(training))
                result[block] = self._raw(scale, head, panel.frame[block])
        return result

    def _uncorrected(self, panel: Panel, fitted: _Fitted) -> tuple[FloatArray, FloatArray]:
        """Calibrated forecasts at the head's levels, and from them those at the levels served."""
        raw = self._raw(fitted.scale, fitted.head, panel.columns)
        base = np.sort(raw * np.exp(fitted.factors.logs(panel.frame["symbol"])), axis=2)
        anchors, multipliers = self._tail(fitted)
        return base, base[:, :, list(anchors)] * multipliers

    def _tail(self, fitted: _Fitted) -> tuple[tuple[int, ...], FloatArray]:
        """Head level (its position) each level is taken from, and the tail's multiplier on it."""
        tail = self.chosen.tail
        anchors, multipliers = [], []
        for level in self.levels:
            beyond = level >= tail.from_level
            survival = (1 - level) / (1 - tail.threshold_level)
            anchors.append(self.head_levels.index(tail.threshold_level if beyond else level))
            multipliers.append(1 + fitted.tail.excess_quantile(survival) if beyond else 1.0)
        return tuple(anchors), np.array(multipliers)

    def _corrections(self, panel: Panel, base: FloatArray, fitted: _Fitted) -> FloatArray:
        """Log corrections from outcomes that became known since the fit, shape of ``base``."""
        scores = self._outcomes(panel) / np.maximum(base, np.finfo(np.float64).tiny)
        decided = panel.decided
        scores[decided <= fitted.until] = np.nan  # what the fit has seen teaches nothing twice
        if np.isnan(scores).all():
            return np.zeros_like(base)
        order = np.argsort(decided, kind="stable")
        found = self.tracking.corrections(
            scores[order],
            panel.frame["symbol"].to_numpy(dtype=object)[order],
            decided[order],
            panel.label_end[order],
            levels=self.levels,
            overlap=self.overlap,
        )
        result = np.empty_like(found)
        result[order] = found
        return result

    def _outcomes(self, panel: Panel) -> FloatArray:
        """Outcomes of every side, shape (n, sides, 1)."""
        return np.stack([panel.outcomes[side] for side in self.sides], axis=1)[:, :, None]

    def _raw(self, scale: HarScale, head: QuantileHead, columns: Columns) -> FloatArray:
        width = scale.predict(columns)
        return head.predict(columns, width) * width[:, None, None]

    def _shortfall(self, base: FloatArray, quantile: FloatArray, level: float) -> FloatArray:
        """Mean outcome beyond a level's quantile, shape (n, sides).

        Above the tail's threshold in closed form, as a multiple of the quantile; below it the
        quantiles in between are joined by straight lines (the trapezoid rule over the levels).
        """
        tail, threshold = self._require_fitted().tail, self.chosen.tail.threshold_level
        if level >= threshold:
            excess = tail.excess_quantile((1 - level) / (1 - threshold))
            return quantile * (1 + tail.mean_excess_beyond(excess) / (1 + excess))
        between = [i for i, at in enumerate(self.head_levels) if level <= at <= threshold]
        grid = [self.head_levels[i] for i in between]
        beyond = base[:, :, between[-1]] * (1 + tail.mean_excess_beyond(0.0)) * (1 - threshold)
        area = np.trapezoid(base[:, :, between], grid, axis=2)
        own = base[:, :, between[0]]
        mean = (area + beyond) / (1 - level)
        return np.asarray(quantile * (mean / np.maximum(own, np.finfo(np.float64).tiny)))

    @property
    def _needed(self) -> int:
        """Decisions that expect enough exceedances of the highest level of the head."""
        return round(MINIMUM_EXPECTED_EXCEEDANCES / (1 - max(self.head_levels)))

    def _require_history(self, rows: int) -> None:
        folds = self.chosen.calibration.folds
        needed = -(-self._needed * folds // (folds - 1))
        if rows < needed:
            raise InsufficientHistoryError(
                f"level {max(self.head_levels):g} needs at least {needed:,} training decisions "
                f"({MINIMUM_EXPECTED_EXCEEDANCES} expected exceedances before the last of {folds} "
                f"calibration blocks), found {rows:,}: use more history or contracts, or lower "
                "levels"
            )

    def _require_fitted(self) -> _Fitted:
        if self._fitted is None:
            raise RuntimeError("the forecaster is not fitted; call fit or load first")
        return self._fitted


def _booster_file(side: Side, level: float) -> str:
    return f"{side}-{level:g}.txt"
