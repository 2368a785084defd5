"""Walk-forward replay: every model refitted on schedule and asked what it would have forecast.

A fold's forecasts are stored as soon as they are made, so an interrupted backtest continues where
it stopped. The replay forecasts every decision of the test period, also those without an outcome.
Horizons are fitted and stored one by one; only what is handed back is in order between them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from margincast.core.digest import digest_of
from margincast.core.errors import InsufficientHistoryError
from margincast.core.execution import Execution
from margincast.core.time import format_minutes
from margincast.core.types import FloatArray, Side
from margincast.models.catalogue import make_forecaster
from margincast.models.checks import forecast_of, require_trainable
from margincast.models.horizons import rearranged
from margincast.models.protocol import Panel, TailForecast
from margincast.specs.training import TrainingJob
from margincast.training.execution.environment import code_digest, library_versions
from margincast.training.splits import Fold, walk_forward
from margincast.training.workload import Workload


@dataclass(frozen=True)
class Replay:
    """Forecasts of several models for one horizon at the same test decisions.

    Attributes:
        panel: the n test decisions, with outcomes where known.
        folds: refits; ``fold_of`` numbers them.
        fold_of: fold of each test decision, shape (n,).
        forecasts: per model, its forecasts of all n decisions.
    """

    panel: Panel
    folds: tuple[Fold, ...]
    fold_of: "np.ndarray[tuple[int], np.dtype[np.intp]]"
    forecasts: dict[str, TailForecast]


def walk_forward_folds(job: TrainingJob, panel: Panel) -> list[Fold]:
    """Cut a panel's time into the folds of a job's backtest."""
    return walk_forward(
        panel.decided,
        panel.label_end,
        panel.labelled,
        start=job.backtest.start,
        end=job.backtest.end,
        refit_every=job.backtest.refit_every,
        embargo=job.backtest.embargo,
        window=job.model.window,
    )


def replay(
    workload: Workload,
    models: Sequence[str],
    *,
    execution: Execution,
    store: Path,
    on_fold: Callable[[str, int, Fold], None] = lambda _model, _horizon_minutes, _fold: None,
) -> dict[int, Replay]:
    """Forecast every test decision with every model, refitted at the start of every fold.

    Every horizon trains on what its own labels allow. Forecasts of excursions along the path are
    put in order between horizons, as they are served
    (:func:`margincast.models.horizons.rearranged`).

    Args:
        workload: data, features and outcomes of a job.
        models: names of forecasters.
        execution: where models are fitted side by side: refits of different models and folds know
            nothing of each other.
        store: folder where finished folds are kept; those of the same spec, data and model are
            taken from it.
        on_fold: called with model, horizon and fold when a model has done a fold.

    Returns:
        Per horizon in minutes, increasing; all of the same decisions.

    Raises:
        InsufficientHistoryError: too little history before a fold for a level.
        InputError: history that nothing may be learned from.
    """
    job, target = workload.job, workload.job.target
    folds = {
        minutes: tuple(walk_forward_folds(job, panel)) for minutes, panel in workload.panels.items()
    }
    parts: dict[_Task, TailForecast] = {}
    missing: dict[_Task, Path] = {}
    for minutes, of_horizon in folds.items():
        identity = _identity(workload, minutes)
        for number, fold in enumerate(of_horizon):
            for name in models:
                task = _Task(name, minutes, number)
                path = store / f"{digest_of([identity, name, number])[:24]}.npz"
                stored = _load(path, target.sides, target.levels)
                if stored is None:
                    missing[task] = path
                else:
                    parts[task] = stored
                    on_fold(name, minutes, fold)
    shared = {
        minutes: _Horizon(job, panel, folds[minutes], workload.overlap(minutes))
        for minutes, panel in workload.panels.items()
    }
    for task, forecast in execution.map(_forecast, shared, list(missing)):
        _save(missing[task], forecast)
        parts[task] = forecast
        on_fold(task.name, task.horizon_minutes, folds[task.horizon_minutes][task.number])
    forecasts: dict[int, dict[str, TailForecast]] = {minutes: {} for minutes in folds}
    for name in models:
        joined = {
            minutes: _join([parts.pop(_Task(name, minutes, i)) for i in range(len(of_horizon))])
            for minutes, of_horizon in folds.items()
        }
        for minutes, forecast in (rearranged(joined) if target.monotone else joined).items():
            forecasts[minutes][name] = forecast
    return {
        minutes: _replay_of(workload.panels[minutes], of_horizon, forecasts[minutes])
        for minutes, of_horizon in folds.items()
    }


def _replay_of(panel: Panel, folds: Sequence[Fold], forecasts: dict[str, TailForecast]) -> Replay:
    tested = np.logical_or.reduce([fold.test for fold in folds])
    fold_of = np.concatenate([np.full(int(f.test.sum()), i) for i, f in enumerate(folds)])
    return Replay(panel.rows(tested), tuple(folds), fold_of, forecasts)


@dataclass(frozen=True)
class _Task:
    """One model for one horizon at one refit."""

    name: str
    horizon_minutes: int
    number: int


@dataclass(frozen=True)
class _Horizon:
    """What every model of a horizon works on."""

    job: TrainingJob
    panel: Panel
    folds: tuple[Fold, ...]
    overlap: float


def _forecast(shared: Mapping[int, _Horizon], task: _Task, threads: int) -> TailForecast:
    """Fit one model and forecast one fold; runs wherever tasks run."""
    of_horizon = shared[task.horizon_minutes]
    job, panel, fold = of_horizon.job, of_horizon.panel, of_horizon.folds[task.number]
    training = panel.rows(fold.training)
    # from the end of training on: models with a memory know what has happened since
    since = panel.decided < np.datetime64(fold.end.replace(tzinfo=None), "us")
    if len(training):
        since &= panel.decided > training.decided.max()
    target = job.target
    model = make_forecaster(
        task.name,
        job.model,
        target.sides,
        target.levels,
        overlap=of_horizon.overlap,
        threads=threads,
    )
    try:
        require_trainable(training, target.sides, target.levels)
        return forecast_of(model.fit(training), panel.rows(since)).rows(fold.test[since])
    except InsufficientHistoryError as error:
        raise InsufficientHistoryError(
            f"{_of_horizon(task, job)}, refit of {fold.start:%F} ({len(training):,} decisions of "
            f"history): {error}"
        ) from None


def _of_horizon(task: _Task, job: TrainingJob) -> str:
    """Name the model of a task, and its horizon where there are several."""
    if len(job.target.horizons) == 1:
        return task.name
    return f"{task.name}, {format_minutes(task.horizon_minutes)} horizon"


def _identity(workload: Workload, horizon_minutes: int) -> str:
    """Digest of all that shapes a forecast: spec, feature set, data, code and libraries.

    It hangs on its own horizon alone, so that a horizon added later costs no other a fit.
    """
    job = workload.job
    spec = job.model_dump(mode="json", include={"target", "model", "backtest"})
    spec["target"]["horizons"] = [horizon_minutes]
    return digest_of(
        [
            spec,
            workload.feature_set.digest(),
            workload.market.digest,
            job.data.model_dump(mode="json", include={"symbols", "book_known_after"}),
            code_digest(),
            library_versions(),
        ]
    )


def _join(parts: Sequence[TailForecast]) -> TailForecast:
    """Put folds one after another; test rows of a later fold are all later."""
    first = parts[0]
    shortfalls = [part.expected_shortfall for part in parts]
    return TailForecast(
        first.sides,
        first.levels,
        np.concatenate([part.quantiles for part in parts]),
        None if shortfalls[0] is None else np.concatenate([_known(x) for x in shortfalls]),
    )


def _known(values: FloatArray | None) -> FloatArray:
    assert values is not None
    return values


def _save(path: Path, forecast: TailForecast) -> None:
    arrays = {"quantiles": forecast.quantiles}
    if forecast.expected_shortfall is not None:
        arrays["expected_shortfall"] = forecast.expected_shortfall
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part")
    with partial.open("wb") as stream:
        np.savez(stream, allow_pickle=False, **arrays)
    partial.replace(path)


def _load(path: Path, sides: tuple[Side, ...], levels: tuple[float, ...]) -> TailForecast | None:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return TailForecast(
                sides, levels, arrays["quantiles"], arrays.get("expected_shortfall")
            )
    except (OSError, EOFError, ValueError, KeyError, BadZipFile):
        # absent, or damaged since: the fold is fitted again
        return None
