"""Walk forecasters through a simulated market as a backtest would, and hold them to the oracle.

Losses are expected under the true law of each decision, not those of the one outcome that
happened: what is left is what the forecaster got wrong, so a few seeds settle 0.999. (Realised
figures stand beside them in the JSON.) The expected ones are taken in log excursions, a per cent
or so from simple fractions, because there the law is exact.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import numpy as np
from benchmarks.oracle.bars import Decisions, decisions_of, feature_set_of
from benchmarks.oracle.laws import to_fraction, to_log
from benchmarks.oracle.processes import PROCESSES, Setting, hour_of
from benchmarks.oracle.recovery import Recovery, recovery_of

from margincast.backtest.replay import walk_forward_folds
from margincast.core.types import FloatArray, Side
from margincast.models.catalogue import OURS, make_forecaster
from margincast.models.protocol import Forecaster, TailForecast
from margincast.scoring.pinball import mean_pinball
from margincast.specs.features import FeatureSet
from margincast.specs.loading import load_spec
from margincast.specs.training import TrainingJob

WORKSPACE: Final = Path(__file__).resolve().parents[2]
START: Final = datetime(2020, 1, 1, tzinfo=UTC)
MODELS: Final = (OURS, "ewma_fhs", "har_fhs")
TOLD: Final = "told_scale"
"""Ours, its scale fitted on the true volatility: what is left is the head's and the tail's."""

BROKEN_AFTER: Final = timedelta(days=30)
BREAK: Final = 3.0
FOLLOWED: Final = timedelta(days=42)
"""Decisions after the break that are looked at: a thousand."""

LONGEST_WINDOW: Final = timedelta(days=40)
"""History that features need before the first decision of the broken market."""


@dataclass(frozen=True)
class Length:
    """How long a market is simulated, tested from when, and how often models are refitted.

    Attributes:
        days: in all.
        test_day: first day of the test.
        refit_every: calendar step of the refits.
        stride: train on every n-th decision.
    """

    days: int
    test_day: int
    refit_every: str
    stride: int


FULL: Final = Length(days=731, test_day=547, refit_every="1q", stride=1)
QUICK: Final = Length(days=292, test_day=200, refit_every="1q", stride=1)


@dataclass(frozen=True)
class Score:
    """One forecaster at one level, both sides together, against the oracle.

    Attributes:
        pinball_ratio: expected pinball loss over the oracle's.
        realised_pinball_ratio: the same of the outcomes that happened, in simple fractions.
        exceedance_ratio: expected exceedances over nominal ones.
        realised_exceedance_ratio: those that happened over nominal ones.
        log_error: root mean square of log(forecast / true quantile).
        log_bias: mean of log(forecast / true quantile).
        decisions: judged decisions times sides.
        unknown: judged decisions without a forecast of some model, left out for all.
    """

    process: str
    seed: int
    model: str
    level: float
    pinball_ratio: float
    realised_pinball_ratio: float
    exceedance_ratio: float
    realised_exceedance_ratio: float
    log_error: float
    log_bias: float
    decisions: int
    unknown: int


@dataclass(frozen=True)
class Findings:
    """What one seed of one process showed."""

    scores: tuple[Score, ...]
    recoveries: tuple[Recovery, ...]


def job_of(length: Length) -> TrainingJob:
    """Load ``training/perp-1h.toml`` with what a simulated market's length asks for."""
    day = timedelta(days=1)
    first, last = START + day * length.test_day, START + day * (length.days - 1)
    return load_spec(
        WORKSPACE / "training" / "perp-1h.toml",
        TrainingJob,
        [
            f"backtest.start={first:%F}",
            f"backtest.end={last:%F}",
            f"backtest.refit_every={length.refit_every}",
            f"model.stride={length.stride}",
        ],
    )


@dataclass(frozen=True)
class _Walk:
    """A market walked through: forecasts fold by fold, and the models of the last refit."""

    tested: list[Decisions]
    forecasts: dict[str, list[TailForecast]]
    fitted: dict[str, Forecaster]
    refitted: datetime
    known_until: datetime


def study(process: str, seed: int, length: Length, *, dissect: bool, threads: int) -> Findings:
    """Simulate one market, walk every model through it and break it after the last refit."""
    job = job_of(length)
    feature_set = feature_set_of(load_spec(WORKSPACE / job.features.set, FeatureSet))
    setting = Setting(START, length.test_day * 24, np.ones(length.days * 24))
    names = (*MODELS, TOLD) if dissect else MODELS
    walk = _walk(_decisions(process, seed, setting, job, feature_set), job, names, threads)
    broken_at = walk.refitted + BROKEN_AFTER
    multiplier = setting.multiplier.copy()
    multiplier[hour_of(setting, broken_at) :] = BREAK
    broken = _decisions(
        process,
        seed,
        replace(setting, multiplier=multiplier),
        job,
        feature_set,
        first_hour=hour_of(setting, walk.known_until - LONGEST_WINDOW),
    )
    decided = broken.panel.decided
    broken = broken.rows(
        (decided > _instant(walk.known_until)) & (decided < _instant(broken_at + FOLLOWED))
    )
    return Findings(
        tuple(scores_of(process, seed, walk.tested, walk.forecasts)),
        tuple(
            recovery_of(
                process,
                seed,
                name,
                decisions=broken,
                forecast=model.predict(broken.panel),
                broken_at=broken_at,
            )
            for name, model in walk.fitted.items()
        ),
    )


def _walk(whole: Decisions, job: TrainingJob, names: Sequence[str], threads: int) -> _Walk:
    """Refit and forecast as :func:`margincast.backtest.replay.replay` does."""
    tested: list[Decisions] = []
    forecasts: dict[str, list[TailForecast]] = {name: [] for name in names}
    fitted: dict[str, Forecaster] = {}
    known_until = refitted = START
    for fold in walk_forward_folds(job, whole.panel):
        training = whole.panel.rows(fold.training)
        refitted = fold.start
        known_until = training.decided.max().item().replace(tzinfo=UTC)
        decided = whole.panel.decided
        since = (decided > _instant(known_until)) & (decided < _instant(fold.end))
        following, keep = whole.rows(since), fold.test[since]
        for name in names:
            fitted[name] = _forecaster(name, job, threads).fit(training)
            forecasts[name].append(fitted[name].predict(following.panel).rows(keep))
        tested.append(following.rows(keep))
    return _Walk(tested, forecasts, fitted, refitted, known_until)


def _instant(moment: datetime) -> np.datetime64:
    return np.datetime64(moment.replace(tzinfo=None), "us")


def _decisions(
    process: str,
    seed: int,
    setting: Setting,
    job: TrainingJob,
    feature_set: FeatureSet,
    *,
    first_hour: int = 0,
) -> Decisions:
    market = PROCESSES[process](setting, np.random.default_rng(seed))
    made = decisions_of(market, setting, job, feature_set, first_hour)
    # not among the units, so that no model sees it but one that is told its name
    made.panel.frame["true_volatility"] = np.sqrt(
        (made.truth.weights * made.truth.scales**2).sum(axis=1)
    )
    return made


def _forecaster(name: str, job: TrainingJob, threads: int) -> Forecaster:
    chosen = job.model
    if name == TOLD:
        scale = chosen.scale.model_copy(
            update={"columns": ("true_volatility",), "seasonal_harmonics": ()}
        )
        name, chosen = OURS, chosen.model_copy(update={"scale": scale})
    return make_forecaster(
        name, chosen, job.target.sides, job.target.levels, overlap=1.0, threads=threads
    )


def scores_of(
    process: str,
    seed: int,
    tested: Sequence[Decisions],
    forecasts: Mapping[str, Sequence[TailForecast]],
) -> list[Score]:
    """Hold every model's forecasts, fold by fold, to the oracle on their common decisions."""
    kept = []
    for number, decisions in enumerate(tested):
        known = decisions.judged & decisions.panel.labelled
        for made in forecasts.values():
            known &= np.isfinite(made[number].quantiles).all(axis=(1, 2))
        kept.append(known)
    unknown = sum(
        int((d.judged & d.panel.labelled & ~k).sum()) for d, k in zip(tested, kept, strict=True)
    )
    scores = []
    for name, made in forecasts.items():
        for level in made[0].levels:
            parts = [
                _compared(d.rows(k), f.rows(k), side, level)
                for d, f, k in zip(tested, made, kept, strict=True)
                for side in f.sides
                if k.any()
            ]
            joined = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
            outcome, forecast, true = (joined[key] for key in ("outcome", "forecast", "true"))
            error = np.log(forecast / true)
            scores.append(
                Score(
                    process,
                    seed,
                    name,
                    level,
                    float(joined["loss"].mean() / joined["least"].mean()),
                    mean_pinball(outcome, forecast, level) / mean_pinball(outcome, true, level),
                    float(joined["exceeded"].mean() / (1 - level)),
                    float((outcome > forecast).mean() / (1 - level)),
                    float(np.sqrt(np.mean(error**2))),
                    float(error.mean()),
                    len(error),
                    unknown,
                )
            )
    return scores


def _compared(
    decisions: Decisions, forecast: TailForecast, side: Side, level: float
) -> dict[str, FloatArray]:
    truth = decisions.truth
    made = np.maximum(forecast.at(side, level), 1e-9)
    best = truth.quantile(side, level)
    return {
        "forecast": made,
        "true": to_fraction(side, best),
        "outcome": decisions.panel.outcomes[side],
        "loss": truth.expected_pinball(side, level, to_log(side, made)),
        "least": truth.expected_pinball(side, level, best),
        "exceeded": truth.survival(side, to_log(side, made)),
    }
