"""Quantile regression test: the line, both forms of the statistic, size and power."""

import numpy as np
import pytest
from scipy import stats

from margincast.backtest.monte_carlo import SimulatedExceedances
from margincast.backtest.var_tests.dynamic_quantile import _centred
from margincast.backtest.var_tests.vqr import (
    _density_weights,
    forecast_line,
    vqr,
)
from margincast.core.errors import InputError
from margincast.scoring.pinball import mean_pinball

SIMULATED = SimulatedExceedances(199, 3)
LAW = stats.t(5)


def series_of(size, seed, level=0.95):
    generator = np.random.default_rng(seed)
    scale = np.exp(generator.normal(-4.0, 0.5, size))
    return scale * LAW.rvs(size, random_state=generator), scale * LAW.ppf(level)


def test_line_is_the_best_line():
    outcome, forecast = series_of(400, 1)
    intercept, slope = forecast_line(outcome, forecast, 0.95)
    best = mean_pinball(outcome, intercept + slope * forecast, 0.95)
    for shift in (-1e-4, 0.0, 1e-4):
        for factor in (0.98, 1.0, 1.02):
            line = intercept + shift + factor * slope * forecast
            assert best <= mean_pinball(outcome, line, 0.95) + 1e-15
    assert abs(slope - 1.0) < 0.3


def test_recovers_a_known_line():
    generator = np.random.default_rng(2)
    forecast = generator.uniform(0.01, 0.05, 40)
    intercept, slope = forecast_line(0.004 + 0.5 * forecast, forecast, 0.95)
    assert (intercept, slope) == pytest.approx((0.004, 0.5), abs=1e-9)


def test_wald_form_is_the_written_sandwich():
    outcome, forecast = series_of(500, 3)
    found = vqr(outcome, forecast, 0.95, form="wald")
    estimate = np.array(forecast_line(outcome, forecast, 0.95))
    design = np.column_stack([np.ones(500), forecast])
    weights = _density_weights(outcome - design @ estimate, 0.95)
    inner = np.linalg.inv((design.T * weights) @ design)
    covariance = 0.95 * 0.05 * inner @ design.T @ design @ inner
    distance = estimate - [0.0, 1.0]
    assert found.statistic == pytest.approx(distance @ np.linalg.inv(covariance) @ distance)
    assert np.isnan(found.monte_carlo_p_value)
    assert found.degrees_of_freedom == 2


def test_density_weights_estimate_the_density_of_residuals():
    residuals = np.random.default_rng(4).standard_normal(200_000) - stats.norm.ppf(0.95)
    weights = _density_weights(residuals, 0.95)
    assert weights.mean() == pytest.approx(stats.norm.pdf(stats.norm.ppf(0.95)), rel=0.03)
    # near 1 the bandwidth is halved until level and bandwidth stay below 1
    assert np.isfinite(_density_weights(residuals[:50], 0.999)).all()


def test_score_form_is_the_written_quadratic_form():
    outcome, forecast = series_of(300, 5)
    design = np.column_stack([np.ones(300), forecast])
    pulled = design.T @ ((outcome > forecast) - 0.05)
    slow = pulled @ np.linalg.inv(design.T @ design) @ pulled / (0.05 * 0.95)
    assert vqr(outcome, forecast, 0.95).statistic == pytest.approx(slow, rel=1e-9)


@pytest.mark.parametrize("level", [0.95, 0.99])
def test_size_of_both_p_values_of_the_score_form(level):
    monte_carlo = SimulatedExceedances(199, 6)
    found = [vqr(*series_of(250, s, level), level, monte_carlo=monte_carlo) for s in range(300)]
    for name in ("p_value", "monte_carlo_p_value"):
        share = np.mean([getattr(result, name) < 0.05 for result in found])
        assert 0.02 <= share <= 0.09


def test_sees_a_slope_that_coverage_does_not():
    outcome, forecast = series_of(2000, 7)
    flat = np.quantile(forecast, 0.5) ** 0.7 * forecast**0.3
    generator = np.random.default_rng(8)
    flat *= np.quantile(outcome / flat, 0.95)  # the right number of exceedances
    flat += generator.normal(0.0, 1e-9, 2000)
    found = vqr(outcome, flat, 0.95, monte_carlo=SIMULATED)
    assert abs(found.exceedances - 100) <= 1
    assert found.verdict == "fail"
    assert vqr(outcome, flat, 0.95, form="wald").verdict == "fail"
    assert forecast_line(outcome, flat, 0.95)[1] > 1.3


def test_constant_forecasts_and_short_samples_have_no_line():
    constant = vqr(np.zeros(100), np.full(100, 0.02), 0.95)
    short = vqr(*series_of(9, 1), 0.95)
    for result in (constant, short):
        assert np.isnan(result.statistic)
        assert result.verdict == "no power"
        assert result.reason
    assert not _centred(np.full(100, 0.02)).any()


@pytest.mark.parametrize("outcome", [0.0, 0.5])
def test_none_or_only_exceedances_are_defined(outcome):
    _, forecast = series_of(250, 9)
    for form in ("score", "wald"):
        noise = 1e-3 * np.random.default_rng(1).uniform(size=250)
        found = vqr(outcome + noise * (outcome > 0.0), forecast, 0.95, form=form)
        assert found.exceedances == (250 if outcome else 0)
        if outcome == 0.0 and form == "wald":
            assert found.reason.startswith("half of the residuals are equal")
        else:
            assert np.isfinite(found.statistic)
            assert found.verdict == "fail"  # 12.5 exceedances were promised


def test_unusable_input_is_refused():
    with pytest.raises(InputError, match="2 NaN"):
        vqr(np.array([np.nan, 0.1, np.inf]), np.full(3, 0.1), 0.95)
