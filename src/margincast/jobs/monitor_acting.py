"""Jobs that a monitor's alarms start: written into the ledger before they begin, and when they end.

The ledger is what the cool-down is counted from, so that a monitor whose memory is lost, or that
was killed while its job ran, does not start another.
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from margincast.core.errors import MargincastError
from margincast.core.time import parse_instant
from margincast.jobs import train
from margincast.jobs.console import say
from margincast.jobs.person import acting_person
from margincast.jobs.setting import Setting
from margincast.serving.ledger import LEDGER, Ledger
from margincast.serving.ledger_line import LedgerEntry
from margincast.serving.monitoring.acting import Decision, choose_job
from margincast.serving.monitoring.report import Report
from margincast.specs.monitor import Acting, JobChoice


def act_on(
    report: Report, acting: Acting, setting: Setting, data: Path | None, *, act: bool
) -> Report:
    """Start the job that a report's alarms call for, if it may start; return what was decided.

    A job trains, backtests, registers and asks the gate; who is champion it does not change where
    there is one.

    Args:
        report: of this run.
        acting: jobs and guard rails.
        setting: folders of the monitor.
        data: folder that data paths start at, as given.
        act: start it; otherwise it is only said.

    Raises:
        LedgerError: the ledger does not verify; nothing is started.
        InputError: it cannot be written; nothing is started.
    """
    ledger = Ledger(setting.workspace / LEDGER)
    if not act:
        decision = _decide(report, acting, ledger.read())
        if decision.job is not None:
            decision = replace(decision, reason=f"{decision.reason}; --act would start it")
        return replace(report, decision=decision)
    with ledger.writing() as writer:
        decision = _decide(report, acting, writer.entries)
        if decision.job is None:
            return replace(report, decision=decision)
        started = writer.append(
            kind="job start",
            who=acting_person(),
            what=f"monitor {report.monitor}: started {decision.job.name} ({decision.job.job})",
            why=_reasons(report, decision),
            evidence_digest=report.digest(),
            details={
                "monitor": report.monitor,
                "job": decision.job.name,
                "alarms": decision.alarms,
                "at": report.at.isoformat(),
            },
        )
    say(f"starting {decision.job.name} ({decision.job.job}) for {', '.join(decision.alarms)}")
    ending = "it was interrupted"
    try:
        ending = _run(decision.job, setting, data)
    finally:
        ledger.append(
            kind="job end",
            who=acting_person(),
            what=f"monitor {report.monitor}: {decision.job.name} of line {started.number} ended",
            why=ending,
            evidence_digest=report.digest(),
            details={"monitor": report.monitor, "job": decision.job.name, "line": started.number},
        )
    return replace(report, decision=replace(decision, reason=f"{decision.reason}: {ending}"))


def starts_of(entries: tuple[LedgerEntry, ...], monitor: str) -> list[datetime]:
    """Return the moments at which a monitor started jobs."""
    return [
        parse_instant(str(entry.details["at"]))
        for entry in entries
        if entry.kind == "job start" and entry.details.get("monitor") == monitor
    ]


def _decide(report: Report, acting: Acting, entries: tuple[LedgerEntry, ...]) -> Decision:
    fresh = [check for check in report.checks if check.alarm == "data too old"]
    stale = any(
        check.value is None or report.alarms[check.key].raised_at is not None for check in fresh
    )
    return choose_job(
        acting,
        report.raised,
        starts_of(entries, report.monitor),
        report.at,
        ["the data is too old to train on"] if stale else [],
    )


def _reasons(report: Report, decision: Decision) -> str:
    """Say what the alarms found."""
    found: Mapping[Any, str] = {check.alarm: check.reason for check in report.checks}
    return "; ".join(f"{name}: {found[name]}" for name in decision.alarms)


def _run(job: JobChoice, setting: Setting, data: Path | None) -> str:
    """Train, and say how it ended; a job that fails is an ending too."""
    try:
        training = train.run(setting.workspace / job.job, data, setting.out / job.name, job.set)
    except MargincastError as error:
        return f"failed: {error}"
    if training.registered is None:
        return train.NOT_REGISTERED
    return training.registered.describe()
