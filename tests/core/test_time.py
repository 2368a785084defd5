"""Durations and instants read back as written; spans of a period meet without gap or overlap."""

from datetime import UTC, date, datetime, timedelta, timezone
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from margincast.core.time import (
    add_step,
    format_duration,
    parse_duration,
    parse_instant,
    steps_between,
)

INSTANTS = st.integers(-(10**9), 4 * 10**9).map(
    lambda seconds: datetime(1990, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
)
CALENDAR_STEPS = st.sampled_from(["1mo", "2mo", "1q", "2q", "1y"])
STEPS = st.one_of(CALENDAR_STEPS, st.sampled_from(["90d", "2w", "36h"]))


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("30s", timedelta(seconds=30)),
        ("10m", timedelta(minutes=10)),
        (" 8h ", timedelta(hours=8)),
        ("7d", timedelta(days=7)),
        ("2w", timedelta(days=14)),
    ],
)
def test_durations_are_a_whole_number_and_a_unit(text, duration):
    assert parse_duration(text) == duration


@pytest.mark.parametrize(
    "text", ["", "8", "h", "0h", "-1h", "1.5h", "8 h", "8hours", "1q", 8, None]
)
def test_anything_else_is_refused_with_an_example(text):
    with pytest.raises(ValueError, match=r"is not a duration.*for example '8h'"):
        parse_duration(text)


def test_a_duration_beyond_the_calendar_is_refused():
    with pytest.raises(ValueError, match="write a shorter one"):
        parse_duration("9" * 20 + "w")


@given(st.integers(1, 10**9).map(lambda seconds: timedelta(seconds=seconds)))
def test_a_formatted_duration_reads_back_and_uses_its_largest_unit(duration):
    text = format_duration(duration)
    assert parse_duration(text) == duration
    larger = {"s": "mhd", "m": "hd", "h": "d", "d": ""}[text[-1]]
    assert not any(duration % parse_duration(f"1{unit}") == timedelta(0) for unit in larger)


@pytest.mark.parametrize(
    ("value", "instant"),
    [
        ("2023-01-01", datetime(2023, 1, 1, tzinfo=UTC)),
        (date(2023, 1, 1), datetime(2023, 1, 1, tzinfo=UTC)),
        ("2023-01-01T08:00", datetime(2023, 1, 1, 8, tzinfo=UTC)),
        (datetime.fromisoformat("2023-01-01T08:00"), datetime(2023, 1, 1, 8, tzinfo=UTC)),
        ("2023-01-01T08:00:00+02:00", datetime(2023, 1, 1, 6, tzinfo=UTC)),
        (
            datetime(2023, 1, 1, 8, tzinfo=timezone(timedelta(hours=-5))),
            datetime(2023, 1, 1, 13, tzinfo=UTC),
        ),
    ],
)
def test_instants_are_utc_and_unmarked_ones_are_taken_as_utc(value, instant):
    found = parse_instant(value)
    assert found == instant
    assert found.utcoffset() == timedelta(0)


@pytest.mark.parametrize("text", ["yesterday", "2023-13-01", "01/02/2023", ""])
def test_a_text_that_is_no_instant_is_refused_with_an_example(text):
    with pytest.raises(ValueError, match=r"write ISO 8601, for example '2023-01-01'"):
        parse_instant(text)


@pytest.mark.parametrize(
    ("start", "step", "count", "end"),
    [
        ("2023-11-15", "1q", 1, "2024-02-15"),
        ("2023-01-15", "1mo", -2, "2022-11-15"),
        ("2024-02-29", "1y", 1, "2025-02-28"),
        ("2023-01-31", "1mo", 1, "2023-02-28"),
        ("2023-01-31", "1mo", 2, "2023-03-31"),
        ("2023-05-31", "6y", -1, "2017-05-31"),
        ("2023-01-01", "90d", 1, "2023-04-01"),
    ],
)
def test_a_calendar_step_keeps_the_day_or_takes_the_last_of_a_shorter_month(
    start, step, count, end
):
    assert add_step(parse_instant(start), step, count) == parse_instant(end)


@pytest.mark.parametrize("step", ["monthly", "0mo", "1.5y", "q"])
def test_an_unknown_step_is_refused_with_both_kinds_shown(step):
    with pytest.raises(ValueError, match=r"'8h', or a calendar step such as '1mo'"):
        add_step(parse_instant("2023-01-01"), step)


@pytest.mark.parametrize("step", ["9000y", "4000000d"])
def test_a_step_beyond_the_calendar_is_refused(step):
    with pytest.raises(ValueError, match="write a shorter step"):
        add_step(parse_instant("2023-01-01"), step)


@given(INSTANTS, INSTANTS, STEPS)
def test_spans_partition_the_period_and_none_is_longer_than_a_step(first, second, step):
    start, end = sorted([first, second])
    end = min(end, start + timedelta(days=800))
    spans = steps_between(start, end, step)
    if start == end:
        assert spans == []
        return
    assert spans[0][0] == start
    assert spans[-1][1] == end
    assert all(left < right for left, right in spans)
    assert all(a[1] == b[0] for a, b in pairwise(spans))
    assert all(add_step(start, step, i + 1) == right for i, (_, right) in enumerate(spans[:-1]))
    assert add_step(start, step, len(spans)) >= end
