"""Ziggel's tests: squared spells by enumeration, exact tails, clusters beside wrong coverage."""

from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from margincast.backtest.monte_carlo import SimulatedExceedances
from margincast.backtest.var_tests.spacings import squared_spacing_moments, squared_spacing_tail
from margincast.backtest.var_tests.ziggel import (
    ziggel_conditional_coverage,
    ziggel_conditional_coverage_statistics,
    ziggel_independence,
    ziggel_unconditional_coverage,
)
from margincast.core.errors import InputError


def all_sums(size, count):
    """Sums of squared spells of every way to place the exceedances."""
    sums = []
    for positions in combinations(range(1, size + 1), count):
        spells = np.diff([0, *positions, size]) if count else np.array([size])
        sums.append(np.sum(spells**2))
    return np.array(sums, float)


@pytest.mark.parametrize("size", [1, 5, 9])
def test_moments_equal_enumeration(size):
    counts = np.arange(size + 1.0)
    mean, variance, third = squared_spacing_moments(counts, size)
    for count in range(size + 1):
        sums = all_sums(size, count)
        assert mean[count] == pytest.approx(sums.mean())
        assert variance[count] == pytest.approx(sums.var(), abs=1e-9)
        deviations = sums - sums.mean()
        assert third[count] == pytest.approx((deviations**3).mean(), rel=1e-8, abs=1e-6)


@pytest.mark.parametrize(("size", "count"), [(250, 4), (500, 10), (500, 50)])
def test_the_gamma_tail_is_near_the_simulated_one(size, count):
    generator = np.random.default_rng(count)
    order = np.argsort(generator.random((2000, size)), axis=1)[:, :count]
    positions = np.sort(order, axis=1) + 1
    sums = (np.diff(positions, axis=1, prepend=0, append=size) ** 2).sum(axis=1).astype(float)
    tail = squared_spacing_tail(sums, np.full(2000, float(count)), size)
    for significance in (0.01, 0.05, 0.2):
        error = 3.0 * np.sqrt(significance * (1 - significance) / 2000) + 0.006
        assert np.mean(tail < significance) == pytest.approx(significance, abs=error)


def test_the_statistic_is_the_sum_of_squared_spells():
    hits = np.zeros(20, bool)
    hits[[3, 4, 11]] = True  # the fourth, fifth and twelfth decision
    result = ziggel_independence(hits, 0.9)
    assert result.statistic == 4**2 + 1 + 7**2 + 8**2


@pytest.mark.parametrize("alternative", ["two-sided", "greater", "less"])
def test_coverage_p_values_equal_slow_sums(alternative):
    size, level = 300, 0.97
    law = stats.binom(size, 1 - level)
    every = np.arange(size + 1)
    for count in (0, 3, 9, 15, 40):
        hits = np.arange(size) < count
        wrong = {
            "two-sided": np.abs(every - 9.0) >= abs(count - 9.0),
            "greater": every >= count,
            "less": every <= count,
        }[alternative]
        result = ziggel_unconditional_coverage(hits, level, alternative=alternative)
        assert result.p_value == pytest.approx(law.pmf(every[wrong]).sum(), rel=1e-9)
        assert result.statistic == count


def test_the_joint_p_value_equals_enumeration_of_all_sequences():
    size, level = 12, 0.8
    every = (np.arange(2**size)[:, np.newaxis] >> np.arange(size)) % 2 == 1
    counts = every.sum(axis=1)
    probability = (1 - level) ** counts * level ** (size - counts)
    statistics = ziggel_conditional_coverage_statistics(every, level)
    for row in (0, 7, 0b111, 0b100100100, 0b111111000):
        exact = probability[statistics >= statistics[row] - 1e-12].sum()
        found = ziggel_conditional_coverage(every[row], level).p_value
        # few exceedances: the gamma law is at its worst here
        assert found == pytest.approx(exact, abs=0.08)


def test_independence_keeps_its_size_where_coverage_is_wrong_and_sees_clusters():
    generator = np.random.default_rng(9)
    rates = [
        ziggel_independence(generator.random(1000) < 0.05, 0.99).verdict == "fail"
        for _ in range(300)
    ]
    assert 0.02 < np.mean(rates) < 0.085
    clustered = np.zeros(5000, bool)
    clustered[2000:2100:2] = True
    for test in (ziggel_independence, ziggel_conditional_coverage):
        assert test(clustered, 0.99).verdict == "fail"
        assert test(clustered, 0.99, monte_carlo=SimulatedExceedances()).verdict == "fail"
    assert ziggel_unconditional_coverage(clustered, 0.99).verdict != "fail"
    evenly = np.arange(5000) % 100 == 50
    assert ziggel_independence(evenly, 0.99).p_value > 0.99


def test_weight_moves_the_joint_test_from_clusters_to_the_count():
    hits = np.zeros(1000, bool)
    hits[:10] = True
    by_weight = [ziggel_conditional_coverage(hits, 0.99, weight=a).p_value for a in (0.0, 0.5, 0.9)]
    assert by_weight == sorted(by_weight)
    assert by_weight[0] < 1e-6
    with pytest.raises(InputError, match="weight"):
        ziggel_conditional_coverage(hits, 0.99, weight=1.0)


@pytest.mark.parametrize("count", [0, 1])
def test_independence_of_fewer_than_two_is_not_defined(count):
    result = ziggel_independence(np.arange(500) < count, 0.99)
    assert np.isnan(result.p_value)
    assert result.reason
