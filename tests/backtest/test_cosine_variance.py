"""Equal-weighted cosines: the plain variance at full freedom, and honest error bars below it."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import signal, special

from margincast.backtest.cosine_variance import cosine_long_run_variance
from margincast.core.errors import InputError

SERIES = st.lists(st.floats(-1.0, 1.0), min_size=2, max_size=60).map(np.array)


@given(SERIES, st.floats(-5.0, 5.0), st.floats(0.1, 10.0))
def test_a_shift_changes_nothing_and_a_unit_counts_squared(values, shift, unit):
    variance, degrees = cosine_long_run_variance(values)
    assert degrees == max(1, int(0.4 * len(values) ** (2 / 3)))
    moved, same = cosine_long_run_variance(unit * (values + shift))
    assert same == degrees
    assert moved == pytest.approx(unit**2 * variance, rel=1e-6, abs=1e-9)


def test_of_two_values_it_is_their_sample_variance():
    variance, degrees = cosine_long_run_variance(np.array([1.0, 4.0]))
    assert (variance, degrees) == (pytest.approx(4.5), 1)


@pytest.mark.parametrize("days", [15, 60, 365])
def test_size_is_near_nominal_with_few_days_that_depend_on_each_other(days):
    generator = np.random.default_rng(days)
    trials, memory = 2000, 0.4
    rejected = 0
    shocks = generator.standard_t(4, size=(trials, days + 20))
    for series in signal.lfilter([1.0], [1.0, -memory], shocks, axis=1)[:, 20:]:
        variance, degrees = cosine_long_run_variance(series)
        statistic = series.mean() / math.sqrt(variance / days)
        rejected += 2 * special.stdtr(degrees, -abs(statistic)) < 0.05
    assert 0.03 < rejected / trials < 0.08


def test_days_without_observation_count_as_time_and_not_as_evidence():
    values = np.random.default_rng(1).normal(size=27)
    with_gap = np.insert(values, 13, np.zeros(200))
    assert cosine_long_run_variance(with_gap, observed=27)[1] == cosine_long_run_variance(values)[1]


def test_one_observation_tells_nothing():
    variance, degrees = cosine_long_run_variance(np.array([1.0]))
    assert math.isnan(variance)
    assert degrees == 0


@pytest.mark.parametrize("values", [np.array([]), np.array([1.0, np.nan]), np.ones((2, 2))])
def test_what_is_no_series_is_refused(values):
    with pytest.raises(InputError):
        cosine_long_run_variance(values)


def test_more_observations_than_values_are_refused():
    with pytest.raises(InputError, match="3 observations"):
        cosine_long_run_variance(np.ones(2), observed=3)
