"""Which decisions count, and what every model did at each: the rows below a margin's figures.

Every model is scored on exactly the decisions for which all models have a forecast and the outcome
is known; the rest is counted, by reason and by model.
"""

from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import numpy.typing as npt

from margincast.backtest.dependence import non_overlapping
from margincast.backtest.replay import Replay
from margincast.backtest.time_blocks import TimeBlocks, block_labels
from margincast.core.errors import InputError
from margincast.core.types import BoolArray, FloatArray, Side
from margincast.models.protocol import TailForecast
from margincast.scoring.pinball import pinball_loss

Rows = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Choice:
    """Which decisions of a replay can be scored.

    Attributes:
        scored: outcome known and forecast by every model, shape (n,).
        unscored: decisions left out, with the reason as key.
        without_forecast: per model, decisions with an outcome that it has no forecast for.
    """

    scored: BoolArray
    unscored: dict[str, int]
    without_forecast: dict[str, int]


def choose(replay: Replay) -> Choice:
    """Choose the decisions on which all models can be compared.

    Raises:
        InputError: there is none.
    """
    labelled = replay.panel.labelled
    known = {
        name: np.isfinite(forecast.quantiles).all(axis=(1, 2))
        for name, forecast in replay.forecasts.items()
    }
    by_all = np.logical_and.reduce(list(known.values()))
    scored = labelled & by_all
    missing = {name: int((labelled & ~own).sum()) for name, own in known.items()}
    if not scored.any():
        worst = max(missing, key=lambda name: missing[name])
        raise InputError(
            f"no decision can be scored: of {len(labelled):,} in the test period "
            f"{int(labelled.sum()):,} have an outcome and {int(by_all.sum()):,} a forecast "
            f"of every model (most are missing from {worst}: {missing[worst]:,}); the test period "
            "may end too close to the end of the data, or a model may lack history"
        )
    unscored = {
        "no outcome": int((~labelled).sum()),
        "a model has no forecast": int((labelled & ~by_all).sum()),
    }
    return Choice(scored, unscored, missing)


class Decisions:
    """The n scored decisions, with what every model's figures need, computed once.

    Args:
        replay: forecasts and outcomes.
        scored: decisions to score.
        horizon: liquidation horizon.

    Attributes:
        sides: S sides.
        levels: L levels.
        outcomes: adverse excursions, simple fractions, shape (S, n).
        decided: decision times, UTC, shape (n,).
        symbols: the C contracts, sorted.
        contract_of: contract of each decision, shape (n,).
        labels: block of time of each decision, shape (n,).
        blocks: the same as blocks to resample.
        days: the UTC days that have decisions, increasing; ``day_of`` numbers them, shape (n,).
        rows_of: per contract, its decisions in time order.
        independent_of: per contract, those of them whose horizons do not overlap.
    """

    def __init__(self, replay: Replay, scored: BoolArray, horizon: timedelta) -> None:
        any_forecast = next(iter(replay.forecasts.values()))
        self.sides: tuple[Side, ...] = any_forecast.sides
        self.levels: tuple[float, ...] = any_forecast.levels
        self.horizon = horizon
        panel = replay.panel.rows(scored)
        self.outcomes: FloatArray = np.stack([panel.outcomes[side] for side in self.sides])
        self.decided = panel.decided
        names, self.contract_of = np.unique(
            panel.frame["symbol"].to_numpy(dtype=str), return_inverse=True
        )
        self.symbols: tuple[str, ...] = tuple(map(str, names))
        self.labels = block_labels(self.decided, horizon)
        self.blocks = TimeBlocks(self.labels)
        self.days, self.day_of = np.unique(
            self.decided.astype("datetime64[D]"), return_inverse=True
        )
        order = np.argsort(self.contract_of, kind="stable")
        cuts = np.searchsorted(self.contract_of[order], np.arange(1, len(names)))
        self.rows_of: dict[str, Rows] = dict(zip(self.symbols, np.split(order, cuts), strict=True))
        horizon_minutes = horizon.total_seconds() / 60
        self.independent_of: dict[str, Rows] = {
            symbol: own[non_overlapping(self.decided[own], horizon_minutes)]
            for symbol, own in self.rows_of.items()
        }

    def __len__(self) -> int:
        return len(self.decided)


@dataclass(frozen=True)
class Scores:
    """What one model forecast and what came of it, each of shape (S, L, n).

    All sides have the same decisions, so a mean over both is the mean of their means.

    Attributes:
        model: its name.
        forecasts: quantile forecasts, simple fractions.
        hits: whether the outcome went beyond the forecast.
        losses: pinball losses, fractions of the decision price.
        shortfalls: losses beyond the forecast, zero where it covered the outcome.
        expected_shortfalls: mean outcome given an exceedance, as forecast; None for a model that
            does not know it at every decision.
    """

    model: str
    forecasts: FloatArray
    hits: BoolArray
    losses: FloatArray
    shortfalls: FloatArray
    expected_shortfalls: FloatArray | None


def score(decisions: Decisions, model: str, forecast: TailForecast) -> Scores:
    """Score one model's forecasts of the scored decisions, shape (n, S, L)."""
    quantiles = _by_side(forecast.quantiles)
    losses = np.empty_like(quantiles)
    for column, level in enumerate(decisions.levels):
        losses[:, column] = pinball_loss(decisions.outcomes, quantiles[:, column], level)
    # exceedances() and shortfall() of scoring, without checking the same pairs twice more
    beyond = decisions.outcomes[:, None, :] - quantiles
    expected = forecast.expected_shortfall
    if expected is not None and not np.isfinite(expected).all():
        expected = None
    return Scores(
        model=model,
        forecasts=quantiles,
        hits=beyond > 0.0,
        losses=losses,
        shortfalls=np.maximum(beyond, 0.0),
        expected_shortfalls=None if expected is None else _by_side(expected),
    )


def _by_side(values: FloatArray) -> FloatArray:
    """Turn (n, S, L) into (S, L, n), every series in one piece of memory."""
    return np.ascontiguousarray(np.moveaxis(values, 0, 2))
