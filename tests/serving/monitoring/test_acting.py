"""Guard rails: a monitor that runs every hour does not train every hour."""

from datetime import timedelta

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.serving.monitoring.monitoring_cases import START

from margincast.serving.monitoring.acting import choose_job
from margincast.specs.loading import validate_spec
from margincast.specs.monitor import Acting

ACTING = validate_spec(
    {
        "cool_down": "5d",
        "starts_max": 3,
        "period": "30d",
        "jobs": [
            {"name": "recalibrate", "alarms": ["forecasts exceeded too often"], "after": "0s",
             "job": "training/demo.toml", "set": ["tuning.trials=0"]},
            {"name": "retrain", "alarms": ["features drifted", "shadow better"], "after": "2d",
             "job": "training/demo.toml", "set": []},
        ],
    },
    Acting,
    "acting",
)  # fmt: skip
EXCEEDED = {"forecasts exceeded too often": START}


def chosen(raised, starts=(), at=START, obstacles=()):
    return choose_job(ACTING, raised, list(starts), at, list(obstacles))


@settings(max_examples=40)
@given(
    st.lists(st.tuples(st.integers(1, 72), st.booleans(), st.booleans()), max_size=40),
)
def test_never_within_the_cool_down_nor_too_often_nor_on_old_data(steps):
    starts, at = [], START
    for hours, alarm, stale in steps:
        at += timedelta(hours=hours)
        raised = EXCEEDED if alarm else {}
        decision = chosen(raised, starts, at, ["the data is too old"] if stale else [])
        if decision.job is not None:
            assert alarm
            assert not stale
            assert all(at - start >= ACTING.cool_down for start in starts)
            starts.append(at)
        recent = [start for start in starts if at - start < ACTING.period]
        assert len(recent) <= ACTING.starts_max


def test_the_first_job_that_is_due_is_started():
    both = EXCEEDED | {"features drifted": START - timedelta(days=3)}
    assert chosen(both).job.name == "recalibrate"
    assert chosen({"features drifted": START - timedelta(days=3)}).job.name == "retrain"


def test_an_alarm_must_have_lasted_as_long_as_the_job_says():
    drifted = {"features drifted": START}
    assert chosen(drifted, at=START + timedelta(days=1)).job is None
    assert chosen(drifted, at=START + timedelta(days=2)).alarms == ("features drifted",)


def test_it_is_said_why_none_is_started():
    assert chosen({}).reason == "no alarm is raised"
    assert "no job is for fallback" in chosen({"fallback": START}).reason
    assert "data is too old" in chosen(EXCEEDED, obstacles=["the data is too old"]).reason
    recent = START - timedelta(days=4)
    assert "cool-down of 5d lasts until 2026-01-02" in chosen(EXCEEDED, [recent]).reason
    many = [START - timedelta(days=day) for day in (6, 12, 18)]
    assert "no more than 3 may be" in chosen(EXCEEDED, many).reason
    many[2] = START - timedelta(days=30)
    assert chosen(EXCEEDED, many).job is not None
