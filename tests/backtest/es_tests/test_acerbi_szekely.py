"""Acerbi-Szekely: zero under correct forecasts, negative where risk is understated, exact size."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from margincast.backtest.es_tests.acerbi_szekely import (
    _mean_of_largest,
    acerbi_szekely_conditional,
    acerbi_szekely_quantile,
    acerbi_szekely_unconditional,
    minimally_biased_absolute,
    minimally_biased_relative,
)
from margincast.backtest.es_tests.simulated_tails import SimulatedTails
from margincast.backtest.es_tests.tail_law import USUAL_TAIL, ParetoTail
from margincast.core.errors import InputError

TESTS = [
    acerbi_szekely_conditional,
    acerbi_szekely_unconditional,
    acerbi_szekely_quantile,
    minimally_biased_absolute,
    minimally_biased_relative,
]


def forecasts(size, seed=0):
    generator = np.random.default_rng(seed)
    forecast = 0.05 * np.exp(0.3 * generator.standard_normal(size))
    return forecast, forecast * (1.3 + 0.2 * generator.random(size))


def outcomes(forecast, shortfall, level, generator, *, law=USUAL_TAIL, ratio=1.0, severity=1.0):
    """Outcomes of correct forecasts, unless exceedances or their size are multiplied."""
    outcome = forecast * generator.random(forecast.size)
    hits = np.flatnonzero(generator.random(forecast.size) < ratio * (1.0 - level))
    excess = severity * law.excess(1.0 - generator.random(hits.size))
    outcome[hits] = forecast[hits] + (shortfall - forecast)[hits] * excess
    return outcome


@pytest.mark.parametrize("test", TESTS)
def test_correct_forecasts_have_mean_zero_and_the_stated_spread(test):
    forecast, shortfall = forecasts(2000)
    law, generator = ParetoTail(0.1), np.random.default_rng(1)
    p_values, statistics = [], []
    for _ in range(400):
        outcome = outcomes(forecast, shortfall, 0.95, generator, law=law)
        result = test(outcome, forecast, shortfall, 0.95, law=law)
        p_values.append(result.p_value)
        statistics.append(result.statistic)
    assert abs(np.mean(statistics)) < 4.0 * np.std(statistics) / 20.0
    # asymptotic p-values are those of a normal law with the right standard deviation
    assert np.mean(p_values) == pytest.approx(0.5, abs=0.06)
    assert np.std(p_values) == pytest.approx(1.0 / math.sqrt(12.0), abs=0.03)


@pytest.mark.parametrize("test", TESTS)
def test_monte_carlo_p_values_are_uniform_at_small_samples(test):
    forecast, shortfall = forecasts(250)
    monte_carlo, generator = SimulatedTails(replications=999), np.random.default_rng(2)
    rejected = sum(
        test(
            outcomes(forecast, shortfall, 0.95, generator),
            forecast,
            shortfall,
            0.95,
            monte_carlo=monte_carlo,
        ).verdict
        == "fail"
        for _ in range(500)
    )
    assert 10 <= rejected <= 42  # 25 expected, 3.5 standard errors


@pytest.mark.parametrize("test", TESTS)
def test_understated_shortfall_fails_and_overstated_passes(test):
    forecast, shortfall = forecasts(5000)
    generator = np.random.default_rng(3)
    deep = outcomes(forecast, shortfall, 0.95, generator, severity=1.7)
    result = test(deep, forecast, shortfall, 0.95)
    assert result.statistic < 0.0
    assert result.verdict == "fail"
    shallow = outcomes(forecast, shortfall, 0.95, generator, severity=0.5)
    result = test(shallow, forecast, shortfall, 0.95)
    assert result.statistic > 0.0
    assert result.verdict == "pass"


def test_only_the_conditional_test_overlooks_too_many_exceedances():
    forecast, shortfall = forecasts(20_000)
    outcome = outcomes(forecast, shortfall, 0.99, np.random.default_rng(4), ratio=1.6)
    verdicts = [test(outcome, forecast, shortfall, 0.99).verdict for test in TESTS]
    assert verdicts == ["pass", "fail", "fail", "fail", "fail"]


@given(scale=st.floats(0.01, 10.0), seed=st.integers(0, 100))
def test_scale_changes_nothing_but_the_absolute_statistic(scale, seed):
    forecast, shortfall = forecasts(300, seed)
    outcome = outcomes(forecast, shortfall, 0.95, np.random.default_rng(seed), ratio=2.0)
    for test in TESTS:
        before = test(outcome, forecast, shortfall, 0.95)
        after = test(scale * outcome, scale * forecast, scale * shortfall, 0.95)
        unit = scale if test is minimally_biased_absolute else 1.0
        assert after.statistic == pytest.approx(unit * before.statistic, rel=1e-9, abs=1e-12)
        assert after.p_value == pytest.approx(before.p_value, rel=1e-6)


def test_definitions_term_by_term():
    outcome = np.array([0.01, 0.08, 0.02, 0.03, 0.12])
    forecast = np.array([0.05, 0.06, 0.05, 0.04, 0.08])
    shortfall = np.array([0.07, 0.09, 0.08, 0.05, 0.10])
    sample = (outcome, forecast, shortfall, 0.8)
    ratios = 0.08 / 0.09 + 0.12 / 0.10
    assert acerbi_szekely_conditional(*sample).statistic == pytest.approx(1.0 - ratios / 2.0)
    assert acerbi_szekely_unconditional(*sample).statistic == pytest.approx(1.0 - ratios)
    terms = np.array([0.02, 0.03 - 0.02 / 0.2, 0.03, 0.01, 0.02 - 0.04 / 0.2])
    assert minimally_biased_absolute(*sample).statistic == pytest.approx(terms.mean())
    relative = (terms / shortfall).mean()
    assert minimally_biased_relative(*sample).statistic == pytest.approx(relative)
    # T (1 - level) = 1: the largest unit excess alone, against its expectation
    law = ParetoTail(0.0)
    expectation = _mean_of_largest(5, 0.8, law)
    estimate = forecast + (shortfall - forecast) * 2.0
    expected = 1.0 - np.mean(estimate / (forecast + (shortfall - forecast) * expectation))
    assert acerbi_szekely_quantile(*sample, law=law).statistic == pytest.approx(expected)


@pytest.mark.parametrize("law", [ParetoTail(0.0), ParetoTail(0.3)])
@pytest.mark.parametrize("size", [200, 1000])
def test_expectation_of_the_largest_excesses(law, size):
    draws = SimulatedTails(replications=20_000).draws(size, 0.99)
    excess = law.excess(draws.share)
    order = np.lexsort((-excess, draws.series))
    first = np.cumsum(draws.counts) - draws.counts
    kept = np.arange(excess.size) - first[draws.series] < size // 100
    means = draws.total(np.where(kept, excess[order], 0.0)) / (size // 100)
    error = means.std() / math.sqrt(means.size)
    assert _mean_of_largest(size, 0.99, law) == pytest.approx(means.mean(), abs=4.0 * error)


def test_without_exceedance():
    forecast, shortfall = forecasts(400)
    outcome = 0.5 * forecast
    conditional = acerbi_szekely_conditional(outcome, forecast, shortfall, 0.95)
    assert math.isnan(conditional.statistic)
    assert "no outcome exceeded" in conditional.reason
    assert conditional.verdict == "no power"
    for test in TESTS[1:]:
        result = test(outcome, forecast, shortfall, 0.95)
        assert result.statistic > 0.0
        assert result.p_value > 0.95
        assert result.verdict == "no power"
        assert "400 decisions" in result.reason


def test_all_exceedances_fail():
    forecast, shortfall = forecasts(400)
    for test in TESTS:
        assert test(2.0 * shortfall, forecast, shortfall, 0.95).verdict == "fail"


def test_too_few_decisions_for_an_empirical_shortfall():
    forecast, shortfall = forecasts(99)
    result = acerbi_szekely_quantile(0.5 * forecast, forecast, shortfall, 0.99)
    assert math.isnan(result.statistic)
    assert "fewer than the 100" in result.reason


def test_a_shortfall_equal_to_its_forecast_promises_nothing_beyond():
    forecast, _ = forecasts(400)
    outcome = np.where(np.arange(400) < 5, 1.1, 0.5) * forecast
    result = acerbi_szekely_quantile(outcome, forecast, forecast, 0.95)
    assert math.isnan(result.statistic)
    assert "promised nothing beyond" in result.reason
    conditional = acerbi_szekely_conditional(outcome, forecast, forecast, 0.95)
    assert conditional.statistic == pytest.approx(-0.1)


@pytest.mark.parametrize("test", TESTS)
def test_wrong_inputs_say_what_is_wrong(test):
    forecast, shortfall = forecasts(300)
    outcome = 0.5 * forecast
    with pytest.raises(InputError, match=r"0\.99"):
        test(outcome, forecast, shortfall, 99.0)
    with pytest.raises(InputError, match="per cent"):
        test(100.0 * outcome, 100.0 * forecast, 100.0 * shortfall, 0.95)
    with pytest.raises(InputError, match="NaN"):
        test(outcome, forecast, np.where(shortfall > 0.08, np.nan, shortfall), 0.95)
    with pytest.raises(InputError, match="first in row 0"):
        test(outcome, forecast, 0.9 * forecast, 0.95)
    with pytest.raises(InputError, match="pair one to one"):
        test(outcome, forecast, shortfall[1:], 0.95)
    with pytest.raises(InputError, match="one series"):
        test(outcome.reshape(2, -1), forecast.reshape(2, -1), shortfall.reshape(2, -1), 0.95)
