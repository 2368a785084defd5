"""The hypothetical stress of a backtest: today's margins under what has not happened yet.

Responsible for taking from a backtest what the scenarios ask for: each model's margins at the end
of the test period, how volatile each contract is then, what the windows of history did to it, and
the path of the worst of them.
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta

import numpy as np
import pandas as pd

from margincast.backtest.cells import SMALLEST_MARGIN
from margincast.backtest.scored import Decisions, Scores
from margincast.backtest.stress.scenarios import (
    LARGEST_MARGIN,
    Snapshot,
    cascade,
    history_scaled,
    reverse,
    shocks,
)
from margincast.backtest.stress.windows import StressWindow
from margincast.core.types import FloatArray

TRAILING_DAYS = 30
FEWEST_RETURNS = 20
LEAD = timedelta(days=1)
STILL_THERE = timedelta(days=1)
"""A contract whose last decision is older than the last of all by more has ended."""


def hypothetical_stress(
    decisions: Decisions,
    of_model: Mapping[str, Scores],
    close: FloatArray,
    windows: Sequence[StressWindow],
) -> dict[str, pd.DataFrame]:
    """Return the tables of :mod:`~margincast.backtest.stress.scenarios` for a backtest's models.

    Margins are the forecasts at the lowest level. The leading contract is the calmest one.

    Args:
        decisions: the scored decisions.
        of_model: scores by model.
        close: decision prices, shape (n,).
        windows: windows of stress; those without decisions are left out.

    Returns:
        ``shocks``, ``reverse_stress``, ``scaled_history`` and ``cascade``; empty tables where
        there are fewer than two contracts with a month of returns, or no window.
    """
    latest = decisions.decided.max() - np.timedelta64(STILL_THERE)
    steps = {
        symbol: float(np.median(np.diff(decisions.decided[rows]) / np.timedelta64(1, "s")))
        for symbol, rows in decisions.rows_of.items()
        if len(rows) > FEWEST_RETURNS and decisions.decided[rows[-1]] >= latest
    }
    volatility = {
        symbol: _volatility(close[decisions.rows_of[symbol]], step)
        for symbol, step in steps.items()
    }
    alive = [
        s for s, per_second in volatility.items() if np.isfinite(per_second) and per_second > 0
    ]
    empty = dict.fromkeys(("shocks", "reverse_stress", "scaled_history", "cascade"), pd.DataFrame())
    if len(alive) < 2 or set(decisions.sides) != {"long", "short"}:
        return empty
    per_second = np.array([volatility[s] for s in alive])
    leader = int(per_second.argmin())
    snapshots = {
        name: _snapshot(decisions, made, alive, per_second, leader)
        for name, made in of_model.items()
    }
    held = {window.name: window.holds(decisions.decided, decisions.horizon) for window in windows}
    adverse = {
        name: _worst_moves(decisions, rows, alive) for name, rows in held.items() if rows.any()
    }
    tables = {
        "shocks": shocks(snapshots),
        "reverse_stress": reverse(snapshots),
        "scaled_history": history_scaled(snapshots, adverse) if adverse else pd.DataFrame(),
    }
    falls = {name: float(-moves[0, leader]) for name, moves in adverse.items()}
    worst = max(falls, key=lambda name: falls[name], default="")
    if not worst or falls[worst] == 0.0:
        return empty | tables
    window = next(one for one in windows if one.name == worst)
    own = decisions.rows_of[alive[leader]]
    start = np.datetime64((window.start - LEAD).replace(tzinfo=None))
    end = np.datetime64((window.end + LEAD).replace(tzinfo=None))
    path = own[(decisions.decided[own] >= start) & (decisions.decided[own] < end)]
    if len(path) < 2:
        return empty | tables
    margins = {
        name: np.clip(
            made.forecasts[decisions.sides.index("long"), 0, path], SMALLEST_MARGIN, LARGEST_MARGIN
        )
        for name, made in of_model.items()
    }
    before = own[decisions.decided[own] < start]
    calm = _volatility(close[before], steps[alive[leader]])
    if not np.isfinite(calm):
        calm = float(per_second[leader])
    run = cascade(close[path], margins, calm * np.sqrt(timedelta(days=1).total_seconds()))
    run.insert(0, "contract", alive[leader])
    run.insert(1, "window", worst)
    return tables | {"cascade": run}


def _volatility(close: FloatArray, step_seconds: float) -> float:
    """Standard deviation of log returns of the last month, per square root of a second."""
    count = max(FEWEST_RETURNS, round(TRAILING_DAYS * 86_400 / step_seconds))
    returns = np.diff(np.log(close[-count - 1 :]))
    if len(returns) < FEWEST_RETURNS:
        return float("nan")
    return float(returns.std(ddof=1) / np.sqrt(step_seconds))


def _snapshot(
    decisions: Decisions,
    made: Scores,
    alive: Sequence[str],
    per_second: FloatArray,
    leader: int,
) -> Snapshot:
    last = np.array([decisions.rows_of[symbol][-1] for symbol in alive])
    margin = {
        side: np.clip(
            made.forecasts[decisions.sides.index(side), 0, last], SMALLEST_MARGIN, LARGEST_MARGIN
        )
        for side in decisions.sides
    }
    return Snapshot(
        tuple(alive),
        margin["long"],
        margin["short"],
        per_second * np.sqrt(decisions.horizon.total_seconds()),
        per_second * np.sqrt(timedelta(days=1).total_seconds()),
        leader,
    )


def _worst_moves(
    decisions: Decisions, held: "np.ndarray[tuple[int], np.dtype[np.bool_]]", alive: Sequence[str]
) -> FloatArray:
    """Worst fall and rise of every contract over one horizon in a window, shape (2, C)."""
    moves = np.zeros((2, len(alive)))
    for column, symbol in enumerate(alive):
        rows = decisions.rows_of[symbol]
        own = rows[held[rows]]
        if own.size:
            moves[0, column] = -decisions.outcomes[decisions.sides.index("long"), own].max()
            moves[1, column] = decisions.outcomes[decisions.sides.index("short"), own].max()
    return moves
