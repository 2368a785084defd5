"""Champion against shadow: which of two models would have been charged less for its margin.

Responsible for comparing them while they run, looked at as often as one likes. Two forecasts of one
outcome cannot differ in pinball loss by more than they differ themselves, which is known before the
outcome is; in shares of that difference the loss difference is bounded without cutting anything.
"""

from dataclasses import dataclass
from datetime import datetime

import numpy as np
import numpy.typing as npt
import pandas as pd

from margincast.core.errors import InputError
from margincast.core.time import instant64
from margincast.core.types import BoolArray, FloatArray
from margincast.scoring.pinball import pinball_loss
from margincast.serving.monitoring.record import Record
from margincast.serving.monitoring.tally import bet_times

_MOST_STAKE = 0.5


@dataclass(frozen=True)
class Difference:
    """How two models' pinball losses compare.

    Attributes:
        moments: that were compared, no two with overlapping horizons.
        decisions: compared, all of them.
        loss_ratio: the champion's mean loss over the shadow's, over all decisions; above 1 the
            shadow is better. NaN where nothing is known.
        advantage: of the shadow, its gain as a share of what the forecasts differed by, mean over
            moments.
        lower: bound of the advantage that holds at all times together.
        upper: the other one.
    """

    moments: int
    decisions: int
    loss_ratio: float
    advantage: float
    lower: float
    upper: float


def difference_of(
    champion: Record, shadow: Record, level: float, at: datetime, confidence: float
) -> Difference:
    """Compare two models at one level, on the decisions both were asked.

    Args:
        champion: its record.
        shadow: its record, of the same horizon and sides.
        level: to compare.
        at: the moment; later outcomes are not looked at.
        confidence: of the bounds.

    Raises:
        InputError: the records are of different horizons or sides, or one lacks the level.
    """
    if (champion.horizon, champion.sides) != (shadow.horizon, shadow.sides):
        raise InputError("champion and shadow are not of the same horizon and sides")
    for one in (champion, shadow):
        if level not in one.levels:
            raise InputError(f"{one.subject} does not forecast level {level:g}")
    ours, theirs = _shared(champion.as_of(at), shadow.as_of(at))
    mine = ours.promised[:, :, ours.levels.index(level)]
    other = theirs.promised[:, :, theirs.levels.index(level)]
    outcome = ours.outcomes
    known = np.isfinite(mine) & np.isfinite(other) & np.isfinite(outcome)
    losses = [_losses(known, outcome, forecast, level) for forecast in (mine, other)]
    apart = np.where(known, np.abs(mine - other), 0.0)
    bets = bet_times(ours.decided, ours.horizon, np.datetime64("NaT", "us"))
    bets = bets[bets + np.timedelta64(ours.horizon) <= instant64(at)]
    first = np.searchsorted(ours.decided, bets)
    end = np.searchsorted(ours.decided, bets, side="right")
    gained = _between(losses[0] - losses[1], first, end)
    apart_by = _between(apart, first, end)
    compared = apart_by > 0.0
    advantage = gained[compared] / apart_by[compared]
    lower, upper = mean_bounds(0.5 * (advantage + 1.0), confidence)
    shadow_loss = losses[1].sum()
    return Difference(
        int(compared.sum()),
        int(known.any(axis=1).sum()),
        float(losses[0].sum() / shadow_loss) if shadow_loss > 0.0 else float("nan"),
        float(advantage.mean()) if len(advantage) else float("nan"),
        2.0 * lower - 1.0,
        2.0 * upper - 1.0,
    )


def mean_bounds(values: FloatArray, confidence: float) -> tuple[float, float]:
    """Return bounds of the mean of bounded values that hold at all times together.

    The predictable plug-in empirical Bernstein confidence sequence: bounds of the mean that every
    value has given those before it; where that mean changes, of its average, weighted as the values
    are.

    Args:
        values: in order, shape (n,), each in [0, 1].
        confidence: with which the bounds hold, all times together.

    Returns:
        Lower and upper bound, within [0, 1].

    Source: Waudby-Smith and Ramdas (2024), doi:10.1093/jrsssb/qkad009, theorem 2.
    """
    if not len(values):
        return 0.0, 1.0
    number = np.arange(1, len(values) + 1)
    mean = (0.5 + np.cumsum(values)) / (number + 1)
    variance = (0.25 + np.cumsum((values - mean) ** 2)) / (number + 1)
    before_mean = np.append(0.5, mean[:-1])
    before_variance = np.append(0.25, variance[:-1])
    doubt = np.log(2.0 / (1.0 - confidence))
    weights = np.sqrt(2.0 * doubt / (before_variance * number * np.log1p(number)))
    weights = np.minimum(weights, _MOST_STAKE)
    squares = 4.0 * (values - before_mean) ** 2
    spent = doubt + float(np.sum(squares * (-np.log1p(-weights) - weights) / 4.0))
    centre, margin = float(weights @ values / weights.sum()), spent / float(weights.sum())
    return max(0.0, centre - margin), min(1.0, centre + margin)


def _shared(one: Record, other: Record) -> tuple[Record, Record]:
    """Return both records on the decisions that both have, in the order of the first."""
    first, second = (
        pd.DataFrame(
            {
                "decided": record.decided,
                "symbol": np.array(record.symbols, dtype=object)[record.contract],
                name: np.arange(len(record)),
            }
        )
        for record, name in ((one, "first"), (other, "second"))
    )
    both = first.merge(second, on=["decided", "symbol"], validate="one_to_one").sort_values("first")
    return _picked(one, both["first"].to_numpy()), _picked(other, both["second"].to_numpy())


def _picked(record: Record, rows: npt.NDArray[np.intp]) -> Record:
    return Record(
        record.subject,
        record.horizon,
        record.sides,
        record.levels,
        record.symbols,
        record.contract[rows],
        record.decided[rows],
        record.promised[rows],
        record.outcomes[rows],
    )


def _losses(
    known: BoolArray, outcome: FloatArray, forecast: FloatArray, level: float
) -> FloatArray:
    """Return pinball losses, 0 where they are not known."""
    losses = np.zeros(known.shape)
    if known.any():
        losses[known] = pinball_loss(outcome[known], forecast[known], level)
    return losses


def _between(
    values: FloatArray,
    first: npt.NDArray[np.intp],
    end: npt.NDArray[np.intp],
) -> FloatArray:
    """Sum rows between positions, all columns together."""
    total = np.append(0.0, np.cumsum(values.sum(axis=1)))
    return np.asarray(total[end] - total[first])
