"""McNeil and Frey's test: do exceedances average the expected shortfall.

Responsible for the plainest question about the loss beyond the margin: its mean distance from the
expected shortfall, on the days the margin was exceeded. Number is not judged; test that first.
"""

import math
from typing import Literal

import numpy as np
from scipy import special

from margincast.backtest.es_tests.simulated_tails import SimulatedTails
from margincast.backtest.es_tests.tail_law import USUAL_TAIL, TailLaw
from margincast.backtest.es_tests.tail_power import too_few
from margincast.backtest.es_tests.tail_sample import TailSample, positive_scale, tail_sample
from margincast.backtest.verdicts import NAN, USUAL, Criterion, TestResult, conclude
from margincast.core.types import FloatArray

Alternative = Literal["greater", "two-sided"]

FEWER_THAN_TWO = "fewer than two exceedances have no standard deviation"
ALL_ALIKE = "all exceedance residuals are the same; they have no standard deviation"
RESAMPLES = 2000
"""Bootstrap resamples: a standard error of at most 0.011 of a p-value."""


def mcneil_frey(
    outcome: FloatArray,
    forecast: FloatArray,
    expected_shortfall: FloatArray,
    level: float,
    criterion: Criterion = USUAL,
    *,
    alternative: Alternative = "greater",
    scale: FloatArray | None = None,
    law: TailLaw = USUAL_TAIL,
    monte_carlo: SimulatedTails | None = None,
) -> TestResult:
    """Test whether exceedance residuals ``(outcome - expected_shortfall) / scale`` have mean 0.

    The statistic is their t-statistic, the standard deviation with divisor n - 1; positive where
    risk is understated. The asymptotic p-value is normal, as rugarch's ``ESTest``. Studentised
    means of heavy-tailed excesses are skewed to the left: at 5 % it rejects 1 to 2 % of correct
    forecasts one sided, and two sided 16 % with a dozen exceedances and 10 % with fifty. The
    Monte-Carlo p-value is exact under ``law``; :func:`mcneil_frey_bootstrap` needs none.

    Args:
        outcome: realised adverse excursions, positive losses, simple fractions, shape (T,), one
            series in time order whose outcomes do not overlap.
        forecast: quantile forecasts at ``level``, simple fractions, the same shape.
        expected_shortfall: of the same level, simple fractions, the same shape.
        level: the share not exceeded, in (0.5, 1).
        criterion: what fails, and what has too little power to pass.
        alternative: "greater" fails understated risk only.
        scale: volatility forecasts that standardise the residuals, positive, shape (T,); the
            paper's choice. Without, residuals are as they are, as in rugarch.
        law: of the excess beyond the forecast, for the Monte-Carlo p-value.
        monte_carlo: adds the p-value under simulated correct forecasts.

    Raises:
        InputError: level outside (0.5, 1); shapes differ or are not (T,); empty, NaN, infinite or
            in per cent; an expected shortfall that is not positive or lies below its forecast; a
            scale that is not positive.

    Source: McNeil and Frey (2000), doi:10.1016/S0927-5398(00)00012-8.
    """
    name = f"mcneil-frey {alternative}"
    sample = tail_sample(outcome, forecast, expected_shortfall, level)
    divisor = _scale(sample, scale)
    residuals = _residuals(sample, divisor)
    statistic, reason = _t_statistic(residuals)
    if reason:
        return sample.undefined(name, reason)
    two_sided = alternative == "two-sided"
    tail = float(special.ndtr(-abs(statistic) if two_sided else -statistic))
    simulated_p = NAN
    if monte_carlo is not None:
        draws = monte_carlo.draws(sample.sample_size, level)
        excess = monte_carlo.excesses(sample.sample_size, level, law)
        unit = (sample.spread / divisor)[draws.position] * (excess - 1.0)
        mean = draws.total(unit) / np.maximum(draws.counts, 1.0)
        squares = draws.total((unit - mean[draws.series]) ** 2)
        with np.errstate(invalid="ignore", divide="ignore"):  # NaN where there is no statistic
            variance = np.where(draws.counts > 1.0, squares / (draws.counts - 1.0), np.nan)
            simulated = mean * np.sqrt(draws.counts / variance)
        simulated_p = monte_carlo.rank(
            abs(statistic) if two_sided else statistic,
            np.abs(simulated) if two_sided else simulated,
            sample.sample_size,
            level,
        )
    return conclude(
        name,
        statistic,
        2.0 * tail if two_sided else tail,
        monte_carlo_p_value=simulated_p,
        sample_size=sample.sample_size,
        exceedances=residuals.size,
        criterion=criterion,
        powerless=too_few(residuals.size, law, criterion),
    )


def mcneil_frey_bootstrap(
    outcome: FloatArray,
    forecast: FloatArray,
    expected_shortfall: FloatArray,
    level: float,
    criterion: Criterion = USUAL,
    *,
    alternative: Alternative = "greater",
    scale: FloatArray | None = None,
    law: TailLaw = USUAL_TAIL,
    resamples: int = RESAMPLES,
    seed: int = 1,
) -> TestResult:
    """Test as :func:`mcneil_frey`, with the bootstrap p-value of the paper as Monte-Carlo p-value.

    Resampled t-statistics are recentred at their own mean, as esback's ``er_backtest``; Efron and
    Tibshirani (1993, ISBN 9780412042317, algorithm 16.2) recentre the residuals instead. Residuals
    are skewed, and the two differ by up to 0.1 at 30 exceedances; neither can be trusted below ten,
    where resamples repeat few residuals. (The ``boot.p.value`` of rugarch is a mean of resampled
    p-values, which is no p-value.)

    Args:
        outcome: see :func:`mcneil_frey`, as the other arguments of the same name.
        forecast: see there.
        expected_shortfall: see there.
        level: see there.
        criterion: see there.
        alternative: see there.
        scale: see there.
        law: only for what has no power.
        resamples: bootstrap samples.
        seed: of the resampling.

    Raises:
        InputError: as :func:`mcneil_frey`.
    """
    result = mcneil_frey(
        outcome,
        forecast,
        expected_shortfall,
        level,
        criterion,
        alternative=alternative,
        scale=scale,
        law=law,
    )
    name = f"mcneil-frey bootstrap {alternative}"
    sample = tail_sample(outcome, forecast, expected_shortfall, level)
    if math.isnan(result.statistic):
        return sample.undefined(name, result.reason)
    residuals = _residuals(sample, _scale(sample, scale))
    drawn = np.random.default_rng(seed).choice(residuals, size=(resamples, residuals.size))
    deviation = drawn.std(axis=1, ddof=1)
    usable = deviation > 0.0  # a resample of one residual repeated has no statistic
    resampled = drawn[usable].mean(axis=1) / deviation[usable] * math.sqrt(residuals.size)
    resampled -= resampled.mean() if resampled.size else 0.0
    if alternative == "two-sided":
        beyond = np.abs(resampled) >= abs(result.statistic)
    else:
        beyond = resampled >= result.statistic
    return conclude(
        name,
        result.statistic,
        result.p_value,
        monte_carlo_p_value=(1 + int(beyond.sum())) / (1 + resampled.size),
        sample_size=result.sample_size,
        exceedances=result.exceedances,
        criterion=criterion,
        powerless=too_few(residuals.size, law, criterion),
    )


def _scale(sample: TailSample, scale: FloatArray | None) -> FloatArray:
    if scale is None:
        return np.ones(sample.sample_size)
    return positive_scale(sample, scale)


def _residuals(sample: TailSample, divisor: FloatArray) -> FloatArray:
    hits = sample.hits
    return (sample.outcome[hits] - sample.expected_shortfall[hits]) / divisor[hits]


def _t_statistic(residuals: FloatArray) -> tuple[float, str]:
    """Return the t-statistic, or NaN and why there is none."""
    if residuals.size < 2:
        return NAN, FEWER_THAN_TWO
    deviation = float(residuals.std(ddof=1))
    if deviation == 0.0:
        return NAN, ALL_ALIKE
    return float(residuals.mean()) / deviation * math.sqrt(residuals.size), ""
