"""Quantile regression of what happened on what was forecast: the line must be the diagonal.

Responsible for the question whether a margin is right at every height: too small where it is low
and too large where it is high shows as a slope below 1, which no count of exceedances sees.
"""

from typing import Literal

import numpy as np
from scipy import special

from margincast.backtest.monte_carlo import SimulatedExceedances, luck_of, rank_p_value
from margincast.backtest.var_tests.forecast_series import require_series
from margincast.backtest.var_tests.judgement import too_short
from margincast.backtest.verdicts import (
    NAN,
    USUAL,
    Criterion,
    TestResult,
    chi_squared_p,
    conclude,
    undefined,
)
from margincast.core.types import BoolArray, FloatArray
from margincast.models.quantile_regression import quantile_regression

Form = Literal["score", "wald"]

FEWEST = 10
"""Decisions below which a line and a density are not estimated."""

CONSTANT = 1e-10
"""Forecasts that vary by a smaller share of their size are one number."""


def vqr(
    outcome: FloatArray,
    forecast: FloatArray,
    level: float,
    criterion: Criterion = USUAL,
    *,
    form: Form = "score",
    monte_carlo: SimulatedExceedances | None = None,
) -> TestResult:
    """Test that the quantile of the outcome given the forecast is the forecast (VQR).

    The hypothesis is intercept 0 and slope 1 in the linear quantile regression of outcome on
    forecast at ``level``; two degrees of freedom, in two forms:

    - "wald", as published: the estimated line's distance from the diagonal, with the covariance
      ``level (1 - level) H^-1 X'X H^-1`` where ``H = sum_t k(u_t / c) / c x_t x_t'`` (Powell's
      kernel sandwich with residuals u, Gaussian kernel k, Hall-Sheather bandwidth carried to
      residuals: ``summary(rq, se="ker")`` of R's quantreg; the authors leave the density's
      estimator open). It needs the density at the far quantile, where there are few outcomes: it
      rejects true forecasts of a t(4) law in 60 % of samples at level 0.99 and T = 250, in 30 % at
      T = 5000 (35 and 9 % at 0.95). It is here for comparison and has no Monte-Carlo p-value,
      since its law hangs on the unknown tail.
    - "score", ours: the same regression's first-order condition at the diagonal,
      ``g'(X'X)^-1 g / (level (1 - level))`` with ``g = sum_t x_t (hit_t - (1 - level))``. It is
      equivalent to the Wald form near the hypothesis (Koenker 2005, ISBN 9780521608275, chapter
      3), needs no density, and given the forecasts its law is known exactly; the asymptotic
      p-value rejects true forecasts in 5 to 6 % of samples from T = 250 on. It is the dynamic
      quantile test without lags.

    Args:
        outcome: realised adverse excursions in time order, simple fractions, shape (T,).
        forecast: quantile forecasts at ``level``, simple fractions, shape (T,).
        level: the share not exceeded, in (0.5, 1).
        criterion: what fails, and what has too little power to pass.
        form: see above.
        monte_carlo: simulated correct forecasts; adds the p-value of the score form that then
            decides.

    Returns:
        The result; undefined for fewer than 10 decisions, for forecasts that do not vary, and (Wald
        form) where half of the residuals are equal.

    Raises:
        InputError: level outside (0.5, 1); shapes differ or are not (T,); empty, NaN, infinite or
            in per cent.

    Source: Gaglianone, Lima, Linton and Smith (2011), doi:10.1198/jbes.2010.07318; Powell (1991)
    and Hall and Sheather (1988), doi:10.1111/j.2517-6161.1988.tb01735.x, for the covariance.
    """
    outcome, forecast, level = require_series(outcome, forecast, level)
    hits = outcome > forecast
    name = f"quantile regression ({form})"
    counts = {"sample_size": hits.size, "exceedances": int(np.count_nonzero(hits))}
    if hits.size < FEWEST:
        return undefined(name, f"{hits.size} decisions are too few for a regression", **counts)
    if np.ptp(forecast) <= CONSTANT * np.max(np.abs(forecast)):
        return undefined(name, "the forecasts do not vary: there is no line to fit", **counts)
    simulated_p = NAN
    if form == "wald":
        statistic = _wald(outcome, forecast, level)
        if np.isnan(statistic):
            reason = "half of the residuals are equal: there is no density to estimate"
            return undefined(name, reason, **counts)
    else:
        statistic = float(_scores(hits[np.newaxis], forecast, level)[0])
        if monte_carlo is not None:
            drawn = _scores(monte_carlo.sequences(hits.size, level), forecast, level)
            generator = np.random.default_rng((monte_carlo.seed, luck_of(hits)))
            simulated_p = rank_p_value(statistic, drawn, generator)
    return conclude(
        name,
        statistic,
        chi_squared_p(statistic, 2),
        degrees_of_freedom=2,
        monte_carlo_p_value=simulated_p,
        criterion=criterion,
        powerless=too_short(hits.size, level, criterion),
        **counts,
    )


def forecast_line(outcome: FloatArray, forecast: FloatArray, level: float) -> tuple[float, float]:
    """Return intercept and slope of the quantile regression of outcome on forecast.

    Args:
        outcome: see :func:`vqr`.
        forecast: see :func:`vqr`; where it does not vary the intercept is 0.
        level: see :func:`vqr`.

    Returns:
        Intercept, a simple fraction, and slope; 0 and 1 for perfect forecasts.

    Raises:
        InputError: as :func:`vqr`.
    """
    outcome, forecast, level = require_series(outcome, forecast, level)
    # the forecast first: of two columns that say the same, the later one is dropped
    design = np.column_stack([forecast, np.ones_like(forecast)])
    (fit,) = quantile_regression(design, outcome, [level])
    slope, intercept = fit.coefficients
    return float(intercept), float(slope)


def _scores(hits: BoolArray, forecast: FloatArray, level: float) -> FloatArray:
    """Return score statistics of sequences of hits, shape (R, T), given the forecasts."""
    size = forecast.size
    deviation = forecast - forecast.mean()
    rows, times = np.divmod(np.flatnonzero(hits), size)
    excess = np.bincount(rows, minlength=len(hits)) - size * (1.0 - level)
    where = np.bincount(rows, weights=deviation[times], minlength=len(hits))
    explained = excess**2 / size + where**2 / (deviation @ deviation)
    return np.asarray(explained / (level * (1.0 - level)))


def _wald(outcome: FloatArray, forecast: FloatArray, level: float) -> float:
    intercept, slope = forecast_line(outcome, forecast, level)
    residuals = outcome - intercept - slope * forecast
    weights = _density_weights(residuals, level)
    if weights is None:
        return NAN
    unit = np.mean(np.abs(forecast))
    design = np.column_stack([np.ones_like(forecast), forecast / unit])
    pulled = (design * weights[:, np.newaxis]).T @ design @ [intercept, (slope - 1.0) * unit]
    variance = level * (1.0 - level) * design.T @ design
    return float(pulled @ np.linalg.solve(variance, pulled))


def _density_weights(residuals: FloatArray, level: float) -> FloatArray | None:
    """Return ``k(u / c) / c`` with c that of quantreg's ``se="ker"``; None where it is 0."""
    size = residuals.size
    point = special.ndtri(level)
    density = np.exp(-0.5 * point**2) / np.sqrt(2.0 * np.pi)
    width = size ** (-1 / 3) * special.ndtri(0.975) ** (2 / 3)
    width *= (1.5 * density**2 / (2.0 * point**2 + 1.0)) ** (1 / 3)
    while level + width > 1.0:
        width /= 2.0
    lower, upper = np.quantile(residuals, [0.25, 0.75])
    spread = min(float(np.std(residuals, ddof=1)), float(upper - lower) / 1.34)
    bandwidth = spread * (special.ndtri(level + width) - special.ndtri(level - width))
    if bandwidth <= CONSTANT * np.max(np.abs(residuals)):
        return None
    scaled = residuals / bandwidth
    return np.asarray(np.exp(-0.5 * scaled**2) / (np.sqrt(2.0 * np.pi) * bandwidth))
