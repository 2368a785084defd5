"""``margincast backtest``: walk-forward on held-out time, every model on the same decisions."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from margincast.backtest.contracts import first_decisions
from margincast.backtest.evaluation import Evaluation, evaluate
from margincast.backtest.forecasts import write_forecasts
from margincast.backtest.replay import Replay, replay, walk_forward_folds
from margincast.backtest.report import ReportFacts, write_report
from margincast.data.quality import found
from margincast.jobs.console import output, progress, say
from margincast.jobs.setting import Setting
from margincast.jobs.simulated_data import data_root
from margincast.jobs.tables import model_table, verdict_text
from margincast.models.catalogue import OURS
from margincast.serving.gate import (
    Evidence,
    GateVerdict,
    evaluate_gate,
)
from margincast.specs.loading import load_spec
from margincast.specs.training import TrainingJob
from margincast.training.workload import Workload, build_workload, describe

FOLDS = ".folds"
FEW_EXCEEDANCES = 30
"""One contract's test cannot see 1.5x exceedances with fewer expected ones (power below 0.8)."""


@dataclass(frozen=True)
class Backtest:
    """A finished backtest: forecasts, figures and the gate's verdict on ours."""

    replay: Replay
    evaluation: Evaluation
    verdict: GateVerdict
    report: Path


def backtest(
    spec: Path,
    data: Path | None,
    out: Path | None,
    overrides: Sequence[str],
    cache: str | None = None,
) -> Backtest:
    """Run the backtest of a training job and write forecasts, summary and report.

    Raises:
        InputError: see the rooms it walks through.
    """
    job = load_spec(spec, TrainingJob, overrides)
    setting = Setting.of(spec, data, out, job.name, cache)
    workload = prepare(job, setting)
    result = run_backtest(workload, setting)
    output.print(model_table(result.evaluation, job.target.levels))
    output.print(verdict_text(result.verdict), soft_wrap=True)
    output.print(f"report: {result.report}", soft_wrap=True)
    return result


def prepare(job: TrainingJob, setting: Setting) -> Workload:
    """Read data and build features and targets, saying what was found."""
    say(f"{job.name}: {job.description}")
    unknown = [level for level in job.gate.gated_levels if level not in job.target.levels]
    if unknown:
        say(
            f"the gate cannot pass: gate.gated_levels {unknown} are not among target.levels "
            f"{list(job.target.levels)}"
        )
    root = data_root(setting, job.data)
    workload = build_workload(job, setting.workspace, root, setting.cache)
    say(describe(workload))
    setting.say_what_was_reused()
    for finding in found(workload.findings):
        if finding.severity == "warning" and finding.table == "features":
            say(f"  {finding.what}: {finding.count} of {finding.total} columns; {finding.action}")
        elif finding.table in {"bars", "book", "trades"}:
            say(
                f"  {finding.symbol}: {finding.count:,} of {finding.total:,} {finding.table} rows: "
                f"{finding.what}; {finding.action}"
            )
    _say_what_is_missing(workload)
    return workload


def _say_what_is_missing(workload: Workload) -> None:
    """Say where the data does not fill the test period."""
    period, target = workload.job.backtest, workload.job.target
    decided = workload.panel.frame["ts"]
    slack = target.horizon + workload.feature_set.grid.interval * target.stride
    if decided.max() < period.end - slack:
        say(f"the test period ends {period.end:%F %H:%M}, the data {decided.max():%F %H:%M}")
    if decided.min() > period.start:
        say(f"the test period starts {period.start:%F %H:%M}, the data {decided.min():%F %H:%M}")


def run_backtest(workload: Workload, setting: Setting) -> Backtest:
    """Replay, score, judge and write; continues an interrupted run from its finished folds."""
    job = workload.job
    models = [OURS, *job.backtest.peers]
    folds = walk_forward_folds(job, workload.panel)
    with progress("backtest", len(folds) * len(models)) as counter:
        made = replay(
            workload,
            models,
            threads=setting.threads,
            store=setting.out / FOLDS,
            on_fold=lambda name, fold: counter.advance(f"{name}, refit {fold.start:%F %H:%M}"),
        )
    say("scoring")
    grid = workload.feature_set.grid
    evaluation = evaluate(
        made,
        job.gate.reference,
        horizon=job.target.horizon,
        spacing=grid.interval * job.target.stride,
        first_decisions=first_decisions(workload.panel),
    )
    verdict = evaluate_gate(job.gate, evidence_of(evaluation, workload))
    write_forecasts(
        setting.out / "forecasts.parquet",
        made,
        horizon_minutes=workload.horizon_minutes,
        version=f"{job.name}-{job.digest()[:8]}",
    )
    _write_json(setting.out / "summary.json", summary_record(workload, made, evaluation, verdict))
    report = setting.out / "report.html"
    write_report(report, evaluation, made, report_facts(workload, made, verdict))
    return Backtest(made, evaluation, verdict, report)


def evidence_of(evaluation: Evaluation, workload: Workload) -> Evidence:
    """Collect what the gate asks for about our model."""
    job = workload.job
    levels = job.target.levels
    ours = next(model for model in evaluation.models if model.model == OURS)
    pooled = {level: evaluation.cell(OURS, "both", level) for level in levels}
    return Evidence(
        pinball_ratios={evaluation.reference: ours.pinball_ratio},
        exceedance_ratios={level: cell.exceedance_ratio for level, cell in pooled.items()},
        expected_exceedances={
            level: cell.effective_decisions * (1 - level) for level, cell in pooled.items()
        },
        crossings=ours.crossings,
    )


def summary_record(
    workload: Workload, made: Replay, evaluation: Evaluation, verdict: GateVerdict
) -> dict[str, Any]:
    """Return everything the backtest found as JSON-like values."""
    job = workload.job
    return {
        "job": job.name,
        "description": job.description,
        "horizon_minutes": workload.horizon_minutes,
        "test_period": {
            "start": job.backtest.start.isoformat(),
            "end": job.backtest.end.isoformat(),
            "first_decision": made.panel.frame["ts"].min().isoformat(),
            "last_decision": made.panel.frame["ts"].max().isoformat(),
        },
        "digests": digests(workload),
        "folds": [
            {
                "start": fold.start.isoformat(),
                "end": fold.end.isoformat(),
                "training_decisions": int(fold.training.sum()),
                "test_decisions": int(fold.test.sum()),
            }
            for fold in made.folds
        ],
        "gate": verdict.to_json(),
        **evaluation.as_record(),
        "findings": [finding.as_record() for finding in found(workload.findings)],
    }


def digests(workload: Workload) -> dict[str, str]:
    """Digests and versions that say what the figures were made from."""
    return {
        "spec": workload.job.digest(),
        "feature_set": workload.feature_set.digest(),
        "data": workload.market.digest,
        **{name: version(name) for name in ("margincast", "lightgbm", "numpy", "polars")},
    }


def report_facts(workload: Workload, made: Replay, verdict: GateVerdict) -> ReportFacts:
    """Collect what the report states besides the figures."""
    job = workload.job
    return ReportFacts(
        job=job.name,
        description=job.description,
        horizon_minutes=workload.horizon_minutes,
        test_period=(job.backtest.start, job.backtest.end),
        passed=verdict.passed,
        checks=[asdict(check) for check in verdict.checks],
        findings=tuple(found(workload.findings)),
        digests=digests(workload),
        notes=notes(workload, made),
    )


def notes(workload: Workload, made: Replay) -> tuple[str, ...]:
    """Plain sentences on what the figures can and cannot show."""
    job = workload.job
    decided = made.panel.decided[made.panel.labelled]
    span = (decided.max() - decided.min()).astype("timedelta64[us]").item()
    horizons = span / job.target.horizon
    texts = [
        (
            "Every model is refitted on the same schedule and scored on the same decisions; "
            "nothing was tuned on the test period."
        ),
    ]
    if workload.overlap > 1:
        texts.append(
            f"Horizons overlap: {workload.overlap:g} consecutive decisions share one, so figures "
            "hold far less evidence than their number of decisions suggests; intervals resample "
            "whole days."
        )
    extreme = [level for level in job.target.levels if horizons * (1 - level) < FEW_EXCEEDANCES]
    if extreme:
        texts.append(
            f"At {', '.join(f'{level:g}' for level in extreme)} this test period is too short to "
            "tell a right model from a wrong one for a single contract; read only pooled figures, "
            "with their intervals."
        )
    return tuple(texts)


def _write_json(path: Path, record: dict[str, Any]) -> None:
    partial = path.with_name(path.name + ".part")
    partial.write_text(json.dumps(record, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    partial.replace(path)
