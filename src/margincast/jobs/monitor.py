"""``margincast monitor``: what is fine with the margins of a policy, what is not, and why.

Run every hour it goes on where it stopped: bets that were settled stay settled, alarms that were
raised stay raised until their reading is good again.
"""

import fcntl
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

import pandas as pd

from margincast.core.digest import digest_of
from margincast.core.errors import InputError
from margincast.data.writing import write_text
from margincast.jobs.console import output, say
from margincast.jobs.moment import moment_of
from margincast.jobs.monitor_acting import act_on
from margincast.jobs.monitor_inputs import Inputs, gather
from margincast.jobs.monitor_publications import published_since
from margincast.jobs.monitor_tables import checks_table, evidence_table
from margincast.jobs.setting import Setting
from margincast.serving.monitoring.alarm import AlarmState, Check, advance_all
from margincast.serving.monitoring.difference import Difference, difference_of
from margincast.serving.monitoring.drift import drift_checks, feature_drift
from margincast.serving.monitoring.exceedances import (
    FORECASTS,
    MARGINS,
    contract_checks,
    contracts_that_stand_out,
    pooled_checks,
    pooled_evidence,
    rates_of,
)
from margincast.serving.monitoring.freshness import data_check, publication_checks
from margincast.serving.monitoring.metrics import metrics
from margincast.serving.monitoring.record import Record
from margincast.serving.monitoring.report import Report, Watched
from margincast.serving.monitoring.rolling import rolling_coverage
from margincast.serving.monitoring.state import State, StateError, read_state, write_state
from margincast.serving.monitoring.tally import Tally, settle
from margincast.specs.loading import load_spec
from margincast.specs.monitor import Monitor
from margincast.specs.serving import MarginPolicy

STATES = Path(".margincast") / "monitor"
"""Where a workspace keeps what monitors remember."""


@dataclass(frozen=True)
class Monitoring:
    """A finished run of a monitor."""

    report: Report
    folder: Path


def run(
    spec: Path,
    data: Path | None,
    out: Path | None,
    overrides: Sequence[str],
    *,
    at: str | None = None,
    cache: str | None = None,
    as_json: bool = False,
    act: bool = False,
) -> Monitoring:
    """Look at a policy's margins; write ``monitor.json`` and ``monitor.prom``.

    Args:
        spec: the monitor.
        data: folder that data paths start at.
        out: folder for the files.
        overrides: ``section.key=value`` texts; those of ``data.*`` change where the champion's
            training spec says its data lies.
        at: moment to look at; now when absent. What happened later is not looked at, and a moment
            before that of the last run changes nothing of what is remembered.
        cache: folder of built features to read, or ``none``.
        as_json: print the report and not the table.
        act: start the job that is due; otherwise it is only said.

    Raises:
        InputError: monitor, policy or data that cannot be used.
    """
    of_data = [text for text in overrides if text.startswith("data.")]
    monitor = load_spec(spec, Monitor, [text for text in overrides if text not in of_data])
    name = f"monitor-{monitor.name}"
    setting = Setting.of(spec, data, out, name, cache, keeps_features=False)
    policy = load_spec(setting.workspace / monitor.policy, MarginPolicy)
    moment = moment_of(at or "now")
    path = setting.workspace / STATES / f"{monitor.name}.json"
    with _locked(path):
        memory = _remembered(path, _settings(monitor, policy), moment)
        publications = published_since(
            setting.workspace,
            policy,
            moment,
            window=monitor.exceedances.window,
            before=memory.tallies.get("margins"),
        )
        with_shadow = monitor.shadow is not None
        inputs = gather(
            policy, setting, of_data, moment, publications=publications, with_shadow=with_shadow
        )
        report, state = _look(monitor, policy, inputs, memory)
        if memory.may_be_added_to:
            write_state(state, path)
    _write(report, setting.out)
    if monitor.acting is not None:
        # a job takes hours: the alarms that start it are told before
        report = act_on(report, monitor.acting, setting, data, act=act)
        _write(report, setting.out)
    if as_json:
        output.print(json.dumps(report.to_json(), indent=1), markup=False, soft_wrap=True)
    else:
        _print(report)
    return Monitoring(report, setting.out)


def _write(report: Report, folder: Path) -> None:
    record = report.to_json()
    write_text(folder / "monitor.json", json.dumps(record, indent=1, allow_nan=False) + "\n")
    write_text(folder / "monitor.prom", metrics(record))


def _look(
    monitor: Monitor, policy: MarginPolicy, inputs: Inputs, memory: "_Memory"
) -> tuple[Report, State]:
    """Settle what can be settled, and hold everything against its limit."""
    at, limits = inputs.at, monitor.exceedances
    checks = [
        Check("champion", policy.model.registered_model, float(bool(inputs.no_champion)), 0.0,
              inputs.no_champion or f"{inputs.model} sets margins"),
    ]  # fmt: skip
    checks.append(
        data_check(
            inputs.newest,
            at,
            policy.staleness.max_data_age,
            limits=monitor.freshness,
            subject=policy.name,
        )
    )
    checks += publication_checks(
        inputs.publications.levels,
        inputs.publications.published_at,
        at,
        problem=inputs.publications.problem,
        limits=monitor.freshness,
        subject=policy.name,
    )
    tallies = _tallies(monitor, inputs, memory.tallies)
    watched = {
        name: _watched(record, tallies[name], monitor, at) for name, record in _records(inputs)
    }
    if inputs.left_out and "margins" in watched:
        watched["margins"] = replace(watched["margins"], left_out=inputs.left_out)
    standing_out = pd.DataFrame()
    if "forecasts" in watched:
        tally = tallies["forecasts"]
        standing_out = contracts_that_stand_out(tally, limits.false_discovery_rate)
        checks += pooled_checks(tally, watched["forecasts"].evidence, FORECASTS, limits)
        checks += contract_checks(tally, standing_out)
    if "margins" in watched:
        tally = tallies["margins"]
        checks += pooled_checks(tally, watched["margins"].evidence, MARGINS, limits)
    drift = None
    if monitor.drift is not None and inputs.distribution and inputs.features is not None:
        drift = feature_drift(inputs.distribution, inputs.features, at, monitor.drift)
        checks += drift_checks(drift, inputs.model, monitor.drift)
    difference = _difference(monitor, policy, inputs)
    if difference is not None:
        checks.append(_shadow_check(inputs, difference))
    alarms = advance_all(memory.alarms, checks, at, clears_at=monitor.clears_at, calm=monitor.calm)
    report = Report(
        monitor.name,
        policy.name,
        inputs.model,
        at,
        tuple(checks),
        alarms,
        watched,
        standing_out,
        drift,
        difference,
        (*inputs.notes, *memory.notes),
    )
    return report, State(_settings(monitor, policy), at, tallies, alarms)


def _records(inputs: Inputs) -> list[tuple[str, Record]]:
    named = (("forecasts", inputs.forecasts), ("margins", inputs.margins))
    return [(name, record) for name, record in named if record is not None]


def _tallies(monitor: Monitor, inputs: Inputs, before: Mapping[str, Tally]) -> dict[str, Tally]:
    """Settle the bets of every record; without the record the tally is kept as it was."""
    limits = monitor.exceedances
    tallies = dict(before)
    for name, record in _records(inputs):
        tally = before.get(name)
        if tally is None or not tally.continues(record):
            tally = Tally.begin(record)
        tallies[name] = settle(tally, record, inputs.at, rates_of(limits), limits.patience)
    return tallies


def _watched(record: Record, tally: Tally, monitor: Monitor, at: datetime) -> Watched:
    limits = monitor.exceedances
    return Watched(
        record.subject,
        rolling_coverage(record, at, limits.window),
        pooled_evidence(tally, limits.confidence),
        tally.lost,
    )


def _difference(monitor: Monitor, policy: MarginPolicy, inputs: Inputs) -> Difference | None:
    if monitor.shadow is None or inputs.forecasts is None or inputs.shadow is None:
        return None
    return difference_of(
        inputs.forecasts, inputs.shadow, policy.model.level, inputs.at, monitor.shadow.confidence
    )


def _shadow_check(inputs: Inputs, found: Difference) -> Check:
    assert inputs.shadow is not None
    subject = f"{inputs.shadow.subject} beside {inputs.model}"
    text = (
        f"{inputs.shadow.subject} gains {found.advantage:+.3f} of what both differ by "
        f"({found.lower:+.3f} to {found.upper:+.3f}) at {found.moments} moments; the champion "
        f"loses {found.loss_ratio:.3f} times as much"
        if found.moments
        else "no outcome is known yet, or both forecast the same"
    )
    value = max(found.lower, 0.0) if found.moments else None
    return Check("shadow better", subject, value, 0.0, text, lasting=False)


@dataclass(frozen=True)
class _Memory:
    """What is remembered of earlier runs.

    Attributes:
        tallies: by name of the record.
        alarms: by key of the check.
        may_be_added_to: whether this run is remembered.
        notes: what there is to say of it.
    """

    tallies: Mapping[str, Tally] = field(default_factory=dict)
    alarms: Mapping[str, AlarmState] = field(default_factory=dict)
    may_be_added_to: bool = True
    notes: tuple[str, ...] = ()


def _remembered(path: Path, settings: str, at: datetime) -> _Memory:
    """Return what is remembered; a state that cannot be used is put aside.

    Everything in it is then made anew: bets from the first on, alarms as of now.
    """
    try:
        state = read_state(path, settings)
    except StateError as error:
        aside = path.with_suffix(".refused.json")
        path.replace(aside)
        note = (
            f"{error}: it was put aside as {aside.name}, and all bets are settled again from the "
            "first on; alarms are raised as of now"
        )
        return _Memory(notes=(note,))
    if state is None:
        return _Memory()
    if at < state.at:
        note = (
            f"the last run looked at {state.at:%F %H:%M} UTC, which is later: this one starts from "
            "nothing, and nothing of it is remembered"
        )
        return _Memory(may_be_added_to=False, notes=(note,))
    return _Memory(state.tallies, state.alarms)


def _settings(monitor: Monitor, policy: MarginPolicy) -> str:
    limits = monitor.exceedances
    return digest_of([limits.most_ratio, limits.least_ratio, str(limits.patience), policy.name])


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Let one run after the other read and write what a monitor remembers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        stream = path.with_suffix(".lock").open("ab")
    except OSError as error:
        raise InputError(f"{path.parent} cannot be written ({error})") from error
    with stream:
        # released when the file is closed, also by the end of a killed process
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _print(report: Report) -> None:
    output.print(checks_table(report))
    for name, one in report.watched.items():
        output.print(evidence_table(name, one))
    for note in report.notes:
        say(note)
    if report.decision is not None:
        output.print(report.decision.reason, markup=False, soft_wrap=True)
