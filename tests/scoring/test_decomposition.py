"""Decomposition of the pinball loss: isotonic recalibration is exact, and the parts add up."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.optimize import linprog

from margincast.core.errors import InputError
from margincast.scoring.decomposition import decompose_pinball, isotonic_quantile
from margincast.scoring.pinball import mean_pinball

VALUES = st.integers(0, 20).map(lambda value: value / 25)  # ties are the rule
PAIRS = st.lists(st.tuples(VALUES, VALUES), min_size=1, max_size=25).map(
    lambda pairs: np.array(pairs).T
)
LEVELS = st.sampled_from([0.55, 0.75, 0.9, 0.95, 0.99, 0.987654])


def least_isotonic_loss(outcome, forecast, level):
    """Solve the isotonic quantile regression as a linear programme, without any cleverness."""
    distinct, group = np.unique(forecast, return_inverse=True)
    size, values = outcome.size, distinct.size
    cost = np.concatenate([np.zeros(values), np.full(size, level), np.full(size, 1.0 - level)])
    equal = np.hstack([np.eye(values)[group], np.eye(size), -np.eye(size)])
    rising = np.zeros((max(values - 1, 1), cost.size))
    for row in range(values - 1):
        rising[row, [row, row + 1]] = 1.0, -1.0
    bounds = [(None, None)] * values + [(0.0, None)] * (2 * size)
    solved = linprog(
        cost,
        A_ub=rising,
        b_ub=np.zeros(len(rising)),
        A_eq=equal,
        b_eq=outcome,
        bounds=bounds,
        method="highs",
    )
    return solved.fun / size


@given(PAIRS, LEVELS)
def test_recalibration_is_optimal_and_monotone(pairs, level):
    outcome, forecast = pairs
    found = isotonic_quantile(outcome, forecast, level)
    order = np.argsort(forecast, kind="stable")
    assert np.all(np.diff(found[order]) >= 0.0)
    assert np.isin(found, outcome).all()
    for value in np.unique(forecast):
        assert np.unique(found[forecast == value]).size == 1
    least = least_isotonic_loss(outcome, forecast, level)
    assert mean_pinball(outcome, found, level) == pytest.approx(least, abs=1e-10)


@given(PAIRS, LEVELS)
def test_parts_add_up_and_are_not_negative(pairs, level):
    found = decompose_pinball(*pairs, level)
    assert min(found.miscalibration, found.discrimination, found.uncertainty) >= 0.0
    total = found.miscalibration - found.discrimination + found.uncertainty
    assert found.score == pytest.approx(total, abs=1e-12)


@given(PAIRS, LEVELS)
def test_only_the_order_of_forecasts_discriminates(pairs, level):
    outcome, forecast = pairs
    one = decompose_pinball(outcome, forecast, level)
    other = decompose_pinball(outcome, 0.1 + forecast**3 / 2.0, level)
    assert other.discrimination == pytest.approx(one.discrimination, abs=1e-12)
    assert other.uncertainty == one.uncertainty
    constant = decompose_pinball(outcome, np.full_like(forecast, 0.3), level)
    assert constant.discrimination == pytest.approx(0.0, abs=1e-12)


@given(PAIRS, LEVELS, st.integers(0, 1000))
def test_order_of_rows_does_not_matter(pairs, level, seed):
    rows = np.random.default_rng(seed).permutation(pairs.shape[1])
    assert np.array_equal(
        isotonic_quantile(*pairs[:, rows], level), isotonic_quantile(*pairs, level)[rows]
    )


def test_parts_say_what_is_wrong_in_simulation():
    generator = np.random.default_rng(3)
    scale = np.exp(generator.normal(-4.0, 0.5, 20_000))
    law = stats.t(5)
    outcome = scale * law.rvs(scale.size, random_state=generator)
    truth = scale * law.ppf(0.95)
    right = decompose_pinball(outcome, truth, 0.95)
    small = decompose_pinball(outcome, 0.5 * truth, 0.95)
    blind = decompose_pinball(outcome, np.full_like(truth, np.quantile(outcome, 0.95)), 0.95)
    assert right.miscalibration < 0.02 * right.score
    assert small.miscalibration > 0.1 * small.score
    assert small.discrimination == right.discrimination > 0.1 * right.uncertainty
    assert blind.miscalibration < 1e-9
    assert blind.discrimination < 1e-9


def test_unusable_input_is_refused():
    with pytest.raises(InputError, match="pair one to one"):
        decompose_pinball(np.array([0.1, 0.2]), np.array([0.1]), 0.95)
    with pytest.raises(InputError, match="level"):
        isotonic_quantile(np.array([0.1]), np.array([0.1]), 1.0)
