"""What a backtest leaves behind: the evidence on which a model may set margins.

With one horizon ``report.html`` and ``summary.json`` are its own; with several ``report.html`` is a
page over all of them beside a report a horizon, and ``summary.json`` holds a record a horizon.
"""

import json
from dataclasses import asdict, dataclass
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

from margincast.backtest.evaluation import Evaluation
from margincast.backtest.overview import OverviewFacts, write_overview
from margincast.backtest.replay import Replay
from margincast.backtest.report import ReportFacts, write_report
from margincast.backtest.validation import Validation, checklist_of, write_validation
from margincast.core.time import add_step, format_minutes
from margincast.data.quality import found
from margincast.serving.verdict import GateVerdict
from margincast.training.workload import Workload

GATE_FILE = "gate.json"
"""The gate's full verdict: every check with what was found and allowed, and the spec asked."""
FEW_EXCEEDANCES = 30
"""One contract's test cannot see 1.5x exceedances with fewer expected ones (power below 0.8)."""


@dataclass(frozen=True)
class Backtest:
    """A finished backtest.

    Attributes:
        replays: forecasts, per horizon in minutes.
        evaluations: figures, per horizon.
        verdicts: the gate's answer on our model, per horizon.
        verdict: its answer over all horizons.
        crossings: per model, forecasts below that of a shorter horizon.
        validations: evidence on our model, per horizon.
        out: folder of its files.
    """

    replays: dict[int, Replay]
    evaluations: dict[int, Evaluation]
    verdicts: dict[int, GateVerdict]
    verdict: GateVerdict
    crossings: dict[str, int]
    validations: dict[int, Validation]
    out: Path
    buffer: float | None = None
    """Of the policy whose published margin was replayed; None without one."""

    @property
    def report(self) -> Path:
        """The page to read first."""
        return self.out / "report.html"

    @property
    def pages(self) -> dict[int, Path]:
        """The report of every horizon."""
        if len(self.replays) == 1:
            return dict.fromkeys(self.replays, self.report)
        return {minutes: self.out / f"report-{minutes}m.html" for minutes in self.replays}

    @property
    def evidence(self) -> list[Path]:
        """Folders with the tables behind the pages, one a horizon."""
        return [page.with_suffix("") for page in self.pages.values()]

    @property
    def files(self) -> list[Path]:
        """Summary, the gate's verdict, and pages."""
        records = (self.out / "summary.json", self.out / GATE_FILE)
        return [*dict.fromkeys((*records, self.report, *self.pages.values()))]


def write_summary(workload: Workload, result: Backtest) -> None:
    """Write everything the backtest found, and the gate's verdict alone with what was asked."""
    _write(result.out / "summary.json", summary_record(workload, result))
    asked = workload.job.gate.model_dump(mode="json")
    _write(result.out / GATE_FILE, {**result.verdict.to_json(), "asked": asked})


def _write(path: Path, record: dict[str, Any]) -> None:
    """Write strict JSON, whole or not at all."""
    partial = path.with_name(path.name + ".part")
    text = json.dumps(record, indent=1, allow_nan=False)
    partial.write_text(text + "\n", encoding="utf-8")
    partial.replace(path)


def summary_record(workload: Workload, result: Backtest) -> dict[str, Any]:
    """Return everything the backtest found as JSON-like values."""
    job = workload.job
    frame = next(iter(result.replays.values())).panel.frame
    records = [_horizon_record(result, minutes) for minutes in result.replays]
    several = {
        "gate": result.verdict.to_json(),
        "horizon_crossings": result.crossings,
        "horizons": records,
    }
    return {
        "job": job.name,
        "description": job.description,
        "test_period": {
            "start": job.backtest.start.isoformat(),
            "end": job.backtest.end.isoformat(),
            "first_decision": frame["ts"].min().isoformat(),
            "last_decision": frame["ts"].max().isoformat(),
        },
        "digests": digests(workload),
        **(records[0] if len(records) == 1 else several),
        "findings": [finding.as_record() for finding in found(workload.findings)],
    }


def _horizon_record(result: Backtest, minutes: int) -> dict[str, Any]:
    return {
        "horizon_minutes": minutes,
        "folds": [
            {
                "start": fold.start.isoformat(),
                "end": fold.end.isoformat(),
                "training_decisions": int(fold.training.sum()),
                "test_decisions": int(fold.test.sum()),
            }
            for fold in result.replays[minutes].folds
        ],
        "gate": result.verdicts[minutes].to_json(),
        **result.evaluations[minutes].as_record(),
    }


def digests(workload: Workload) -> dict[str, str]:
    """Digests and versions that say what the figures were made from."""
    return {
        "spec": workload.job.digest(),
        "feature_set": workload.feature_set.digest(),
        "data": workload.market.digest,
        **{name: version(name) for name in ("margincast", "lightgbm", "numpy", "polars")},
    }


def write_reports(workload: Workload, result: Backtest) -> None:
    """Write a report a horizon and, where there are several, the page over all of them.

    The evidence stands beside each page as tables, in a folder of the page's name.
    """
    for minutes, page in result.pages.items():
        facts = report_facts(workload, result, minutes)
        evaluation, found = result.evaluations[minutes], result.validations[minutes]
        write_report(page, evaluation, result.replays[minutes], facts)
        write_validation(page.with_suffix(""), evaluation, found, facts.checklist)
    if len(result.replays) == 1:
        return
    job = workload.job
    write_overview(
        result.report,
        result.evaluations,
        OverviewFacts(
            job=job.name,
            description=job.description,
            test_period=(job.backtest.start, job.backtest.end),
            passed=result.verdict.passed,
            checks=[asdict(check) for check in result.verdict.checks],
            monotone=job.target.monotone,
            crossings=result.crossings,
            pages={minutes: page.name for minutes, page in result.pages.items()},
        ),
    )


def report_facts(workload: Workload, result: Backtest, minutes: int) -> ReportFacts:
    """Collect what the report of a horizon states besides the figures."""
    job, verdict = workload.job, result.verdicts[minutes]
    several = len(result.replays) > 1
    evaluation, found_of = result.evaluations[minutes], result.validations[minutes]
    made = result.replays[minutes]
    period = (job.backtest.start, job.backtest.end)
    begun = workload.frame.groupby("symbol")["ts"].min()
    asked = made.panel.frame.groupby("symbol")["ts"].min()
    learned_from = period[0] - add_step(period[0], job.model.window, -1)
    history = min((asked - begun.reindex(asked.index)).min().to_pytimedelta(), learned_from)
    return ReportFacts(
        job=f"{job.name}, {format_minutes(minutes)} horizon" if several else job.name,
        description=job.description,
        horizon_minutes=minutes,
        test_period=period,
        passed=verdict.passed,
        checks=[asdict(check) for check in verdict.checks],
        findings=tuple(found(workload.findings)),
        digests=digests(workload),
        notes=notes(workload, result.replays[minutes], minutes),
        overview=result.report.name if several else "",
        validation=found_of,
        checklist=checklist_of(
            evaluation,
            found_of,
            timedelta(minutes=minutes),
            period,
            shortest_history=history,
            buffer=result.buffer if len(found_of.published) else None,
        ),
    )


def notes(workload: Workload, made: Replay, minutes: int) -> tuple[str, ...]:
    """Plain sentences on what the figures of a horizon can and cannot show."""
    job = workload.job
    decided = made.panel.decided[made.panel.labelled]
    span = (decided.max() - decided.min()).astype("timedelta64[us]").item()
    horizons = span / timedelta(minutes=minutes)
    overlap = workload.overlap(minutes)
    texts = [
        (
            "Every model is refitted on the same schedule and scored on the same decisions; "
            "nothing was tuned on the test period."
        ),
    ]
    if overlap > 1:
        texts.append(
            f"Horizons overlap: {overlap:g} consecutive decisions share one, so figures "
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
