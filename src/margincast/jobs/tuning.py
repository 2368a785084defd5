"""The tuning of ``margincast train``: which head is taken, and how far its score holds."""

import math
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pandas as pd

from margincast.backtest.confidence_set import model_confidence_set
from margincast.backtest.replay import walk_forward_folds
from margincast.core.digest import canonical_json
from margincast.core.errors import InputError
from margincast.jobs.console import progress, say
from margincast.jobs.setting import Setting
from margincast.models.catalogue import OURS
from margincast.models.margincast import MargincastForecaster
from margincast.training.execution.environment import code_digest
from margincast.training.tracking import Run, Tracker
from margincast.training.tracking.study import FOLDER, log_study
from margincast.training.tuning.selection import (
    candidate_table,
    daily_losses,
    front_table,
    within_band,
)
from margincast.training.tuning.storage import open_storage, place_of
from margincast.training.tuning.trials import outcome_of
from margincast.training.tuning.tune import Tuned, tune_head
from margincast.training.tuning.workers import workers_on
from margincast.training.workload import Workload, forecaster_for

CANDIDATES = "candidates"
PARETO_FRONT = "pareto_front"
MINIMUM_DAYS = 10
"""A confidence set from fewer days than this would say nothing."""


def tune(workload: Workload, setting: Setting) -> Tuned | None:
    """Search the head's parameters on what the first fold learns from, if the spec asks for it.

    Raises:
        InputError: no history before the test period; see also
            :func:`margincast.training.tuning.tune.tune_head`.
    """
    job = workload.job
    tuning = job.tuning
    if tuning.trials == 0 or not tuning.space:
        return None
    histories = [
        panel.rows(walk_forward_folds(job, panel)[0].training) for panel in workload.panels.values()
    ]
    if not all(map(len, histories)):
        raise InputError(
            f"no labelled decision ends before backtest.start {job.backtest.start:%F}: nothing to "
            "tune or train on; start the test period later or add history"
        )
    model = forecaster_for(workload, OURS, next(iter(workload.panels)), setting.threads)
    assert isinstance(model, MargincastForecaster)
    with progress("tuning", tuning.trials) as counter:
        tuned = tune_head(
            job,
            histories,
            model.head_levels,
            setting.threads,
            lambda trial: counter.advance(f"trial {trial.number}: {outcome_of(trial)}"),
            storage=open_storage(tuning.storage, setting.workspace),
            place=place_of(tuning.storage, setting.workspace),
            inputs={
                "feature set": workload.feature_set.digest(),
                "data": workload.market.digest,
                "choice of data": job.data.model_dump_json(include={"symbols", "book_known_after"}),
                "code": code_digest(),
            },
            make_workers=workers_on(setting.execution),
            on_remark=say,
            on_begin=counter.skip,
        )
    say(f"chosen: trial {tuned.trial.number}, {canonical_json(tuned.trial.params)}")
    if not within_band(tuned.trial):
        say(
            "no trial kept its exceedance ratios within "
            f"{tuning.exceedance_ratio_min:g} to {tuning.exceedance_ratio_max:g} at all levels; "
            "the nearest was taken"
        )
    return tuned


def tuned_workload(workload: Workload, tuned: Tuned) -> Workload:
    """Return the workload with the chosen head."""
    return replace(workload, job=workload.job.model_copy(update={"model": tuned.model}))


def record_tuning(tuned: Tuned, tracker: Tracker, run: Run, workload: Workload, out: Path) -> None:
    """Log the study and write how its best trials did on time it never saw.

    ``candidates.csv`` has a row each; with several objectives ``pareto_front.csv`` holds the trials
    that no other beats in all of them.
    """
    job = workload.job
    objectives = job.tuning.objectives
    log_study(tracker, tuned.study, run, objectives, job.tracking.trial_runs)
    horizon = timedelta(minutes=max(workload.panels))
    tables = {CANDIDATES: candidates_with_confidence(tuned, horizon)}
    if len(objectives) > 1:
        tables[PARETO_FRONT] = front_table(tuned.study, objectives)
    out.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        table.to_csv(out / f"{name}.csv", index=False)
        run.log_table(table, f"{FOLDER}/{name}")
    _say_selection_bias(tables[CANDIDATES])


def candidates_with_confidence(tuned: Tuned, horizon: timedelta) -> pd.DataFrame:
    """Return the candidates, with the p-values of their model confidence set on the held-out days.

    A candidate whose p-value is above 0.1 cannot be told from the best by that stretch. With one
    candidate, or fewer than ten days, there are no p-values.
    """
    table = candidate_table(tuned.candidates, tuned.levels)
    losses = daily_losses(tuned.candidates).dropna()
    if losses.shape[1] < 2 or len(losses) < MINIMUM_DAYS:
        return table
    # as long as outcomes overlap, and longer where volatility makes days alike
    block = max(round(len(losses) ** (1 / 3)), math.ceil(horizon / timedelta(days=1)))
    found = model_confidence_set(losses, block_length=min(block, len(losses)))
    return table.assign(
        confidence_set_p_value=[found.p_values[str(number)] for number in table["trial"]]
    )


def _say_selection_bias(table: pd.DataFrame) -> None:
    """Say what the chosen head gained over the spec's own where it was chosen, and elsewhere."""
    if not table["role"].eq("spec").any():
        say("no trial bettered the spec's own head, which stays")
        return
    if "held_out_loss" not in table:
        return
    chosen, own = table.iloc[0], table[table["role"].eq("spec")].iloc[0]
    gains = {
        name: 1 - float(chosen[f"{name}_loss"]) / float(own[f"{name}_loss"])
        for name in ("study", "held_out")
    }
    say(
        f"its loss is {gains['study']:.2%} below that of the spec's own head in the study, "
        f"{gains['held_out']:.2%} on held-out time that no trial saw"
    )
