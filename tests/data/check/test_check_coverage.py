"""Gaps are found where rows were taken out, and holes with a period are told as one."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from margincast.data.check.contract import stored_tables
from margincast.data.check.coverage import (
    Step,
    cover,
    coverage_findings,
    present_share,
    usual_step,
)
from margincast.data.check.holes import periodic_holes
from margincast.data.schemas import TIMESTAMP

ORIGIN = datetime(2024, 1, 1, tzinfo=UTC)
MINUTE = Step(timedelta(minutes=1), regular=True)


def frame_of(seconds):
    times = [ORIGIN + timedelta(seconds=float(second)) for second in seconds]
    return pl.DataFrame({"ts": times}, schema={"ts": TIMESTAMP})


def in_blocks(frame, cuts):
    edges = [0, *sorted({cut % len(frame) for cut in cuts} - {0}), len(frame)]
    return [frame[one:other] for one, other in pairwise(edges)]


@given(
    st.sets(st.integers(1, 198), max_size=60),
    st.lists(st.integers(0, 198), max_size=6),
)
def test_every_row_taken_out_is_missing_in_one_gap_however_the_blocks_lie(removed, cuts):
    kept = [minute for minute in range(200) if minute not in removed]
    frame = frame_of(60 * np.array(kept))
    coverage = cover(in_blocks(frame, cuts), MINUTE)
    missing = sum(length / MINUTE.length - 1 for _, length in coverage.gaps)
    assert missing == len(removed)
    assert present_share(coverage) == pytest.approx(len(kept) / 200)
    assert sum(day.rows for day in coverage.days.values()) == len(kept)
    for start, length in coverage.gaps:
        minute = (start - ORIGIN) // timedelta(minutes=1)
        assert minute in kept
        assert set(range(minute + 1, minute + length // timedelta(minutes=1))) <= removed


@given(st.lists(st.integers(0, 499), max_size=8))
def test_usual_step_does_not_hang_on_blocks_and_bears_a_trembling_clock(cuts):
    random = np.random.default_rng(3)
    seconds = np.arange(500) + random.uniform(0, 1e-4, 500)
    assert usual_step(in_blocks(frame_of(seconds), cuts)) == Step(
        timedelta(seconds=1), regular=True
    )


def test_without_a_usual_step_the_median_says_what_a_pause_is():
    random = np.random.default_rng(4)
    seconds = np.cumsum(random.exponential(1.0, 5000))
    seconds[3000:] += 300
    step = usual_step([frame_of(seconds)])
    assert not step.regular
    assert step.length.total_seconds() == pytest.approx(np.log(2), rel=0.05)
    gaps = cover([frame_of(seconds)], step).gaps
    assert len(gaps) == 1
    assert gaps[0][1] > timedelta(seconds=300)


def test_days_without_a_row_stand_in_the_calendar_with_a_share_of_zero():
    coverage = cover([frame_of([0, 60, 3 * 86400])], MINUTE)
    assert [day.share for day in coverage.days.values()][1:3] == [0.0, 0.0]
    assert present_share(coverage) == pytest.approx(3 / (3 * 1440 + 1))


def test_one_row_has_no_step_and_no_gap():
    assert usual_step([frame_of([0])]) is None
    assert cover([frame_of([0])], None).gaps == []


@given(
    st.integers(20, 200),
    st.floats(20, 90),
    st.floats(2, 8),
    st.integers(0, 2**31),
)
def test_holes_with_a_period_are_recognised(number, period, length, seed):
    random = np.random.default_rng(seed)
    starts = np.arange(number) * period + random.uniform(-0.02, 0.02, number) * period
    gaps = [(ORIGIN + timedelta(seconds=one), timedelta(seconds=length)) for one in starts]
    gaps.insert(10, (gaps[9][0] + timedelta(seconds=period / 2), timedelta(seconds=20 * length)))
    holes = periodic_holes(gaps)
    assert holes.period.total_seconds() == pytest.approx(period, rel=0.05)
    assert holes.lengths[1].total_seconds() == pytest.approx(length)
    assert 10 not in holes.members
    assert len(holes.members) == number


@given(st.integers(0, 2**31))
def test_gaps_at_random_have_no_period(seed):
    starts = np.cumsum(np.random.default_rng(seed).exponential(60.0, 200))
    gaps = [(ORIGIN + timedelta(seconds=one), timedelta(seconds=5)) for one in starts]
    assert periodic_holes(gaps) is None


def test_findings_say_where_how_many_and_what_becomes_of_them(write_store, make_bars, start):
    bars = make_bars(100).filter(~pl.int_range(pl.len()).is_between(40, 49))
    (table,) = stored_tables(write_store(("bars_1h", "venue", bars)))
    hour = Step(timedelta(hours=1), regular=True)
    (finding,) = coverage_findings(table, cover(table.blocks(["ts"]), hour))
    assert (finding.count, finding.total) == (10, 100)
    assert finding.first == start + timedelta(hours=39)
    assert finding.action == "left unknown; windows that need them have no value"
    assert (finding.venue, finding.symbol, finding.severity) == ("venue", "ABC", "warning")


def test_a_fast_feed_sends_on_change_and_misses_nothing_by_a_skipped_step():
    step = usual_step([frame_of(np.array([n for n in range(1000) if n % 7]) / 10)])
    assert step == Step(timedelta(milliseconds=100), regular=False)
