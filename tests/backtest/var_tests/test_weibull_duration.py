"""The Weibull test against a slow likelihood, at its bounds, and against clusters."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import optimize

from margincast.backtest.monte_carlo import SimulatedExceedances
from margincast.backtest.var_tests.duration import (
    LARGEST_SHAPE,
    fit_weibull,
    weibull_duration,
    weibull_duration_statistics,
)

HITS = st.lists(st.booleans(), min_size=2, max_size=150).map(lambda hits: np.array(hits, bool))


def log_likelihood(hits, shape, rate):
    """Christoffersen and Pelletier (2004), equation by equation."""
    times = np.flatnonzero(hits) + 1
    total = 0.0
    for spell in np.diff(times):
        density = rate**shape * shape * spell ** (shape - 1.0)
        total += np.log(density) - (rate * spell) ** shape
    if not hits[0]:
        total -= (rate * times[0]) ** shape
    if not hits[-1]:
        total -= (rate * (hits.size - times[-1])) ** shape
    return total


@given(HITS, st.floats(0.2, 4.0), st.floats(-6.0, 1.0))
def test_no_other_parameters_are_more_likely(hits, shape, log_rate):
    assume(hits.sum() > 1)
    fit = fit_weibull(hits[np.newaxis, :])
    best = fit.log_likelihood[0]
    assert 1e-3 <= fit.shape[0] <= LARGEST_SHAPE
    assert best >= log_likelihood(hits, shape, np.exp(log_rate)) - 1e-9 * abs(best)
    assert best >= fit.memoryless_log_likelihood[0] - 1e-9


@pytest.mark.parametrize("seed", range(5))
def test_the_fit_equals_a_search_over_both_parameters(seed):
    hits = np.random.default_rng(seed).random(400) < 0.06
    found = optimize.minimize(
        lambda x: -log_likelihood(hits, *np.exp(x)),
        x0=[0.0, np.log(hits.mean())],
        method="Nelder-Mead",
        options={"xatol": 1e-10, "fatol": 1e-12, "maxiter": 2000},
    )
    fit = fit_weibull(hits[np.newaxis, :])
    assert fit.shape[0] == pytest.approx(np.exp(found.x[0]), rel=1e-6)
    assert fit.log_likelihood[0] == pytest.approx(-found.fun, rel=1e-10)
    memoryless = optimize.minimize_scalar(lambda x: -log_likelihood(hits, 1.0, np.exp(x)))
    assert fit.memoryless_log_likelihood[0] == pytest.approx(-memoryless.fun, rel=1e-10)


def test_many_sequences_at_once_equal_one_at_a_time():
    hits = np.random.default_rng(6).random((50, 300)) < 0.01
    hits[:2] = [[True], [False]]
    together = weibull_duration_statistics(hits, 0.99)
    alone = np.concatenate([weibull_duration_statistics(row[np.newaxis, :], 0.99) for row in hits])
    np.testing.assert_allclose(together, alone, rtol=1e-9, atol=1e-12)
    assert np.array_equal(np.isnan(together), hits.sum(axis=1) < 2)


@pytest.mark.parametrize("positions", [[], [0], [40], [99]])
def test_fewer_than_two_exceedances_have_no_statistic(positions):
    hits = np.zeros(100, bool)
    hits[positions] = True
    result = weibull_duration(hits, 0.95, monte_carlo=SimulatedExceedances(replications=99))
    assert np.isnan([result.statistic, result.p_value, result.monte_carlo_p_value]).all()
    assert result.verdict == "no power"
    assert result.reason


def test_regular_spacing_runs_to_the_bound_and_fails():
    for hits in (np.arange(1000) % 100 == 50, np.ones(300, bool)):
        assert fit_weibull(hits[np.newaxis, :]).shape[0] == LARGEST_SHAPE
        assert weibull_duration(hits, 0.99).verdict == "fail"


def test_clusters_with_gaps_are_seen():
    # pairs two decisions apart: no two neighbours, so a test of neighbours sees nothing
    hits = np.zeros(5000, bool)
    starts = np.random.default_rng(7).choice(1250, 25, replace=False) * 4
    hits[starts] = hits[starts + 2] = True
    result = weibull_duration(hits, 0.99, monte_carlo=SimulatedExceedances())
    assert fit_weibull(hits[np.newaxis, :]).shape[0] < 0.8
    assert result.verdict == "fail"
