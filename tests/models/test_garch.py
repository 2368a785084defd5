"""GARCH estimation recovers a known truth; the filter is the textbook recursion, gaps included.

(Published fits and filters of other packages: test_golden_garch.py.)
"""

import warnings
from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from margincast.models.garch import (
    GarchParameters,
    bridged_variance,
    diurnal_factors,
    estimate_garch,
    expected_variances,
    filter_variance,
    hour_of_step,
    median_parameters,
)

TRUTH = GarchParameters(
    mean=0.0001, omega=2e-6, alpha=0.06, gamma=0.06, beta=0.88, degrees_of_freedom=5.0
)
HOUR = 3_600_000_000

parameters_of = st.builds(
    lambda mean, omega, alpha, gamma, beta: GarchParameters(
        mean, omega, alpha, gamma, beta * (1 - alpha - gamma / 2), 5.0
    ),
    mean=st.floats(-1e-3, 1e-3),
    omega=st.floats(1e-9, 1e-4),
    alpha=st.floats(0.0, 0.5),
    gamma=st.floats(0.0, 0.5),
    beta=st.floats(0.0, 1.0),
)


def simulated(truth: GarchParameters, steps: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    dof = truth.degrees_of_freedom
    shocks = rng.standard_t(dof, steps) * np.sqrt((dof - 2) / dof)
    returns, variance = np.empty(steps), truth.omega / (1 - truth.persistence)
    for i, shock in enumerate(shocks):
        residual = np.sqrt(variance) * shock
        returns[i] = truth.mean + residual
        weight = truth.alpha + truth.gamma * (residual < 0)
        variance = truth.omega + weight * residual**2 + truth.beta * variance
    return returns


def obvious_filter(returns, steps, parameters, first_variance, long_run_variance):
    """The slow twin of ``filter_variance``: one step at a time, missing ones by expectation."""
    result, variance = [], first_variance
    for value, spanned in zip(returns, steps, strict=True):
        ceiling = max(variance, long_run_variance)
        for _ in range(spanned - 1):
            variance = parameters.omega + parameters.persistence * variance
        if spanned > 1:
            variance = min(variance, ceiling)
        residual = (value - spanned * parameters.mean) / spanned**0.5
        weight = parameters.alpha + parameters.gamma * (residual < 0)
        variance = parameters.omega + weight * residual**2 + parameters.beta * variance
        result.append(variance)
    return np.array(result)


@given(
    parameters_of,
    st.lists(
        st.tuples(st.floats(-0.3, 0.3), st.one_of(st.just(1), st.integers(1, 40))),
        min_size=0,
        max_size=30,
    ),
    st.floats(1e-8, 1e-2),
    st.floats(1e-8, 1e-2),
)
def test_the_filter_is_the_textbook_recursion(parameters, history, first, long_run):
    returns = np.array([value for value, _ in history])
    steps = np.array([spanned for _, spanned in history], dtype=np.int64)
    filtered = filter_variance(returns, steps, parameters, first, long_run)
    expected = obvious_filter(returns, steps, parameters, first, long_run)
    np.testing.assert_allclose(filtered, expected, rtol=1e-9)


def test_a_filter_that_goes_on_has_the_bits_of_one_that_never_stopped():
    returns = simulated(TRUTH, 500, seed=1)
    steps = np.ones(500, dtype=np.int64)
    steps[[40, 41, 300]] = [5, 2, 70]
    whole = filter_variance(returns, steps, TRUTH, 1e-4, 1e-4)
    for cut in (1, 40, 41, 299, 300, 301, 499):
        before = filter_variance(returns[:cut], steps[:cut], TRUTH, 1e-4, 1e-4)
        after = filter_variance(returns[cut:], steps[cut:], TRUTH, float(before[-1]), 1e-4)
        np.testing.assert_array_equal(np.append(before, after), whole)


def test_expected_variances_are_the_means_of_simulated_ones():
    rng = np.random.default_rng(2)
    paths, start = 400_000, 3e-4
    variance = np.full(paths, start)
    expected = islice(expected_variances(np.array([start]), TRUTH), 6)
    for ahead, forecast in enumerate(expected):
        assert variance.mean() == pytest.approx(forecast[0], rel=0.003 * (1 + ahead))
        residuals = np.sqrt(variance) * rng.normal(size=paths)
        weights = TRUTH.alpha + TRUTH.gamma * (residuals < 0)
        variance = TRUTH.omega + weights * residuals**2 + TRUTH.beta * variance


def test_a_missing_stretch_moves_the_variance_towards_its_mean():
    mean = TRUTH.omega / (1 - TRUTH.persistence)
    for start in (mean / 10, mean * 10):
        path = [bridged_variance(start, missing, TRUTH, mean) for missing in range(300)]
        assert path[0] == start
        assert (np.diff(np.abs(np.array(path) - mean)) <= 0).all()
        assert path[-1] == pytest.approx(mean, rel=1e-3)


def test_an_integrated_variance_does_not_grow_for_ever_while_prices_are_missing():
    integrated = GarchParameters(0.0, 1e-6, 0.1, 0.0, 0.9, 4.0)
    assert integrated.persistence == 1
    assert bridged_variance(1e-4, 10, integrated, 1.0) == pytest.approx(1.1e-4)
    assert bridged_variance(1e-4, 10_000, integrated, 3e-4) == 3e-4
    assert bridged_variance(1e-4, 10_000, integrated, 1e-5) == 1e-4


@pytest.mark.parametrize("asymmetric", [False, True])
def test_estimation_recovers_the_truth(asymmetric):
    truth = TRUTH if asymmetric else GarchParameters(0.0, 2e-6, 0.08, 0.0, 0.9, 5.0)
    estimate = estimate_garch(simulated(truth, 30_000, seed=3), asymmetric=asymmetric)
    found = estimate.parameters
    assert estimate.converged
    assert found.alpha == pytest.approx(truth.alpha, abs=0.015)
    assert found.gamma == pytest.approx(truth.gamma, abs=0.025)
    assert found.beta == pytest.approx(truth.beta, abs=0.02)
    assert found.degrees_of_freedom == pytest.approx(truth.degrees_of_freedom, rel=0.08)
    unconditional = found.omega / (1 - found.persistence)
    assert unconditional == pytest.approx(truth.omega / (1 - truth.persistence), rel=0.15)


def test_a_market_of_any_size_has_the_same_dynamics():
    returns = simulated(TRUTH, 3000, seed=4)
    base = estimate_garch(returns, asymmetric=True)
    for factor in (2.0**-20, 2.0**10):
        scaled = estimate_garch(returns * factor, asymmetric=True)
        assert scaled.parameters == base.parameters.rescaled(factor)
        shift = scaled.log_likelihood - base.log_likelihood
        assert shift == pytest.approx(-len(returns) * np.log(factor), rel=1e-9)


def test_estimation_leaves_the_warning_filters_as_they_were():
    before = list(warnings.filters)
    estimate_garch(simulated(TRUTH, 600, seed=5), asymmetric=False)
    assert list(warnings.filters) == before


def test_median_and_average_are_taken_parameter_by_parameter():
    a = GarchParameters(0.0, 1.0, 0.1, 0.0, 0.8, 3.0)
    b = GarchParameters(1.0, 2.0, 0.2, 0.1, 0.7, 4.0)
    c = GarchParameters(5.0, 9.0, 0.0, 0.5, 0.5, 9.0)
    assert median_parameters([a, b, c]) == GarchParameters(1.0, 2.0, 0.1, 0.1, 0.7, 4.0)
    mixed = a.averaged(b, 0.75)
    assert mixed.omega == pytest.approx(1.25)
    assert mixed.persistence == pytest.approx(0.75 * a.persistence + 0.25 * b.persistence)


def test_a_step_belongs_to_the_hour_that_it_ends_in():
    midnight = 20_000 * 24 * HOUR
    ends = midnight + np.array([1, HOUR, HOUR + 1, 24 * HOUR, 24 * HOUR + HOUR // 2])
    assert hour_of_step(ends).tolist() == [0, 0, 1, 23, 0]


def test_the_rhythm_of_the_day_is_recovered_and_a_short_history_trusted_little():
    rng = np.random.default_rng(6)
    truth = 1 + 0.4 * np.sin(2 * np.pi * np.arange(24) / 24)
    truth /= np.sqrt((truth**2).mean())
    hours = np.tile(np.arange(24), 2000)
    sizes = truth[hours] * np.abs(rng.normal(size=len(hours)))
    sizes /= sizes.mean()
    np.testing.assert_allclose(diurnal_factors(sizes, hours, 2000), truth, rtol=0.06)
    short = diurnal_factors(sizes[:48], hours[:48], 2)
    assert np.abs(short - 1).max() < 0.25
    assert (short**2).mean() == pytest.approx(1.0)


def test_hours_without_a_return_have_no_rhythm_of_their_own():
    factors = diurnal_factors(np.array([1.0, 1.0, 1.0]), np.array([3, 7, 11]), 1)
    np.testing.assert_allclose(factors, 1.0)
