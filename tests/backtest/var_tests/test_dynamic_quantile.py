"""Dynamic quantile test: by its definition, its size, its power, and where it does not exist."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from margincast.backtest.monte_carlo import SimulatedExceedances
from margincast.backtest.var_tests.dynamic_quantile import (
    _centred,
    _drawn,
    _statistic,
    dynamic_quantile,
)
from margincast.core.errors import InputError

SIMULATED = SimulatedExceedances(199, 3)


def series_of(size, seed, level=0.95, ratio=1.0):
    """True forecasts of varying height, and outcomes exceeded ``ratio`` times as often."""
    generator = np.random.default_rng(seed)
    forecast = np.exp(np.sin(np.cumsum(generator.normal(0.0, 0.2, size))) / 2 - 4.0)
    exceeded = generator.random(size) < ratio * (1.0 - level)
    return forecast * np.where(exceeded, 1.3, 0.4), forecast


def by_definition(outcome, forecast, level, lags, squared):
    """The statistic with a generalised inverse of the design as it is written in the paper."""
    hit = (outcome > forecast) - (1.0 - level)
    rows = range(lags, hit.size)
    design = np.array(
        [
            [1.0, forecast[t], *(hit[t - lag] for lag in range(1, lags + 1))]
            + ([1e3 * outcome[t - 1] ** 2] if squared else [])
            for t in rows
        ]
    )
    projected = design @ np.linalg.pinv(design, rcond=1e-9) @ hit[lags:]
    return hit[lags:] @ projected / (level * (1.0 - level))


@given(st.integers(30, 120), st.integers(0, 500), st.integers(1, 5), st.booleans())
def test_equals_its_definition(size, seed, lags, squared):
    outcome, forecast = series_of(size, seed, level=0.9)
    regressors = "squared outcome" if squared else "usual"
    found = dynamic_quantile(outcome, forecast, 0.9, lags=lags, regressors=regressors)
    slow = by_definition(outcome, forecast, 0.9, lags, squared)
    assert found.statistic == pytest.approx(slow, rel=1e-6, abs=1e-9)
    assert found.degrees_of_freedom == lags + 2 + squared


@pytest.mark.parametrize(("level", "lags"), [(0.95, 4), (0.99, 1), (0.9, 3)])
def test_simulated_statistics_equal_those_of_each_sequence(level, lags):
    _, known = series_of(150, 4)
    known = _centred(known[lags:])
    fast = _drawn(40, 9, 150, level, lags).statistics(known, level)
    sequences = SimulatedExceedances(40, 9).sequences(150, level)
    slow = [_statistic(hits, known[np.newaxis], level, lags) for hits in sequences]
    assert fast == pytest.approx(slow, rel=1e-8, abs=1e-8)


def test_size_of_the_monte_carlo_p_value():
    p_values = [
        dynamic_quantile(*series_of(250, seed), 0.95, monte_carlo=SIMULATED).monte_carlo_p_value
        for seed in range(400)
    ]
    # a binomial share of 400 around 0.05 lies within these limits but for 1 in 1000
    assert 0.02 <= np.mean(np.array(p_values) < 0.05) <= 0.09


def test_sees_clusters_and_forecasts_that_do_not_follow():
    generator = np.random.default_rng(5)
    forecast = np.full(1000, 0.02) + generator.normal(0.0, 1e-3, 1000)
    clustered = np.repeat(generator.random(200) < 0.05, 5)
    outcome = np.where(clustered, 0.05, 0.0)
    assert dynamic_quantile(outcome, forecast, 0.95).verdict == "fail"
    scale = np.exp(generator.normal(0.0, 0.5, 1000))
    followed = 0.01 * scale * generator.exponential(1.0, 1000)
    right = 0.01 * scale * -np.log(0.05)
    contrary = 0.01 / scale * -np.log(0.05) * np.quantile(scale**2, 0.8)
    assert dynamic_quantile(followed, right, 0.95, monte_carlo=SIMULATED).verdict != "fail"
    found = dynamic_quantile(followed, contrary, 0.95, monte_carlo=SIMULATED)
    assert found.verdict == "fail"
    assert found.monte_carlo_p_value == 1 / 200


@pytest.mark.parametrize("exceeded", [False, True])
def test_none_or_only_exceedances_and_a_constant_margin_are_defined(exceeded):
    outcome = np.full(250, 0.03 if exceeded else 0.0)
    found = dynamic_quantile(outcome, np.full(250, 0.02), 0.99, monte_carlo=SIMULATED)
    # nothing varies but the constant: its share alone
    share = float(exceeded) - 0.01
    assert found.statistic == pytest.approx(246 * share**2 / (0.99 * 0.01))
    assert found.verdict == ("fail" if exceeded else "no power")
    assert "probability" in found.reason or exceeded


def test_too_few_decisions_have_no_statistic():
    found = dynamic_quantile(*series_of(10, 1), 0.95)
    assert np.isnan(found.statistic)
    assert found.verdict == "no power"
    assert found.reason == "10 decisions are too few for 6 regressors"
    assert not np.isnan(dynamic_quantile(*series_of(11, 1), 0.95).statistic)


def test_units_do_not_matter():
    outcome, forecast = series_of(300, 8)
    for regressors in ("usual", "squared outcome"):
        one = dynamic_quantile(outcome, forecast, 0.95, regressors=regressors)
        other = dynamic_quantile(1e-4 * outcome, 1e-4 * forecast, 0.95, regressors=regressors)
        assert other.statistic == pytest.approx(one.statistic, rel=1e-9)


@pytest.mark.parametrize(
    ("call", "found"),
    [
        (lambda: dynamic_quantile(np.ones(20) / 9, np.ones(20) / 9, 0.95, lags=0), "lags"),
        (lambda: dynamic_quantile(np.full(20, np.nan), np.ones(20), 0.95), "20 NaN"),
        (lambda: dynamic_quantile(np.ones(20), 2 * np.ones(20), 99.0), "did you mean 0.99"),
        (lambda: dynamic_quantile(np.ones((4, 5)) / 9, np.ones((4, 5)) / 9, 0.95), "one series"),
        (lambda: dynamic_quantile(np.full(20, 2.0), np.full(20, 3.0), 0.95), "per cent"),
    ],
)
def test_unusable_input_is_refused(call, found):
    with pytest.raises(InputError, match=found):
        call()
