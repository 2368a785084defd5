"""The clock by hand, through the week, and beside pandas' own."""

import math
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from margincast.core.errors import InputError
from margincast.features import calendar

MONDAY = datetime(2026, 1, 5, tzinfo=UTC)
TIMES = st.datetimes(datetime(2017, 1, 1), datetime(2035, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001  # hypothesis adds the time zone itself


def at(times, expression):
    frame = pl.DataFrame({"ts": times}, schema={"ts": pl.Datetime("us", "UTC")}).with_columns(
        pl.col("ts").first().alias(calendar.FIRST_CLOSE)
    )
    return frame.select(expression.alias("value"))["value"].to_list()


def hours(*after_monday):
    return [MONDAY + timedelta(hours=hour) for hour in after_monday]


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        # Monday 00:00, Monday 07:30, Thursday 12:00, Saturday 00:00, Sunday 23:00
        (calendar.is_weekend(), [0.0, 0.0, 0.0, 1.0, 1.0]),
        (calendar.hours_to_funding(8), [8.0, 0.5, 4.0, 8.0, 1.0]),
        (calendar.hours_to_funding(1), [1.0, 0.5, 1.0, 1.0, 1.0]),
        (calendar.days_since_listing(4), [0.0, 7.5 / 24, 3.5, 4.0, 4.0]),
        (calendar.hour_of_week_cosine(), [1.0, math.cos(math.pi * 7.5 / 84), -1.0,
                                          math.cos(math.pi * 120 / 84), math.cos(math.pi / 84)]),
        (calendar.hour_of_week_sine(), [0.0, math.sin(math.pi * 7.5 / 84), 0.0,
                                        math.sin(math.pi * 120 / 84), -math.sin(math.pi / 84)]),
    ],
    ids=["weekend", "funding 8 h", "funding 1 h", "listing", "cosine", "sine"],
)  # fmt: skip
def test_worked_by_hand(expression, expected):
    assert at(hours(0, 7.5, 84, 120, 167), expression) == pytest.approx(expected, abs=1e-12)


@given(st.lists(TIMES, min_size=1, max_size=30).map(sorted))
def test_every_time_equals_pandas_clock(times):
    index = pd.DatetimeIndex(times)
    week = (index - index.normalize()) / pd.Timedelta(hours=1) + 24 * index.day_of_week
    np.testing.assert_allclose(at(times, calendar.hour_of_week()), week, rtol=1e-12)
    np.testing.assert_array_equal(at(times, calendar.is_weekend()), index.day_of_week >= 5)
    sine, cosine = (
        np.array(at(times, function()))
        for function in (calendar.hour_of_week_sine, calendar.hour_of_week_cosine)
    )
    np.testing.assert_allclose(sine**2 + cosine**2, 1.0, rtol=1e-12)
    angle = np.arctan2(sine, cosine) * 84 / math.pi
    np.testing.assert_allclose(np.cos((angle - week) * math.pi / 84), 1.0, atol=1e-12)
    age = np.minimum((index - index[0]) / pd.Timedelta(days=1), 365)
    np.testing.assert_allclose(at(times, calendar.days_since_listing(365)), age, atol=1e-9)


@given(st.lists(TIMES, min_size=2, max_size=30).map(sorted), st.integers(1, 30))
def test_later_rows_change_nothing_before_them(times, cut):
    for expression in (calendar.days_since_listing(100), calendar.hours_to_funding(8)):
        assert at(times, expression)[:cut] == at(times[:cut], expression)


@given(TIMES)
def test_the_next_funding_is_never_now(time):
    for between in (8, 4, 1):
        due = (pd.Timestamp(time) + pd.Timedelta(1, "us")).ceil(f"{between}h")
        found = at([time], calendar.hours_to_funding(between))[0]
        assert found == pytest.approx((due - pd.Timestamp(time)) / pd.Timedelta(hours=1), abs=1e-12)
        assert 0 < found <= between


def test_no_two_seconds_of_a_day_are_the_same():
    seconds = [MONDAY + timedelta(seconds=10 * number) for number in range(8640)]
    assert len(set(at(seconds, calendar.hour_of_day()))) == len(seconds)
    assert at(hours(*range(24)), calendar.hour_of_day()) == [float(hour) for hour in range(24)]


def test_fundings_some_minutes_apart_fit_a_day():
    assert at(hours(0.05), calendar.hours_to_funding(0.1)) == [pytest.approx(0.05)]
    assert at(hours(0.5), calendar.hours_to_funding(1 / 3)) == [pytest.approx(1 / 6)]


@pytest.mark.parametrize(
    "between",
    [0.0, -8.0, 5.0, 48.0, float("nan"), float("inf"), 1e-12, 0.5 / 3600, 1.7e-3],
)
def test_fundings_that_do_not_fit_a_day_are_refused(between):
    with pytest.raises(InputError, match="divide 24, such as 8, 4 or 1"):
        calendar.hours_to_funding(between)


@pytest.mark.parametrize("most", [0.0, -1.0, float("nan"), float("inf")])
def test_an_age_without_a_bound_is_refused(most):
    with pytest.raises(InputError, match="must be above 0"):
        calendar.days_since_listing(most)
