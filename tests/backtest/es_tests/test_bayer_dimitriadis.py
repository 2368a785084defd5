"""Regression tests of expected shortfall: the fit is a minimum, and finds what was built in."""

import math

import numpy as np
import pytest
from scipy import optimize

from margincast.backtest.es_tests.bayer_dimitriadis import bayer_dimitriadis
from margincast.backtest.es_tests.joint_regression import joint_regression
from margincast.backtest.es_tests.tail_law import USUAL_TAIL

VERSIONS = ("strict", "auxiliary", "intercept")


def sample(size, level, seed, severity=1.0):
    generator = np.random.default_rng(seed)
    forecast = 0.05 * np.exp(0.4 * generator.standard_normal(size))
    shortfall = forecast * (1.3 + 0.1 * generator.random(size))
    outcome = forecast * generator.random(size) ** (1.0 / 3.0)
    hits = np.flatnonzero(generator.random(size) < 1.0 - level)
    excess = severity * USUAL_TAIL.excess(1.0 - generator.random(hits.size))
    outcome[hits] = forecast[hits] + (shortfall - forecast)[hits] * excess
    return outcome, forecast, shortfall, level


def fz0(coefficients, outcome, design, level):
    """The loss as written, for an optimiser that knows nothing of its shape."""
    quantile, shortfall = design @ coefficients[:2], design @ coefficients[2:]
    if shortfall.min() <= 0.0:
        return math.inf
    beyond = np.maximum(outcome - quantile, 0.0) / (1.0 - level)
    return float(np.mean((quantile + beyond) / shortfall + np.log(shortfall)) - 1.0)


@pytest.mark.parametrize("seed", range(3))
def test_no_search_from_the_fit_finds_less_loss(seed):
    outcome, _, shortfall, level = sample(600, 0.95, seed)
    design = np.column_stack([np.ones(600), shortfall])
    fitted = joint_regression(outcome, design, design, level)
    found = np.concatenate([fitted.quantile_coefficients, fitted.shortfall_coefficients])
    assert fitted.loss == pytest.approx(fz0(found, outcome, design, level), abs=1e-12)
    generator = np.random.default_rng(seed)
    for _ in range(4):
        start = found * (1.0 + 0.1 * generator.standard_normal(4))
        searched = optimize.minimize(
            fz0, start, (outcome, design, level), method="Nelder-Mead", options={"maxiter": 2000}
        )
        assert fitted.loss <= searched.fun + 1e-10


def test_known_coefficients_are_found():
    generator = np.random.default_rng(4)
    scale = 0.5 + generator.random(40_000)
    outcome = scale * generator.exponential(size=40_000)  # quantile and mean excess known
    design = np.column_stack([np.ones(40_000), scale])
    fitted = joint_regression(outcome, design, design, 0.95)
    quantile = math.log(20.0)
    assert fitted.quantile_coefficients == pytest.approx([0.0, quantile], abs=0.12)
    assert fitted.shortfall_coefficients == pytest.approx([0.0, quantile + 1.0], abs=0.2)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("robust", [True, False])
def test_correct_forecasts_pass_and_wrong_ones_fail(version, robust):
    choice = {"version": version, "robust": robust}
    assert bayer_dimitriadis(*sample(6000, 0.95, 5), **choice).verdict == "pass"
    shallow = sample(6000, 0.95, 6, severity=0.4)
    result = bayer_dimitriadis(*shallow, **choice)
    assert result.verdict == "fail"
    assert result.degrees_of_freedom == (0 if version == "intercept" else 2)


def test_one_sided_intercept_fails_understated_risk_only():
    deep, shallow = sample(6000, 0.95, 6, severity=2.0), sample(6000, 0.95, 6, severity=0.4)
    choice = {"version": "intercept", "alternative": "greater", "robust": False}
    assert bayer_dimitriadis(*deep, **choice).verdict == "fail"
    assert bayer_dimitriadis(*shallow, **choice).verdict == "pass"


@pytest.mark.parametrize("version", VERSIONS)
def test_scale_changes_nothing(version):
    outcome, forecast, shortfall, level = sample(800, 0.95, 7)
    before = bayer_dimitriadis(outcome, forecast, shortfall, level, version=version)
    after = bayer_dimitriadis(
        3.0 * outcome, 3.0 * forecast, 3.0 * shortfall, level, version=version
    )
    assert after.statistic == pytest.approx(before.statistic, rel=0.02)


def test_monte_carlo_tells_correct_from_wrong():
    choice = {"version": "intercept", "robust": False, "replications": 19}
    correct = bayer_dimitriadis(*sample(300, 0.95, 1), **choice)
    assert correct.monte_carlo_p_value > 0.05
    assert correct == bayer_dimitriadis(*sample(300, 0.95, 1), **choice)
    wrong = bayer_dimitriadis(*sample(300, 0.95, 9, severity=5.0), **choice)
    assert wrong.monte_carlo_p_value == 0.05  # beyond all 19 of correct forecasts


def test_what_has_no_statistic():
    short = bayer_dimitriadis(*sample(400, 0.99, 10))
    assert math.isnan(short.statistic)
    assert "promise fewer than the 6 exceedances" in short.reason
    outcome = sample(2000, 0.95, 11)[0]
    constant = (outcome, np.full(2000, 0.06), np.full(2000, 0.08), 0.95)
    result = bayer_dimitriadis(*constant)
    assert math.isnan(result.statistic)
    assert "never changes" in result.reason
    assert result.verdict == "no power"
    assert not math.isnan(bayer_dimitriadis(*constant, version="intercept").statistic)
