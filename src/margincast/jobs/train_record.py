"""What a training job tells MLflow: everything by which its model can be judged and made again."""

import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from margincast.backtest.daily_losses import FILE as DAILY_LOSSES
from margincast.backtest.daily_losses import DailyLosses, write_daily_losses
from margincast.backtest.fold_figures import fold_figures, worst_and_latest
from margincast.jobs.backtest_record import Backtest
from margincast.jobs.headline import headline_metrics
from margincast.jobs.setting import Setting
from margincast.models._plots import draw_contributions, draw_importances
from margincast.models.catalogue import OURS
from margincast.models.horizons import HorizonForecaster
from margincast.models.importance import importances
from margincast.models.margincast import MargincastForecaster
from margincast.models.protocol import Panel
from margincast.specs.training import TrainingJob
from margincast.training.tracking import MAXIMUM_METRICS, PastRun, Run, Tracker
from margincast.training.tracking.origin import (
    Environment,
    commit_of,
    data_manifest,
    datasets_of,
    package_commit,
)
from margincast.training.workload import Workload

KIND_TAG = "margincast.kind"
COMMIT_TAG = "mlflow.source.git.commit"
"""Where the MLflow pages look for the commit of a run."""


def log_origin(run: Run, workload: Workload, setting: Setting) -> None:
    """Log what the run is made from: spec, feature set, data, code, libraries and machine."""
    job, environment = workload.job, Environment.here()
    commit, code = commit_of(setting.workspace), package_commit()
    run.set_tags({COMMIT_TAG: commit, "margincast.code_commit": code})
    run.log_parameters(
        {
            "job": job.model_dump(mode="json", include={"target", "model", "tuning", "backtest"}),
            "digest.spec": job.digest(),
            "digest.feature_set": workload.feature_set.digest(),
            "digest.data": workload.market.digest,
            "commit.workspace": commit,
            "commit.code": code,
            "environment": environment.parameters(),
        }
    )
    run.log_record(job.model_dump(mode="json"), "specs/training")
    run.log_record(workload.feature_set.model_dump(mode="json"), "specs/features")
    run.log_record([finding.as_record() for finding in workload.findings], "specs/findings")
    run.log_record(data_manifest(workload.market), "data/manifest")
    run.log_text(environment.requirements(), "environment/requirements.txt")
    run.log_datasets(datasets_of(workload))


def log_evidence(run: Run, result: Backtest) -> None:
    """Log the backtest's summary, reports and the tables behind them."""
    for path in result.files:
        run.log_artifact(path)
    for folder in result.evidence:
        run.log_artifact(folder, folder.name)


def log_folds(tracker: Tracker, run: Run, result: Backtest, job: TrainingJob) -> int:
    """Log our model refit by refit: all in a table, the worst and the latest as child runs.

    Returns:
        How many child runs were written.
    """
    table = fold_figures(result.replays, OURS, job.gate.reference)
    run.log_table(table, "folds")
    shown = worst_and_latest(table, job.tracking.fold_runs)
    names = _fold_metrics(job)[: MAXIMUM_METRICS // len(result.replays)]
    for start in shown:
        parameters: dict[str, object] = {"start": start.isoformat()}
        metrics: dict[str, float] = {}
        rows = table.loc[table["start"] == start]
        for row in rows.to_dict("records"):
            suffix = "" if len(rows) == 1 else f"_{row['horizon_minutes']}m"
            metrics |= {f"{name}{suffix}": row[name] for name in names}
            counted = ("training_decisions", "decisions")
            parameters |= {"end": row["end"].isoformat()}
            parameters |= {f"{name}{suffix}": row[name] for name in counted}
        tags = {KIND_TAG: "refit", "margincast.job": job.name}
        refit = f"refit {start:%Y-%m-%d %H:%M}"
        past = PastRun(refit, parameters=parameters, metrics=known(metrics), tags=tags)
        tracker.log_past_run(past, run)
    return len(shown)


def _fold_metrics(job: TrainingJob) -> list[str]:
    of_level = ("exceedance_ratio", "pinball_ratio", "mean_forecast")
    return [
        "pinball_ratio",
        *(f"{name}_{level:g}" for level in job.target.levels for name in of_level),
    ]


def log_models(
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
        tags = {
            KIND_TAG: "model",
            "margincast.job": job.name,
            "margincast.job_run": job_run.run_id,
            "margincast.model": name,
        }
        with tracker.run(name, tags) as run:
            run.log_metrics(known(headline_metrics(result, name, job.target.levels)))
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


def log_importance(
    run: Run, forecaster: HorizonForecaster, histories: Mapping[int, Panel], rows: int
) -> None:
    """Log which features move the forecasts of the registered model, at its latest decisions.

    A table of all, and figures of the lowest level of each side and horizon.

    Args:
        run: the job's.
        forecaster: fitted.
        histories: the decisions it was fitted on, per horizon in minutes.
        rows: how many of the latest to look at; 0: none.
    """
    if rows == 0:
        return
    for minutes, model in forecaster.forecasters.items():
        assert isinstance(model, MargincastForecaster)
        history = histories[minutes]
        latest = history.rows(np.arange(len(history)) >= len(history) - rows)
        suffix = "" if len(histories) == 1 else f"_{minutes}m"
        found = importances(model, latest)
        for importance in found:
            name = f"importance/{importance.side}_{importance.level:g}{suffix}"
            run.log_table(
                importance.table().assign(
                    decisions=importance.decisions, left_out=importance.left_out
                ),
                name,
            )
            if importance.level == min(model.head_levels):
                run.log_figure(draw_importances(importance), f"{name}_mean")
                run.log_figure(draw_contributions(importance), f"{name}_decisions")


def known(metrics: Mapping[str, float]) -> dict[str, float]:
    """Leave out metrics that are not known; the tables show them as such."""
    return {name: value for name, value in metrics.items() if np.isfinite(value)}
