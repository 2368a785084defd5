"""``margincast compare``: runs of any jobs beside one of them, with errors and significance.

Losses are compared on the decisions that both runs were asked, whatever jobs they come from; the
headline metrics are those each job recorded, on its own decisions.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from margincast.backtest.daily_comparison import compare_daily
from margincast.backtest.daily_losses import FILE, read_daily_losses
from margincast.backtest.dependence import benjamini_hochberg
from margincast.core.errors import InputError
from margincast.jobs.comparison import Compared, Comparison, as_record
from margincast.jobs.comparison_tables import print_comparison
from margincast.jobs.console import output, say
from margincast.jobs.run_pages import JOB_RUN_TAG, MODEL_TAG
from margincast.models.catalogue import OURS
from margincast.training.tracking.recorded import RecordedRun, RecordedRuns

MODEL, JOB = "model", "training job"


def run(
    references: Sequence[str],
    workspace: Path,
    uri: str,
    *,
    against: str | None,
    as_json: bool,
) -> Comparison:
    """Compare runs and print what was found.

    Args:
        references: runs, see :meth:`~margincast.training.tracking.recorded.RecordedRuns.find`; a
            job stands for its models, ours first.
        workspace: the operator's folder.
        uri: of the MLflow store.
        against: the run that all others are compared with; the first by default.
        as_json: print JSON in place of tables.

    Raises:
        InputError: no such run, several that a name may mean, or one that records no model; fewer
            than two runs.
    """
    store = RecordedRuns(uri, workspace)
    runs = _runs(store, references)
    base = runs[0] if against is None else _one_model(store, against)
    others = [one for one in runs if one.run_id != base.run_id]
    if not others:
        raise InputError(
            f"only {base.label} was named; name another run to compare it with, or a job, which "
            "stands for all its models"
        )
    compared, losses = _compared(store, base, others)
    comparison = Comparison(base, losses, compared, _spec_differences(store, [base, *others]))
    if as_json:
        output.print_json(json.dumps(as_record(comparison), allow_nan=False))
    else:
        print_comparison(comparison)
    return comparison


def _runs(store: RecordedRuns, references: Sequence[str]) -> list[RecordedRun]:
    """Return the models' runs that are meant, each once."""
    runs: dict[str, RecordedRun] = {}
    for reference in references:
        found = store.find(reference)
        models = _models_of(store, found) if found.kind == JOB else [_require_model(found)]
        runs |= {model.run_id: model for model in models}
    return list(runs.values())


def _models_of(store: RecordedRuns, job: RecordedRun) -> list[RecordedRun]:
    models = [run for run in store.with_tag(JOB_RUN_TAG, job.run_id) if run.kind == MODEL]
    if not models:
        raise InputError(
            f"job {job.label} has no models yet; it has not finished, or it failed before its "
            "backtest ended"
        )
    return sorted(models, key=lambda run: run.tags.get(MODEL_TAG) != OURS)


def _one_model(store: RecordedRuns, reference: str) -> RecordedRun:
    found = store.find(reference)
    return _models_of(store, found)[0] if found.kind == JOB else _require_model(found)


def _require_model(run: RecordedRun) -> RecordedRun:
    if run.kind != MODEL:
        raise InputError(
            f"{run.label} is {f'a {run.kind}' if run.kind else 'no run of margincast'}; compare "
            "runs of models, or jobs, which stand for their models"
        )
    return run


def _compared(
    store: RecordedRuns, base: RecordedRun, others: list[RecordedRun]
) -> tuple[tuple[Compared, ...], pd.DataFrame | None]:
    try:
        losses = _losses(store, base)
    except InputError as error:
        return tuple(Compared(run, reason=str(error)) for run in others), None
    compared = []
    for run in others:
        try:
            found = compare_daily(_losses(store, run), losses)
        except InputError as error:
            compared.append(Compared(run, reason=str(error)))
        else:
            compared.append(Compared(run, found.differences, found=found))
    return _adjusted(compared), losses


def _losses(store: RecordedRuns, run: RecordedRun) -> pd.DataFrame:
    with store.artifact(run, FILE) as path:
        return read_daily_losses(path)


def _adjusted(compared: list[Compared]) -> tuple[Compared, ...]:
    """Adjust p-values of the same horizon and level over the runs."""
    p_values: dict[tuple[int, float | None], list[float]] = {}
    for one in compared:
        for difference in one.differences:
            key = (difference.horizon_minutes, difference.level)
            p_values.setdefault(key, []).append(difference.p_value)
    adjusted = {key: iter(benjamini_hochberg(np.array(own))) for key, own in p_values.items()}
    return tuple(
        replace(
            one,
            adjusted_p=tuple(
                float(next(adjusted[difference.horizon_minutes, difference.level]))
                for difference in one.differences
            ),
        )
        for one in compared
    )


def _spec_differences(
    store: RecordedRuns, runs: Sequence[RecordedRun]
) -> dict[str, dict[str, str]]:
    """Return what differs between the jobs of runs, as their runs recorded it."""
    jobs: dict[str, RecordedRun | None] = {}
    for run in runs:
        job_id = run.tags.get(JOB_RUN_TAG, "")
        if job_id not in jobs:
            jobs[job_id] = _job(store, run, job_id)
    recorded = {
        run.run_id: {} if job is None else dict(job.parameters)
        for run in runs
        for job in [jobs[run.tags.get(JOB_RUN_TAG, "")]]
    }
    keys = sorted({key for parameters in recorded.values() for key in parameters})
    table = {
        key: {run_id: parameters.get(key, "") for run_id, parameters in recorded.items()}
        for key in keys
    }
    return {key: texts for key, texts in table.items() if len(set(texts.values())) > 1}


def _job(store: RecordedRuns, run: RecordedRun, job_id: str) -> RecordedRun | None:
    try:
        return store.run(job_id)
    except InputError as error:
        say(f"the job of {run.label} cannot be read, so its spec is not compared: {error}")
        return None
