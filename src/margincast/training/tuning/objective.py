"""What a trial is judged by: loss, coverage error, procyclicality and mean margin of its folds."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from margincast.core.types import FloatArray
from margincast.models.head import QuantileHead
from margincast.scoring.pinball import pinball_loss
from margincast.specs.training import Head
from margincast.training.tuning.folds import PreparedFold, Step, StudyFolds


@dataclass(frozen=True)
class StepScore:
    """What a head is worth on one step of a study, all horizons together.

    Attributes:
        loss: mean pinball loss relative to the reference, over horizons, sides and levels.
        mean_margin: mean forecast relative to the reference, likewise.
        exceedances: outcomes above the forecast, per level, shape (levels,).
        decisions: decisions times sides that each of these counts is out of.
        rise: largest one-day log rise of a forecast, mean over contracts, sides, levels and
            horizons; NaN where no two decisions lie a day apart.
        days: days of the step, shape (d,).
        daily_loss: relative loss of each day, shape (d,).
    """

    loss: float
    mean_margin: float
    exceedances: FloatArray
    decisions: int
    rise: float
    days: npt.NDArray[np.datetime64]
    daily_loss: FloatArray


@dataclass(frozen=True)
class Figures:
    """What a trial is worth on all steps it has done.

    Attributes:
        loss: mean pinball loss relative to the reference.
        coverage_error: largest distance of an exceedance ratio from 1.
        procyclicality: largest one-day log rise of a forecast, mean over contracts; NaN if unknown.
        mean_margin: mean forecast relative to the reference.
        exceedance_ratios: observed over nominal exceedances, per level.
    """

    loss: float
    coverage_error: float
    procyclicality: float
    mean_margin: float
    exceedance_ratios: dict[float, float]


def score_step(folds: StudyFolds, step: Step, chosen: Head, threads: int) -> StepScore:
    """Train a head on a step's folds and score what it forecasts; a pure function."""
    parts = [
        _score_fold(fold, QuantileHead(chosen, fold.units, folds.sides, folds.levels, threads))
        for fold in step
    ]
    days = np.concatenate([part.days for part in parts])
    daily = np.concatenate([part.daily_loss for part in parts])
    distinct, number = np.unique(days, return_inverse=True)
    return StepScore(
        loss=float(np.mean([part.loss for part in parts])),
        mean_margin=float(np.mean([part.mean_margin for part in parts])),
        exceedances=np.sum([part.exceedances for part in parts], axis=0),
        decisions=sum(part.decisions for part in parts),
        rise=_mean_of_known([part.rise for part in parts]),
        days=distinct,
        daily_loss=np.bincount(number, daily) / np.bincount(number),
    )


def figures_of(scores: Sequence[StepScore], levels: tuple[float, ...]) -> Figures:
    """Put the steps of a trial together: means, and exceedances counted over all of them."""
    observed = np.sum([score.exceedances for score in scores], axis=0)
    decisions = sum(score.decisions for score in scores)
    ratios = {
        level: float(count / (decisions * (1 - level)))
        for level, count in zip(levels, observed, strict=True)
    }
    return Figures(
        loss=float(np.mean([score.loss for score in scores])),
        coverage_error=max(abs(ratio - 1.0) for ratio in ratios.values()),
        procyclicality=_mean_of_known([score.rise for score in scores]),
        mean_margin=float(np.mean([score.mean_margin for score in scores])),
        exceedance_ratios=ratios,
    )


def _score_fold(fold: PreparedFold, head: QuantileHead) -> StepScore:
    forecast = fold.forecast(head)
    losses = np.empty_like(forecast)
    above = np.zeros(len(head.levels))
    for i, side in enumerate(head.sides):
        outcome = fold.test_outcomes[side]
        for j, level in enumerate(head.levels):
            losses[:, i, j] = pinball_loss(outcome, forecast[:, i, j], level)
            above[j] += np.count_nonzero(outcome > forecast[:, i, j])
    relative = (losses / fold.reference_loss).mean(axis=(1, 2))
    days, number = np.unique(fold.day, return_inverse=True)
    return StepScore(
        loss=float(relative.mean()),
        mean_margin=_mean_margin(forecast, fold),
        exceedances=above,
        decisions=len(forecast) * len(head.sides),
        rise=mean_largest_rise(forecast, fold.contract, fold.day_before),
        days=days,
        daily_loss=np.bincount(number, relative) / np.bincount(number),
    )


def _mean_margin(forecast: FloatArray, fold: PreparedFold) -> float:
    return float((forecast.mean(axis=0) / fold.reference_margin).mean())


def mean_largest_rise(
    forecast: FloatArray, contract: npt.NDArray[np.intp], day_before: npt.NDArray[np.intp]
) -> float:
    """Return each contract's largest one-day log rise, averaged over contracts, sides and levels.

    Args:
        forecast: shape (n, sides, levels); pairs with a forecast of 0 do not count.
        contract: number of each row's contract, shape (n,).
        day_before: row one day earlier, -1 where there is none, shape (n,).

    Returns:
        NaN where no contract has two forecasts a day apart.

    Source: the largest n-day rise of Murphy, Vasios and Vause (2014), Bank of England Financial
    Stability Paper 29, in logarithms.
    """
    later = np.flatnonzero(day_before >= 0)
    now, then = forecast[later], forecast[day_before[later]]
    largest = np.full((contract.max() + 1, *forecast.shape[1:]), -np.inf)
    rises = np.full(now.shape, -np.inf)
    both = (now > 0) & (then > 0)
    rises[both] = np.log(now[both] / then[both])
    np.maximum.at(largest, contract[later], rises)
    return _mean_of_known(largest)


def _mean_of_known(values: Sequence[float] | FloatArray) -> float:
    known = np.asarray(values)[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")
