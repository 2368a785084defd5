"""Pooled tests: right size where contracts crash together and horizons overlap."""

import numpy as np
import pytest
from scipy.stats import norm

from margincast.backtest.clusters import cluster_covariance
from margincast.backtest.pooled_tests import pooled_coverage, pooled_dynamics, pooled_levels
from margincast.core.errors import InputError

DAYS, CONTRACTS, PER_DAY = 750, 10, 4


def crowd(seed, *, ratio=1.0, level=0.99, memory=0.0):
    """Hits of contracts that share half of every shock; outcomes overlap over two decisions."""
    rng = np.random.default_rng(seed)
    steps = DAYS * PER_DAY
    common = rng.normal(size=(steps + 1, 1))
    own = rng.normal(size=(steps + 1, CONTRACTS))
    shock = (common + own) / np.sqrt(2.0)
    overlapping = (shock[1:] + shock[:-1]) / np.sqrt(2.0)
    if memory:
        for step in range(PER_DAY, steps):
            overlapping[step] += memory * (overlapping[step - PER_DAY] > 2.0)
    hits = overlapping > norm.isf(ratio * (1.0 - level))
    clusters = np.repeat(np.arange(steps) // PER_DAY, CONTRACTS)
    return hits.ravel(), clusters


def rejections(test, seeds=300, **kwargs):
    return np.mean([test(*crowd(seed, **kwargs)).verdict == "fail" for seed in range(seeds)])


def coverage(hits, clusters):
    return pooled_coverage(hits, 0.99, clusters, lag=1)


def test_a_right_margin_is_rejected_about_one_time_in_twenty_though_contracts_crash_together():
    assert 0.02 <= rejections(coverage) <= 0.09


def test_a_binomial_test_of_the_same_exceedances_would_reject_far_too_often():
    naive = []
    for seed in range(100):
        hits, _ = crowd(seed)
        error = np.sqrt(0.01 * 0.99 / hits.size)
        naive.append(abs(hits.mean() - 0.01) > 1.96 * error)
    assert np.mean(naive) > 0.2


def test_twice_the_exceedances_are_seen():
    assert rejections(coverage, seeds=50, ratio=2.0) > 0.95


def test_levels_together_have_their_size_too():
    def several(hits, clusters):
        wilder = crowd_at_two_levels(int(hits.sum()))
        return pooled_levels(wilder, (0.95, 0.99), clusters, lag=1)

    def crowd_at_two_levels(seed):
        lower, _ = crowd(seed, level=0.95)
        upper, _ = crowd(seed, level=0.99)
        return np.column_stack([lower, upper])

    assert 0.01 <= rejections(several, seeds=200) <= 0.1


def test_exceedances_that_follow_exceedances_are_foretold():
    def foretold(hits, clusters):
        steps = hits.reshape(-1, CONTRACTS)
        before = np.zeros(steps.shape)
        before[PER_DAY:] = steps[:-PER_DAY]
        return pooled_dynamics(hits, 0.99, clusters, before.reshape(-1, 1), lag=1)

    assert rejections(foretold, seeds=40, memory=1.0) > 0.9
    assert 0.005 <= rejections(foretold, seeds=200) <= 0.1


def foretold_by_the_last(days):
    def test(hits, clusters):
        steps = hits.reshape(-1, CONTRACTS)[: days * PER_DAY]
        before = np.zeros(steps.shape)
        before[PER_DAY:] = steps[:-PER_DAY]
        known = before.reshape(-1, 1)
        return pooled_dynamics(steps.ravel(), 0.99, clusters[: len(known)], known, lag=1)

    return test


def test_few_exceedances_that_happen_not_to_follow_one_another_foretell_nothing():
    # by their own variance alone they would be sure of it in two cases of three
    assert rejections(foretold_by_the_last(120), seeds=100) <= 0.06


@pytest.mark.parametrize("days", [120, 750])
def test_a_joint_test_passes_no_margin_that_it_could_not_have_refused(days):
    endings = [foretold_by_the_last(days)(*crowd(seed, ratio=1.5)).verdict for seed in range(40)]
    assert endings.count("pass") <= 0.2 * len(endings)
    assert ("no power" if days == 120 else "fail") == max(set(endings), key=endings.count)


def test_covariance_of_independent_rows_is_the_sum_of_their_squares():
    moments = np.random.default_rng(1).normal(size=(5000, 2))
    own = cluster_covariance(moments, np.arange(5000), 0)
    np.testing.assert_allclose(own, moments.T @ moments * 5000 / 4999, rtol=1e-12)


def test_covariance_is_positive_semi_definite_for_any_lag():
    rng = np.random.default_rng(2)
    moments = rng.normal(size=(400, 3)).cumsum(axis=0)
    for lag in (0, 1, 5, 50, 1000):
        covariance = cluster_covariance(moments, rng.integers(0, 40, 400), lag)
        assert np.linalg.eigvalsh(covariance).min() >= -1e-6 * np.trace(covariance)


def test_what_cannot_be_told_is_said():
    few = pooled_coverage(np.ones(10, dtype=bool), 0.99, np.arange(10), lag=1)
    assert (few.verdict, few.reason) == ("no power", "10 clusters of time; at least 100 are needed")
    none = pooled_coverage(np.zeros(100, dtype=bool), 0.99, np.arange(100), lag=1)
    assert none.verdict == "no power"
    assert "exact binomial" in none.reason


def test_a_short_sample_that_could_not_have_seen_it_has_no_power():
    hits = np.zeros(600, dtype=bool)
    hits[[3, 99, 180, 300, 420, 561]] = True
    result = pooled_coverage(hits, 0.99, np.arange(600) // 6, lag=1)
    assert result.verdict == "no power"
    assert "1.5 times" in result.reason


@pytest.mark.parametrize(
    ("hits", "clusters", "message"),
    [
        (np.zeros(0, dtype=bool), np.zeros(0, dtype=int), "non-empty"),
        (np.zeros(3), np.zeros(3, dtype=int), "boolean"),
        (np.zeros(3, dtype=bool), np.zeros(2, dtype=int), "each of the 3"),
        (np.zeros(3, dtype=bool), np.array([0, -1, 2]), "from 0"),
    ],
)
def test_wrong_input_is_named(hits, clusters, message):
    with pytest.raises(InputError, match=message):
        pooled_coverage(hits, 0.99, clusters, lag=1)


def test_every_outcome_beyond_its_forecast_is_an_answer_too():
    always = pooled_coverage(np.ones(400, dtype=bool), 0.99, np.arange(400) // 2, lag=5)
    assert always.verdict == "no power"
    assert "the same share of exceedances every day" in always.reason


def test_a_constant_forecast_is_no_instrument():
    hits, clusters = crowd(3)
    constant = np.full((hits.size, 1), np.log(0.1))
    result = pooled_dynamics(hits, 0.99, clusters, constant, lag=1)
    assert result.degrees_of_freedom == 1
    assert np.isfinite(result.p_value)
