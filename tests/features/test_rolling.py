"""Rolling statistics against slow loops over the rows of each window."""

from datetime import timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from margincast.features.library import Window, own_row, window_rows
from margincast.features.rolling import rank, rolling_mean, varies

HOUR = timedelta(hours=1)
values = st.lists(st.none() | st.integers(-3, 3).map(float), min_size=1, max_size=40)
windows = st.tuples(st.integers(1, 12), st.sampled_from([0.1, 0.5, 1.0])).map(
    lambda drawn: Window.over(drawn[0] * HOUR, HOUR, drawn[1])
)


def rolled(column, window, function):
    frame = pl.DataFrame({"x": column}, schema={"x": pl.Float64})
    return frame.select(function(pl.col("x"), window).alias("made"))["made"].to_list()


def known_rows(column, window):
    """For each row, the values known in its window."""
    for row in range(len(column)):
        inside = column[max(0, row + 1 - window.rows) : row + 1]
        yield [value for value in inside if value is not None]


@given(values, windows)
def test_the_mean_of_the_rows_known(column, window):
    made = rolled(column, window, rolling_mean)
    for known, mean in zip(known_rows(column, window), made, strict=True):
        if len(known) < window.minimum:
            assert mean is None
        else:
            assert mean == pytest.approx(np.mean(known), abs=1e-12)


@given(values, windows)
def test_the_place_of_the_rows_own_value(column, window):
    made = rolled(column, window, rank)
    for own, known, place in zip(column, known_rows(column, window), made, strict=True):
        if own is None or len(known) < window.minimum:
            assert place is None
        else:
            below = sum(value < own for value in known)
            equal = sum(value == own for value in known)
            assert place == pytest.approx((below + equal / 2) / len(known))


@given(values, windows)
def test_two_values_in_the_window(column, window):
    for known, two in zip(known_rows(column, window), rolled(column, window, varies), strict=True):
        assert bool(two) == (len(set(known)) > 1)


def test_how_far_values_look_back():
    assert window_rows(Window(24, 12, "1d")) == 24
    assert own_row() == own_row(Window(24, 12, "1d")) == own_row(0.5) == 1
