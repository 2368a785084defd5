"""Du-Escanciano: mean and autocorrelation of severities."""

import math

import numpy as np
import pytest

from margincast.backtest.es_tests.costanzino_curran import costanzino_curran
from margincast.backtest.es_tests.du_escanciano import (
    du_escanciano_conditional,
    du_escanciano_unconditional,
)
from margincast.backtest.es_tests.simulated_tails import SimulatedTails
from margincast.core.errors import InputError


def severities(size, level, generator, cluster=0.0):
    """Severities of correct forecasts; with ``cluster``, an exceedance often follows another."""
    hits = generator.random(size) < 1.0 - level
    if cluster:
        again = generator.random(size) < cluster
        hits[1:] |= hits[:-1] & again[1:]
    return np.where(hits, generator.random(size), 0.0)


def slow_box_pierce(severity, level, lags):
    deviation = severity - (1.0 - level) / 2.0
    size = len(severity)
    covariances = [
        sum(deviation[t] * deviation[t - lag] for t in range(lag, size)) / (size - lag)
        for lag in range(lags + 1)
    ]
    return size * sum((value / covariances[0]) ** 2 for value in covariances[1:])


def test_conditional_statistic_is_that_of_the_definition():
    severity = severities(300, 0.95, np.random.default_rng(0))
    for lags in (1, 5):
        result = du_escanciano_conditional(severity, 0.95, lags=lags)
        assert result.statistic == pytest.approx(slow_box_pierce(severity, 0.95, lags), rel=1e-9)


@pytest.mark.parametrize("test", [du_escanciano_unconditional, du_escanciano_conditional])
@pytest.mark.parametrize(("size", "level"), [(250, 0.95), (500, 0.99)])
def test_monte_carlo_p_values_have_the_right_size(test, size, level):
    generator, monte_carlo = np.random.default_rng(1), SimulatedTails()
    failures = sum(
        test(severities(size, level, generator), level, monte_carlo=monte_carlo).verdict == "fail"
        for _ in range(600)
    )
    assert 12 <= failures <= 52  # 30 expected, and the critical value is simulated


def test_clusters_are_seen_by_the_conditional_test_only():
    severity = severities(5000, 0.99, np.random.default_rng(2), cluster=0.3)
    monte_carlo = SimulatedTails()
    result = du_escanciano_conditional(severity, 0.99, monte_carlo=monte_carlo)
    assert result.verdict == "fail"
    shuffled = np.random.default_rng(3).permutation(severity)
    result = du_escanciano_conditional(shuffled, 0.99, monte_carlo=monte_carlo)
    assert result.monte_carlo_p_value > 0.05


def test_unconditional_agrees_with_the_exact_law():
    generator = np.random.default_rng(4)
    for _ in range(20):
        severity = severities(5000, 0.95, generator)
        normal = du_escanciano_unconditional(severity, 0.95).p_value
        exact = costanzino_curran(severity, 0.95, alternative="two-sided").p_value
        assert normal == pytest.approx(exact, abs=0.03)


def test_without_exceedance_clustering_cannot_be_told():
    result = du_escanciano_conditional(np.zeros(5000), 0.99)
    assert result.reason == "fewer than two exceedances say nothing about clustering"
    assert result.verdict == "no power"
    assert du_escanciano_unconditional(np.zeros(5000), 0.99).verdict == "fail"


def test_more_lags_than_decisions():
    result = du_escanciano_conditional(np.zeros(5), 0.99, lags=5)
    assert math.isnan(result.statistic)
    assert "no autocorrelation at lag 5" in result.reason
    with pytest.raises(InputError, match="lags"):
        du_escanciano_conditional(np.zeros(50), 0.99, lags=0)
    with pytest.raises(InputError, match="severity"):
        du_escanciano_conditional(np.full(50, np.nan), 0.99)
