"""One model at one side and level: coverage, sharpness and losses beyond the margin.

Responsible for every number in the table of models, each with what it is worth: an interval or a
standard error by block bootstrap, on the same resamples for all models.
"""

from dataclasses import dataclass, replace
from datetime import date
from typing import Literal

import numpy as np
import pandas as pd

from margincast.backtest.confidence_set import model_confidence_set
from margincast.backtest.dependence import benjamini_hochberg
from margincast.backtest.scored import Decisions, Scores
from margincast.backtest.time_blocks import Spread, spread_of
from margincast.backtest.var_tests.proportion import kupiec
from margincast.core.types import FloatArray, Side
from margincast.scoring.fissler_ziegel import fz0_loss

SMALLEST_MARGIN = 1e-6
"""A forecast of zero counts as this in ratios of margins: a hundredth of a basis point."""
KUPIEC_FALSE_DISCOVERY_RATE = 0.05


@dataclass(frozen=True)
class WorstDay:
    """The UTC day that would have cost most, a position of one size in every contract and decision.

    Attributes:
        day: of the decisions.
        decisions: outcomes of that day, over contracts and the cell's sides.
        exceedances: how many of them went beyond the forecast.
        mean_shortfall: loss beyond the forecast, averaged over all outcomes of the day, a fraction.
    """

    day: date
    decisions: int
    exceedances: int
    mean_shortfall: float


@dataclass(frozen=True)
class Cell:
    """One model at one side (or both together) and level.

    Attributes:
        pinball: mean pinball loss, fraction of the decision price.
        pinball_ratio: relative to the reference model.
        pinball_ratio_error: its standard error by block bootstrap, the same blocks for both.
        confidence_set_p: p-value in the model confidence set of this side and level.
        in_confidence_set: whether the model belongs to the 90 % set; None where it cannot tell.
        effective_decisions: independent decisions the sample is worth, exceedances in one block
            of time (a day, as a rule) counting together; NaN where it cannot tell.
        exceedance_ratio: observed over nominal exceedances, with a 95 % block bootstrap interval
            (NaN where there are too few blocks to tell).
        kupiec_failed: share of contracts (and sides) that fail Kupiec on non-overlapping decisions
            after Benjamini-Hochberg at 5 %.
        kupiec_without_power: share of them whose test could not have seen 1.5x.
        mean_forecast: the margin traders would pay for the forecast alone.
        mean_forecast_ratio: relative to the reference model; NaN where that is zero.
        mean_shortfall: mean loss beyond the forecast over all decisions.
        shortfall_per_exceedance: the same over exceedances only; NaN without any.
        worst_day: None without an exceedance.
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
    pinball_ratio_error: float
    confidence_set_p: float
    in_confidence_set: bool | None
    kupiec_failed: float
    kupiec_without_power: float
    mean_forecast: float
    mean_forecast_ratio: float
    mean_shortfall: float
    shortfall_per_exceedance: float
    worst_day: WorstDay | None
    expected_shortfall_ratio: float
    fissler_ziegel: float


@dataclass(frozen=True)
class Totals:
    """What is kept of a model once its rows are gone.

    Attributes:
        hits: exceedances by block of time, shape (S, L, B).
        losses: pinball losses by block, shape (S, L, B).
        mean_forecasts: shape (S, L).
    """

    hits: FloatArray
    losses: FloatArray
    mean_forecasts: FloatArray


def totals_of(decisions: Decisions, scores: Scores) -> Totals:
    """Sum a model's rows by block of time."""
    return Totals(
        decisions.blocks.sums(scores.hits),
        decisions.blocks.sums(scores.losses),
        scores.forecasts.mean(axis=2),
    )


def cells_of(decisions: Decisions, scores: Scores, totals: Totals, reference: Totals) -> list[Cell]:
    """Return a model's cells, every level with its sides and both, without confidence sets."""
    view = _ModelView(decisions, scores, totals, reference)
    used: dict[Side | Literal["both"], list[int]] = {}
    used |= {side: [i] for i, side in enumerate(decisions.sides)}
    used["both"] = list(range(len(decisions.sides)))
    return [
        view.cell(side, rows, column)
        for column in range(len(decisions.levels))
        for side, rows in used.items()
    ]


def mean_pinball_ratio(
    decisions: Decisions, totals: Totals, reference: Totals
) -> tuple[float, Spread]:
    """Return the mean over levels of both sides' pinball ratio, and how far it moves."""
    ours, other = totals.losses.sum(axis=0), reference.losses.sum(axis=0)
    ratio = float(np.mean(ours.sum(axis=-1) / other.sum(axis=-1)))
    return ratio, spread_of(decisions.blocks.resampled_ratios(ours, other).mean(axis=0))


def with_confidence_sets(
    decisions: Decisions, cells: list[Cell], totals: dict[str, Totals]
) -> list[Cell]:
    """Say of every cell whether its model is in the confidence set of its side and level.

    Losses are averaged over contracts and sides within each block of time (a day, as a rule), so
    every day has one weight; the blocks of the stationary bootstrap last five of them on average.
    """
    if not decisions.blocks.enough:
        return cells
    found = {}
    for side in {cell.side for cell in cells}:
        rows = [i for i, name in enumerate(decisions.sides) if side in (name, "both")]
        for column, level in enumerate(decisions.levels):
            daily = {
                model: own.losses[rows, column].sum(axis=0) / decisions.blocks.decisions / len(rows)
                for model, own in totals.items()
            }
            found[side, level] = model_confidence_set(
                pd.DataFrame(daily), block_length=decisions.blocks.run_length
            )
    return [
        replace(
            cell,
            confidence_set_p=found[cell.side, cell.level].p_values[cell.model],
            in_confidence_set=cell.model in found[cell.side, cell.level].members,
        )
        for cell in cells
    ]


class _ModelView:
    """One model beside the reference; ``rows`` are numbers of sides, ``column`` of a level."""

    def __init__(
        self, decisions: Decisions, scores: Scores, totals: Totals, reference: Totals
    ) -> None:
        self._decisions, self._scores = decisions, scores
        self._totals, self._reference = totals, reference
        shape = (len(decisions.sides), len(decisions.levels), len(decisions.symbols))
        self._fissler_ziegel = _fissler_ziegel(decisions, scores)
        self._p_values, self._powerless = np.empty(shape), np.empty(shape, dtype=bool)
        for number, own in enumerate(decisions.independent_of.values()):
            for row, column in np.ndindex(shape[:2]):
                result = kupiec(scores.hits[row, column, own], decisions.levels[column])
                self._p_values[row, column, number] = result.p_value
                self._powerless[row, column, number] = result.verdict == "no power"

    def cell(self, side: Side | Literal["both"], rows: list[int], column: int) -> Cell:
        """Figures of one side (or both) and level."""
        blocks, level = self._decisions.blocks, self._decisions.levels[column]
        count = len(rows) * len(self._decisions)
        hits = self._totals.hits[rows, column].sum(axis=0)
        losses = self._totals.losses[rows, column].sum(axis=0)
        other = self._reference.losses[rows, column].sum(axis=0)
        exceeded = round(hits.sum())
        nominal = (1 - level) * len(rows) * blocks.decisions
        # without an exceedance resampling would show certainty where there is no evidence
        coverage = spread_of(blocks.resampled_ratios(hits, nominal)) if exceeded else Spread()
        mean_forecast = float(self._totals.mean_forecasts[rows, column].mean())
        mean_reference = float(self._reference.mean_forecasts[rows, column].mean())
        lost = float(self._scores.shortfalls[rows, column].sum())
        failed = benjamini_hochberg(self._p_values[rows, column].ravel())
        return Cell(
            model=self._scores.model,
            side=side,
            level=level,
            decisions=count,
            effective_decisions=blocks.effective_decisions(hits, len(rows)),
            exceedances=exceeded,
            exceedance_ratio=exceeded / count / (1 - level),
            exceedance_ratio_low=coverage.lower,
            exceedance_ratio_high=coverage.upper,
            pinball=float(losses.sum() / count),
            pinball_ratio=float(losses.sum() / other.sum()),
            pinball_ratio_error=spread_of(blocks.resampled_ratios(losses, other)).error,
            confidence_set_p=float("nan"),
            in_confidence_set=None,
            kupiec_failed=float((failed < KUPIEC_FALSE_DISCOVERY_RATE).mean()),
            kupiec_without_power=float(self._powerless[rows, column].mean()),
            mean_forecast=mean_forecast,
            mean_forecast_ratio=mean_forecast / mean_reference if mean_reference else float("nan"),
            mean_shortfall=lost / count,
            shortfall_per_exceedance=lost / exceeded if exceeded else float("nan"),
            worst_day=self._worst_day(rows, column) if exceeded else None,
            expected_shortfall_ratio=self._expected_shortfall_ratio(rows, column),
            fissler_ziegel=float(self._fissler_ziegel[rows, column].mean()),
        )

    def _worst_day(self, rows: list[int], column: int) -> WorstDay:
        lost = self._scores.shortfalls[rows, column].sum(axis=0)
        worst = int(np.bincount(self._decisions.day_of, weights=lost).argmax())
        own = self._decisions.day_of == worst
        day: date = self._decisions.days[worst].item()
        return WorstDay(
            day=day,
            decisions=len(rows) * int(own.sum()),
            exceedances=int(self._scores.hits[rows, column][:, own].sum()),
            mean_shortfall=float(lost[own].mean() / len(rows)),
        )

    def _expected_shortfall_ratio(self, rows: list[int], column: int) -> float:
        hits, expected = self._scores.hits[rows, column], self._scores.expected_shortfalls
        if expected is None or not hits.any():
            return float("nan")
        outcome = self._decisions.outcomes[rows]
        return float(outcome[hits].mean() / expected[rows, column][hits].mean())


def _fissler_ziegel(decisions: Decisions, scores: Scores) -> FloatArray:
    """Return the mean FZ0 loss per side and level, shape (S, L); NaN without expected shortfall."""
    losses = np.full(scores.forecasts.shape[:2], np.nan)
    if scores.expected_shortfalls is None:
        return losses
    for column, level in enumerate(decisions.levels):
        forecast = scores.forecasts[:, column]
        # rounding may leave it a hair below its quantile, and a quantile may be zero
        expected = np.maximum(
            scores.expected_shortfalls[:, column], np.maximum(forecast, SMALLEST_MARGIN)
        )
        losses[:, column] = fz0_loss(decisions.outcomes, forecast, expected, level).mean(axis=1)
    return losses
