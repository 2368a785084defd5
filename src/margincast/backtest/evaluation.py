"""What the forecasts were worth: every model's figures on the same decisions.

These figures decide whether a model may set margins. Models are scored one after another, so that
memory holds the rows of one at a time; what is compared are sums by block of time.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from typing import Any

import numpy as np
import pandas as pd

from margincast.backtest import confidence_set, contracts, time_blocks
from margincast.backtest.cells import Cell, Totals, cells_of, totals_of, with_confidence_sets
from margincast.backtest.contracts import (
    ContractCoverage,
    contract_table,
    coverage_of,
    new_listings,
)
from margincast.backtest.groups import GroupFigures, group_figures, group_totals, groups_of
from margincast.backtest.model_summary import (
    Figures,
    ModelSummary,
    Reference,
    lowest_level_losses,
    summarise,
)
from margincast.backtest.replay import Replay
from margincast.backtest.scored import Decisions, choose, score
from margincast.core.errors import InputError
from margincast.models.catalogue import OURS


@dataclass(frozen=True)
class Evaluation:
    """All figures of a backtest.

    Attributes:
        subject: model on trial: the one whose margin is to be published.
        reference: model that ratios refer to.
        cells: per model, side (and both) and level.
        models: per model.
        groups: per model, level and calendar year, and for new and established contracts.
        coverage: per model and level, the contracts it is right for.
        contracts: per model, contract, side (and both) and level: decisions, exceedances, ratio,
            pinball, mean forecast, shortfall per exceedance, whether a new listing.
        scored: decisions scored.
        unscored: decisions of the test period left out, with the reason as key.
        without_forecast: per model, decisions with an outcome that it has no forecast for.
    """

    subject: str
    reference: str
    cells: tuple[Cell, ...]
    models: tuple[ModelSummary, ...]
    groups: tuple[GroupFigures, ...]
    coverage: tuple[ContractCoverage, ...]
    contracts: pd.DataFrame
    scored: int
    unscored: dict[str, int]
    without_forecast: dict[str, int]

    def cell(self, model: str, side: str, level: float) -> Cell:
        """Return one cell."""
        return next(c for c in self.cells if (c.model, c.side, c.level) == (model, side, level))

    def group(self, model: str, name: str, level: float) -> GroupFigures:
        """Return one model's figures in a year (``2023``), or of ``new listings``."""
        return next(g for g in self.groups if (g.model, g.name, g.level) == (model, name, level))

    def coverage_of(self, model: str, level: float) -> ContractCoverage:
        """Return how many contracts one model is right for at one level."""
        return next(c for c in self.coverage if (c.model, c.level) == (model, level))

    def as_record(self) -> dict[str, Any]:
        """Return the figures as JSON-like values, NaN as None."""
        record = {
            "subject": self.subject,
            "reference": self.reference,
            "scored_decisions": self.scored,
            "unscored_decisions": self.unscored,
            "without_forecast": self.without_forecast,
            "inference": {
                "bootstrap_replications": time_blocks.REPLICATIONS,
                "bootstrap_run_days": time_blocks.RUN_DAYS,
                "interval_confidence": time_blocks.CONFIDENCE,
                "confidence_set_size": confidence_set.SIZE,
                "confidence_set_replications": confidence_set.REPLICATIONS,
                "contract_band": contracts.BAND,
                "new_listing_days": contracts.NEW_LISTING_DAYS,
            },
            "models": [asdict(model) for model in self.models],
            "cells": [asdict(cell) for cell in self.cells],
            "groups": [asdict(group) for group in self.groups],
            "contract_coverage": [asdict(coverage) for coverage in self.coverage],
            "contracts": self.contracts.to_dict(orient="records"),
        }
        return {key: _plain(value) for key, value in record.items()}


def evaluate(
    replay: Replay,
    reference: str,
    *,
    horizon: timedelta,
    spacing: timedelta,
    first_decisions: Mapping[str, np.datetime64],
    subject: str = OURS,
) -> Evaluation:
    """Score all models of a replay on their common decisions.

    Args:
        replay: forecasts and outcomes.
        reference: model that ratios refer to; one of the replay's.
        horizon: liquidation horizon.
        spacing: time between a contract's decisions.
        first_decisions: of every contract, also before the test period, UTC; see
            ``contracts.first_decisions``. They say which contracts are new listings.
        subject: model on trial; one of the replay's, or the reports on it cannot be written.

    Raises:
        InputError: no decision can be scored, the reference was not replayed, or a contract's first
            decision is not known.
    """
    if reference not in replay.forecasts:
        raise InputError(
            f"the reference {reference} was not replayed, only {', '.join(replay.forecasts)}; add "
            "it to backtest.peers"
        )
    choice = choose(replay)
    decisions = Decisions(replay, choice.scored, horizon)
    new = new_listings(decisions, first_decisions, replay.panel.decided.min())
    groups = groups_of(decisions, new)
    # the reference first: all ratios need it
    order = [reference, *(name for name in replay.forecasts if name != reference)]
    made: dict[str, Figures] = {}
    models: dict[str, ModelSummary] = {}
    grouped: dict[str, list[GroupFigures]] = {}
    tables: dict[str, pd.DataFrame] = {}
    for name in order:
        scores = score(decisions, name, replay.forecasts[name].rows(choice.scored))
        totals = totals_of(decisions, scores)
        by_group = group_totals(groups, scores)
        if name == reference:
            base = Reference(name, totals, lowest_level_losses(scores))
            base_by_group = by_group
        tables[name] = contract_table(decisions, scores, new)
        cells = cells_of(decisions, scores, totals, base.totals)
        made[name] = Figures(totals, cells, coverage_of(tables[name]))
        models[name] = summarise(decisions, scores, base, made[name], spacing)
        grouped[name] = [
            figures
            for group, own, other in zip(groups, by_group, base_by_group, strict=True)
            for figures in group_figures(decisions, group, name, own, other)
        ]
    names = list(replay.forecasts)
    sums: dict[str, Totals] = {name: made[name].totals for name in names}
    cells = [cell for name in names for cell in made[name].cells]
    return Evaluation(
        subject=subject,
        reference=reference,
        cells=tuple(with_confidence_sets(decisions, cells, sums)),
        models=tuple(models[name] for name in names),
        groups=tuple(figures for name in names for figures in grouped[name]),
        coverage=tuple(one for name in names for one in made[name].coverage),
        contracts=pd.concat([tables[name] for name in names], ignore_index=True),
        scored=len(decisions),
        unscored=choice.unscored,
        without_forecast=choice.without_forecast,
    )


def _plain(value: Any) -> Any:  # noqa: ANN401 (whatever a record holds)
    """Return JSON-like values: NaN as None, dates as text."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value.isoformat() if isinstance(value, date) else value
