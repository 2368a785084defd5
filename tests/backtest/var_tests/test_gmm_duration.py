"""GMM duration tests: orthonormal moments, what each version sees, laws in long samples."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from margincast.backtest.monte_carlo import SimulatedExceedances
from margincast.backtest.var_tests.gmm_duration import (
    geometric_polynomials,
    gmm_conditional_coverage,
    gmm_conditional_coverage_statistics,
    gmm_independence,
    gmm_independence_statistics,
    gmm_unconditional_coverage,
    gmm_unconditional_coverage_statistics,
)
from margincast.core.errors import InputError


@pytest.mark.parametrize("probability", [0.01, 0.05, 0.4])
def test_polynomials_are_orthonormal_under_the_geometric_law(probability):
    lengths = np.arange(1.0, 80.0 / probability)
    law = stats.geom.pmf(lengths, probability)
    values = geometric_polynomials(lengths, np.full_like(lengths, probability), 5)
    np.testing.assert_allclose(values @ law, 0.0, atol=1e-9)
    np.testing.assert_allclose((values * law) @ values.T, np.eye(5), atol=1e-8)


def test_first_polynomials_as_printed_in_the_paper():
    d, p = np.arange(1.0, 20.0), 0.1
    first = (1 - p * d) / np.sqrt(1 - p)
    second = ((1 - p) * 3 + p * (2 - d)) / (2 * np.sqrt(1 - p)) * first - 0.5
    values = geometric_polynomials(d, np.full_like(d, p), 2)
    np.testing.assert_allclose(values, [first, second], rtol=1e-12, atol=1e-12)


@given(st.lists(st.booleans(), min_size=2, max_size=80), st.randoms(use_true_random=False))
def test_unconditional_coverage_sees_the_count_alone(hits, shuffler):
    shuffled = hits.copy()
    shuffler.shuffle(shuffled)
    both = np.array([hits, shuffled])
    one, other = gmm_unconditional_coverage_statistics(both, 0.95)
    assert one == pytest.approx(other, rel=1e-9, abs=1e-12)


@given(st.lists(st.booleans(), min_size=2, max_size=80), st.floats(0.6, 0.99))
def test_moments_add_up_and_reversed_time_changes_nothing(hits, level):
    matrix = np.array([hits, hits[::-1]])
    joint = [gmm_conditional_coverage_statistics(matrix, level, k) for k in (2, 3, 5)]
    assert np.all(
        np.diff([gmm_unconditional_coverage_statistics(matrix, level), *joint], axis=0) >= 0
    )
    # closed after the sample, the spells of reversed time are the same ones in reversed order
    for statistics in (*joint, gmm_independence_statistics(matrix, level)):
        assert statistics[0] == pytest.approx(statistics[1], rel=1e-7, abs=1e-9, nan_ok=True)


def test_independence_does_not_hang_on_the_level_and_coverage_does():
    hits = np.random.default_rng(2).random(3000) < 0.05
    assert gmm_independence(hits, 0.95).statistic == gmm_independence(hits, 0.99).statistic
    assert gmm_independence(hits, 0.99).verdict != "fail"
    assert gmm_conditional_coverage(hits, 0.99).verdict == "fail"
    assert gmm_unconditional_coverage(hits, 0.99).verdict == "fail"


def test_the_asymptotic_law_holds_in_long_samples():
    # thousands of spells: the third polynomial's mean converges slowly to the normal law
    hits = np.random.default_rng(8).random((1000, 8000)) < 0.4
    for statistics, degrees_of_freedom in (
        (gmm_unconditional_coverage_statistics(hits, 0.6), 1),
        (gmm_independence_statistics(hits, 0.6), 2),
        (gmm_conditional_coverage_statistics(hits, 0.6), 3),
    ):
        p_values = stats.chi2.sf(statistics, degrees_of_freedom)
        for significance in (0.05, 0.5):
            assert np.mean(p_values < significance) == pytest.approx(significance, abs=0.05)


def test_no_exceedance_is_a_statement_about_coverage_and_none_about_independence():
    none = np.zeros(1000, bool)
    assert gmm_unconditional_coverage(none, 0.99).verdict == "fail"
    assert gmm_conditional_coverage(none, 0.99).verdict == "fail"
    assert np.isnan(gmm_independence(none, 0.99).statistic)
    assert "nothing can cluster" in gmm_independence(np.ones(100, bool), 0.99).reason


@pytest.mark.parametrize("moments", [2, 3, 5])
def test_clusters_are_seen_with_any_number_of_moments(moments):
    hits = np.zeros(5000, bool)
    hits[1000:1040:2] = hits[3000:3060:2] = True
    simulated = SimulatedExceedances()
    for test in (gmm_independence, gmm_conditional_coverage):
        result = test(hits, 0.99, moments=moments, monte_carlo=simulated)
        assert result.verdict == "fail"
        assert result.degrees_of_freedom == moments - (test is gmm_independence)


@pytest.mark.parametrize("test", [gmm_independence, gmm_conditional_coverage])
def test_one_moment_is_refused(test):
    with pytest.raises(InputError, match="moments must be at least 2"):
        test(np.arange(100) < 5, 0.95, moments=1)
