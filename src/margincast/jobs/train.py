"""``margincast train``: from raw data to a registered model version that its gate has judged."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from margincast.core.time import add_step
from margincast.features.tables import readings_of
from margincast.jobs.backtest import prepare, print_result, run_backtest
from margincast.jobs.backtest_record import Backtest
from margincast.jobs.console import output, say
from margincast.jobs.gate_evidence import champion_losses
from margincast.jobs.headline import PRIMARY_METRIC
from margincast.jobs.model_runs import log_models
from margincast.jobs.registration import ModelRegistry, Registration, Runs
from margincast.jobs.run_pages import (
    TRAINED_TAG,
    describe_experiment,
    describe_job,
    job_run_name,
    stamp,
    views,
)
from margincast.jobs.setting import Setting
from margincast.jobs.train_record import (
    log_evidence,
    log_folds,
    log_importance,
    log_origin,
)
from margincast.jobs.tuning import record_tuning, tune, tuned_workload
from margincast.models.catalogue import LOADERS, OURS
from margincast.models.checks import require_trainable
from margincast.models.horizons import HorizonForecaster
from margincast.models.protocol import Panel
from margincast.serving.bundle import write_bundle
from margincast.serving.manifest import BundleMetadata
from margincast.serving.monitoring.distribution import SPEC, Distribution, distribution_of
from margincast.specs.loading import load_spec
from margincast.specs.training import TrainingJob
from margincast.training.tracking import Tracker
from margincast.training.tracking.pages import NOTE_TAG, show_experiment
from margincast.training.tracking.recorded import KIND_TAG
from margincast.training.tracking.usage import Usage
from margincast.training.workload import Workload, forecaster_for

NOT_REGISTERED = "not registered yet: the model and its verdict wait for `margincast sync`"


@dataclass(frozen=True)
class Training:
    """A finished training job."""

    backtest: Backtest
    registered: Registration | None
    """None while it waits in the spool for MLflow."""


def run(
    spec: Path,
    data: Path | None,
    out: Path | None,
    overrides: Sequence[str],
    cache: str | None = None,
    *,
    cluster: str | None = None,
) -> Training:
    """Run a training job; see the module and ``training/README.md``.

    Refits run on a Dask cluster where one is named.

    Raises:
        InputError: see the rooms it walks through; nothing is registered then.
    """
    job = load_spec(spec, TrainingJob, overrides)
    with Setting.of(spec, data, out, job.name, cache).on(cluster) as setting:
        return _train(job, setting)


def _train(job: TrainingJob, setting: Setting) -> Training:
    usage = Usage()
    with usage.phase("data"):
        workload = prepare(job, setting)
    for history in _latest_histories(workload).values():
        require_trainable(history, job.target.sides, job.target.levels)
    # bad input must leave nothing behind, not even an empty store; a store that is down must be
    # found out before the long work
    tracker = Tracker(job.tracking.uri, job.tracking.experiment, setting.workspace, say)
    champion = champion_losses(job, setting.workspace)
    trained = stamp(datetime.now(UTC))
    tags = {KIND_TAG: "training job", "margincast.job": job.name, TRAINED_TAG: trained}
    with tracker.run(job_run_name(job, trained), tags) as run:
        with usage.phase("tuning"):
            tuned = tune(workload, setting)
        if tuned is not None:
            record_tuning(tuned, tracker, run, workload, setting.out)
            workload = tuned_workload(workload, tuned)
        log_origin(run, workload, setting)
        with usage.phase("backtest"):
            result = run_backtest(workload, setting, champion)
        with usage.phase("tracking"):
            log_evidence(run, result)
            log_folds(tracker, run, result, job)
            model_runs = log_models(tracker, run, result, workload, trained)
            run.set_tags({NOTE_TAG: describe_job(result, job)})
            description = describe_experiment(job, tracker.experiment_id)
            show_experiment(tracker, description, views(job, trained), PRIMARY_METRIC)
        say("fitting the model to register on all labelled history")
        histories = _latest_histories(workload)
        with usage.phase("final fit"):
            forecaster = _final_fit(workload, histories, setting)
        with usage.phase("importance"):
            log_importance(run, forecaster, histories, job.tracking.explained_decisions)
        runs = Runs(run.run_id, model_runs[OURS])
        registered = _register(workload, histories, forecaster, result, tracker=tracker, runs=runs)
        run.set_tags({"margincast.gate": "passed" if result.verdict.passed else "failed"})
        if registered is not None:
            run.set_tags(registered.tag)
            with tracker.attached(runs.model) as model_run:
                model_run.set_tags(registered.tag)
        run.log_metrics(usage.metrics())
        outage = tracker.outage
    print_result(result, job)
    output.print(NOT_REGISTERED if registered is None else registered.describe())
    if outage:
        say("MLflow could not be told all of it; `margincast sync` does when it can be reached")
    output.print(f"report: {result.report}", soft_wrap=True)
    return Training(result, registered)


def _final_fit(
    workload: Workload, histories: Mapping[int, Panel], setting: Setting
) -> HorizonForecaster:
    """Fit our models on all labelled history they look back on, test period included."""
    models = {
        minutes: forecaster_for(workload, OURS, minutes, setting.threads) for minutes in histories
    }
    return HorizonForecaster(OURS, models, workload.job.target.monotone).fit(histories)


def _latest_histories(workload: Workload) -> dict[int, Panel]:
    """Return the labelled decisions of the latest ``model.window``, per horizon."""
    labelled = {minutes: panel.labelled for minutes, panel in workload.panels.items()}
    if not all(known.any() for known in labelled.values()):
        return {
            minutes: panel.rows(labelled[minutes]) for minutes, panel in workload.panels.items()
        }
    until = _trained_until(workload)
    latest = until.astype("datetime64[us]").item()
    first = add_step(latest.replace(tzinfo=UTC), workload.job.model.window, -1)
    since = np.datetime64(first.replace(tzinfo=None), "us")
    return {
        minutes: panel.rows(labelled[minutes] & (panel.decided >= since) & (panel.decided <= until))
        for minutes, panel in workload.panels.items()
    }


def _trained_until(workload: Workload) -> "np.datetime64[datetime]":
    """Last decision with an outcome at every horizon.

    The models of all horizons are fitted up to the same decision, so that what happened since is
    one stretch of time for all of them.
    """
    return min(panel.decided[panel.labelled].max() for panel in workload.panels.values())


def _features_in_training(workload: Workload, histories: Mapping[int, Panel]) -> Distribution:
    """Summarise the features trained on; all horizons have about the same decisions."""
    families = {name: one.family for name, one in readings_of(workload.feature_set).items()}
    return distribution_of(next(iter(histories.values())), families)


def _register(
    workload: Workload,
    histories: Mapping[int, Panel],
    forecaster: HorizonForecaster,
    result: Backtest,
    *,
    tracker: Tracker,
    runs: Runs,
) -> Registration | None:
    """Register the model that may set margins, with the gate's verdict."""
    job = workload.job
    metadata = BundleMetadata(
        job=job.name,
        horizons_minutes=tuple(workload.panels),
        sides=job.target.sides,
        levels=job.target.levels,
        feature_columns=tuple(workload.table.units),
        spec_digest=job.digest(),
        feature_set_hash=workload.feature_set.digest(),
        training_data_digest=workload.market.digest,
        trained_until=str(_trained_until(workload)),
    )
    specs = {
        "training": job.model_dump(mode="json"),
        "features": workload.feature_set.model_dump(mode="json"),
        "gate": result.verdict.to_json(),
        "contracts": sorted(workload.frame["symbol"].unique().tolist()),
        SPEC: _features_in_training(workload, histories).to_json(),
    }
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "bundle"
        write_bundle(forecaster, bundle, loaders=LOADERS, metadata=metadata, specs=specs)
        registry = ModelRegistry(tracker.uri, tracker.workspace)
        return registry.register_or_keep(
            tracker, runs, job.tracking.registered_model, bundle, result.verdict
        )
