"""One run a model, ours and every peer, under the same names: what is compared in MLflow.

They stand beside the job's run and not below it, because MLflow's pages fold nested runs away.
"""

import tempfile
from pathlib import Path

from margincast.backtest.daily_losses import FILE, DailyLosses, write_daily_losses
from margincast.core.time import format_duration
from margincast.jobs.backtest_record import Backtest
from margincast.jobs.headline import headline_metrics
from margincast.jobs.run_pages import (
    JOB_RUN_TAG,
    MODEL_TAG,
    TRAINED_TAG,
    colour_of,
    describe_model,
    run_name,
)
from margincast.models.catalogue import OURS
from margincast.training.tracking import Run, Tracker
from margincast.training.tracking.pages import COLOUR_TAG, NOTE_TAG
from margincast.training.tracking.recorded import KIND_TAG
from margincast.training.workload import Workload


def log_models(
    tracker: Tracker, job_run: Run, result: Backtest, workload: Workload, trained: str
) -> dict[str, str]:
    """Log every model of a backtest: figures, losses by day, contracts, what it was made from.

    Args:
        tracker: of the job's experiment.
        job_run: the run of the job they belong to.
        result: the backtest.
        workload: what it was made from.
        trained: when the job began, see :func:`~margincast.jobs.run_pages.stamp`.

    Returns:
        Run id per model.
    """
    job, ids = workload.job, {}
    losses = DailyLosses(result.replays)
    # the newest run stands first on MLflow's pages: let that be the best model
    ranked = sorted(result.crossings, key=lambda name: _mean_ratio(result, name), reverse=True)
    for name in ranked:
        tags = {
            KIND_TAG: "model",
            "margincast.job": job.name,
            JOB_RUN_TAG: job_run.run_id,
            MODEL_TAG: name,
            "margincast.horizons": ", ".join(map(format_duration, job.target.horizons)),
            TRAINED_TAG: trained,
            COLOUR_TAG: colour_of(name, job.gate.reference),
            NOTE_TAG: describe_model(result, name, job),
        }
        if name == OURS:
            tags["margincast.gate"] = "passed" if result.verdict.passed else "failed"
        with tracker.run(run_name(name, job, trained), tags) as run:
            run.log_metrics(headline_metrics(result, name))
            run.log_parameters(_parameters(workload, name))
            for minutes, evaluation in result.evaluations.items():
                contracts = evaluation.contracts
                table = "contracts" if len(result.evaluations) == 1 else f"contracts_{minutes}m"
                run.log_table(contracts.loc[contracts["model"] == name], table)
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / FILE
                write_daily_losses(path, losses.of(name))
                run.log_artifact(path)
            ids[name] = run.run_id
    return ids


def _mean_ratio(result: Backtest, name: str) -> float:
    return sum(
        model.pinball_ratio
        for evaluation in result.evaluations.values()
        for model in evaluation.models
        if model.model == name
    )


def _parameters(workload: Workload, name: str) -> dict[str, object]:
    """Return what shaped a model's figures: MLflow's comparison shows where two runs differ."""
    job = workload.job
    spec = job.model_dump(mode="json")
    model = spec["model"]
    peers = model.pop("peers")
    return {
        "model_name": name,
        "target": spec["target"],
        # a peer takes its own few keys of the model, and the window and stride all share
        "model": model if name == OURS else {"window": model["window"], "peers": peers},
        "backtest": {key: spec["backtest"][key] for key in ("start", "end", "refit_every")},
        "digest": {
            "data": workload.market.digest,
            "feature_set": workload.feature_set.digest(),
            "spec": job.digest(),
        },
    }
