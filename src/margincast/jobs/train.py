"""``margincast train``: from raw data to a registered model version that its gate has judged."""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from margincast.backtest.daily_losses import FILE as DAILY_LOSSES
from margincast.backtest.daily_losses import DailyLosses, write_daily_losses
from margincast.core.time import add_step
from margincast.jobs.backtest import prepare, print_result, run_backtest
from margincast.jobs.backtest_record import Backtest
from margincast.jobs.console import output, say
from margincast.jobs.headline import headline_metrics
from margincast.jobs.registration import ModelRegistry, Registration
from margincast.jobs.setting import Setting
from margincast.jobs.tuning import record_tuning, tune, tuned_workload
from margincast.models.catalogue import LOADERS, OURS
from margincast.models.checks import require_trainable
from margincast.models.horizons import HorizonForecaster
from margincast.models.protocol import Panel
from margincast.serving.bundle import write_bundle
from margincast.serving.manifest import BundleMetadata
from margincast.specs.loading import load_spec
from margincast.specs.training import TrainingJob
from margincast.training.tracking import Run, Tracker
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
) -> Training:
    """Run a training job; see the module and ``training/README.md``.

    Raises:
        InputError: see the rooms it walks through; nothing is registered then.
    """
    job = load_spec(spec, TrainingJob, overrides)
    setting = Setting.of(spec, data, out, job.name, cache)
    workload = prepare(job, setting)
    for history in _latest_histories(workload).values():
        require_trainable(history, job.target.sides, job.target.levels)
    # bad input must leave nothing behind, not even an empty store; a store that is down must be
    # found out before the long work
    tracker = Tracker(job.tracking.uri, job.tracking.experiment, setting.workspace, say)
    tags = {"margincast.kind": "training job", "margincast.job": job.name}
    with tracker.run(f"{job.name} (job)", tags) as run:
        tuned = tune(workload, setting)
        if tuned is not None:
            record_tuning(tuned, tracker, run, workload, setting.out)
            workload = tuned_workload(workload, tuned)
        _log_origin(run, workload)
        result = run_backtest(workload, setting)
        for path in result.files:
            run.log_artifact(path)
        for folder in result.evidence:
            run.log_artifact(folder, folder.name)
        model_runs = _log_models(tracker, run, result, job)
        registered = _register(workload, setting, result, tracker, model_runs[OURS])
        run.set_tags({"margincast.gate": "passed" if result.verdict.passed else "failed"})
        if registered is not None:
            version = registered.version
            run.set_tags({"margincast.model_version": f"{version.name}/{version.version}"})
        outage = tracker.outage
    print_result(result, job)
    output.print(NOT_REGISTERED if registered is None else registered.describe())
    if outage:
        say("MLflow could not be told all of it; `margincast sync` does when it can be reached")
    output.print(f"report: {result.report}", soft_wrap=True)
    return Training(result, registered)


def _final_fit(workload: Workload, setting: Setting) -> HorizonForecaster:
    """Fit our models on all labelled history they look back on, test period included."""
    histories = _latest_histories(workload)
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


def _log_origin(run: Run, workload: Workload) -> None:
    """Log what the run is made from: spec, feature set, data."""
    job = workload.job
    run.log_parameters(
        {
            "job": job.model_dump(mode="json", include={"target", "model", "tuning", "backtest"}),
            "digest.spec": job.digest(),
            "digest.feature_set": workload.feature_set.digest(),
            "digest.data": workload.market.digest,
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        for name, record in (
            ("training.json", job.model_dump(mode="json")),
            ("features.json", workload.feature_set.model_dump(mode="json")),
            ("findings.json", [finding.as_record() for finding in workload.findings]),
        ):
            path = Path(folder) / name
            path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
            run.log_artifact(path, "specs")


def _log_models(
    tracker: Tracker, job_run: Run, result: Backtest, job: TrainingJob
) -> dict[str, str]:
    """Log one run a model, ours and the peers, under the same metric names.

    They stand beside the job's run and not below it, because the UI folds nested runs away.

    Returns:
        Run id per model.
    """
    ids = {}
    losses = DailyLosses(result.replays)
    for name in result.crossings:
        metrics = headline_metrics(result, name, job.target.levels)
        tags = {
            "margincast.kind": "model",
            "margincast.job": job.name,
            "margincast.job_run": job_run.run_id,
            "margincast.model": name,
        }
        with tracker.run(name, tags) as run:
            run.log_metrics({key: value for key, value in metrics.items() if np.isfinite(value)})
            for minutes, evaluation in result.evaluations.items():
                contracts = evaluation.contracts
                table = "contracts" if len(result.evaluations) == 1 else f"contracts_{minutes}m"
                run.log_table(contracts.loc[contracts["model"] == name], table)
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / DAILY_LOSSES
                write_daily_losses(path, losses.of(name))
                run.log_artifact(path)
            ids[name] = run.run_id
    return ids


def _register(
    workload: Workload,
    setting: Setting,
    result: Backtest,
    tracker: Tracker,
    run_id: str,
) -> Registration | None:
    """Fit the model that may set margins, and register it with the gate's verdict."""
    say("fitting the model to register on all labelled history")
    forecaster = _final_fit(workload, setting)
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
    }
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "bundle"
        write_bundle(forecaster, bundle, loaders=LOADERS, metadata=metadata, specs=specs)
        registry = ModelRegistry(job.tracking.uri, setting.workspace)
        return registry.register_or_keep(
            tracker, run_id, job.tracking.registered_model, bundle, result.verdict
        )
