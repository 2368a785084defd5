"""McNeil-Frey: the mean of exceedance residuals, one and two sided, simulated and resampled."""

import math

import numpy as np
import pytest

from margincast.backtest.es_tests.mcneil_frey import mcneil_frey, mcneil_frey_bootstrap
from margincast.backtest.es_tests.simulated_tails import SimulatedTails
from margincast.backtest.es_tests.tail_law import USUAL_TAIL
from margincast.core.errors import InputError


def sample(size, level, generator, severity=1.0):
    forecast = 0.05 * np.exp(0.3 * generator.standard_normal(size))
    shortfall = 1.4 * forecast
    outcome = forecast * generator.random(size)
    hits = np.flatnonzero(generator.random(size) < 1.0 - level)
    excess = severity * USUAL_TAIL.excess(1.0 - generator.random(hits.size))
    outcome[hits] = forecast[hits] + (shortfall - forecast)[hits] * excess
    return outcome, forecast, shortfall, level


def test_statistic_term_by_term():
    outcome = np.array([0.01, 0.08, 0.02, 0.12])
    forecast, shortfall = np.full(4, 0.05), np.full(4, 0.07)
    result = mcneil_frey(outcome, forecast, shortfall, 0.9)
    assert result.exceedances == 2
    # residuals 0.01 and 0.05: mean 0.03, standard deviation 0.02 sqrt(2)
    assert result.statistic == pytest.approx(0.03 / (0.02 * math.sqrt(2.0)) * math.sqrt(2.0))


@pytest.mark.parametrize("alternative", ["greater", "two-sided"])
@pytest.mark.parametrize(("size", "level"), [(250, 0.95), (1000, 0.99)])
def test_monte_carlo_p_values_have_the_right_size(alternative, size, level):
    generator, monte_carlo = np.random.default_rng(1), SimulatedTails()
    failures = 0
    for _ in range(400):
        one = sample(size, level, generator)
        scale = one[1]  # residuals in units of the forecast: the law hangs on no path
        result = mcneil_frey(*one, alternative=alternative, scale=scale, monte_carlo=monte_carlo)
        failures += result.verdict == "fail"
    assert 6 <= failures <= 36  # 20 expected, 3.6 standard errors


def test_understated_and_overstated():
    generator = np.random.default_rng(2)
    deep = sample(5000, 0.95, generator, severity=1.6)
    shallow = sample(5000, 0.95, generator, severity=0.6)
    assert mcneil_frey(*deep).verdict == "fail"
    assert mcneil_frey(*shallow).verdict == "pass"
    assert mcneil_frey(*shallow).statistic < 0.0
    assert mcneil_frey(*shallow, alternative="two-sided").verdict == "fail"
    assert mcneil_frey_bootstrap(*deep).verdict == "fail"
    assert mcneil_frey_bootstrap(*shallow).verdict == "pass"
    assert mcneil_frey_bootstrap(*shallow, alternative="two-sided").verdict == "fail"


def test_bootstrap_is_reproducible_and_keeps_the_statistic():
    one = sample(1000, 0.95, np.random.default_rng(3))
    first, second = mcneil_frey_bootstrap(*one, seed=7), mcneil_frey_bootstrap(*one, seed=7)
    assert first == second
    assert first.statistic == mcneil_frey(*one).statistic
    assert first.monte_carlo_p_value != mcneil_frey_bootstrap(*one, seed=8).monte_carlo_p_value


def test_what_has_no_statistic():
    forecast, shortfall = np.full(300, 0.05), np.full(300, 0.07)
    for hits, words in ((0, "fewer than two"), (1, "fewer than two"), (3, "all exceedance")):
        outcome = np.where(np.arange(300) < hits, 0.06, 0.01)
        for test in (mcneil_frey, mcneil_frey_bootstrap):
            result = test(outcome, forecast, shortfall, 0.99)
            assert math.isnan(result.statistic)
            assert result.verdict == "no power"
            assert words in result.reason
            assert result.exceedances == hits


def test_few_exceedances_have_no_power():
    one = sample(400, 0.99, np.random.default_rng(5))
    result = mcneil_frey(*one)
    assert result.verdict == "no power"
    assert "exceedances show 1.5 times" in result.reason


def test_a_scale_must_be_positive_and_pair():
    one = sample(100, 0.95, np.random.default_rng(6))
    with pytest.raises(InputError, match="positive"):
        mcneil_frey(*one, scale=np.zeros(100))
    with pytest.raises(InputError, match="shape"):
        mcneil_frey(*one, scale=np.ones(99))
