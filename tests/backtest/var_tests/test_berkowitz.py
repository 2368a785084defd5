"""Berkowitz's tests: likelihoods, size, power, and scores from several quantile levels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, special, stats

from margincast.backtest.monte_carlo import SimulatedExceedances
from margincast.backtest.var_tests.berkowitz import (
    _drawn_ratios,
    berkowitz,
    berkowitz_tail,
    scores_of_quantiles,
)
from margincast.core.errors import InputError

LEVELS = (0.95, 0.975, 0.99)
SIMULATED = SimulatedExceedances(299, 5)


def slow_tail(scores, level):
    threshold = stats.norm.ppf(level)
    beyond = scores[scores > threshold]

    def minus(parameters):
        mean, log_scale = parameters
        law = stats.norm(mean, np.exp(log_scale))
        censored = scores.size - beyond.size
        return -(law.logpdf(beyond).sum() + censored * law.logcdf(threshold))

    options = {"xatol": 1e-9, "fatol": 1e-11, "maxiter": 4000}
    best = optimize.minimize(minus, [0.0, 0.0], method="Nelder-Mead", options=options).fun
    return 2.0 * (minus([0.0, 0.0]) - best)


@pytest.mark.parametrize(("seed", "scale"), [(1, 1.0), (2, 1.4), (3, 0.6), (4, 2.5)])
def test_tail_ratio_against_a_plain_optimiser(seed, scale):
    scores = scale * np.random.default_rng(seed).standard_normal(800)
    found = berkowitz_tail(scores, 0.95).statistic
    assert found == pytest.approx(slow_tail(scores, 0.95), abs=1e-6)


@given(st.integers(0, 200))
def test_tail_uses_of_other_scores_only_that_they_are_below(seed):
    scores = np.random.default_rng(seed).standard_normal(300)
    threshold = stats.norm.ppf(0.95)
    below = np.where(scores > threshold, scores, -np.inf)
    assert berkowitz_tail(below, 0.95) == berkowitz_tail(scores, 0.95)


def test_full_ratio_is_the_likelihood_of_an_autoregression():
    generator = np.random.default_rng(6)
    scores = np.zeros(5000)
    for t, shock in enumerate(generator.standard_normal(4999)):
        scores[t + 1] = 0.1 + 0.2 * (scores[t] - 0.1) + 1.1 * shock
    centred = scores - scores.mean()
    slope = (centred[1:] @ centred[:-1]) / (centred @ centred)
    residuals = centred[1:] - slope * centred[:-1]
    free = stats.norm(0.0, np.std(residuals)).logpdf(residuals).sum()
    ratio = 2.0 * (free - stats.norm.logpdf(scores[1:]).sum())
    found = berkowitz(scores)
    assert found.statistic == pytest.approx(ratio, rel=1e-3)
    assert (found.verdict, found.degrees_of_freedom) == ("fail", 3)


@pytest.mark.parametrize("lags", [1, 3])
def test_size_of_the_full_test(lags):
    generator = np.random.default_rng(7)
    drawn = generator.standard_normal((400, 250))
    found = [berkowitz(scores, lags=lags, monte_carlo=SIMULATED) for scores in drawn]
    for name in ("p_value", "monte_carlo_p_value"):
        assert 0.02 <= np.mean([getattr(result, name) < 0.05 for result in found]) <= 0.09
    law = stats.chi2(lags + 2)
    simulated = _drawn_ratios(2000, 1, 250, lags)
    assert np.mean(simulated > law.ppf(0.9)) == pytest.approx(0.1, abs=0.03)


@pytest.mark.parametrize("level", [0.95, 0.99])
def test_size_of_the_tail_test(level):
    drawn = np.random.default_rng(8).standard_normal((200, 500))
    found = [berkowitz_tail(scores, level, monte_carlo=SIMULATED) for scores in drawn]
    for name in ("p_value", "monte_carlo_p_value"):
        assert 0.01 <= np.mean([getattr(result, name) < 0.05 for result in found]) <= 0.11


def test_tail_sees_exceedances_too_far_out_where_their_number_is_right():
    generator = np.random.default_rng(9)
    normal = generator.standard_normal(2000)
    threshold = stats.norm.ppf(0.95)
    stretched = np.where(normal > threshold, threshold + 2.0 * (normal - threshold), normal)
    found = berkowitz_tail(stretched, 0.95, monte_carlo=SIMULATED)
    assert found.verdict == "fail"
    assert berkowitz_tail(normal, 0.95, monte_carlo=SIMULATED).verdict != "fail"
    assert found.exceedances == berkowitz_tail(normal, 0.95).exceedances


def test_no_and_one_exceedance_are_defined():
    quiet = np.full(250, -1.0)
    found = berkowitz_tail(quiet, 0.99, monte_carlo=SIMULATED)
    assert found.statistic == pytest.approx(-500.0 * np.log(0.99))
    assert found.verdict == "no power"
    one = np.append(quiet, 2.5)
    assert berkowitz_tail(one, 0.99).statistic == pytest.approx(slow_tail(one, 0.99), abs=1e-6)
    every = berkowitz_tail(np.linspace(3.0, 4.0, 50), 0.99)
    assert every.verdict == "fail"


def test_impossible_outcomes_and_short_samples_have_a_reason():
    scores = np.random.default_rng(1).standard_normal(100)
    scores[3] = np.inf
    for found in (berkowitz(scores), berkowitz_tail(scores, 0.95)):
        assert np.isnan(found.statistic)
        assert found.reason.startswith("1 scores are infinite")
    censored = np.where(scores > 1.0, scores, -np.inf)
    assert "infinite" in berkowitz(censored).reason
    assert "too few" in berkowitz(scores[4:8]).reason
    assert "all equal" in berkowitz(np.zeros(100)).reason


@given(st.integers(0, 100), st.floats(2.0, 6.0))
def test_scores_are_exact_for_a_pareto_tail(seed, power):
    generator = np.random.default_rng(seed)
    scale = np.exp(generator.normal(-4.0, 0.5, 200))
    survival = generator.uniform(size=200)
    outcome = scale * survival ** (-1.0 / power)
    forecasts = scale[:, np.newaxis] * (1.0 - np.array(LEVELS)) ** (-1.0 / power)
    found = scores_of_quantiles(0.1 * outcome, 0.1 * forecasts, LEVELS)
    beyond = outcome > forecasts[:, 0]
    assert np.all(found[~beyond] == -np.inf)
    assert found[beyond] == pytest.approx(-special.ndtri(survival[beyond]), abs=1e-9)


def test_scores_at_the_forecasts_are_those_of_the_levels():
    forecasts = np.array([[0.01, 0.013, 0.02]])
    just_above = forecasts[0] * (1.0 + 1e-12)
    found = scores_of_quantiles(just_above, np.repeat(forecasts, 3, axis=0), LEVELS)
    assert found == pytest.approx(special.ndtri(LEVELS), abs=1e-9)


@pytest.mark.parametrize(
    ("call", "found"),
    [
        (lambda: berkowitz(np.array([0.0, np.nan])), "1 NaN"),
        (lambda: berkowitz(np.zeros((2, 2))), r"shape \(2, 2\)"),
        (lambda: berkowitz(np.zeros(50), lags=0), "lags"),
        (lambda: berkowitz_tail(np.zeros(50), 0.05), "did you mean 0.95"),
        (
            lambda: scores_of_quantiles(np.ones(3) / 9, np.ones((3, 3)) / 9, LEVELS),
            "in 3 of 3 rows",
        ),
        (
            lambda: scores_of_quantiles(np.ones(1) / 9, np.array([[-0.1, 0.1, 0.2]]), LEVELS),
            "not positive",
        ),
        (
            lambda: scores_of_quantiles(np.ones(3) / 9, np.ones((3, 1)) / 9, LEVELS[:1]),
            "at least two",
        ),
    ],
)
def test_unusable_input_is_refused(call, found):
    with pytest.raises(InputError, match=found):
        call()
