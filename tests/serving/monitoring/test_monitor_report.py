"""The report: one answer, as JSON and as Prometheus metrics."""

import json
from datetime import timedelta

import pandas as pd
from prometheus_client.parser import text_string_to_metric_families
from tests.serving.monitoring.monitoring_cases import START, after, record_case
from tests.serving.monitoring.test_drift import END, distribution_case, frame_case
from tests.serving.monitoring.test_drift import THRESHOLDS as DRIFT
from tests.serving.monitoring.test_tally import tallied

from margincast.serving.monitoring.alarm import AlarmState, Check
from margincast.serving.monitoring.difference import Difference
from margincast.serving.monitoring.drift import feature_drift
from margincast.serving.monitoring.exceedances import (
    FORECASTS,
    contract_checks,
    contracts_that_stand_out,
    pooled_checks,
    pooled_evidence,
)
from margincast.serving.monitoring.freshness import data_check, publication_checks
from margincast.serving.monitoring.metrics import metrics
from margincast.serving.monitoring.report import Report, Watched
from margincast.serving.monitoring.rolling import rolling_coverage
from margincast.specs.monitor import Exceedances, Freshness

LIMITS = Exceedances(
    most_ratio=1.2, least_ratio=0.5, false_alarm_rate=0.01, false_discovery_rate=0.1,
    patience=timedelta(0), window=timedelta(days=7), confidence=0.95,
)  # fmt: skip
FRESH = Freshness(
    stale_contracts_max=0.3, publication_age_max=timedelta(hours=26), fallback_max=0.1
)


def report_case(ratio=1.0, hours=2000):
    record, at = record_case(hours=hours, ratio=ratio), after(hours)
    tally = tallied(record, at)
    evidence = pooled_evidence(tally, 0.95)
    standing_out = contracts_that_stand_out(tally, LIMITS.false_discovery_rate)
    checks = [
        Check("champion", "m", 0.0, 0.0, "model/1 sets margins"),
        *pooled_checks(tally, evidence, FORECASTS, LIMITS),
        *contract_checks(tally, standing_out),
    ]
    high = [check for check in checks if check.reading(1.0) == "high"]
    alarms = {check.key: AlarmState(START if check in high else None) for check in checks}
    watched = {
        "forecasts": Watched("m", rolling_coverage(record, at, LIMITS.window), evidence, tally.lost)
    }
    drift = feature_drift(distribution_case(), frame_case(seed=2), END, DRIFT)
    difference = Difference(10, 30, 1.1, 0.2, -0.1, 0.5)
    return Report(
        "demo", "demo", "m", at, tuple(checks), alarms, watched, standing_out, drift, difference, ()
    )


def test_twice_the_promised_rate_raises_the_alarms_and_the_promised_one_does_not():
    assert report_case().raised == {}
    raised = report_case(ratio=2.5).raised
    assert set(raised) == {"forecasts exceeded too often", "contracts exceeded too often"}
    assert set(report_case(ratio=0.05).raised) == {
        "forecasts exceeded too rarely", "contracts exceeded too rarely",
    }  # fmt: skip


def test_the_json_is_strict_and_the_metrics_say_the_same():
    report = report_case(ratio=2.5)
    record = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert record["alarm"] is True
    assert "2." in record["checks"][1]["reason"]
    samples = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(metrics(record))
        for sample in family.samples
    }
    alarm = ("margincast_monitor_alarm", "demo", "forecasts exceeded too often")
    assert samples[alarm] == 1.0
    ratio = record["watched"]["forecasts"]["coverage"][0]["exceedance_ratio"]
    key = ("margincast_monitor_window_exceedance_ratio", "0.9", "all", "demo", "forecasts", "long")
    assert samples[key] == ratio
    assert samples["margincast_monitor_shadow_loss_ratio", "demo"] == 1.1
    assert samples["margincast_monitor_run_timestamp_seconds", "demo"] == report.at.timestamp()
    assert ("margincast_monitor_feature_stability_index", "bars", "demo", "volatility") in samples


def test_before_the_first_outcome_nothing_can_be_told():
    report = report_case(hours=5)
    unknown = {check["alarm"]: check["status"] for check in report.to_json()["checks"][1:]}
    assert set(unknown.values()) == {"cannot tell"}
    assert report.digest() == report_case(hours=5).digest()


def test_the_age_of_data_is_that_of_each_contract():
    newest = {"A": START, "B": START - timedelta(hours=3), "C": START}
    check = data_check(newest, START, timedelta(hours=2), limits=FRESH, subject="s")
    assert check.value == 1 / 3
    assert check.reading(1.0) == "high"
    assert "the oldest: B" in check.reason
    assert data_check({}, START, timedelta(hours=2), limits=FRESH, subject="s").value == 1.0


def test_a_publication_is_judged_by_its_age_and_its_fallbacks():
    levels = pd.DataFrame({"status": ["ok", "fallback"], "reason": ["fine", "too old"]})

    def checks(levels, at, problem=""):
        found = publication_checks(
            levels,
            None if levels is None else START,
            at,
            problem=problem,
            limits=FRESH,
            subject="s",
        )
        return {check.alarm: check for check in found}

    found = checks(levels, START + timedelta(hours=27))
    assert {name: one.reading(1.0) for name, one in found.items()} == {
        "publications unreadable": "good", "publication too old": "high", "fallback": "high",
    }  # fmt: skip
    assert "too old" in found["fallback"].reason
    assert checks(levels, START + timedelta(hours=26))["publication too old"].value == 26.0
    broken = checks(None, START, "number 3 was changed")
    assert broken["publications unreadable"].reading(1.0) == "high"
    assert broken["fallback"].value is None
