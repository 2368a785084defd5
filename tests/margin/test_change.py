"""A change of a margin is the sum of its parts, whatever happened in between."""

import math
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from margincast.margin.background import Background
from margincast.margin.change import Line, change_between
from margincast.margin.levels import margin_levels
from margincast.margin.override import Override
from margincast.margin.tier_rows import tier_rows
from margincast.specs.loading import load_spec
from margincast.specs.schedule import BaseSchedule
from margincast.specs.serving import MarginPolicy

SERVING = Path(__file__).resolve().parents[2] / "serving"
SCHEDULE = load_spec(SERVING / "schedules" / "perpetuals.toml", BaseSchedule)
POLICY = load_spec(SERVING / "perp-8h.toml", MarginPolicy)
AT = np.datetime64("2024-05-01T12:00", "us")
ROWS = tier_rows(["BTCUSDT"], SCHEDULE, POLICY)
RAISED = Override(
    line=3,
    action="raise",
    mmr=0.08,
    symbol=None,
    side=None,
    tier=None,
    reason="empty books",
    approver="head of risk",
    begins=datetime(2024, 5, 1, tzinfo=UTC),
    expires=datetime(2024, 5, 2, tzinfo=UTC),
)


def row(forecast, long_run=math.nan, *, overridden=False):
    none = Background.none(len(ROWS), AT)
    known = np.full(len(ROWS), long_run)
    background = replace(none, long_run=known, stressed=known)
    levels = margin_levels(
        ROWS,
        {"long": np.array([forecast])},
        POLICY,
        data_age=np.zeros(1, dtype="timedelta64[us]"),
        background=background,
        overrides=[RAISED] if overridden else [],
    )
    return levels.to_dict("records")[0]


MOMENTS = st.tuples(st.floats(1e-3, 0.4) | st.just(math.nan), st.floats(0.01, 0.2), st.booleans())


@settings(max_examples=30)
@given(MOMENTS, MOMENTS)
def test_the_steps_of_two_moments_add_up_to_the_change_between_them(then, now):
    before, after = (
        row(forecast, long_run, overridden=by_hand) for forecast, long_run, by_hand in (then, now)
    )
    change = change_between(before, after)
    assert (change.before, change.after) == (before["mmr"], after["mmr"])
    total = math.fsum(line.change for line in change.lines)
    assert total == pytest.approx(after["mmr"] - before["mmr"], abs=1e-12, rel=0)
    assert math.fsum(change.by_cause().values()) == pytest.approx(change.total, abs=1e-12, rel=0)
    back = change_between(after, before)
    assert back.total == -change.total
    said = {line.what: line.cause for line in change.lines}
    assert said.get("override", "operator") == "operator"
    assert ("fallback" in said) == (before["status"] != "ok" or after["status"] != "ok")


def test_a_change_by_hand():
    # 3 % to 4 %: + 1 % forecast, + 0.1 % buffer, and what rounding adds: 3.487 -> 3.5, 4.587 -> 4.6
    change = change_between(row(0.03), row(0.04))
    moved = {line.what: line.change for line in change.lines if abs(line.change) > 1e-12}
    assert moved == pytest.approx({"forecast": 0.01, "buffer": 0.001})
    assert change.total == pytest.approx(0.011)


def test_what_a_forecast_does_not_explain_is_a_line_of_its_own():
    first = Line("model", "perp-8h/1 -> perp-8h/2", 0.005)
    change = change_between(
        row(0.03),
        row(0.04),
        forecast=[Line("data", "feature a", 0.007), Line("model", "exceedances", 0.002)],
        first=[first],
        start=0.03,
    )
    found = {line.what: line.change for line in change.lines}
    assert found["forecast, numerical remainder"] == pytest.approx(0.001)
    assert change.before == 0.03
    assert change.lines[0] == first
    assert change.by_cause()["model"] == pytest.approx(0.007)
    assert math.fsum(found.values()) == pytest.approx(change.total, abs=1e-12)
