"""Multinomial tests: published formulas, size, power, and the fit behind the likelihood ratio."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, special, stats

from margincast.backtest.monte_carlo import SimulatedExceedances
from margincast.backtest.var_tests.multinomial import (
    cell_counts,
    cell_probabilities,
    draw_counts,
    multinomial,
    nass_factor,
    statistics_of,
)
from margincast.backtest.var_tests.normal_scores import grouped_log_likelihood
from margincast.core.errors import InputError

LEVELS = (0.95, 0.975, 0.99, 0.995)
FORMS = ("pearson", "nass", "likelihood ratio")
SIMULATED = SimulatedExceedances(299, 4)


def series_of(size, seed, law, model=stats.norm):
    """Outcomes of a law, and forecasts of a model."""
    generator = np.random.default_rng(seed)
    scale = np.exp(generator.normal(-4.0, 0.3, size))
    outcome = scale * law.rvs(size=size, random_state=generator)
    return outcome, scale[:, np.newaxis] * model.ppf(LEVELS)


def test_counts_the_levels_exceeded():
    forecasts = np.tile([0.01, 0.02, 0.03], (5, 1))
    outcome = np.array([0.0, 0.01, 0.015, 0.03, 0.04])
    assert cell_counts(outcome, forecasts).tolist() == [2, 1, 1, 1]
    assert cell_probabilities([0.95, 0.99]) == pytest.approx([0.95, 0.04, 0.01])


@given(st.lists(st.integers(0, 60), min_size=5, max_size=5).filter(any))
def test_statistics_against_scipy(counts):
    observed = np.array(counts, dtype=float)
    promised = cell_probabilities(LEVELS)
    expected = observed.sum() * promised
    pearson = stats.chisquare(observed, expected).statistic
    found = statistics_of(observed[np.newaxis], promised, "pearson")
    assert found[0] == pytest.approx(pearson, rel=1e-9)


def test_nass_factor_gives_the_exact_mean_and_variance():
    promised = cell_probabilities(LEVELS)
    drawn = draw_counts(250, promised, 200_000, np.random.default_rng(1))
    scaled = nass_factor(250, promised) * statistics_of(drawn, promised, "nass")
    assert scaled.var() == pytest.approx(2.0 * scaled.mean(), rel=0.05)


def slow_grouped(counts, thresholds):
    def minus_log_likelihood(parameters):
        mean, log_scale = parameters
        points = (thresholds - mean) / np.exp(log_scale)
        shares = np.diff(np.concatenate([[0.0], special.ndtr(points), [1.0]]))
        return -np.sum(special.xlogy(counts, np.maximum(shares, 1e-300)))

    options = {"xatol": 1e-10, "fatol": 1e-12, "maxiter": 4000}
    return -optimize.minimize(
        minus_log_likelihood, [0.0, 0.0], method="Nelder-Mead", options=options
    ).fun


def test_fit_of_cells_against_a_plain_optimiser():
    promised = cell_probabilities(LEVELS)
    thresholds = special.ndtri(LEVELS)
    drawn = draw_counts(1000, promised, 20, np.random.default_rng(2))
    drawn = np.vstack([drawn, [[900.0, 30.0, 30.0, 20.0, 20.0]]])
    slow = [slow_grouped(counts, thresholds) for counts in drawn]
    assert grouped_log_likelihood(drawn, thresholds) == pytest.approx(slow, abs=1e-6)


@pytest.mark.parametrize(
    ("counts", "limit"),
    [
        ([250.0, 0.0, 0.0, 0.0, 0.0], 0.0),  # mean far below
        ([0.0, 0.0, 0.0, 0.0, 250.0], 0.0),  # mean far above
        # standard deviation without end: all thresholds fall together
        ([200.0, 0.0, 0.0, 0.0, 50.0], 200 * np.log(0.8) + 50 * np.log(0.2)),
        # and without width
        ([0.0, 100.0, 150.0, 0.0, 0.0], 100 * np.log(0.4) + 150 * np.log(0.6)),
    ],
)
def test_fit_reaches_its_limit_where_there_is_no_maximum(counts, limit):
    found = grouped_log_likelihood(np.array([counts]), special.ndtri(LEVELS))
    assert found[0] == pytest.approx(limit, abs=1e-5)
    assert found[0] <= limit + 1e-9


@given(st.integers(0, 300), st.integers(0, 300), st.integers(0, 300))
def test_likelihood_ratio_lies_between_nothing_and_the_saturated_one(first, second, third):
    counts = np.array([[3000.0, first, second, third, 5.0]])
    promised = cell_probabilities(LEVELS)
    found = statistics_of(counts, promised, "likelihood ratio")[0]
    saturated = 2.0 * np.sum(special.rel_entr(counts, counts.sum() * promised))
    assert 0.0 <= found <= saturated + 1e-8


def test_one_level_is_kupiec():
    outcome, forecasts = series_of(500, 3, stats.norm())
    found = multinomial(outcome, forecasts[:, :1], LEVELS[:1], form="likelihood ratio")
    share = found.exceedances / 500
    ratio = share * np.log(share / 0.05) + (1.0 - share) * np.log((1.0 - share) / 0.95)
    assert found.statistic == pytest.approx(1000.0 * ratio, rel=1e-9)
    assert found.degrees_of_freedom == 1


@pytest.mark.parametrize("form", FORMS)
def test_size_and_power(form):
    true, normal = [], []
    for seed in range(300):
        law = stats.norm()
        true.append(multinomial(*series_of(500, seed, law), LEVELS, form=form))
        law = stats.t(3, scale=np.sqrt(1.0 / 3.0))  # of variance 1: a normal model is too thin
        normal.append(multinomial(*series_of(500, seed, law), LEVELS, form=form))
    assert 0.02 <= np.mean([result.p_value < 0.05 for result in true]) <= 0.1
    assert np.mean([result.verdict == "fail" for result in normal]) > 0.35


@pytest.mark.parametrize("form", FORMS)
def test_size_of_the_monte_carlo_p_value(form):
    p_values = [
        multinomial(
            *series_of(250, seed, stats.norm()), LEVELS, form=form, monte_carlo=SIMULATED
        ).monte_carlo_p_value
        for seed in range(150)
    ]
    assert np.mean(np.array(p_values) < 0.05) <= 0.11
    assert np.mean(p_values) == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("exceeded", [False, True])
def test_none_or_only_exceedances_are_defined(form, exceeded):
    outcome = np.full(250, 0.5 if exceeded else 0.0)
    forecasts = np.tile([0.01, 0.02, 0.03, 0.04], (250, 1))
    found = multinomial(outcome, forecasts, LEVELS, form=form, monte_carlo=SIMULATED)
    assert np.isfinite(found.statistic)
    assert found.exceedances == 250 * exceeded
    assert found.verdict == "fail"  # no exceedance of 0.95 in 250 decisions is too few
    assert "no power" in multinomial(outcome[:9] * 0, forecasts[:9], LEVELS, form=form).verdict


@pytest.mark.parametrize(
    ("forecasts", "levels", "found"),
    [
        (np.ones((3, 2)) / 9, (0.95,), r"\(T, 1\)"),
        (np.ones((3, 2)) / 9, (0.99, 0.95), "increase"),
        (np.ones((3, 2)) / 9, (0.95, 0.95), "increase"),
        (np.ones((3, 2)) / 9, (0.05, 0.95), "did you mean 0.95"),
        (np.ones((4, 2)) / 9, (0.95, 0.99), "pair one to one"),
        (np.ones(3) / 9, (), "one column"),
    ],
)
def test_unusable_input_is_refused(forecasts, levels, found):
    with pytest.raises(InputError, match=found):
        multinomial(np.zeros(3), forecasts, levels)
