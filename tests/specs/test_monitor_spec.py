"""Monitors: every shipped one loads, and contradictions are refused."""

import tomllib
from pathlib import Path

import pytest

from margincast.core.errors import SpecError
from margincast.specs.loading import load_spec, validate_spec
from margincast.specs.monitor import Monitor
from margincast.specs.serving import MarginPolicy
from margincast.specs.training import TrainingJob

WORKSPACE = Path(__file__).resolve().parents[2]
MONITORS = sorted((WORKSPACE / "serving" / "monitors").glob("*.toml"))


@pytest.mark.parametrize("path", MONITORS, ids=lambda path: path.stem)
def test_every_monitor_loads_with_its_policy_and_jobs(path):
    monitor = load_spec(path, Monitor)
    assert monitor.name == path.stem
    policy = load_spec(WORKSPACE / monitor.policy, MarginPolicy)
    for job in monitor.acting.jobs if monitor.acting else ():
        trained = load_spec(WORKSPACE / job.job, TrainingJob, list(job.set))
        assert trained.tracking.registered_model == policy.model.registered_model


@pytest.mark.parametrize(
    ("section", "key", "value", "said"),
    [
        ("", "clears_at", 1.5, "at most 1"),
        ("exceedances", "most_ratio", 0.9, "greater than or equal to 1"),
        ("exceedances", "least_ratio", 1.1, "less than or equal to 1"),
        ("acting", "cool_down", "60d", "longer than period"),
        ("freshness", "stale_contracts_max", 5.0, "less than or equal to 1"),
    ],
)
def test_what_contradicts_itself_is_refused(section, key, value, said):
    raw = tomllib.loads((WORKSPACE / "serving" / "monitors" / "perp-8h.toml").read_text())
    (raw[section] if section else raw)[key] = value
    with pytest.raises(SpecError, match=said):
        validate_spec(raw, Monitor, "monitor")


def test_jobs_have_names_of_their_own_and_known_alarms():
    raw = tomllib.loads((WORKSPACE / "serving" / "monitors" / "perp-8h.toml").read_text())
    raw["acting"]["jobs"][1]["name"] = "recalibrate"
    with pytest.raises(SpecError, match="different names"):
        validate_spec(raw, Monitor, "monitor")
    raw["acting"]["jobs"][1] |= {"name": "retrain", "alarms": ["too hot"]}
    with pytest.raises(SpecError, match="alarms"):
        validate_spec(raw, Monitor, "monitor")
