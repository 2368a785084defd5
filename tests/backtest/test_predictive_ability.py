"""Conditional predictive ability: definition, size, and differences that the mean hides."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from margincast.backtest.comparison import diebold_mariano
from margincast.backtest.predictive_ability import conditional_predictive_ability
from margincast.core.errors import InputError


def losses_of(size, seed):
    return np.random.default_rng(seed).exponential(1.0, (2, size))


@given(st.integers(0, 200), st.integers(10, 60))
def test_one_step_is_n_times_the_uncentred_r_squared(seed, size):
    first, second = losses_of(size, seed)
    difference = first - second
    moments = np.column_stack([np.ones(size - 1), difference[:-1]]) * difference[1:, np.newaxis]
    fitted = moments @ np.linalg.lstsq(moments, np.ones(size - 1))[0]
    found = conditional_predictive_ability(first, second)
    assert found.statistic == pytest.approx(fitted.sum(), rel=1e-8)
    assert found.p_value == pytest.approx(stats.chi2.sf(fitted.sum(), 2), rel=1e-7)
    assert (found.degrees_of_freedom, found.sample_size) == (2, size - 1)


@given(st.integers(0, 200))
def test_a_constant_alone_is_diebold_mariano(seed):
    first, second = losses_of(200, seed)
    found = conditional_predictive_ability(first, second, np.ones((200, 1)))
    square = diebold_mariano(first, second, lag=0).statistic ** 2
    # not centred: the variance holds the squared mean
    assert found.statistic == pytest.approx(square / (1.0 + square / 200), rel=1e-9)


@given(st.integers(0, 100), st.integers(1, 4))
def test_units_and_bases_of_instruments_do_not_matter(seed, steps):
    first, second = losses_of(100, seed)
    instruments = np.random.default_rng(seed).normal(size=(100, 3))
    mixed = 1e-3 * instruments @ np.array([[1.0, 2.0, 0.0], [0.0, 1.0, 1.0], [1.0, 0.0, 1.0]])
    one = conditional_predictive_ability(first, second, instruments, steps=steps)
    other = conditional_predictive_ability(second, first, mixed, steps=steps)
    assert other.statistic == pytest.approx(one.statistic, rel=1e-6)
    assert other.share_second_chosen == pytest.approx(1.0 - one.share_second_chosen)


@pytest.mark.parametrize("steps", [1, 4])
def test_size(steps):
    generator = np.random.default_rng(1)
    rejected = 0
    for shocks in generator.normal(size=(400, 600 + steps - 1)):
        difference = np.convolve(shocks, np.ones(steps), mode="valid")
        found = conditional_predictive_ability(difference, np.zeros(600), steps=steps)
        rejected += found.p_value < 0.05
    # Bartlett weights miss part of the overlap's variance
    assert 0.02 <= rejected / 400 <= (0.09 if steps == 1 else 0.16)


def test_sees_what_the_mean_hides():
    generator = np.random.default_rng(2)
    danger = np.repeat(generator.random(100) < 0.5, 10)
    difference = np.where(danger, 0.5, -0.5) + generator.normal(0.0, 1.0, 1000)
    difference -= difference.mean()
    instruments = np.column_stack([np.ones(1000), danger])
    assert diebold_mariano(difference, np.zeros(1000), lag=0).p_value > 0.99
    found = conditional_predictive_ability(difference, np.zeros(1000), instruments)
    assert found.p_value < 1e-6
    assert found.share_second_chosen == pytest.approx(danger.mean())
    assert found.coefficients[1] > 0.5


def test_equal_losses_and_repeated_instruments_are_defined():
    losses = np.random.default_rng(3).uniform(size=50)
    same = conditional_predictive_ability(losses, losses)
    assert (same.statistic, same.degrees_of_freedom, same.p_value) == (0.0, 0, 1.0)
    certain = conditional_predictive_ability(losses + 1.0, losses)
    assert certain.degrees_of_freedom == 1
    assert certain.p_value < 1e-6
    assert certain.share_second_chosen == 1.0


@pytest.mark.parametrize(
    ("call", "found"),
    [
        (lambda: conditional_predictive_ability(np.ones(5), np.ones(4)), "one length"),
        (lambda: conditional_predictive_ability(np.ones(5), np.ones(5), steps=0), "steps"),
        (lambda: conditional_predictive_ability(np.ones(3), np.ones(3)), "more decisions"),
        (lambda: conditional_predictive_ability(np.ones(9), np.ones(9), np.ones((8, 1))), "row"),
        (lambda: conditional_predictive_ability(np.full(9, np.nan), np.ones(9)), "9 NaN"),
    ],
)
def test_unusable_input_is_refused(call, found):
    with pytest.raises(InputError, match=found):
        call()
