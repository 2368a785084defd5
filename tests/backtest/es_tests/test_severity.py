"""Severities: uniform beyond the forecast, and the same from a law, its PITs and its quantiles."""

import numpy as np
import pytest
from scipy import stats

from margincast.backtest.es_tests.severity import (
    require_severity,
    severity_of_forecasts,
    severity_of_levels,
    severity_of_pit,
)
from margincast.backtest.es_tests.tail_law import ParetoTail, StudentTail
from margincast.core.errors import InputError

LEVELS = (0.9, 0.95, 0.975, 0.99)


def normal_market(size=20_000, seed=0):
    generator = np.random.default_rng(seed)
    volatility = 0.02 * np.exp(0.3 * generator.standard_normal(size))
    score = generator.standard_normal(size)
    return volatility * score, volatility, score


def test_a_known_law_gives_the_severity_of_its_pits():
    outcome, volatility, score = normal_market()
    law = StudentTail(0.95)
    severity = severity_of_forecasts(
        outcome, volatility * law.quantile, volatility * law.expected_shortfall, 0.95, law=law
    )
    assert severity == pytest.approx(severity_of_pit(stats.norm.cdf(score), 0.95), abs=1e-9)
    assert (severity > 0.0).tolist() == (score > law.quantile).tolist()


def test_severities_of_a_pareto_tail_are_uniform():
    generator, law = np.random.default_rng(1), ParetoTail(0.2)
    forecast = np.full(5000, 0.05)
    outcome = forecast + 0.02 * law.excess(1.0 - generator.random(5000))
    severity = severity_of_forecasts(outcome, forecast, forecast + 0.02, 0.99, law=law)
    assert stats.kstest(severity, "uniform").pvalue > 0.001


def test_several_levels_come_close_to_the_whole_law():
    outcome, volatility, score = normal_market()
    quantiles = volatility[:, None] * stats.norm.ppf(LEVELS)
    top = StudentTail(LEVELS[-1])
    severity = severity_of_levels(
        outcome, quantiles, LEVELS, volatility * top.expected_shortfall, law=top
    )
    truth = severity_of_pit(stats.norm.cdf(score), LEVELS[0])
    assert np.abs(severity - truth).max() < 0.03
    assert ((severity > 0.0) == (truth > 0.0)).all()
    beyond = score > stats.norm.ppf(0.99)
    assert severity[beyond] == pytest.approx(truth[beyond], abs=1e-9)


def test_at_a_quantile_the_severity_is_that_of_its_level():
    quantiles = np.array([[0.01, 0.02, 0.03, 0.05]] * 4)
    outcome = np.nextafter(quantiles[0], 1.0)
    severity = severity_of_levels(outcome, quantiles, LEVELS, np.full(4, 0.06))
    expected = (np.array(LEVELS) - 0.9) / 0.1
    assert severity == pytest.approx(expected, abs=1e-6)
    held = severity_of_levels(quantiles[:, 0], quantiles, LEVELS, np.full(4, 0.06))
    assert held.tolist() == [0.0] * 4


def test_one_level_is_the_plain_severity():
    outcome, volatility, _ = normal_market(1000)
    forecast, shortfall = 1.5 * volatility, 2.0 * volatility
    one = severity_of_levels(outcome, forecast[:, None], [0.95], shortfall)
    assert one == pytest.approx(severity_of_forecasts(outcome, forecast, shortfall, 0.95))


def test_a_shortfall_equal_to_its_forecast_is_surpassed_utterly():
    severity = severity_of_forecasts(
        np.array([0.06, 0.04]), np.array([0.05, 0.05]), np.array([0.05, 0.05]), 0.99
    )
    assert severity.tolist() == [1.0, 0.0]


def test_wrong_inputs_say_what_is_wrong():
    with pytest.raises(InputError, match="pit"):
        severity_of_pit(np.array([0.5, 1.2]), 0.95)
    with pytest.raises(InputError, match="NaN"):
        severity_of_pit(np.array([0.5, np.nan]), 0.95)
    with pytest.raises(InputError, match="level"):
        severity_of_pit(np.array([0.5]), 0.05)
    crossed = np.array([[0.02, 0.01]])
    with pytest.raises(InputError, match="rearrange"):
        severity_of_levels(np.array([0.01]), crossed, [0.95, 0.99], np.array([0.03]))
    with pytest.raises(InputError, match=r"\[0, 1\]"):
        require_severity(np.array([0.5, 2.0]))
