"""What a training job tells MLflow: everything by which its model can be judged and made again."""

from collections.abc import Hashable, Mapping

import numpy as np

from margincast.backtest.fold_figures import fold_figures, worst_and_latest
from margincast.core.time import format_minutes
from margincast.jobs.backtest_record import Backtest
from margincast.jobs.headline import as_shown, metric_name
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
from margincast.training.tracking.recorded import KIND_TAG
from margincast.training.workload import Workload

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
    levels = job.target.levels[: (MAXIMUM_METRICS // len(result.replays) - 1) // 3]
    for start in shown:
        parameters: dict[str, object] = {"start": start.isoformat()}
        metrics: dict[str, float] = {}
        rows = table.loc[table["start"] == start]
        for row in rows.to_dict("records"):
            horizon = "" if len(rows) == 1 else format_minutes(row["horizon_minutes"])
            metrics |= _fold_metrics(row, horizon, levels)
            parameters |= {"end": row["end"].isoformat()}
            parameters |= {
                metric_name(name, horizon): row[name]
                for name in ("training_decisions", "decisions")
            }
        tags = {KIND_TAG: "refit", "margincast.job": job.name}
        refit = f"refit {start:%Y-%m-%d %H:%M}"
        past = PastRun(refit, parameters=parameters, metrics=as_shown(metrics), tags=tags)
        tracker.log_past_run(past, run)
    return len(shown)


def _fold_metrics(
    row: Mapping[Hashable, float], horizon: str, levels: tuple[float, ...]
) -> dict[str, float]:
    """Return a refit's metrics, named as those of a model's run."""
    metrics = {metric_name("pinball_ratio", horizon): row["pinball_ratio"]}
    for level in levels:
        metrics |= {
            metric_name(name, horizon, level): row[f"{name}_{level:g}"]
            for name in ("exceedance_ratio", "pinball_ratio")
        }
        forecast = metric_name("mean_forecast_bps", horizon, level)
        metrics[forecast] = row[f"mean_forecast_{level:g}"] * 1e4
    return metrics


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
