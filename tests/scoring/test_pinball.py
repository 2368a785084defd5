"""Pinball loss: a proper score of the quantile, in the outcome's unit."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from margincast.core.errors import InputError
from margincast.scoring.coverage import shortfall
from margincast.scoring.pinball import mean_pinball, pinball_loss

LEVELS = st.floats(0.51, 0.9999)
FRACTIONS = st.floats(-0.9, 0.9)
PAIRS = st.lists(st.tuples(FRACTIONS, FRACTIONS), min_size=1, max_size=40).map(
    lambda pairs: np.array(pairs).T
)


@given(PAIRS, LEVELS)
def test_equals_the_lower_tail_form_of_returns(pairs, level):
    outcome, forecast = pairs
    returns, value_at_risk = -outcome, -forecast
    lower_tail = ((1.0 - level) - (returns <= value_at_risk)) * (returns - value_at_risk)
    assert pinball_loss(outcome, forecast, level) == pytest.approx(lower_tail, abs=1e-15)


@given(PAIRS, LEVELS)
def test_is_the_cost_of_margin_plus_the_shortfall(pairs, level):
    outcome, forecast = pairs
    parts = (1.0 - level) * (forecast - outcome) + shortfall(outcome, forecast)
    assert pinball_loss(outcome, forecast, level) == pytest.approx(parts, abs=1e-15)


@given(PAIRS, LEVELS)
def test_is_zero_only_where_forecast_and_outcome_agree(pairs, level):
    outcome, forecast = pairs
    losses = pinball_loss(outcome, forecast, level)
    assert np.all(losses >= 0.0)
    assert np.array_equal(losses > 0.0, outcome != forecast)


@given(PAIRS, LEVELS, st.floats(0.01, 1.0))
def test_scales_with_its_inputs(pairs, level, factor):
    outcome, forecast = pairs
    scaled = pinball_loss(factor * outcome, factor * forecast, level)
    assert scaled == pytest.approx(factor * pinball_loss(outcome, forecast, level), abs=1e-15)


@given(st.lists(st.floats(0.0, 0.9), min_size=5, max_size=60), LEVELS, st.floats(0.0, 0.9))
def test_no_constant_beats_the_sample_quantile(outcomes, level, other):
    outcome = np.array(outcomes)
    best = np.quantile(outcome, level, method="inverted_cdf")
    of_quantile = mean_pinball(outcome, np.full_like(outcome, best), level)
    of_other = mean_pinball(outcome, np.full_like(outcome, other), level)
    assert of_quantile <= of_other + 1e-12


@pytest.mark.parametrize("level", [0.95, 0.99, 0.999])
def test_the_true_conditional_quantile_wins_in_simulation(level):
    generator = np.random.default_rng(11)
    scale = np.exp(generator.normal(-4.5, 0.4, 400_000))
    law = stats.t(5)
    outcome = np.maximum(0.0, scale * law.rvs(scale.size, random_state=generator))
    truth = scale * law.ppf(level)
    of_truth = mean_pinball(outcome, truth, level)
    rivals = [0.85 * truth, 1.2 * truth, np.full_like(truth, np.quantile(outcome, level))]
    assert all(of_truth < mean_pinball(outcome, rival, level) for rival in rivals)


def test_integer_weights_are_repetitions():
    outcome, forecast = np.array([0.01, 0.05, 0.02]), np.array([0.03, 0.02, 0.02])
    counts = np.array([1, 2, 4])
    repeated = mean_pinball(np.repeat(outcome, counts), np.repeat(forecast, counts), 0.99)
    weighted = mean_pinball(outcome, forecast, 0.99, weights=counts.astype(float))
    assert weighted == pytest.approx(repeated, rel=1e-14)


def test_equal_weights_are_no_weights():
    outcome, forecast = np.array([0.01, 0.05]), np.array([0.03, 0.02])
    unweighted = mean_pinball(outcome, forecast, 0.99)
    assert mean_pinball(outcome, forecast, 0.99, np.full(2, 7.0)) == pytest.approx(unweighted)


@pytest.mark.parametrize(
    ("weights", "found"),
    [
        ([1.0], r"shape \(1,\)"),
        ([1.0, -1.0], "smallest of -1"),
        ([0.0, 0.0], "sum of 0"),
        ([1.0, np.nan], "1 NaN"),
    ],
)
def test_unusable_weights_are_refused(weights, found):
    with pytest.raises(InputError, match=found):
        mean_pinball(np.array([0.01, 0.02]), np.array([0.02, 0.02]), 0.99, np.array(weights))
