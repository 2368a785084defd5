"""The report of ``margincast monitor``, read again when it was written anew.

Responsible for showing how often margins and forecasts were exceeded beside the margins themselves;
what is found is the monitor's.
"""

import json
import logging
from pathlib import Path
from typing import Any

from margincast.serving.api.view import Json
from margincast.serving.monitoring.metrics import metrics

LOG = logging.getLogger("margincast.service")
NONE_NAMED = "[monitor] of the service names no report"
NOT_THERE = "`margincast monitor` has not written its report yet"
UNREADABLE = "the monitor's report cannot be read; see the service's log"
COVERAGE = ("symbol", "side", "level", "known", "exceeded", "exceedance_ratio")


class ReportFile:
    """The report, as far as it can be read.

    Args:
        path: ``monitor.json``; None where the service names none.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._seen: int | None = None
        self._report: Json | None = None
        self.note = NONE_NAMED if path is None else NOT_THERE
        """Why there is no report; empty where there is one."""
        self.metrics = b""
        """The report as Prometheus metrics."""

    def look(self) -> None:
        """Read the report if it is another one than at the last look."""
        if self._path is None:
            return
        try:
            seen = self._path.stat().st_mtime_ns
            if seen == self._seen:
                return
            report = json.loads(self._path.read_bytes())
            self.metrics, self._report, self.note = metrics(report).encode(), report, ""
            self._seen = seen
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            if self.note != UNREADABLE:
                LOG.error("the monitor's report %s: %s", self._path, error)  # noqa: TRY400  # no bug
            self.note = UNREADABLE

    def found(self, symbol: str) -> Json:
        """Return what the report says in short, and of one contract or all of them together."""
        report = self._report
        if report is None:
            return {"at": None, "alarm": None, "note": self.note, "checks": [], "coverage": []}
        coverage = [
            {"record": name, **{column: row[column] for column in COVERAGE}}
            for name, one in report["watched"].items()
            for row in one["coverage"]
            if not symbol or row["symbol"] == symbol
        ]
        note = self.note or (
            "" if coverage else "the monitor knows no outcome of this contract yet"
        )
        checks: list[dict[str, Any]] = report["checks"]
        return {
            "at": report["at"],
            "alarm": report["alarm"],
            "note": note,
            "checks": checks,
            "coverage": coverage,
        }
