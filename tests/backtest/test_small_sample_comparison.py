"""The small-sample form of Diebold-Mariano: what differs from the Bartlett form, and its size."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from margincast.backtest.comparison import diebold_mariano, harvey_leybourne_newbold
from margincast.core.errors import InputError


@given(st.integers(0, 200), st.integers(5, 60))
def test_without_overlap_it_is_the_t_test(seed, size):
    first, second = np.random.default_rng(seed).exponential(1.0, (2, size))
    found = harvey_leybourne_newbold(first, second, horizon_decisions=1)
    slow = stats.ttest_1samp(first - second, 0.0)
    assert found.statistic == pytest.approx(slow.statistic, rel=1e-9)
    assert found.p_value == pytest.approx(slow.pvalue, rel=1e-9)
    assert found.lag == 0
    other = diebold_mariano(first, second, lag=0)
    assert abs(found.statistic) < abs(other.statistic)
    assert found.mean_difference == other.mean_difference


def test_size_in_small_samples_under_overlap():
    rejected = []
    for shocks in np.random.default_rng(1).normal(size=(400, 82)):
        differences = np.convolve(shocks, np.ones(3), mode="valid")
        found = harvey_leybourne_newbold(differences, np.zeros(80), horizon_decisions=3)
        rejected.append(found.p_value < 0.05)
    assert 0.02 <= np.mean(rejected) <= 0.1


def test_a_negative_variance_is_not_known_and_equal_losses_are_no_difference():
    swinging = np.tile([1.0, -1.0], 10)
    found = harvey_leybourne_newbold(swinging + 0.1, np.zeros(20), horizon_decisions=2)
    assert found.mean_difference == pytest.approx(0.1)
    assert np.isnan([found.standard_error, found.statistic, found.p_value]).all()
    same = harvey_leybourne_newbold(swinging, swinging, horizon_decisions=2)
    assert (same.statistic, same.p_value) == (0.0, 1.0)


@pytest.mark.parametrize("horizon", [0, 10, 12])
def test_a_horizon_as_long_as_the_sample_is_refused(horizon):
    with pytest.raises(InputError, match="horizon_decisions"):
        harvey_leybourne_newbold(np.ones(10), np.zeros(10), horizon_decisions=horizon)
