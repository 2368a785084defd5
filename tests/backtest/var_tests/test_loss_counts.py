"""Lopez's magnitude loss and Pearson's Q."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from margincast.backtest.monte_carlo import SimulatedExceedances
from margincast.backtest.var_tests.loss_counts import lopez_loss, pearson_q
from margincast.backtest.var_tests.multinomial import multinomial
from margincast.core.errors import InputError

PROBABILITIES = st.lists(st.floats(0.0, 1.0), min_size=5, max_size=80).map(np.array)


def test_lopez_counts_and_weighs():
    outcome = np.array([0.01, 0.02, 0.05, 0.02])
    found = lopez_loss(outcome, np.full(4, 0.02))
    assert found == pytest.approx([0.0, 0.0, 1.0 + 9.0, 0.0])  # three per cent beyond
    assert lopez_loss(outcome, np.full(4, 0.02), unit=1.0)[2] == pytest.approx(1.0009)


@given(st.integers(0, 100))
def test_lopez_is_at_least_the_count(seed):
    outcome, forecast = np.random.default_rng(seed).uniform(0.0, 0.1, (2, 50))
    found = lopez_loss(outcome, forecast)
    assert found.sum() >= np.count_nonzero(outcome > forecast)
    assert np.array_equal(found > 0.0, outcome > forecast)


@given(PROBABILITIES)
def test_pearson_is_scipys_chi_squared_of_the_histogram(probabilities):
    edges = [0.25, 0.5, 0.9]
    counts = [
        np.count_nonzero((probabilities > low) & (probabilities <= high))
        for low, high in zip([-1.0, *edges], [*edges, 1.0], strict=True)
    ]
    expected = probabilities.size * np.array([0.25, 0.25, 0.4, 0.1])
    slow = stats.chisquare(counts, expected)
    found = pearson_q(probabilities, edges)
    assert found.statistic == pytest.approx(slow.statistic, rel=1e-9)
    assert found.p_value == pytest.approx(slow.pvalue, rel=1e-9)


def test_with_levels_as_edges_it_is_the_multinomial_test():
    probabilities = np.random.default_rng(1).uniform(size=400)
    levels = (0.9, 0.95, 0.99)
    forecasts = np.tile(levels, (400, 1))
    found = pearson_q(probabilities, levels)
    other = multinomial(probabilities, forecasts, levels, form="pearson")
    assert found.statistic == other.statistic
    assert found.p_value == other.p_value


def test_size_and_power():
    generator = np.random.default_rng(2)
    simulated = SimulatedExceedances(199, 3)
    edges = np.linspace(0.0, 1.0, 11)[1:-1]
    drawn = generator.uniform(size=(300, 250))
    found = [pearson_q(row, edges, monte_carlo=simulated) for row in drawn]
    for name in ("p_value", "monte_carlo_p_value"):
        assert 0.02 <= np.mean([getattr(result, name) < 0.05 for result in found]) <= 0.09
    assert pearson_q(drawn.ravel() ** 1.05, edges).verdict == "fail"


def test_small_bins_have_no_power_and_say_why():
    found = pearson_q(np.linspace(0.01, 0.97, 60), [0.95, 0.99])
    assert found.verdict == "no power"
    assert found.reason == "the smallest bin expects 0.6 decisions, fewer than 5"


@pytest.mark.parametrize(
    ("call", "found"),
    [
        (lambda: lopez_loss(np.zeros(2), np.ones(2) / 9, unit=0.0), "unit"),
        (lambda: pearson_q(np.array([0.5, 1.5]), [0.5]), "to 1.5"),
        (lambda: pearson_q(np.array([0.5, np.nan]), [0.5]), "1 NaN"),
        (lambda: pearson_q(np.array([0.5]), [0.5, 0.5]), "increase"),
        (lambda: pearson_q(np.array([0.5]), [0.0]), "increase"),
        (lambda: pearson_q(np.array([0.5]), []), "at least one"),
    ],
)
def test_unusable_input_is_refused(call, found):
    with pytest.raises(InputError, match=found):
        call()
