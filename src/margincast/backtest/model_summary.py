"""One model over all sides and levels: rank, steadiness, crossings, and whether it beats the peer.

Responsible for the first columns of the table of models, above all how far a margin that followed
the forecast would have risen in a day: accurate is not stable.
"""

from dataclasses import dataclass
from datetime import timedelta

import numpy as np

from margincast.backtest.cells import SMALLEST_MARGIN, Cell, Totals, mean_pinball_ratio
from margincast.backtest.comparison import overlap_lag, panel_diebold_mariano
from margincast.backtest.contracts import ContractCoverage
from margincast.backtest.procyclicality import largest_increase, peak_to_trough
from margincast.backtest.scored import Decisions, Scores
from margincast.core.types import FloatArray
from margincast.scoring.coverage import quantile_crossings


@dataclass(frozen=True)
class ModelSummary:
    """One model over all sides and levels.

    Attributes:
        pinball_ratio: mean over levels of the pinball ratio of both sides together.
        pinball_ratio_error: its standard error by block bootstrap.
        pinball_ratio_low: of its 95 % interval.
        pinball_ratio_high: of the same.
        versus_reference_p: two-sided Diebold-Mariano p-value against the reference at the lowest
            level, both sides summed, contracts averaged per decision time.
        kupiec_failed: share of (contract, side) at the lowest level that fail Kupiec on
            non-overlapping decisions after Benjamini-Hochberg at 5 %.
        kupiec_without_power: share of them whose test could not have seen 1.5x.
        contracts_within: share of contracts whose exceedance ratio at the lowest level, sides
            pooled, lies within ``contracts.BAND``.
        crossings: forecasts below that of the next lower level.
        largest_one_day_rise: median over (contract, side) of the forecast's largest one-day rise.
        peak_to_trough: median over (contract, side) of largest over smallest forecast.
    """

    model: str
    pinball_ratio: float
    pinball_ratio_error: float
    pinball_ratio_low: float
    pinball_ratio_high: float
    versus_reference_p: float
    kupiec_failed: float
    kupiec_without_power: float
    contracts_within: float
    crossings: int
    largest_one_day_rise: float
    peak_to_trough: float


@dataclass(frozen=True)
class Reference:
    """The model that ratios refer to: its sums, and its losses at the lowest level, shape (n,)."""

    model: str
    totals: Totals
    losses: FloatArray


def lowest_level_losses(scores: Scores) -> FloatArray:
    """Sum a model's losses at the lowest level over the sides, shape (n,)."""
    return np.asarray(scores.losses[:, 0].sum(axis=0))


@dataclass(frozen=True)
class Figures:
    """What was found of one model: its sums, cells and contracts."""

    totals: Totals
    cells: list[Cell]
    coverage: list[ContractCoverage]


def summarise(
    decisions: Decisions,
    scores: Scores,
    reference: Reference,
    found: Figures,
    spacing: timedelta,
) -> ModelSummary:
    """Summarise one model; see :class:`ModelSummary`."""
    ratio, spread = mean_pinball_ratio(decisions, found.totals, reference.totals)
    first = next(cell for cell in found.cells if cell.side == "both")
    rises, peaks = _steadiness(decisions, scores, spacing)
    return ModelSummary(
        model=scores.model,
        pinball_ratio=ratio,
        pinball_ratio_error=spread.error,
        pinball_ratio_low=spread.lower,
        pinball_ratio_high=spread.upper,
        versus_reference_p=_versus(decisions, scores, reference, spacing),
        kupiec_failed=first.kupiec_failed,
        kupiec_without_power=first.kupiec_without_power,
        contracts_within=found.coverage[0].within,
        crossings=sum(
            quantile_crossings(of_side.T, decisions.levels) for of_side in scores.forecasts
        )
        if len(decisions.levels) > 1
        else 0,
        largest_one_day_rise=float(np.median(rises)) if rises else float("nan"),
        peak_to_trough=float(np.median(peaks)),
    )


def _steadiness(
    decisions: Decisions, scores: Scores, spacing: timedelta
) -> tuple[list[float], list[float]]:
    """Return the largest one-day rise and the peak to trough of every contract and side.

    A contract of a day or less has no one-day rise, nor has a spacing that no day is a multiple of.
    """
    one_day = timedelta(days=1) // spacing if timedelta(days=1) % spacing == timedelta(0) else 0
    rises, peaks = [], []
    for own in decisions.rows_of.values():
        decided = decisions.decided[own]
        position = (decided - decided[0]) // np.timedelta64(spacing)
        for forecasts in scores.forecasts[:, 0]:
            positive = np.maximum(forecasts[own], SMALLEST_MARGIN)
            peaks.append(peak_to_trough(positive))
            if position[-1] > one_day > 0:
                regular = np.full(int(position[-1]) + 1, np.nan)
                regular[position] = positive
                rises.append(largest_increase(regular, one_day))
    return rises, peaks


def _versus(
    decisions: Decisions, scores: Scores, reference: Reference, spacing: timedelta
) -> float:
    if scores.model == reference.model:
        return float("nan")
    times = np.unique(decisions.decided).size
    minutes = (decisions.horizon.total_seconds() / 60, spacing.total_seconds() / 60)
    lag = overlap_lag(*minutes, times)
    losses = lowest_level_losses(scores)
    return panel_diebold_mariano(losses, reference.losses, decisions.decided, lag=lag).p_value
