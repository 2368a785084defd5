"""What a run of the monitor found: every check with its alarm, and the tables behind them.

Responsible for one answer that a person, a service and Prometheus read alike.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

import pandas as pd

from margincast.core.digest import digest_of
from margincast.serving.monitoring.acting import Decision
from margincast.serving.monitoring.alarm import AlarmState, Check
from margincast.serving.monitoring.difference import Difference
from margincast.specs.monitor import AlarmName

FORMAT = "margincast-monitor-report 1"


@dataclass(frozen=True)
class Watched:
    """What tells of one record: forecasts, or published margins.

    Attributes:
        subject: whose promises.
        coverage: of the window; see :mod:`margincast.serving.monitoring.rolling`.
        evidence: of all contracts together.
        lost: promises whose outcome was not known in time.
        left_out: by reason, how many promises are not in the record.
    """

    subject: str
    coverage: pd.DataFrame
    evidence: pd.DataFrame
    lost: int
    left_out: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """A run of the monitor.

    Attributes:
        monitor: its name.
        policy: name of the margin policy.
        model: champion, such as ``perp-8h/3``; empty where there is none.
        at: the moment.
        checks: what was looked at.
        alarms: state of each check's alarm, by its key.
        watched: ``forecasts`` and ``margins``, those there are.
        standing_out: single contracts.
        drift: a row a feature; None where it was not looked at.
        difference: champion against shadow; None likewise.
        notes: what else there is to say.
        decision: on a job to start; None where the monitor starts none.
    """

    monitor: str
    policy: str
    model: str
    at: datetime
    checks: tuple[Check, ...]
    alarms: Mapping[str, AlarmState]
    watched: Mapping[str, Watched]
    standing_out: pd.DataFrame
    drift: pd.DataFrame | None
    difference: Difference | None
    notes: tuple[str, ...]
    decision: Decision | None = None

    @property
    def raised(self) -> dict[AlarmName, datetime]:
        """Alarms that are raised, since when."""
        return raised_among(self.checks, self.alarms)

    def to_json(self) -> dict[str, Any]:
        """Return JSON-like values; a number that is not known is null."""
        return {
            "format": FORMAT,
            "monitor": self.monitor,
            "policy": self.policy,
            "model": self.model,
            "at": self.at.isoformat(),
            "alarm": bool(self.raised),
            "checks": [self._check(check) for check in self.checks],
            "watched": {
                name: {
                    "subject": one.subject,
                    "lost": one.lost,
                    "left_out": dict(one.left_out),
                    "coverage": _rows(one.coverage),
                    "evidence": _rows(one.evidence),
                }
                for name, one in self.watched.items()
            },
            "standing_out": _rows(self.standing_out),
            "drift": None if self.drift is None else _rows(self.drift),
            "shadow": None if self.difference is None else _known(asdict(self.difference)),
            "notes": list(self.notes),
            "decision": None
            if self.decision is None
            else {
                "job": None if self.decision.job is None else self.decision.job.name,
                "alarms": list(self.decision.alarms),
                "reason": self.decision.reason,
            },
        }

    def digest(self) -> str:
        """SHA-256 of the report, by which the ledger refers to it."""
        return digest_of(self.to_json())

    def _check(self, check: Check) -> dict[str, Any]:
        state = self.alarms[check.key]
        return {
            "alarm": check.alarm,
            "subject": check.subject,
            "status": status_of(check, state),
            "value": check.value,
            "limit": check.limit,
            "reason": check.reason,
            "raised_at": None if state.raised_at is None else state.raised_at.isoformat(),
        }


def raised_among(
    checks: Iterable[Check], alarms: Mapping[str, AlarmState]
) -> dict[AlarmName, datetime]:
    """Return the alarms that are raised, since when."""
    return {
        check.alarm: since for check in checks if (since := alarms[check.key].raised_at) is not None
    }


def status_of(check: Check, state: AlarmState) -> str:
    """Say ``alarm``, ``ok`` or ``cannot tell``."""
    if state.raised_at is not None:
        return "alarm"
    return "ok" if check.value is not None else "cannot tell"


def _rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [_known(row) for row in table.to_dict(orient="records")]


def _known(row: Mapping[Any, Any]) -> dict[str, Any]:
    return {
        str(name): None if isinstance(value, float) and math.isnan(value) else value
        for name, value in row.items()
    }
