"""The Pareto tail reproduces a published fit, scipy's formulas and a truth that is known."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import genpareto

from margincast.core.errors import InsufficientHistoryError
from margincast.models.tail import (
    LARGEST_SHAPE,
    MINIMUM_EXCEEDANCES,
    GeneralisedPareto,
    fit_generalised_pareto,
    profile_log_likelihood,
)

SHAPES = st.one_of(st.just(0.0), st.floats(-0.5, 0.85).filter(lambda shape: abs(shape) > 1e-6))


@pytest.fixture(scope="module")
def excesses(shared_data) -> np.ndarray:
    """Daily losses of BTCUSDT beyond their 0.95 quantile, 92 of 1826."""
    losses = pd.read_csv(shared_data / "golden" / "inputs" / "btc_daily.csv")["loss"].dropna()
    threshold = losses.quantile(0.95)
    return (losses[losses > threshold] - threshold).to_numpy()


def golden(shared_data, identifier):
    records = json.loads((shared_data / "golden" / "evt.json").read_text())["records"]
    return next(record for record in records if record["id"] == identifier)


def log_likelihood(tail: GeneralisedPareto, excesses: np.ndarray) -> float:
    return float(genpareto.logpdf(excesses, tail.shape, scale=tail.scale).sum())


def test_the_fit_is_the_published_profile_likelihood(shared_data, excesses):
    expected = golden(shared_data, "gpd/mle_profile")["value"]
    found = fit_generalised_pareto(excesses)
    assert found.exceedances == 92
    assert found.shape == pytest.approx(expected["shape"], rel=1e-6)
    assert found.scale == pytest.approx(expected["scale"], rel=1e-6)
    assert -log_likelihood(found, excesses) == pytest.approx(expected["nllh"], rel=1e-9)


@pytest.mark.parametrize("package", ["evir", "fExtremes", "extRemes"])
def test_the_fit_agrees_with_packages_as_far_as_they_agree(shared_data, excesses, package):
    value = golden(shared_data, f"gpd/{package}")["value"]
    shape = value["par"]["shape"] if "par" in value else value["xi"]
    scale = value["par"]["scale"] if "par" in value else value["beta"]
    found = fit_generalised_pareto(excesses)
    assert found.shape == pytest.approx(shape, rel=5e-3)
    assert found.scale == pytest.approx(scale, rel=5e-3)


def test_quantile_and_shortfall_are_the_published_closed_forms(shared_data):
    record = golden(shared_data, "pot/closed_form_on_mle_profile")
    given_to_it = record["args"]
    tail = GeneralisedPareto(given_to_it["shape"], given_to_it["scale"], given_to_it["Nu"])
    for level, key in zip(given_to_it["p"], ("990", "995", "999"), strict=True):
        survival = given_to_it["n"] / given_to_it["Nu"] * (1 - level)
        excess = tail.excess_quantile(survival)
        quantile = given_to_it["u"] + excess
        assert quantile == pytest.approx(record["value"][key]["VaR"], rel=1e-9)
        shortfall = quantile + tail.mean_excess_beyond(excess)
        assert shortfall == pytest.approx(record["value"][key]["ES"], rel=1e-9)


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
    best = log_likelihood(found, sample)
    for shape_step, factor in ((0.01, 1), (-0.01, 1), (0, 1.01), (0, 0.99), (0.01, 0.99)):
        other = GeneralisedPareto(found.shape + shape_step, found.scale * factor, 300)
        assert log_likelihood(other, sample) <= best + 1e-6
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
    best = log_likelihood(found, sample)
    for factor in (0.99, 1.01):
        other = GeneralisedPareto(found.shape, found.scale * factor, 2000)
        assert log_likelihood(other, sample) < best


def test_the_profile_passes_smoothly_through_the_exponential():
    sample = np.random.default_rng(7).exponential(0.02, 500)
    at_zero = profile_log_likelihood(0.0, sample)
    for theta in (1e-7, -1e-7):
        near = profile_log_likelihood(theta, sample)
        assert near[0] == pytest.approx(at_zero[0], rel=1e-6)
        assert near[2] == pytest.approx(at_zero[2], rel=1e-4)


def test_too_few_exceedances_say_how_many_are_needed():
    with pytest.raises(InsufficientHistoryError, match=r"at least 50 exceedances.*found 49"):
        fit_generalised_pareto(np.linspace(0.1, 1, MINIMUM_EXCEEDANCES - 1))
