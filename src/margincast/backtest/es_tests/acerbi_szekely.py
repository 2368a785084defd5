"""Acerbi and Szekely's tests: losses beyond the margin against the expected shortfall promised.

Responsible for the five statistics that MATLAB's Risk Management Toolbox knows as "conditional"
(Z1), "unconditional" (Z2), "quantile" (Z3), "minBiasAbsolute" and "minBiasRelative". All have
MATLAB's sign: expectation 0 under correct forecasts, negative where risk is understated. Acerbi and
Szekely (2014) write them with returns; Z1 and Z2 there have the same sign. The tests are one sided:
only an understated risk fails.

Outcomes below the forecast enter none of them; the p-values need a law of the excess beyond it
(``law``). Sums of few exceedances are skewed: at 5 % the normal p-values reject 6 to 9 % of correct
forecasts of 250 decisions, and are right from some 50 expected exceedances on; the Monte-Carlo
p-value is exact under the law and decides where there is one.

Source: Acerbi and Szekely (2014), Backtesting expected shortfall, Risk, December; (2017), General
properties of backtestable statistics, doi:10.2139/ssrn.2905109; (2019), The minimally biased
backtest for ES, Risk, September. Their MATLAB names are those of esbacktestbysim.
"""

import math
from functools import lru_cache

import numpy as np
from scipy import special, stats

from margincast.backtest.es_tests.simulated_tails import SimulatedTails, TailDraws
from margincast.backtest.es_tests.tail_law import USUAL_TAIL, TailLaw
from margincast.backtest.es_tests.tail_power import too_few
from margincast.backtest.es_tests.tail_sample import NO_EXCEEDANCE, TailSample, tail_sample
from margincast.backtest.var_tests.judgement import too_short
from margincast.backtest.verdicts import NAN, USUAL, Criterion, TestResult, conclude
from margincast.core.types import FloatArray

NOTHING_BEYOND = (
    "an outcome exceeded a forecast whose expected shortfall promised nothing beyond it"
)

NODES = 400
"""Of the quadrature for the mean of the largest unit excesses; exact to ten digits."""


def acerbi_szekely_conditional(
    outcome: FloatArray,
    forecast: FloatArray,
    expected_shortfall: FloatArray,
    level: float,
    criterion: Criterion = USUAL,
    *,
    law: TailLaw = USUAL_TAIL,
    monte_carlo: SimulatedTails | None = None,
) -> TestResult:
    """Test Z1, ``1 - mean(outcome / expected_shortfall)`` over the exceedances.

    Judges size alone, given that the forecast is exceeded as often as it should be: test that
    first (Kupiec). MATLAB's "conditional" rejects where either rejects.

    Args:
        outcome: realised adverse excursions, positive losses, simple fractions, shape (T,), one
            series in time order whose outcomes do not overlap.
        forecast: quantile forecasts at ``level``, simple fractions, the same shape.
        expected_shortfall: of the same level, simple fractions, the same shape.
        level: the share not exceeded, in (0.5, 1).
        criterion: what fails, and what has too little power to pass.
        law: of the excess beyond the forecast, for both p-values.
        monte_carlo: adds the p-value under simulated correct forecasts.

    Raises:
        InputError: level outside (0.5, 1); shapes differ or are not (T,); empty, NaN, infinite or
            in per cent; an expected shortfall that is not positive or lies below its forecast.
    """
    name = "acerbi-szekely conditional"
    sample = tail_sample(outcome, forecast, expected_shortfall, level)
    hits = sample.hits
    if not hits.size:
        return sample.undefined(name, NO_EXCEEDANCE)
    statistic = 1.0 - float(np.mean(sample.outcome[hits] / sample.expected_shortfall[hits]))
    spread = sample.spread / sample.expected_shortfall
    error = math.sqrt(law.variance * float(spread[hits] @ spread[hits])) / hits.size
    p_value = float(special.ndtr(statistic / error)) if error > 0.0 else NAN
    simulated_p = NAN
    if monte_carlo is not None:
        draws = monte_carlo.draws(sample.sample_size, level)
        excess = monte_carlo.excesses(sample.sample_size, level, law)
        with np.errstate(invalid="ignore"):  # a series without exceedance has no Z1
            simulated = draws.total(spread[draws.position] * (excess - 1.0)) / draws.counts
        simulated_p = monte_carlo.rank(-statistic, simulated, sample.sample_size, level)
    return conclude(
        name,
        statistic,
        p_value,
        monte_carlo_p_value=simulated_p,
        sample_size=sample.sample_size,
        exceedances=hits.size,
        criterion=criterion,
        powerless=too_few(hits.size, law, criterion),
    )


def acerbi_szekely_unconditional(
    outcome: FloatArray,
    forecast: FloatArray,
    expected_shortfall: FloatArray,
    level: float,
    criterion: Criterion = USUAL,
    *,
    law: TailLaw = USUAL_TAIL,
    monte_carlo: SimulatedTails | None = None,
) -> TestResult:
    """Test Z2, ``1 - sum(outcome / expected_shortfall over exceedances) / (T (1 - level))``.

    Judges number and size together. MATLAB's tables ("unconditionalNormal", "unconditionalT") are
    this test under :class:`~margincast.backtest.es_tests.tail_law.StudentTail`.

    Args and errors as :func:`acerbi_szekely_conditional`.
    """
    sample = tail_sample(outcome, forecast, expected_shortfall, level)
    hits = sample.hits
    ratios = sample.outcome[hits] / sample.expected_shortfall[hits]
    expected = sample.sample_size * sample.tail
    spread = sample.spread / sample.expected_shortfall
    return _sum_test(
        "acerbi-szekely unconditional",
        sample,
        criterion,
        law,
        monte_carlo,
        statistic=1.0 - float(ratios.sum()) / expected,
        flat=(1.0 - spread) / expected,
        steep=spread / expected,
    )


def minimally_biased_absolute(
    outcome: FloatArray,
    forecast: FloatArray,
    expected_shortfall: FloatArray,
    level: float,
    criterion: Criterion = USUAL,
    *,
    law: TailLaw = USUAL_TAIL,
    monte_carlo: SimulatedTails | None = None,
) -> TestResult:
    """Test the mean of ``ES - forecast - max(0, outcome - forecast) / (1 - level)``, a fraction.

    A wrong quantile hardly biases it: it judges the expected shortfall alone. Quiet and stormy
    times weigh by the size of their forecasts.

    Args and errors as :func:`acerbi_szekely_conditional`.
    """
    sample = tail_sample(outcome, forecast, expected_shortfall, level)
    beyond = np.maximum(sample.outcome - sample.forecast, 0.0) / sample.tail
    return _sum_test(
        "minimally biased absolute",
        sample,
        criterion,
        law,
        monte_carlo,
        statistic=float(np.mean(sample.spread - beyond)),
        flat=np.zeros(sample.sample_size),
        steep=sample.spread / (sample.sample_size * sample.tail),
    )


def minimally_biased_relative(
    outcome: FloatArray,
    forecast: FloatArray,
    expected_shortfall: FloatArray,
    level: float,
    criterion: Criterion = USUAL,
    *,
    law: TailLaw = USUAL_TAIL,
    monte_carlo: SimulatedTails | None = None,
) -> TestResult:
    """Test the mean of the absolute test's terms, each divided by its expected shortfall.

    Args and errors as :func:`acerbi_szekely_conditional`.
    """
    sample = tail_sample(outcome, forecast, expected_shortfall, level)
    beyond = np.maximum(sample.outcome - sample.forecast, 0.0) / sample.tail
    return _sum_test(
        "minimally biased relative",
        sample,
        criterion,
        law,
        monte_carlo,
        statistic=float(np.mean((sample.spread - beyond) / sample.expected_shortfall)),
        flat=np.zeros(sample.sample_size),
        steep=sample.spread / sample.expected_shortfall / (sample.sample_size * sample.tail),
    )


def acerbi_szekely_quantile(
    outcome: FloatArray,
    forecast: FloatArray,
    expected_shortfall: FloatArray,
    level: float,
    criterion: Criterion = USUAL,
    *,
    law: TailLaw = USUAL_TAIL,
    monte_carlo: SimulatedTails | None = None,
) -> TestResult:
    """Test Z3: the expected shortfall of all outcomes, carried to each decision by its quantiles.

    ``1 - mean_t(estimate_t / expectation_t)``: ``estimate_t`` is the mean of the k = floor(T (1 -
    level)) largest outcomes after each was replaced by what has the same probability in the
    forecast of decision t, ``expectation_t`` its mean under correct forecasts. Beyond the quantile
    the forecast of decision t is ``forecast + spread x unit excess`` with the law given; below it
    nothing is known, so that an outcome among the k largest that exceeds nothing counts as the
    forecast itself, in the statistic, its expectation and the simulations alike. MATLAB's
    "quantile" has whole distributions and differs by that.

    Args and errors as :func:`acerbi_szekely_conditional`.
    """
    name = "acerbi-szekely quantile"
    sample = tail_sample(outcome, forecast, expected_shortfall, level)
    size, tail = sample.sample_size, sample.tail
    largest = _largest(size, level)
    if largest == 0:
        return sample.undefined(
            name, f"{size} decisions are fewer than the {1.0 / tail:.0f} that {level:g} needs"
        )
    unit = np.sort(sample.unit_excess)[::-1]
    observed = float(unit[:largest].sum()) / largest
    if math.isinf(observed):
        return sample.undefined(name, NOTHING_BEYOND)
    expectation = _mean_of_largest(size, level, law)
    estimates = sample.forecast + sample.spread * observed
    statistic = 1.0 - float(np.mean(estimates / (sample.forecast + sample.spread * expectation)))
    # the mean of the largest has the variance of a sample expected shortfall
    error = math.sqrt(((1.0 + law.variance) / tail - 1.0) / size)
    p_value = float(special.ndtr((expectation - observed) / error))
    simulated_p = NAN
    if monte_carlo is not None:
        # Z3 falls with the mean of the largest unit excesses, whatever the forecasts
        simulated_p = monte_carlo.p_value(
            f"{name} {law}",
            lambda draws: _largest_means(draws, law.excess(draws.share), largest),
            observed,
            size,
            level,
        )
    return conclude(
        name,
        statistic,
        p_value,
        monte_carlo_p_value=simulated_p,
        sample_size=size,
        exceedances=sample.hits.size,
        criterion=criterion,
        powerless=too_short(size, level, criterion),
    )


def _sum_test(
    name: str,
    sample: TailSample,
    criterion: Criterion,
    law: TailLaw,
    monte_carlo: SimulatedTails | None,
    *,
    statistic: float,
    flat: FloatArray,
    steep: FloatArray,
) -> TestResult:
    """Judge a statistic from which an exceedance of unit excess E takes ``flat + steep E``."""
    size, tail = sample.sample_size, sample.tail
    both = flat + steep
    square = float(both @ both) + law.variance * float(steep @ steep)
    variance = tail * square - tail**2 * float(both @ both)
    p_value = float(special.ndtr(statistic / math.sqrt(variance))) if variance > 0.0 else NAN
    simulated_p = NAN
    if monte_carlo is not None:
        draws = monte_carlo.draws(size, sample.level)
        excess = monte_carlo.excesses(size, sample.level, law)
        taken = draws.total(flat[draws.position] + steep[draws.position] * excess)
        expectation = tail * float(both.sum())
        simulated_p = monte_carlo.rank(expectation - statistic, taken, size, sample.level)
    return conclude(
        name,
        statistic,
        p_value,
        monte_carlo_p_value=simulated_p,
        sample_size=size,
        exceedances=sample.hits.size,
        criterion=criterion,
        powerless=too_short(size, sample.level, criterion),
    )


def _largest(sample_size: int, level: float) -> int:
    """Return floor(T (1 - level)), robust to the rounding of 1 - level."""
    return math.floor(sample_size * (1.0 - level) + 1e-9)


def _largest_means(draws: TailDraws, excess: FloatArray, largest: int) -> FloatArray:
    """Return the sum of each series' largest unit excesses over their number, shape (R,)."""
    order = np.lexsort((-excess, draws.series))
    first = np.cumsum(draws.counts) - draws.counts
    rank = np.arange(excess.size) - first[draws.series]
    return draws.total(np.where(rank < largest, excess[order], 0.0)) / largest


@lru_cache(maxsize=256)
def _mean_of_largest(sample_size: int, level: float, law: TailLaw) -> float:
    """Return the expectation of the mean of the k largest unit excesses, those missing being 0.

    ``T/k`` times the expectation of one excess on the event that fewer than k others are larger.
    """
    largest = _largest(sample_size, level)
    tail = 1.0 - level
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    root = (nodes + 1.0) / 2.0
    share = root**6  # takes the pole of the excess at share 0 away
    fewer = stats.binom.cdf(largest - 1, sample_size - 1, tail * share)
    values = law.excess(share) * fewer * 6.0 * root**5
    return sample_size * tail / largest * float(weights @ values) / 2.0
