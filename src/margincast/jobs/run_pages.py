"""What somebody who opens MLflow reads first: the verdict, the table of models, and how to read it.

Descriptions are Markdown; views choose the runs and columns that answer a question: which model is
best in the latest job, and how ours fared from job to job.
"""

import colorsys
from datetime import UTC, datetime
from typing import get_args

import numpy as np

from margincast.backtest.evaluation import Evaluation
from margincast.core.time import format_duration, format_minutes
from margincast.jobs.backtest_record import Backtest
from margincast.jobs.headline import PRIMARY_METRIC, metric_name
from margincast.models.catalogue import OURS
from margincast.specs.training import Peer, TrainingJob
from margincast.training.tracking.pages import MAXIMUM_NOTE, Chart, Column, View, view_page

LATEST, OVER_TIME, ALL_MODELS, JOBS = "latest", "over-time", "all-models", "jobs"
"""Views, as in their addresses."""
MODEL_TAG = "margincast.model"
JOB_RUN_TAG = "margincast.job_run"
"""On a model's run: the id of its job's."""
TRAINED_TAG = "margincast.trained"
"""When the job of a run began, UTC, to the second: the same text for all runs of one job."""
VERSION_TAG = "margincast.model_version"
OURS_COLOUR, REFERENCE_COLOUR = "#0072b2", "#d55e00"
"""Those of the report."""
MOST_LEVELS = 3
"""Levels in a table or view; the metrics and the report hold all."""

HOW_TO_READ = (
    "**pinball ratio**: mean pinball loss relative to the reference, below 1 is better. "
    "**exceeded**: observed over nominal exceedances; 1.00x is exact, above is under-margined. "
    "**mean forecast**: what the margin would cost before liquidation cost and buffer. "
    "**one-day rise**: largest rise of the forecast within a day, median over contracts and sides: "
    "the sharpest forecast is also the jumpiest."
)


def stamp(instant: datetime) -> str:
    """Write when a job began, as its runs' names and tags do.

    >>> stamp(datetime(2026, 11, 22, 13, 1, 5, tzinfo=UTC))
    '2026-11-22 13:01:05'
    """
    return f"{instant.astimezone(UTC):%F %T}"


def run_name(model: str, job: TrainingJob, trained: str) -> str:
    """Name a model's run: the model first, because a narrow column cuts the end off."""
    return f"{model} \N{MIDDLE DOT} {job_run_name(job, trained)}"


def job_run_name(job: TrainingJob, trained: str) -> str:
    """Name a job's run."""
    return f"{job.name} \N{MIDDLE DOT} {trained}"


def describe_job(result: Backtest, job: TrainingJob) -> str:
    """Describe a job's run: the verdict and every model, the best first."""
    verdict = result.verdict
    answer = "passed" if verdict.passed else "FAILED"
    lines = [
        f"**Gate {answer}** ({len(verdict.checks)} checks). {job.description}.",
        *(f"- {reason}" for reason in verdict.reasons),
    ]
    ending = ["", HOW_TO_READ, "", "All of it: `report.html` among the artifacts."]
    for minutes, evaluation in result.evaluations.items():
        heading = f"**{format_minutes(minutes)} horizon**, {_decisions(evaluation, job)}"
        table = ["", heading, "", *_table(evaluation)]
        if len("\n".join([*lines, *table, *ending])) > MAXIMUM_NOTE:
            lines += ["", f"The table of {format_minutes(minutes)} has no room here."]
        else:
            lines += table
    return "\n".join([*lines, *ending])


def describe_model(result: Backtest, name: str, job: TrainingJob) -> str:
    """Describe a model's run: where it stands among the models of its job."""
    lines = []
    for minutes, evaluation in result.evaluations.items():
        ranked = sorted(evaluation.models, key=lambda model: model.pinball_ratio)
        rank = [model.model for model in ranked].index(name) + 1
        place = f"place {rank} of {len(ranked)} by pinball loss"
        horizon = format_minutes(minutes)
        lines += [
            f"**{name}**, {horizon} horizon: {place}; {_decisions(evaluation, job)}",
            "",
            *_table(evaluation, only={name, evaluation.reference}),
            "",
        ]
    if name == OURS:
        passed = "passed" if result.verdict.passed else "failed"
        lines += [f"Its gate {passed}; the verdict is in the description of the job's run.", ""]
    return "\n".join([*lines, HOW_TO_READ])


def describe_experiment(job: TrainingJob, experiment_id: str) -> str:
    """Describe an experiment: its first line, all that shows unopened, says where to look."""

    def link(key: str, text: str) -> str:
        return f"[{text}]({view_page(experiment_id, key)})"

    return (
        f"{job.description}: {link(LATEST, 'latest job')}, {link(OVER_TIME, 'from job to job')}, "
        f"{link(ALL_MODELS, 'all jobs')}, {link(JOBS, 'verdicts')}\n\n"
        "One run a model and job, ours and every peer, under the same metric names; one run a job "
        "with the verdict, the report and the tuning.\n\n"
        f"{HOW_TO_READ}\n\n"
        "To compare, tick runs and press Compare; `margincast compare RUN RUN` adds errors and "
        "significance on the decisions both were asked."
    )


def views(job: TrainingJob, trained: str) -> list[View]:
    """Return the views of an experiment, the first for the job that began at ``trained``."""
    several = len(job.target.horizons) > 1
    horizons = [format_duration(horizon) if several else "" for horizon in job.target.horizons]
    levels = job.target.levels[:MOST_LEVELS]
    figures = _figures(horizons, levels)
    charts = _charts(horizons, levels)
    model, began = Column("tags", MODEL_TAG, 145), Column("tags", TRAINED_TAG, 150)
    gate, version = Column("tags", "margincast.gate", 120), Column("tags", VERSION_TAG, 170)
    loss, newest = figures[0].key, "attributes.start_time"
    of_job = f"tags.`margincast.job` = '{job.name}'"
    models = f"{of_job} and tags.`margincast.kind` = 'model'"
    latest = f"{models} and tags.`{TRAINED_TAG}` = '{trained}'"
    ours = f"{models} and tags.`{MODEL_TAG}` = '{OURS}'"
    jobs = f"{of_job} and tags.`margincast.kind` = 'training job'"
    return [
        View(LATEST, "Latest job", latest, loss, "smallest", [model, *figures], charts),
        View(
            OVER_TIME, f"{OURS} from job to job", ours, newest, "largest", [gate, *figures], charts
        ),
        View(ALL_MODELS, "All jobs", models, loss, "smallest", [model, began, *figures], charts),
        View(JOBS, "Jobs, newest first", jobs, newest, "largest", [gate, version]),
    ]


def colour_of(name: str, reference: str) -> str:
    """Return a model's colour, the same in every job; ours and the reference as in the report."""
    if name in (OURS, reference):
        return OURS_COLOUR if name == OURS else REFERENCE_COLOUR
    number = get_args(Peer).index(name)
    red, green, blue = colorsys.hls_to_rgb(number * 0.618034 % 1.0, 0.45 + number % 3 * 0.1, 0.5)
    return f"#{round(red * 255):02x}{round(green * 255):02x}{round(blue * 255):02x}"


def _figures(horizons: list[str], levels: tuple[float, ...]) -> list[Column]:
    wider = 30 * any(horizons)
    columns = {PRIMARY_METRIC: 120}
    columns |= {metric_name("pinball_ratio_error", at): 155 + wider for at in horizons}
    for level in levels:
        columns |= {metric_name("exceedance_ratio", at, level): 170 + wider for at in horizons}
    columns |= {metric_name("mean_forecast_bps", at, levels[0]): 185 + wider for at in horizons}
    columns |= {metric_name("largest_one_day_rise", at): 165 + wider for at in horizons}
    return [Column("metrics", name, width) for name, width in columns.items()]


def _charts(horizons: list[str], levels: tuple[float, ...]) -> list[Chart]:
    """Loss, coverage, cost and stability, in this order; and that the sharpest are the jumpiest."""
    loss, coverage = "Loss relative to the reference", "Exceedances, 1 is exact"
    price, stability = "What it costs", "Accurate is not stable"
    charts = [Chart(loss, PRIMARY_METRIC)]
    for at in horizons:
        for level in levels:
            charts += [
                Chart(loss, metric_name("pinball_ratio", at, level)),
                Chart(coverage, metric_name("exceedance_ratio", at, level)),
                Chart(price, metric_name("mean_forecast_bps", at, level)),
            ]
        rise = metric_name("largest_one_day_rise", at)
        charts += [
            Chart(stability, rise),
            Chart(stability, metric_name("pinball_ratio", at), rise),
        ]
    return charts


def _decisions(evaluation: Evaluation, job: TrainingJob) -> str:
    period = job.backtest
    return f"{evaluation.scored:,} decisions from {period.start:%F} to {period.end:%F}"


def _table(evaluation: Evaluation, only: set[str] | None = None) -> list[str]:
    """Return the models as a Markdown table, the best first."""
    levels = sorted({cell.level for cell in evaluation.cells})[:MOST_LEVELS]
    heads = ["model", "pinball ratio", *(f"exceeded {level:g}" for level in levels)]
    heads += [f"mean forecast {levels[0]:g}", "one-day rise"]
    lines = [_row(heads), _row(["---"] + ["---:"] * (len(heads) - 1))]
    for model in sorted(evaluation.models, key=lambda model: model.pinball_ratio):
        if only is not None and model.model not in only:
            continue
        cells = [evaluation.cell(model.model, "both", level) for level in levels]
        rise = model.largest_one_day_rise
        label = model.model + (" (reference)" if model.model == evaluation.reference else "")
        error = model.pinball_ratio_error
        ratio = f"{model.pinball_ratio:.3f}"
        lines.append(
            _row(
                [
                    f"**{label}**" if model.model == evaluation.subject else label,
                    ratio + (f" ± {error:.3f}" if np.isfinite(error) else ""),
                    *(f"{cell.exceedance_ratio:.2f}x" for cell in cells),
                    f"{cells[0].mean_forecast:.2%}",
                    f"{rise:+.0%}" if np.isfinite(rise) else "-",
                ]
            )
        )
    return lines


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"
