"""Regressions over a window equal numpy's, row by row, and know when they have no value."""

import math
from datetime import timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from margincast.core.errors import InputError
from margincast.features.library import Window
from margincast.features.regression import correlation, residual_deviation, slope

HOUR = timedelta(hours=1)


def window(rows, share=1.0):
    return Window.over(rows * HOUR, HOUR, share)


def two_columns(seed, count=40, gaps=0.15):
    generator = np.random.default_rng(seed)
    x = generator.standard_t(3, count) * 0.01
    y = 0.7 * x + generator.normal(0, 0.01, count)
    frame = pl.DataFrame({"x": x, "y": y})
    return frame.with_columns(
        pl.when(pl.Series(generator.random(count) > gaps)).then(pl.col(name)) for name in "xy"
    )


def evaluate(frame, function, over):
    column = frame.select(function(pl.col("y"), pl.col("x"), over).alias("value"))["value"]
    assert not column.is_nan().any()
    return column.fill_null(float("nan")).to_numpy()


def slow(name, x, y):
    line = np.polyfit(x, y, 1)
    if name == "slope":
        return line[0]
    if name == "correlation":
        return np.corrcoef(x, y)[0, 1]
    return math.sqrt(np.mean((y - np.polyval(line, x)) ** 2))


@pytest.mark.parametrize("function", [slope, correlation, residual_deviation])
@given(
    seed=st.integers(0, 2**32),
    rows=st.integers(3, 30),
    share=st.sampled_from([0.1, 0.7, 1.0]),
)
def test_every_row_equals_numpy_on_the_pairs_of_its_window(function, seed, rows, share):
    frame, over = two_columns(seed), window(rows, share)
    fast = evaluate(frame, function, over)
    x, y = (frame[name].fill_null(float("nan")).to_numpy() for name in "xy")
    for t in range(len(frame)):
        span = slice(max(0, t + 1 - rows), t + 1)
        both = ~np.isnan(x[span]) & ~np.isnan(y[span])
        if both.sum() < max(3, over.minimum):
            assert math.isnan(fast[t])
        else:
            expected = slow(function.__name__, x[span][both], y[span][both])
            power = 2 if function is residual_deviation else 1
            assert fast[t] ** power == pytest.approx(expected**power, rel=1e-9, abs=1e-12)


def test_by_hand():
    frame = pl.DataFrame({"x": [0.0, 1.0, 2.0], "y": [1.0, 1.0, 4.0]})
    # deviations of x -1, 0, 1; of y -1, -1, 2: products 3, squares 2 and 6
    assert evaluate(frame, slope, window(3))[2] == pytest.approx(3 / 2)
    assert evaluate(frame, correlation, window(3))[2] == pytest.approx(3 / math.sqrt(12))
    # the line is 0.5 + 1.5 x: residuals 0.5, -1, 0.5
    assert evaluate(frame, residual_deviation, window(3))[2] == pytest.approx(math.sqrt(0.5))


@given(seed=st.integers(0, 2**32))
def test_a_column_on_itself_is_a_perfect_line(seed):
    frame = two_columns(seed).with_columns(pl.col("x").alias("y"))
    over = window(8, 0.5)
    for function, value in ((slope, 1.0), (correlation, 1.0), (residual_deviation, 0.0)):
        known = evaluate(frame, function, over)
        known = known[~np.isnan(known)]
        assert len(known) > 0
        np.testing.assert_allclose(known, value, atol=1e-8)


@given(seed=st.integers(0, 2**32))
def test_a_jump_that_has_left_the_window_is_forgotten(seed):
    frame = two_columns(seed, 60, 0.0)
    jumped = frame.with_columns(
        pl.when(pl.int_range(pl.len()) == 20).then(0.9).otherwise(pl.col(name)).alias(name)
        for name in "xy"
    )
    for function in (slope, correlation, residual_deviation):
        before, after = (evaluate(f, function, window(6))[30:] for f in (frame, jumped))
        np.testing.assert_allclose(after, before, rtol=1e-6, atol=1e-9)


def test_what_never_varies_explains_nothing():
    still = pl.DataFrame({"x": [0.1] * 9, "y": [0.1, 0.2, 0.3] * 3})
    for function in (slope, correlation, residual_deviation):
        assert np.isnan(evaluate(still, function, window(4))).all()
    turned = still.rename({"x": "y", "y": "x"})
    assert evaluate(turned, slope, window(4))[-1] == pytest.approx(0.0, abs=1e-12)
    assert math.isnan(evaluate(turned, correlation, window(4))[-1])


def test_two_rows_are_too_few():
    with pytest.raises(InputError, match=r"window of 2h has 2 row\(s\)"):
        slope(pl.col("y"), pl.col("x"), window(2))
