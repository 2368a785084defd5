"""A report as Prometheus metrics, for the service's ``/metrics`` and for a textfile collector.

Responsible for alarms that reach whoever is on call without anybody reading a report. They are made
of the report's JSON, so that a service can show what a run of another process found.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

Values = Iterable[tuple[tuple[Any, ...], Any]]


class ReportCollector(Collector):
    """Offers a report to a registry of Prometheus metrics.

    Args:
        report: JSON-like, of :meth:`margincast.serving.monitoring.report.Report.to_json`.
    """

    def __init__(self, report: Mapping[str, Any]) -> None:
        self._report = report

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield all metrics; a value that is not known is left out."""
        yield from families(self._report)


def metrics(report: Mapping[str, Any]) -> str:
    """Return a report as text in Prometheus' exposition format."""
    registry = CollectorRegistry()
    registry.register(ReportCollector(report))
    return generate_latest(registry).decode()


def families(report: Mapping[str, Any]) -> Iterator[GaugeMetricFamily]:
    """Yield the metrics of a report."""
    of_monitor = ("monitor",)
    own = (str(report["monitor"]),)
    at = datetime.fromisoformat(report["at"]).timestamp()
    yield _family("run_timestamp_seconds", "Moment of the last run", of_monitor, [(own, at)])
    by_alarm = (*of_monitor, "alarm")
    checks = [((*own, check["alarm"]), check) for check in report["checks"]]
    yield _family(
        "alarm", "1 where the alarm is raised", by_alarm,
        ((labels, float(check["status"] == "alarm")) for labels, check in checks),
    )  # fmt: skip
    yield _family(
        "unknown", "1 where the check cannot tell", by_alarm,
        ((labels, float(check["value"] is None)) for labels, check in checks),
    )  # fmt: skip
    yield _family(
        "value", "What the check read", by_alarm,
        ((labels, check["value"]) for labels, check in checks),
    )  # fmt: skip
    yield _family(
        "limit", "At which the alarm is raised", by_alarm,
        ((labels, check["limit"]) for labels, check in checks),
    )  # fmt: skip
    by_stream = (*of_monitor, "record", "symbol", "side", "level")
    coverage: list[tuple[tuple[Any, ...], Any]] = [
        ((*own, name, row["symbol"], row["side"], f"{row['level']:g}"), row)
        for name, one in report["watched"].items()
        for row in one["coverage"]
    ]
    for column, text in (
        ("known", "Outcomes that became known in the window"),
        ("exceeded", "Of them beyond what was promised"),
        ("exceedance_ratio", "Exceedances over what the level promises"),
        ("shortfall_bps", "Mean shortfall of a known outcome, basis points"),
    ):
        values = ((labels, row[column]) for labels, row in coverage)
        yield _family(f"window_{column}", text, by_stream, values)
    evidence: list[tuple[tuple[Any, ...], Any]] = [
        ((*own, name, row["side"], f"{row['level']:g}", direction), row[column])
        for name, one in report["watched"].items()
        for row in one["evidence"]
        for direction, column in (("too many", "e_too_many"), ("too few", "e_too_few"))
    ]
    by_direction = (*of_monitor, "record", "side", "level", "direction")
    yield _family("e_value", "Evidence against the promised rate", by_direction, evidence)
    drift = report["drift"] or []
    by_feature = (*of_monitor, "feature", "family")
    for column, text in (
        ("stability_index", "Population stability index against training"),
        ("missing", "Share of values not known in the window"),
        ("out_of_range", "Share of values outside of what training has seen"),
    ):
        values = (((*own, row["feature"], row["family"]), row[column]) for row in drift)
        yield _family(f"feature_{column}", text, by_feature, values)
    shadow = report["shadow"]
    if shadow is not None:
        ratio = [(own, shadow["loss_ratio"])]
        yield _family("shadow_loss_ratio", "Champion's loss over the shadow's", of_monitor, ratio)


def _family(name: str, text: str, labels: tuple[str, ...], values: Values) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"margincast_monitor_{name}", text, labels=labels)
    for own, value in values:
        if value is not None:
            family.add_metric(own, float(value))
    return family
