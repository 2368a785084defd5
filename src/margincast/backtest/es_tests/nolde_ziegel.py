"""Nolde and Ziegel's conditional calibration: quantile and expected shortfall judged together.

Responsible for one p-value for the pair that a margin model forecasts: the pair is calibrated when
its identification function, whose mean is zero only at the truth, averages to zero.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import special

from margincast.backtest.es_tests.simulated_tails import IndexArray, SimulatedTails
from margincast.backtest.es_tests.tail_law import USUAL_TAIL, TailLaw
from margincast.backtest.es_tests.tail_sample import (
    NEVER_BELOW,
    NO_EXCEEDANCE,
    TailSample,
    positive_scale,
    tail_sample,
)
from margincast.backtest.var_tests.judgement import too_short
from margincast.backtest.verdicts import NAN, USUAL, Criterion, TestResult, conclude
from margincast.core.types import FloatArray

Moments = Literal["simple", "general"]
Alternative = Literal["two-sided", "understated", "published"]
Correction = Literal["hommel", "bonferroni"]

SINGULAR = 1e-12
"""Reciprocal condition of a covariance from which it counts as singular."""


def nolde_ziegel(
    outcome: FloatArray,
    forecast: FloatArray,
    expected_shortfall: FloatArray,
    level: float,
    criterion: Criterion = USUAL,
    *,
    moments: Moments = "simple",
    alternative: Alternative = "two-sided",
    scale: FloatArray | None = None,
    correction: Correction = "hommel",
    law: TailLaw = USUAL_TAIL,
    monte_carlo: SimulatedTails | None = None,
) -> TestResult:
    """Test whether the identification function of (quantile, expected shortfall) averages to zero.

    With p = 1 - level and exceedance I, the two components are ``p - I`` and ``forecast -
    expected_shortfall + I (outcome - forecast) / p``. "simple" takes them as they are; "general"
    weighs them by what is known at the decision: two sided ``(spread / p, 1) / scale`` in one
    moment, one sided four moments, the first component times 1 and the forecast, the second times 1
    and 1 / scale. Two sided: Wald statistic, covariance of the moments not centred, chi-squared
    with 2 (simple) or 1 (general) degrees of freedom. One sided: a t-statistic a moment, the
    smallest p-value after Hommel's correction (valid for any dependence) or Bonferroni's; the
    statistic given is the largest t.

    The two-sided general moment is ``I (outcome - expected_shortfall) / p / scale``: the number of
    exceedances cancels and their size alone is judged.

    "published" is the one-sided test of Nolde and Ziegel and of esback: a positive mean of either
    component rejects, which for the first means too *few* exceedances. "understated" turns the
    first component round, so that only understated risk fails.

    The Wald statistic of few exceedances is far from chi-squared: at 5 % the asymptotic p-value
    rejects 46 % of correct forecasts with three expected exceedances, 20 % with a dozen and 7 %
    with 250; one sided less than 2 %. The Monte-Carlo p-value is exact under the law.

    Args:
        outcome: realised adverse excursions, positive losses, simple fractions, shape (T,), one
            series in time order whose outcomes do not overlap.
        forecast: quantile forecasts at ``level``, simple fractions, the same shape.
        expected_shortfall: of the same level, simple fractions, the same shape.
        level: the share not exceeded, in (0.5, 1).
        criterion: what fails, and what has too little power to pass.
        moments: see above.
        alternative: see above.
        scale: volatility forecasts, positive, shape (T,), for the general moments; the expected
            shortfall by default, which is proportional to volatility in a scale family.
        correction: for several one-sided moments.
        law: of the excess beyond the forecast, for the Monte-Carlo p-value.
        monte_carlo: adds the p-value under simulated correct forecasts.

    Raises:
        InputError: level outside (0.5, 1); shapes differ or are not (T,); empty, NaN, infinite or
            in per cent; an expected shortfall that is not positive or lies below its forecast; a
            scale that is not positive.

    Source: Nolde and Ziegel (2017), doi:10.1214/17-AOAS1041.
    """
    name = f"nolde-ziegel {moments} {alternative}"
    sample = tail_sample(outcome, forecast, expected_shortfall, level)
    if not sample.hits.size:
        return sample.undefined(name, NO_EXCEEDANCE)
    if sample.hits.size == sample.sample_size:
        return sample.undefined(name, NEVER_BELOW)
    weights = _weights(sample, moments, alternative, _scale(sample, scale))
    hits = sample.hits
    happened = _Exceedances(
        np.zeros(hits.size, dtype=np.intp), hits, (sample.outcome - sample.forecast)[hits], 1
    )
    two_sided = alternative == "two-sided"
    degrees = (2 if moments == "simple" else 1) if two_sided else 0
    if two_sided:
        statistic = float(_wald(sample, weights, happened)[0])
        if math.isnan(statistic):
            return sample.undefined(name, "the moments of this sample have a singular covariance")
        p_value = float(special.chdtrc(degrees, statistic))
    else:
        t_statistics = _t_statistics(sample, weights, happened)
        statistic = float(t_statistics.max())
        p_value = float(_combined(t_statistics, correction)[0])
    simulated_p = NAN
    if monte_carlo is not None:
        draws = monte_carlo.draws(sample.sample_size, level)
        excess = monte_carlo.excesses(sample.sample_size, level, law)
        drawn = _Exceedances(
            draws.series, draws.position, sample.spread[draws.position] * excess, draws.replications
        )
        if two_sided:
            observed, simulated = statistic, _wald(sample, weights, drawn)
        else:
            # the t-statistics decide by their combined p-value, small when forecasts are wrong
            observed = -p_value
            simulated = -_combined(_t_statistics(sample, weights, drawn), correction)
        # no more than for the sample itself is there a statistic for a series without exceedance
        simulated = np.where(draws.counts > 0.0, simulated, np.nan)
        simulated_p = monte_carlo.rank(observed, simulated, sample.sample_size, level)
    return conclude(
        name,
        statistic,
        p_value,
        degrees_of_freedom=degrees,
        monte_carlo_p_value=simulated_p,
        sample_size=sample.sample_size,
        exceedances=hits.size,
        criterion=criterion,
        powerless=too_short(sample.sample_size, level, criterion),
    )


@dataclass(frozen=True)
class _Weights:
    """What multiplies the two components of the identification function, both of shape (T, q)."""

    first: FloatArray
    second: FloatArray


@dataclass(frozen=True)
class _Exceedances:
    """Exceedances of R series: series, decision and outcome - forecast of each, shape (N,)."""

    series: IndexArray
    position: IndexArray
    beyond: FloatArray
    replications: int

    def total(self, values: FloatArray) -> FloatArray:
        sums = np.bincount(self.series, weights=values, minlength=self.replications)
        return np.asarray(sums, dtype=np.float64)


def _weights(
    sample: TailSample, moments: Moments, alternative: Alternative, scale: FloatArray
) -> _Weights:
    one, zero = np.ones(sample.sample_size), np.zeros(sample.sample_size)
    if alternative == "two-sided" and moments == "general":
        first, second = [sample.spread / sample.tail / scale], [1.0 / scale]
    elif moments == "general":
        first, second = [one, np.abs(sample.forecast), zero, zero], [zero, zero, one, 1.0 / scale]
    else:
        first, second = [one, zero], [zero, one]
    turn = -1.0 if alternative == "understated" else 1.0
    return _Weights(turn * np.column_stack(first), np.column_stack(second))


def _sums(
    sample: TailSample, weights: _Weights, exceedances: _Exceedances, pairs: list[tuple[int, int]]
) -> tuple[FloatArray, FloatArray]:
    """Return the moments' sums, shape (R, q), and those of products of pairs, shape (R, pairs).

    Only decisions with an exceedance differ between series; the rest is added up once.
    """
    quiet = sample.tail * weights.first - sample.spread[:, np.newaxis] * weights.second
    position = exceedances.position
    before = quiet[position]
    step = (exceedances.beyond / sample.tail)[:, np.newaxis] * weights.second[position]
    loud = before - weights.first[position] + step
    moments = quiet.sum(axis=0) + np.column_stack(
        [exceedances.total(change) for change in (loud - before).T]
    )
    products = [
        float(quiet[:, i] @ quiet[:, j])
        + exceedances.total(loud[:, i] * loud[:, j] - before[:, i] * before[:, j])
        for i, j in pairs
    ]
    return moments, np.column_stack(products)


def _wald(sample: TailSample, weights: _Weights, exceedances: _Exceedances) -> FloatArray:
    """Return T x mean' covariance^-1 mean of one or two moments, shape (R,); NaN where singular."""
    if weights.first.shape[1] == 1:
        moments, products = _sums(sample, weights, exceedances, [(0, 0)])
        return np.asarray(moments[:, 0] ** 2 / products[:, 0])
    moments, products = _sums(sample, weights, exceedances, [(0, 0), (0, 1), (1, 1)])
    one, both, two = products.T
    determinant = one * two - both**2
    regular = determinant > SINGULAR * one * two
    quadratic = two * moments[:, 0] ** 2 - 2.0 * both * moments[:, 0] * moments[:, 1]
    quadratic += one * moments[:, 1] ** 2
    return np.where(regular, quadratic / np.where(regular, determinant, 1.0), np.nan)


def _t_statistics(sample: TailSample, weights: _Weights, exceedances: _Exceedances) -> FloatArray:
    """Return the t-statistics of the moments, variances not centred, shape (R, q)."""
    count = weights.first.shape[1]
    moments, products = _sums(sample, weights, exceedances, [(i, i) for i in range(count)])
    return np.asarray(moments / np.sqrt(products))


def _combined(t_statistics: FloatArray, correction: Correction) -> FloatArray:
    """Return one p-value a row of one-sided t-statistics, shape (R,)."""
    p_values = np.sort(special.ndtr(-t_statistics), axis=1)
    count = p_values.shape[1]
    if correction == "bonferroni":
        return np.asarray(np.minimum(count * p_values[:, 0], 1.0))
    ranks = np.arange(1, count + 1)
    factor = count * float(np.sum(1.0 / ranks))
    return np.asarray(np.minimum(factor * np.min(p_values / ranks, axis=1), 1.0))


def _scale(sample: TailSample, scale: FloatArray | None) -> FloatArray:
    return positive_scale(sample, sample.expected_shortfall if scale is None else scale)
