"""Costanzino-Curran: the exact law of summed severities, its test and its traffic light."""

import math

import numpy as np
import pytest
from scipy import stats

from margincast.backtest.es_tests.costanzino_curran import (
    _tails,
    costanzino_curran,
    severity_moments,
    severity_traffic_light,
)
from margincast.core.errors import InputError


def severities(size, level, generator, ratio=1.0):
    hits = generator.random(size) < ratio * (1.0 - level)
    return np.where(hits, generator.random(size), 0.0)


def irwin_hall(total, count):
    """Distribution function of the sum of uniforms by its alternating formula."""
    terms = [
        (-1) ** k * math.comb(count, k) * (total - k) ** count
        for k in range(min(count, math.floor(total)) + 1)
    ]
    return sum(terms) / math.factorial(count)


@pytest.mark.parametrize("total", [0.3, 1.0, 1.7, 2.5, 4.2])
def test_law_of_a_short_sample_in_closed_form(total):
    weights = stats.binom.pmf(np.arange(9), 8, 0.2)
    expected = weights[0] + sum(
        weight * irwin_hall(total, count) for count, weight in enumerate(weights) if count
    )
    below, above = _tails(total, 8, 0.8)
    assert below == pytest.approx(expected, rel=1e-9)
    assert above == pytest.approx(1.0 - expected, abs=1e-12)


def test_law_of_a_long_sample_by_simulation():
    generator = np.random.default_rng(0)
    counts = generator.binomial(5000, 0.05, size=20_000)
    sums = np.array([generator.random(count).sum() for count in counts])
    for quantile in (0.05, 0.5, 0.95):
        total = float(np.quantile(sums, quantile))
        assert _tails(total, 5000, 0.95)[0] == pytest.approx(quantile, abs=0.007)


def test_law_at_its_ends():
    assert _tails(0.0, 100, 0.99) == (pytest.approx(0.99**100), 1.0)
    assert _tails(100.0, 100, 0.99) == (pytest.approx(1.0), pytest.approx(0.0, abs=1e-12))


@pytest.mark.parametrize("alternative", ["greater", "two-sided"])
@pytest.mark.parametrize(("size", "level"), [(250, 0.95), (250, 0.99), (2000, 0.99)])
def test_size_is_exact(alternative, size, level):
    generator = np.random.default_rng(1)
    results = [
        costanzino_curran(severities(size, level, generator), level, alternative=alternative)
        for _ in range(400)
    ]
    assert 5 <= sum(result.p_value < 0.05 for result in results) <= 36  # 20 expected


def test_understated_risk_fails_one_sided_and_overstated_two_sided():
    generator = np.random.default_rng(2)
    often = severities(20_000, 0.99, generator, ratio=1.6)
    seldom = severities(20_000, 0.99, generator, ratio=0.5)
    assert costanzino_curran(often, 0.99).verdict == "fail"
    assert costanzino_curran(seldom, 0.99).verdict == "pass"
    assert costanzino_curran(seldom, 0.99, alternative="two-sided").verdict == "fail"


def test_statistic_is_standardised():
    mean, deviation = severity_moments(1000, 0.975)
    severity = np.full(1000, mean + 2.0 * deviation)
    assert costanzino_curran(severity, 0.975).statistic == pytest.approx(2.0)
    exact = costanzino_curran(severity, 0.975).p_value
    assert exact == pytest.approx(stats.norm.sf(2.0), abs=0.01)


def test_traffic_light_has_the_basel_probabilities():
    light = severity_traffic_light(1.0, 250, 0.99)
    assert light.zone == "green"
    assert _tails(light.yellow_from, 250, 0.99)[0] == pytest.approx(0.95, abs=1e-6)
    assert _tails(light.red_from, 250, 0.99)[0] == pytest.approx(0.9999, abs=1e-6)
    assert severity_traffic_light(light.yellow_from + 1e-3, 250, 0.99).zone == "yellow"
    assert severity_traffic_light(light.red_from + 1e-3, 250, 0.99).zone == "red"
    # a sum of severities is about half the count: limits of 5 and 10 there
    assert 2.0 < light.yellow_from < 4.0
    assert 4.0 < light.red_from < 8.0


def test_no_exceedance_is_green_however_short_the_sample():
    light = severity_traffic_light(0.0, 3, 0.999)
    assert (light.zone, light.yellow_from) == ("green", 0.0)
    result = costanzino_curran(np.zeros(3), 0.999)
    assert result.p_value == 1.0
    assert result.verdict == "no power"


def test_all_exceedances_fail():
    assert costanzino_curran(np.ones(50), 0.95).verdict == "fail"


def test_wrong_inputs_say_what_is_wrong():
    with pytest.raises(InputError, match="severity"):
        costanzino_curran(np.array([-0.1]), 0.95)
    with pytest.raises(InputError, match="sum of severities"):
        severity_traffic_light(11.0, 10, 0.95)
    with pytest.raises(InputError, match="level"):
        severity_moments(100, 0.3)
