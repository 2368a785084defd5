"""The pooled tests of a model: all contracts and sides at every level, overlap and all."""

import math
from dataclasses import asdict
from datetime import timedelta
from typing import Any

import numpy as np
import pandas as pd

from margincast.backtest.pooled_tests import pooled_coverage, pooled_dynamics, pooled_levels
from margincast.backtest.scored import Decisions, Scores
from margincast.backtest.time_blocks import RUN_DAYS
from margincast.backtest.verdicts import USUAL, Criterion, TestResult
from margincast.core.types import BoolArray, FloatArray


def run_pooled(decisions: Decisions, scores: Scores, criterion: Criterion = USUAL) -> pd.DataFrame:
    """Test a model over all contracts, days as clusters.

    Days depend on each other for five days, or as long as a horizon.

    Per level the share of exceedances, and that they cannot be foretold from the contract's last
    finished outcome or from how high the forecast is; over all levels their shares together.

    Returns:
        A row a test and level: ``level`` and the fields of
        :class:`~margincast.backtest.verdicts.TestResult`, its name as ``test``.
    """
    sides = len(decisions.sides)
    clusters = np.tile(
        (decisions.days - decisions.days[0]).astype(np.int64)[decisions.day_of], sides
    )
    lag = max(RUN_DAYS, math.ceil(decisions.horizon / timedelta(days=1)))
    rows: list[dict[str, Any]] = []

    def add(level: float, result: TestResult) -> None:
        rows.append({"level": level, **asdict(result)})

    for column, level in enumerate(decisions.levels):
        hits = scores.hits[:, column]
        pooled = hits.ravel()
        add(level, pooled_coverage(pooled, level, clusters, lag=lag, criterion=criterion))
        known = np.column_stack(
            [
                previous_hits(decisions, hits).ravel(),
                np.log(np.maximum(scores.forecasts[:, column], 1e-12)).ravel(),
            ]
        )
        add(
            level,
            pooled_dynamics(pooled, level, clusters, known, lag=lag, criterion=criterion),
        )
    every = np.column_stack([scores.hits[:, j].ravel() for j in range(len(decisions.levels))])
    add(
        decisions.levels[0],
        pooled_levels(every, decisions.levels, clusters, lag=lag, criterion=criterion),
    )
    return pd.DataFrame(rows).rename(columns={"name": "test"})


def previous_hits(decisions: Decisions, hits: BoolArray) -> FloatArray:
    """Return whether each contract's last finished outcome was an exceedance, shape (S, n).

    Finished means that its horizon had ended at the decision; 0 where there is none yet.

    Args:
        decisions: the scored decisions.
        hits: exceedances, shape (S, n).
    """
    found = np.zeros(hits.shape)
    for rows in decisions.rows_of.values():
        decided = decisions.decided[rows]
        before = np.searchsorted(decided, decided - np.timedelta64(decisions.horizon), "right") - 1
        has_one = before >= 0
        found[:, rows[has_one]] = hits[:, rows[before[has_one]]]
    return found
