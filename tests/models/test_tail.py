"""The Pareto tail is scipy's and recovers a known truth (published fits: test_golden_evt.py)."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import genpareto

from margincast.core.errors import InsufficientHistoryError
from margincast.models.tail import (
    LARGEST_SHAPE,
    MINIMUM_EXCEEDANCES,
    RESIDUAL_SHAPE,
    GeneralisedPareto,
    ShapePrior,
    fit_generalised_pareto,
    fit_shrunken_pareto,
    log_likelihood,
    profile_log_likelihood,
)

SHAPES = st.one_of(st.just(0.0), st.floats(-0.5, 0.85).filter(lambda shape: abs(shape) > 1e-6))


def likelihood_of(tail: GeneralisedPareto, excesses: np.ndarray) -> float:
    return float(genpareto.logpdf(excesses, tail.shape, scale=tail.scale).sum())


@given(SHAPES, st.floats(1e-3, 1e3), st.floats(1e-4, 1.0))
def test_the_quantile_is_scipys(shape, scale, survival):
    tail = GeneralisedPareto(shape, scale, 100)
    expected = genpareto.isf(survival, shape, scale=scale)
    assert tail.excess_quantile(survival) == pytest.approx(expected, rel=1e-7, abs=1e-9 * scale)


@given(SHAPES, st.floats(1e-3, 1e3), st.floats(1e-3, 1.0))
def test_the_mean_excess_is_that_of_scipys_conditional_tail(shape, scale, survival):
    # beyond a threshold a generalised Pareto is one again, with scale + shape * threshold
    tail = GeneralisedPareto(shape, scale, 100)
    excess = tail.excess_quantile(survival)
    expected = genpareto.mean(shape, scale=scale + shape * excess)
    assert tail.mean_excess_beyond(excess) == pytest.approx(expected, rel=1e-7)


@given(SHAPES, st.floats(1e-3, 1e3))
def test_the_quantile_rises_with_the_level_from_zero(shape, scale):
    tail = GeneralisedPareto(shape, scale, 100)
    quantiles = [tail.excess_quantile(survival) for survival in (1.0, 0.5, 0.1, 0.01, 0.001)]
    assert quantiles[0] == 0.0
    assert (np.diff(quantiles) > 0).all()


@given(st.integers(0, 2**32), st.floats(-0.3, 0.7), st.floats(1e-3, 1e3))
def test_no_nearby_tail_is_more_likely_and_the_unit_does_not_matter(seed, shape, unit):
    rng = np.random.default_rng(seed)
    sample = genpareto.rvs(shape, size=300, random_state=rng) * 0.02
    found = fit_generalised_pareto(sample)
    if found.shape == LARGEST_SHAPE:
        return
    best = likelihood_of(found, sample)
    for shape_step, factor in ((0.01, 1), (-0.01, 1), (0, 1.01), (0, 0.99), (0.01, 0.99)):
        other = GeneralisedPareto(found.shape + shape_step, found.scale * factor, 300)
        assert likelihood_of(other, sample) <= best + 1e-6
    rescaled = fit_generalised_pareto(sample * unit)
    assert rescaled.shape == pytest.approx(found.shape, abs=1e-5)
    assert rescaled.scale == pytest.approx(found.scale * unit, rel=1e-5)


@pytest.mark.parametrize("shape", [-0.2, 0.0, 0.2, 0.5])
def test_a_known_tail_is_recovered_within_its_standard_error(shape):
    rng = np.random.default_rng(int(1000 * (shape + 1)))
    count = 20_000
    found = fit_generalised_pareto(genpareto.rvs(shape, size=count, random_state=rng) * 0.3)
    # asymptotic standard error of the shape, Smith (1987): (1 + shape) / sqrt(n)
    assert found.shape == pytest.approx(shape, abs=3.5 * (1 + shape) / math.sqrt(count))
    true_quantile = genpareto.isf(0.01, shape, scale=0.3)
    assert found.excess_quantile(0.01) == pytest.approx(true_quantile, rel=0.08)


def test_the_tail_of_student_t_has_the_inverse_of_its_degrees_of_freedom_as_shape():
    draws = np.abs(np.random.default_rng(5).standard_t(3, 400_000))
    threshold = np.quantile(draws, 0.995)
    found = fit_generalised_pareto(draws[draws > threshold] / threshold - 1)
    assert found.shape == pytest.approx(1 / 3, abs=0.1)


def test_a_shape_without_a_mean_is_held_and_its_scale_fitted_there():
    sample = genpareto.rvs(1.5, size=2000, random_state=np.random.default_rng(6))
    found = fit_generalised_pareto(sample)
    assert found.shape == LARGEST_SHAPE
    assert math.isfinite(found.mean_excess_beyond(0.0))
    best = likelihood_of(found, sample)
    for factor in (0.99, 1.01):
        other = GeneralisedPareto(found.shape, found.scale * factor, 2000)
        assert likelihood_of(other, sample) < best


def test_the_profile_passes_smoothly_through_the_exponential():
    sample = np.random.default_rng(7).exponential(0.02, 500)
    at_zero = profile_log_likelihood(0.0, sample)
    for theta in (1e-7, -1e-7):
        near = profile_log_likelihood(theta, sample)
        assert near[0] == pytest.approx(at_zero[0], rel=1e-6)
        assert near[2] == pytest.approx(at_zero[2], rel=1e-4)


@given(SHAPES, st.floats(1e-3, 1e3), st.integers(0, 1000))
def test_the_log_likelihood_is_scipys(shape, scale, seed):
    sample = genpareto.rvs(shape, scale=scale, size=60, random_state=seed)
    expected = genpareto.logpdf(sample, shape, scale=scale).sum()
    assert log_likelihood(shape, scale, sample) == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_no_excess_lies_beyond_a_bounded_tail():
    assert log_likelihood(-0.5, 1.0, np.array([0.5, 2.1])) == -math.inf


@pytest.mark.parametrize("shape", [-0.3, 0.0, 0.3])
def test_a_flat_prior_shrinks_nothing(shape):
    sample = genpareto.rvs(shape, size=500, random_state=np.random.default_rng(11)) * 0.3
    free = fit_generalised_pareto(sample)
    flat = fit_shrunken_pareto(sample, len(sample), ShapePrior(0.0, 1e4))
    assert flat.shape == pytest.approx(free.shape, abs=1e-4)
    assert flat.scale == pytest.approx(free.scale, rel=1e-4)


@given(st.floats(-0.3, 0.7), st.floats(1e-3, 1e3), st.integers(0, 1000))
@settings(max_examples=10)
def test_shrinking_moves_the_shape_towards_the_prior_the_more_the_less_is_known(shape, unit, seed):
    sample = genpareto.rvs(shape, size=200, random_state=seed) * unit
    free = fit_shrunken_pareto(sample, 200, ShapePrior(0.2, 1e4)).shape
    shapes = [fit_shrunken_pareto(sample, known).shape for known in (200, 50, 5, 1e-6)]
    distances = np.abs(np.array([free, *shapes]) - RESIDUAL_SHAPE.mean)
    assert (np.diff(distances) <= 1e-6).all()
    assert shapes[-1] == pytest.approx(RESIDUAL_SHAPE.mean, abs=1e-4)


def test_the_scale_is_the_most_likely_one_at_the_shrunken_shape():
    sample = genpareto.rvs(0.6, size=300, random_state=np.random.default_rng(12))
    found = fit_shrunken_pareto(sample, 30)
    best = log_likelihood(found.shape, found.scale, sample)
    for factor in (0.99, 1.01):
        assert log_likelihood(found.shape, found.scale * factor, sample) < best


def test_where_events_are_few_shrinking_brings_the_quantile_nearer_to_the_truth():
    # 40 events, each seen by 10 contracts at once: 400 excesses worth about 40
    errors = {"free": [], "shrunk": []}
    rng = np.random.default_rng(13)
    for shape in rng.normal(RESIDUAL_SHAPE.mean, RESIDUAL_SHAPE.deviation, 60):
        events = genpareto.rvs(shape, size=40, random_state=rng)
        sample = np.repeat(events, 10) * np.exp(rng.normal(0, 0.05, 400))
        truth = genpareto.isf(0.025, shape)
        for name, found in (
            ("free", fit_generalised_pareto(sample)),
            ("shrunk", fit_shrunken_pareto(sample, 40)),
        ):
            errors[name].append(math.log(found.excess_quantile(0.025) / truth))
    assert np.std(errors["shrunk"]) < 0.9 * np.std(errors["free"])


@pytest.mark.parametrize(
    "fit", [fit_generalised_pareto, lambda excesses: fit_shrunken_pareto(excesses, 20)]
)
def test_too_few_exceedances_say_how_many_are_needed(fit):
    with pytest.raises(InsufficientHistoryError, match=r"at least 50 exceedances.*found 49"):
        fit(np.linspace(0.1, 1, MINIMUM_EXCEEDANCES - 1))
