"""Coverage and sharpness by calendar year, and of new listings apart from the rest.

Responsible for a margin that is right on average over years or contracts and wrong in each: a model
may be exceeded twice as often in a crash year and make up for it in a quiet one.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from margincast.backtest.scored import Decisions, Rows, Scores
from margincast.backtest.time_blocks import Spread, TimeBlocks, spread_of
from margincast.core.types import BoolArray, FloatArray

Kind = Literal["year", "listing"]
NEW, ESTABLISHED = "new listings", "established"


@dataclass(frozen=True)
class GroupFigures:
    """One model at one level on a group of decisions, both sides together.

    Attributes:
        kind: what the decisions are grouped by.
        name: the calendar year (UTC), or ``new listings`` and ``established``.
        contracts: with a decision in the group.
        decisions: outcomes, two a decision where both sides are forecast.
        exceedance_ratio: observed over nominal, with a 95 % block bootstrap interval (NaN where
            there are too few blocks of time or no exceedance).
        pinball_ratio: relative to the reference, with its standard error.
        mean_forecast: the margin traders would pay for the forecast alone.
    """

    model: str
    kind: Kind
    name: str
    level: float
    contracts: int
    decisions: int
    exceedances: int
    exceedance_ratio: float
    exceedance_ratio_low: float
    exceedance_ratio_high: float
    pinball_ratio: float
    pinball_ratio_error: float
    mean_forecast: float


@dataclass(frozen=True)
class Group:
    """Decisions that belong together, with their blocks of time."""

    kind: Kind
    name: str
    rows: Rows
    contracts: int
    blocks: TimeBlocks


@dataclass(frozen=True)
class GroupTotals:
    """One model's sums in a group, both sides: by block of time (L, B), and mean forecasts (L,)."""

    hits: FloatArray
    losses: FloatArray
    mean_forecasts: FloatArray


def groups_of(decisions: Decisions, new: BoolArray) -> list[Group]:
    """Return the calendar years, and new and established contracts; empty groups are left out.

    Args:
        decisions: the scored decisions.
        new: which contracts are new listings, shape (C,).
    """
    years = decisions.decided.astype("datetime64[Y]")
    lately = new[decisions.contract_of]
    chosen: list[tuple[Kind, str, BoolArray]] = [
        *(("year", str(year), years == year) for year in np.unique(years)),
        ("listing", ESTABLISHED, ~lately),
        ("listing", NEW, lately),
    ]
    return [
        Group(
            kind,
            name,
            rows := np.flatnonzero(mask),
            len(np.unique(decisions.contract_of[rows])),
            TimeBlocks(decisions.labels[rows]),
        )
        for kind, name, mask in chosen
        if mask.any()
    ]


def group_totals(groups: list[Group], scores: Scores) -> list[GroupTotals]:
    """Sum one model's rows, both sides, by group and block of time."""
    hits, losses = scores.hits.sum(axis=0, dtype=np.float64), scores.losses.sum(axis=0)
    forecasts = scores.forecasts.mean(axis=0)
    return [
        GroupTotals(
            group.blocks.sums(hits[:, group.rows]),
            group.blocks.sums(losses[:, group.rows]),
            forecasts[:, group.rows].mean(axis=1),
        )
        for group in groups
    ]


def group_figures(
    decisions: Decisions, group: Group, model: str, totals: GroupTotals, reference: GroupTotals
) -> list[GroupFigures]:
    """Return one model's figures in a group, one a level."""
    blocks, sides = group.blocks, len(decisions.sides)
    count = sides * len(group.rows)
    figures = []
    for column, level in enumerate(decisions.levels):
        hits, losses, other = totals.hits[column], totals.losses[column], reference.losses[column]
        exceeded = round(hits.sum())
        nominal = (1 - level) * sides * blocks.decisions
        # without an exceedance resampling would show certainty where there is no evidence
        coverage = spread_of(blocks.resampled_ratios(hits, nominal)) if exceeded else Spread()
        figures.append(
            GroupFigures(
                model=model,
                kind=group.kind,
                name=group.name,
                level=level,
                contracts=group.contracts,
                decisions=count,
                exceedances=exceeded,
                exceedance_ratio=exceeded / count / (1 - level),
                exceedance_ratio_low=coverage.lower,
                exceedance_ratio_high=coverage.upper,
                pinball_ratio=float(losses.sum() / other.sum()),
                pinball_ratio_error=spread_of(blocks.resampled_ratios(losses, other)).error,
                mean_forecast=float(totals.mean_forecasts[column]),
            )
        )
    return figures
