"""What the forecasts were worth: one table a model, side and level, on the same decisions.

These figures decide whether a model may set margins, so every model is scored on exactly the
decisions for which all models have a forecast and the outcome is known; the rest is counted.
"""

from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from margincast.backtest.comparison import overlap_lag, panel_diebold_mariano
from margincast.backtest.coverage_tests import kupiec
from margincast.backtest.dependence import (
    benjamini_hochberg,
    block_bootstrap_interval,
    clustered_sample_size,
    non_overlapping,
)
from margincast.backtest.procyclicality import largest_increase, peak_to_trough
from margincast.backtest.replay import Replay
from margincast.core.errors import InputError
from margincast.core.types import BoolArray, FloatArray, Side
from margincast.scoring.coverage import exceedances, quantile_crossings, shortfall
from margincast.scoring.fissler_ziegel import fz0_loss
from margincast.scoring.pinball import pinball_loss

REPLICATIONS = 1000
RUN_DAYS = 5
"""Bootstrap runs of five days: volatility clusters last longer than one."""
SMALLEST_MARGIN = 1e-6
"""A forecast of zero counts as this in ratios of margins: a hundredth of a basis point."""
FEWEST_BLOCKS = 20
"""With fewer blocks a bootstrap interval means nothing and is not given."""


@dataclass(frozen=True)
class Cell:
    """One model at one side (or both together) and level.

    Attributes:
        pinball: mean pinball loss, fraction of the decision price.
        pinball_ratio: relative to the reference model.
        effective_decisions: independent decisions the sample is worth, exceedances in one block
            of time (a day, as a rule) counting together; NaN where it cannot tell.
        exceedance_ratio: observed over nominal exceedances, with a 95 % block bootstrap interval
            (NaN where there are too few blocks to tell).
        mean_forecast: the margin traders would pay for the forecast alone.
        mean_shortfall: mean loss beyond the forecast over all decisions.
        fissler_ziegel: mean FZ0 loss of quantile and expected shortfall together; only differences
            between models mean something (NaN without an expected shortfall).
        expected_shortfall_ratio: realised mean outcome given an exceedance over the mean expected
            shortfall forecast there (NaN without one).
    """

    model: str
    side: Side | Literal["both"]
    level: float
    decisions: int
    effective_decisions: float
    exceedances: int
    exceedance_ratio: float
    exceedance_ratio_low: float
    exceedance_ratio_high: float
    pinball: float
    pinball_ratio: float
    mean_forecast: float
    mean_shortfall: float
    expected_shortfall_ratio: float
    fissler_ziegel: float


@dataclass(frozen=True)
class ModelSummary:
    """One model over all sides and levels.

    Attributes:
        pinball_ratio: mean over levels of the pinball ratio of both sides together.
        versus_reference_p: two-sided Diebold-Mariano p-value against the reference at the lowest
            level, both sides summed, contracts averaged per decision time.
        kupiec_failed: share of (contract, side) at the lowest level that fail Kupiec on
            non-overlapping decisions after Benjamini-Hochberg at 5 %.
        kupiec_without_power: share of them whose test could not have seen 1.5x.
        crossings: forecasts below that of the next lower level.
        largest_one_day_rise: median over (contract, side) of the forecast's largest one-day rise.
        peak_to_trough: median over (contract, side) of largest over smallest forecast.
    """

    model: str
    pinball_ratio: float
    versus_reference_p: float
    kupiec_failed: float
    kupiec_without_power: float
    crossings: int
    largest_one_day_rise: float
    peak_to_trough: float


@dataclass(frozen=True)
class Evaluation:
    """All figures of a backtest.

    Attributes:
        reference: model that ratios refer to.
        cells: per model, side (and both) and level.
        models: per model.
        contracts: per model, contract, side and level: decisions, exceedances, ratio, pinball.
        scored: decisions scored.
        unscored: decisions of the test period left out, with the reason as key.
    """

    reference: str
    cells: tuple[Cell, ...]
    models: tuple[ModelSummary, ...]
    contracts: pd.DataFrame
    scored: int
    unscored: dict[str, int]

    def cell(self, model: str, side: str, level: float) -> Cell:
        """Return one cell."""
        return next(c for c in self.cells if (c.model, c.side, c.level) == (model, side, level))

    def as_record(self) -> dict[str, Any]:
        """Return the figures as JSON-like values, NaN as None."""
        return {
            "reference": self.reference,
            "scored_decisions": self.scored,
            "unscored_decisions": self.unscored,
            "models": [_no_nan(asdict(model)) for model in self.models],
            "cells": [_no_nan(asdict(cell)) for cell in self.cells],
        }


def evaluate(
    replay: Replay, reference: str, *, horizon: timedelta, spacing: timedelta
) -> Evaluation:
    """Score all models of a replay on their common decisions.

    Args:
        replay: forecasts and outcomes.
        reference: model that ratios refer to; one of the replay's.
        horizon: liquidation horizon.
        spacing: time between a contract's decisions.
    """
    panel = replay.panel
    labelled = panel.labelled
    forecast_known = np.ones(len(panel), dtype=bool)
    for forecast in replay.forecasts.values():
        forecast_known &= np.isfinite(forecast.quantiles).all(axis=(1, 2))
    scored = labelled & forecast_known
    if not scored.any():
        raise InputError(
            f"no decision can be scored: of {len(panel):,} in the test period "
            f"{int(labelled.sum()):,} have an outcome and {int(forecast_known.sum()):,} a forecast "
            "of every model; the test period may end too close to the end of the data"
        )
    view = _View(replay, scored, horizon)
    levels = view.levels
    used: tuple[Side | Literal["both"], ...] = (*view.sides, "both")
    cells = [
        view.cell(model, side, level, reference)
        for model in replay.forecasts
        for level in levels
        for side in used
    ]
    contracts = pd.DataFrame(
        [row for model in replay.forecasts for row in view.contract_rows(model)]
    )
    models = tuple(_summarise(view, model, reference, cells, spacing) for model in replay.forecasts)
    return Evaluation(
        reference,
        tuple(cells),
        models,
        contracts,
        int(scored.sum()),
        {
            "no outcome": int((~labelled).sum()),
            "a model has no forecast": int((labelled & ~forecast_known).sum()),
        },
    )


class _View:
    """The scored decisions with everything the figures need, computed once."""

    def __init__(self, replay: Replay, scored: BoolArray, horizon: timedelta) -> None:
        first = next(iter(replay.forecasts.values()))
        self.sides, self.levels = first.sides, first.levels
        self.horizon = horizon
        panel = replay.panel.rows(scored)
        self.outcomes = panel.outcomes
        self.decided = panel.decided
        names, codes = np.unique(panel.frame["symbol"].to_numpy(dtype=str), return_inverse=True)
        order = np.argsort(codes, kind="stable")
        cuts = np.searchsorted(codes[order], np.arange(1, len(names)))
        self.rows_of = dict(zip(map(str, names), np.split(order, cuts), strict=True))
        self.quantiles = {name: f.quantiles[scored] for name, f in replay.forecasts.items()}
        self.shortfalls = {
            name: None if f.expected_shortfall is None else f.expected_shortfall[scored]
            for name, f in replay.forecasts.items()
        }
        self.blocks = self._blocks()
        self.losses = {
            (name, side, level): pinball_loss(
                self.outcomes[side], self.at(name, side, level), level
            )
            for name in self.quantiles
            for side in self.sides
            for level in self.levels
        }

    def at(self, model: str, side: Side, level: float) -> FloatArray:
        """Forecasts of one model, side and level, shape (n,)."""
        return self.quantiles[model][:, self.sides.index(side), self.levels.index(level)]

    def _blocks(self) -> npt.NDArray[np.int64]:
        """Number of each decision's bootstrap block: a day, or less where there are few days."""
        span = (self.decided.max() - self.decided.min()) / np.timedelta64(1, "s")
        day = timedelta(days=1).total_seconds()
        length = min(day, max(2 * self.horizon.total_seconds(), span / 50))
        seconds = self.decided.astype("datetime64[s]").astype(np.int64)
        return np.asarray(seconds // max(1, round(length)))

    def cell(self, model: str, side: Side | Literal["both"], level: float, reference: str) -> Cell:
        """Figures of one model, side (or both) and level."""
        used = self.sides if side == "both" else (side,)
        outcome = np.concatenate([self.outcomes[s] for s in used])
        forecast = np.concatenate([self.at(model, s, level) for s in used])
        loss = np.concatenate([self.losses[model, s, level] for s in used])
        other = np.concatenate([self.losses[reference, s, level] for s in used])
        hits = exceedances(outcome, forecast)
        nominal = 1 - level
        low, high = self._interval(hits, nominal, len(used))
        return Cell(
            model=model,
            side=side,
            level=level,
            decisions=len(hits),
            effective_decisions=self._effective(hits, len(used)),
            exceedances=int(hits.sum()),
            exceedance_ratio=float(hits.mean() / nominal),
            exceedance_ratio_low=low,
            exceedance_ratio_high=high,
            pinball=float(loss.mean()),
            pinball_ratio=float(loss.mean() / other.mean()),
            mean_forecast=float(forecast.mean()),
            mean_shortfall=float(shortfall(outcome, forecast).mean()),
            expected_shortfall_ratio=self._shortfall_ratio(model, used, level, outcome, hits),
            fissler_ziegel=self._fissler_ziegel(model, used, level, outcome, forecast),
        )

    def _effective(self, hits: BoolArray, copies: int) -> float:
        blocks = np.tile(self.blocks, copies)
        if len(np.unique(blocks)) < 2:
            return float("nan")
        return clustered_sample_size(hits.astype(np.float64), blocks)

    def _interval(self, hits: BoolArray, nominal: float, copies: int) -> tuple[float, float]:
        blocks = np.tile(self.blocks, copies)
        count = len(np.unique(blocks))
        if count < FEWEST_BLOCKS or not hits.any():
            # without an exceedance resampling would show certainty where there is no evidence
            return float("nan"), float("nan")
        found = block_bootstrap_interval(
            hits.astype(np.float64),
            np.full(len(hits), nominal),
            blocks=blocks,
            generator=np.random.default_rng(0),
            run_length=min(RUN_DAYS, count // 10),
            replications=REPLICATIONS,
        )
        return found.lower, found.upper

    def _shortfall_ratio(
        self,
        model: str,
        sides: tuple[Side, ...],
        level: float,
        outcome: FloatArray,
        hits: BoolArray,
    ) -> float:
        shortfalls = self.shortfalls[model]
        if shortfalls is None or not hits.any():
            return float("nan")
        column = self.levels.index(level)
        expected = np.concatenate([shortfalls[:, self.sides.index(s), column] for s in sides])
        return float(outcome[hits].mean() / expected[hits].mean())

    def _fissler_ziegel(
        self,
        model: str,
        sides: tuple[Side, ...],
        level: float,
        outcome: FloatArray,
        forecast: FloatArray,
    ) -> float:
        shortfalls = self.shortfalls[model]
        if shortfalls is None:
            return float("nan")
        column = self.levels.index(level)
        expected = np.concatenate([shortfalls[:, self.sides.index(s), column] for s in sides])
        # rounding may leave it a hair below its quantile, and a quantile may be zero
        expected = np.maximum(expected, np.maximum(forecast, SMALLEST_MARGIN))
        return float(fz0_loss(outcome, forecast, expected, level).mean())

    def contract_rows(self, model: str) -> list[dict[str, Any]]:
        """Figures per contract, side and level of one model."""
        rows = []
        for symbol, own in self.rows_of.items():
            for side in self.sides:
                for level in self.levels:
                    forecast = self.at(model, side, level)[own]
                    hits = exceedances(self.outcomes[side][own], forecast)
                    rows.append(
                        {
                            "model": model,
                            "symbol": symbol,
                            "side": side,
                            "level": level,
                            "decisions": len(hits),
                            "exceedances": int(hits.sum()),
                            "exceedance_ratio": float(hits.mean() / (1 - level)),
                            "pinball": float(self.losses[model, side, level][own].mean()),
                            "mean_forecast": float(forecast.mean()),
                        }
                    )
        return rows


def _summarise(
    view: _View, model: str, reference: str, cells: list[Cell], spacing: timedelta
) -> ModelSummary:
    together = [c for c in cells if c.model == model and c.side == "both"]
    level = view.levels[0]
    p_values, without_power, rises, peaks = [], 0, [], []
    one_day = timedelta(days=1) // spacing if timedelta(days=1) % spacing == timedelta(0) else 0
    horizon_minutes = view.horizon.total_seconds() / 60
    for own in view.rows_of.values():
        thin = non_overlapping(view.decided[own], horizon_minutes)
        position = (view.decided[own] - view.decided[own][0]) // np.timedelta64(spacing)
        for side in view.sides:
            forecast = view.at(model, side, level)[own]
            result = kupiec(exceedances(view.outcomes[side][own][thin], forecast[thin]), level)
            p_values.append(result.p_value)
            without_power += result.verdict == "no power"
            positive = np.maximum(forecast, SMALLEST_MARGIN)
            peaks.append(peak_to_trough(positive))
            if position[-1] > one_day > 0:
                regular = np.full(int(position[-1]) + 1, np.nan)
                regular[position] = positive
                rises.append(largest_increase(regular, one_day))
    adjusted = benjamini_hochberg(np.array(p_values))
    return ModelSummary(
        model=model,
        pinball_ratio=float(np.mean([cell.pinball_ratio for cell in together])),
        versus_reference_p=_versus(view, model, reference, level, spacing),
        kupiec_failed=float((adjusted < 0.05).mean()),
        kupiec_without_power=without_power / len(p_values),
        crossings=sum(
            quantile_crossings(view.quantiles[model][:, i], view.levels)
            for i in range(len(view.sides))
        )
        if len(view.levels) > 1
        else 0,
        largest_one_day_rise=float(np.median(rises)) if rises else float("nan"),
        peak_to_trough=float(np.median(peaks)) if peaks else float("nan"),
    )


def _versus(view: _View, model: str, reference: str, level: float, spacing: timedelta) -> float:
    if model == reference:
        return float("nan")
    ours = sum(view.losses[model, side, level] for side in view.sides)
    other = sum(view.losses[reference, side, level] for side in view.sides)
    times = np.unique(view.decided).size
    lag = overlap_lag(view.horizon.total_seconds() / 60, spacing.total_seconds() / 60, times)
    return panel_diebold_mariano(np.asarray(ours), np.asarray(other), view.decided, lag=lag).p_value


def _no_nan(record: dict[str, Any]) -> dict[str, Any]:
    return {
        key: None if isinstance(value, float) and not np.isfinite(value) else value
        for key, value in record.items()
    }
