"""Bayer and Dimitriadis' regression tests: would a correction of the expected shortfall help.

Responsible for showing how an expected shortfall is wrong, by a constant, in proportion, or both:
outcomes are regressed jointly, quantile and shortfall, on the forecasts.
"""

import math
from typing import Literal

import numpy as np
from scipy import special

from margincast.backtest.es_tests.joint_regression import joint_regression
from margincast.backtest.es_tests.regression_covariance import regression_covariance
from margincast.backtest.es_tests.tail_law import USUAL_TAIL, TailLaw
from margincast.backtest.es_tests.tail_sample import TailSample, tail_sample
from margincast.backtest.monte_carlo import rank_p_value
from margincast.backtest.var_tests.judgement import too_short
from margincast.backtest.verdicts import NAN, USUAL, Criterion, TestResult, chi_squared_p, conclude
from margincast.core.types import FloatArray

Version = Literal["strict", "auxiliary", "intercept"]
Alternative = Literal["two-sided", "greater"]

FEWEST_EXCEEDANCES = 6
"""A joint regression of four coefficients needs more exceedances than that to be one."""


def bayer_dimitriadis(
    outcome: FloatArray,
    forecast: FloatArray,
    expected_shortfall: FloatArray,
    level: float,
    criterion: Criterion = USUAL,
    *,
    version: Version = "strict",
    alternative: Alternative = "two-sided",
    robust: bool = True,
    law: TailLaw = USUAL_TAIL,
    replications: int = 0,
    seed: int = 1,
) -> TestResult:
    """Test whether regressing outcomes on expected-shortfall forecasts gives the identity.

    "strict" regresses quantile and shortfall of the outcome on the shortfall forecast and tests the
    shortfall's (intercept, slope) = (0, 1); "auxiliary" has the quantile forecast in the quantile's
    equation. Both are Wald tests, chi-squared with 2 degrees of freedom. "intercept" regresses
    outcome - shortfall forecast and tests that its expected shortfall is 0: a t-statistic, positive
    where risk is understated, and the only version with a one-sided alternative ("greater").

    The expected shortfall of few exceedances is hard to regress. At 5 % the asymptotic p-values of
    "strict" and "auxiliary" reject 13 to 19 % of correct forecasts with up to fifty expected
    exceedances and are right with some 250; "intercept" 6 to 10 %. The Monte-Carlo p-value fits the
    regression again for every replication and takes seconds, so it must be asked for: exceedances
    are drawn with ``law`` beyond the forecasts, other outcomes as observed ratios to expected
    shortfall, drawn again. Its null is that the quantile is right too.

    Args:
        outcome: realised adverse excursions, positive losses, simple fractions, shape (T,), one
            series in time order whose outcomes do not overlap.
        forecast: quantile forecasts at ``level``, simple fractions, the same shape.
        expected_shortfall: of the same level, simple fractions, the same shape.
        level: the share not exceeded, in (0.5, 1).
        criterion: what fails, and what has too little power to pass.
        version: see above.
        alternative: see above; "greater" for the intercept only, else the test stays two sided.
        robust: covariance that allows for a misspecified regression, esback's default, or the
            plain one that holds under correct forecasts.
        law: of the excess beyond the forecast, for the Monte-Carlo p-value.
        replications: simulated series of the Monte-Carlo p-value; 0 for none.
        seed: of these.

    Raises:
        InputError: level outside (0.5, 1); shapes differ or are not (T,); empty, NaN, infinite or
            in per cent; an expected shortfall that is not positive or lies below its forecast.

    Source: Bayer and Dimitriadis (2022), doi:10.1093/jjfinec/nbaa013; esback, ``esr_backtest``. For
    what differs from it see :mod:`~margincast.backtest.es_tests.regression_covariance`.
    """
    one_sided = version == "intercept" and alternative == "greater"
    name = f"bayer-dimitriadis {version}{' greater' if one_sided else ''}"
    sample = tail_sample(outcome, forecast, expected_shortfall, level)
    statistic = _statistic(sample, sample.outcome, version, robust=robust)
    if math.isnan(statistic):
        return sample.undefined(name, _reason(sample, version))
    degrees = 0 if version == "intercept" else 2
    if degrees:
        p_value = chi_squared_p(statistic, degrees)
    elif one_sided:
        p_value = float(special.ndtr(-statistic))
    else:
        p_value = 2.0 * float(special.ndtr(-abs(statistic)))
    simulated_p = NAN
    if replications:
        generator = np.random.default_rng(seed)
        simulated = np.array(
            [
                _statistic(sample, _simulated(sample, law, generator), version, robust=robust)
                for _ in range(replications)
            ]
        )
        if degrees or one_sided:
            simulated_p = rank_p_value(statistic, simulated, generator)
        else:
            simulated_p = rank_p_value(abs(statistic), np.abs(simulated), generator)
    return conclude(
        name,
        statistic,
        p_value,
        degrees_of_freedom=degrees,
        monte_carlo_p_value=simulated_p,
        sample_size=sample.sample_size,
        exceedances=sample.hits.size,
        criterion=criterion,
        powerless=too_short(sample.sample_size, level, criterion),
    )


def _reason(sample: TailSample, version: Version) -> str:
    if sample.sample_size * sample.tail < FEWEST_EXCEEDANCES:
        return (
            f"{sample.sample_size} decisions at level {sample.level:g} promise fewer than the "
            f"{FEWEST_EXCEEDANCES} exceedances that a joint regression needs"
        )
    constant = np.ptp(sample.expected_shortfall) == 0.0
    if constant and version != "intercept":
        return "expected shortfall never changes; its slope cannot be told from its intercept"
    return "the covariance of the regression is singular"


def _statistic(sample: TailSample, outcome: FloatArray, version: Version, *, robust: bool) -> float:
    """Return the Wald or t-statistic; NaN where it does not exist."""
    if sample.sample_size * sample.tail < FEWEST_EXCEEDANCES:
        return NAN
    ones = np.ones(sample.sample_size)
    beside = np.column_stack([ones, sample.expected_shortfall])
    if version == "intercept":
        if np.ptp(sample.expected_shortfall) == 0.0:
            beside = ones[:, np.newaxis]
        designs, response = (beside, ones[:, np.newaxis]), outcome - sample.expected_shortfall
    else:
        if np.ptp(sample.expected_shortfall) == 0.0 or np.ptp(sample.forecast) == 0.0:
            return NAN
        first = np.column_stack([ones, sample.forecast]) if version == "auxiliary" else beside
        designs, response = (first, beside), outcome
    least = float(response.min())  # FZ0 needs a positive expected shortfall
    fitted = joint_regression(response - least, *designs, sample.level)
    try:
        covariance = regression_covariance(
            response - least, *designs, sample.level, fitted, robust=robust
        )
    except np.linalg.LinAlgError:
        return NAN
    found = fitted.shortfall_coefficients.copy()
    found[0] += least
    own = covariance[-found.size :, -found.size :]
    if version == "intercept":
        return float(found[0] / math.sqrt(own[0, 0])) if own[0, 0] > 0.0 else NAN
    found[1] -= 1.0
    if not np.linalg.det(own) > 0.0 or not own[0, 0] > 0.0:
        return NAN
    return float(found @ np.linalg.solve(own, found))


def _simulated(sample: TailSample, law: TailLaw, generator: np.random.Generator) -> FloatArray:
    """Return outcomes of correct forecasts: observed ratios below the forecast, the law beyond."""
    size = sample.sample_size
    within = sample.outcome <= sample.forecast
    ratios = (sample.outcome / sample.expected_shortfall)[within]
    drawn = sample.expected_shortfall * generator.choice(ratios, size=size)
    outcome = np.minimum(drawn, sample.forecast)
    hits = np.flatnonzero(generator.random(size) < sample.tail)
    excess = law.excess(1.0 - generator.random(hits.size))
    outcome[hits] = sample.forecast[hits] + sample.spread[hits] * excess
    return np.asarray(outcome)
