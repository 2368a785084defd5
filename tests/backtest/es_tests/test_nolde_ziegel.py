"""Conditional calibration: sparse sums equal dense ones; size, sides, undefined statistics."""

import math

import numpy as np
import pytest

from margincast.backtest.es_tests.nolde_ziegel import nolde_ziegel
from margincast.backtest.es_tests.simulated_tails import SimulatedTails
from margincast.backtest.es_tests.tail_law import USUAL_TAIL


def sample(size, level, generator, ratio=1.0, severity=1.0):
    forecast = 0.05 * np.exp(0.3 * generator.standard_normal(size))
    shortfall = forecast * (1.3 + 0.2 * generator.random(size))
    outcome = forecast * generator.random(size)
    hits = np.flatnonzero(generator.random(size) < ratio * (1.0 - level))
    excess = severity * USUAL_TAIL.excess(1.0 - generator.random(hits.size))
    outcome[hits] = forecast[hits] + (shortfall - forecast)[hits] * excess
    return outcome, forecast, shortfall, level


def dense_wald(outcome, forecast, shortfall, level, scale=None):
    """The definition, decision by decision."""
    tail, hits = 1.0 - level, outcome > forecast
    identification = np.column_stack(
        [tail - hits, forecast - shortfall + hits * (outcome - forecast) / tail]
    )
    if scale is not None:
        weights = np.column_stack([(shortfall - forecast) / tail, np.ones(len(outcome))])
        identification = np.sum(identification * weights / scale[:, None], axis=1)[:, None]
    mean = identification.mean(axis=0)
    covariance = identification.T @ identification / len(outcome)
    return float(len(outcome) * mean @ np.linalg.solve(covariance, mean))


@pytest.mark.parametrize("seed", range(5))
def test_two_sided_statistics_are_those_of_the_definition(seed):
    one = sample(500, 0.95, np.random.default_rng(seed))
    simple = nolde_ziegel(*one)
    assert simple.statistic == pytest.approx(dense_wald(*one), rel=1e-9)
    assert simple.degrees_of_freedom == 2
    general = nolde_ziegel(*one, moments="general")
    assert general.statistic == pytest.approx(dense_wald(*one, scale=one[2]), rel=1e-9)
    assert general.degrees_of_freedom == 1


@pytest.mark.parametrize("moments", ["simple", "general"])
@pytest.mark.parametrize("alternative", ["two-sided", "understated"])
@pytest.mark.parametrize(("size", "level"), [(250, 0.95), (250, 0.99)])
def test_monte_carlo_p_values_have_the_right_size(moments, alternative, size, level):
    generator, monte_carlo = np.random.default_rng(1), SimulatedTails(replications=499)
    forecast = sample(size, level, generator)[1]
    failures = 0
    for _ in range(250):
        outcome = forecast * generator.random(size)
        hits = np.flatnonzero(generator.random(size) < 1.0 - level)
        excess = USUAL_TAIL.excess(1.0 - generator.random(hits.size))
        outcome[hits] = forecast[hits] * (1.0 + 0.4 * excess)
        result = nolde_ziegel(
            outcome,
            forecast,
            1.4 * forecast,
            level,
            moments=moments,
            alternative=alternative,
            monte_carlo=monte_carlo,
        )
        failures += result.verdict == "fail"
    assert 2 <= failures <= 27  # 12.5 expected, 4 standard errors


def test_sides():
    generator = np.random.default_rng(2)
    often = sample(20_000, 0.99, generator, ratio=1.6)
    seldom = sample(20_000, 0.99, generator, ratio=0.4)
    deep = sample(20_000, 0.99, generator, severity=1.6)
    samples = (often, seldom, deep)
    assert [nolde_ziegel(*one).verdict for one in samples] == ["fail", "fail", "fail"]
    # the number of exceedances cancels from the general moment
    general = [nolde_ziegel(*one, moments="general").p_value for one in samples]
    assert min(general[:2]) > 0.01
    assert general[2] < 1e-4
    for moments in ("simple", "general"):
        understated = [
            nolde_ziegel(*one, moments=moments, alternative="understated").verdict
            for one in (often, seldom, deep)
        ]
        assert understated == ["fail", "pass", "fail"]
    # the published side of the first component is that of too few exceedances
    assert nolde_ziegel(*seldom, alternative="published").verdict == "fail"


def test_corrections_bound_each_other():
    one = sample(2000, 0.95, np.random.default_rng(3), severity=1.2)
    hommel = nolde_ziegel(*one, alternative="understated")
    bonferroni = nolde_ziegel(*one, alternative="understated", correction="bonferroni")
    assert hommel.statistic == bonferroni.statistic
    assert bonferroni.p_value <= 1.5 * hommel.p_value
    assert hommel.p_value <= 1.5 * bonferroni.p_value


def test_no_exceedance_and_nothing_but_exceedances():
    forecast, shortfall = np.full(300, 0.05), np.full(300, 0.07)
    none = nolde_ziegel(0.5 * forecast, forecast, shortfall, 0.99)
    assert math.isnan(none.statistic)
    assert "no outcome exceeded" in none.reason
    every = nolde_ziegel(0.9 * shortfall, forecast, shortfall, 0.99)
    assert math.isnan(every.statistic)
    assert "every outcome exceeded" in every.reason
    assert (none.verdict, every.verdict) == ("no power", "no power")


def test_short_samples_have_no_power():
    one = sample(250, 0.99, np.random.default_rng(8))
    result = nolde_ziegel(*one, alternative="understated")
    assert result.verdict == "no power"
    assert "250 decisions" in result.reason
