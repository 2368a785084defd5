"""A few Optuna trials over the quantile head, on purged folds of training time only.

The score is the mean pinball loss over sides and head levels of out-of-fold forecasts, each level
and horizon relative to the first trial, so that none outweighs another. Trees in the score are the
ones the model would use; the bins are built once and shared by all trials.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna

from margincast.core.types import FloatArray
from margincast.models.checks import require_trainable
from margincast.models.folds import purged_folds
from margincast.models.head import QuantileHead
from margincast.models.protocol import Panel
from margincast.models.scale import HarScale
from margincast.scoring.pinball import mean_pinball
from margincast.specs.training import Head, Model, TrainingJob


@dataclass(frozen=True)
class Tuned:
    """The model spec with the best head found, and the study it was found in."""

    model: Model
    study: optuna.Study


@dataclass(frozen=True)
class _PreparedFold:
    scale_train: FloatArray
    scale_test: FloatArray
    train: Panel
    test: Panel


def tune_head(
    job: TrainingJob,
    panels: Sequence[Panel],
    head_levels: tuple[float, ...],
    threads: int,
    on_trial: Callable[[optuna.trial.FrozenTrial], None] = lambda _: None,
) -> Tuned:
    """Search ``tuning.space`` for the best head.

    The values of the spec are tried first, so tuning never does worse than they do on its folds.

    Args:
        job: the training spec.
        panels: labelled training rows only, a panel a horizon.
        head_levels: levels LightGBM is trained at.
        threads: OpenMP threads.
        on_trial: called after every finished trial.

    Raises:
        InputError: history that nothing may be learned from.
    """
    for panel in panels:
        require_trainable(panel, job.target.sides, head_levels)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    tuning, model = job.tuning, job.model
    folds = [fold for panel in panels for fold in _folds(model, panel, tuning.folds)]
    reference: list[FloatArray] = []

    def objective(trial: optuna.Trial) -> float:
        head = suggest_head(trial, job)
        losses = []
        for number, fold in enumerate(folds):
            losses.append(_losses(head, fold, job, head_levels, threads))
            if len(reference) <= number:
                reference.append(losses[-1])
            relative = float(np.mean([x / r for x, r in zip(losses, reference, strict=False)]))
            trial.report(relative, number)
            if trial.should_prune():
                raise optuna.TrialPruned
        return relative

    study = optuna.create_study(
        study_name=job.name,
        sampler=optuna.samplers.TPESampler(seed=tuning.seed),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=4),
    )
    if tuning.trials == 0:
        return Tuned(model, study)
    study.enqueue_trial({key: getattr(model.head, key) for key in tuning.space})
    with warnings.catch_warnings():
        # the values of the spec are tried also where they lie outside the space
        warnings.filterwarnings("ignore", message="Fixed parameter .* is out of range")
        study.optimize(
            objective, n_trials=tuning.trials, callbacks=[lambda _, trial: on_trial(trial)]
        )
    best = model.head.model_copy(update=_typed(study.best_params, job))
    return Tuned(model.model_copy(update={"head": best}), study)


def suggest_head(trial: optuna.Trial, job: TrainingJob) -> Head:
    """Draw one head from the search space."""
    chosen: dict[str, Any] = {}
    for key, bounds in job.tuning.space.items():
        if bounds.integer:
            chosen[key] = trial.suggest_int(
                key, round(bounds.low), round(bounds.high), log=bounds.log
            )
        else:
            chosen[key] = trial.suggest_float(key, bounds.low, bounds.high, log=bounds.log)
    return job.model.head.model_copy(update=chosen)


def _typed(parameters: dict[str, Any], job: TrainingJob) -> dict[str, Any]:
    return {
        key: int(value) if job.tuning.space[key].integer else float(value)
        for key, value in parameters.items()
    }


def _folds(model: Model, panel: Panel, count: int) -> list[_PreparedFold]:
    thinned = panel.thinned(model.stride, model.minimum_rows)
    return [
        _prepare(model, thinned.rows(training), thinned.rows(held_out))
        for training, held_out in purged_folds(thinned.decided, thinned.label_end, max(count, 2))
    ][-count:]


def _prepare(model: Model, train: Panel, test: Panel) -> _PreparedFold:
    scale = HarScale(model.scale.columns, model.scale.seasonal_harmonics, model.scale.ridge)
    scale.fit(train.frame, train.log_range)
    width_train, width_test = scale.predict(train.frame), scale.predict(test.frame)
    known_train, known_test = np.isfinite(width_train), np.isfinite(width_test)
    return _PreparedFold(
        width_train[known_train],
        width_test[known_test],
        train.rows(known_train),
        test.rows(known_test),
    )


def _losses(
    head: Head,
    fold: _PreparedFold,
    job: TrainingJob,
    levels: tuple[float, ...],
    threads: int,
) -> FloatArray:
    """Mean pinball loss per side and level, shape (sides, levels)."""
    sides = job.target.sides
    fitted = QuantileHead(head, fold.train.units, sides, levels, threads).fit(
        fold.train.frame, fold.scale_train, fold.train.outcomes
    )
    forecast = fitted.predict(fold.test.frame, fold.scale_test) * fold.scale_test[:, None, None]
    return np.array(
        [
            [
                mean_pinball(fold.test.outcomes[side], forecast[:, i, j], level)
                for j, level in enumerate(levels)
            ]
            for i, side in enumerate(sides)
        ]
    )
