"""Costanzino and Curran's coverage test of expected shortfall, and its traffic light.

Responsible for the expected-shortfall counterpart of the Basel count: each exceedance counts by its
severity (:mod:`~margincast.backtest.es_tests.severity`), and their sum has an exact
law under correct forecasts: a binomial number of uniform variables.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from scipy import optimize, stats

from margincast.backtest.es_tests.severity import require_severity
from margincast.backtest.var_tests.judgement import too_short
from margincast.backtest.var_tests.traffic_light import RED_PROBABILITY, YELLOW_PROBABILITY, Zone
from margincast.backtest.verdicts import USUAL, Criterion, TestResult, conclude
from margincast.core.errors import InputError
from margincast.core.types import FloatArray
from margincast.scoring.coverage import require_level

Alternative = Literal["greater", "two-sided"]

NEGLIGIBLE = 1e-15
"""Numbers of exceedances rarer than this are left out of the law."""

UNDERFLOW = 1e-250
"""Probabilities below this count as 0."""

FAR = 6.0
"""Standard deviations above the mean where limits are looked for first."""


@dataclass(frozen=True)
class SeverityLight:
    """The zone of a sum of severities.

    Attributes:
        zone: green, yellow or red.
        total: sum of the severities.
        cumulative_probability: of a sum no larger under correct forecasts.
        yellow_from: sum at which that probability is 0.95, the Basel limit.
        red_from: sum at which it is 0.9999.
    """

    zone: Zone
    total: float
    cumulative_probability: float
    yellow_from: float
    red_from: float


def costanzino_curran(
    severity: FloatArray,
    level: float,
    criterion: Criterion = USUAL,
    *,
    alternative: Alternative = "greater",
) -> TestResult:
    """Test whether severities are as many and as deep as promised.

    The statistic is ``(mean - p/2) / sqrt(p (1/3 - p/4) / T)`` with p = 1 - level, asymptotically
    standard normal; the p-value given is exact at every T, so no simulation is needed. It is the
    coverage test of a spectral risk measure for the spectrum of expected shortfall, flat on the
    tail, and one sided by default; two sided it differs from the unconditional test of Du and
    Escanciano by the exact law only.

    Args:
        severity: in [0, 1], 0 without exceedance, shape (T,), in time order, one series whose
            outcomes do not overlap.
        level: of the quantile, in (0.5, 1).
        criterion: what fails, and what has too little power to pass.
        alternative: "greater" fails understated risk only.

    Raises:
        InputError: severities outside [0, 1], NaN, empty, not (T,); level outside (0.5, 1).

    Source: Costanzino and Curran (2015), Backtesting general spectral risk measures with
    application to expected shortfall, Journal of Risk Model Validation 9(1),
    doi:10.21314/JRMV.2015.131.
    """
    level = require_level(level)
    severity = require_severity(severity)
    mean, deviation = severity_moments(severity.size, level)
    below, above = _tails(float(severity.sum()), severity.size, level)
    p_value = above if alternative == "greater" else min(1.0, 2.0 * min(below, above))
    return conclude(
        f"costanzino-curran {alternative}",
        (float(severity.mean()) - mean) / deviation,
        p_value,
        sample_size=severity.size,
        exceedances=int(np.count_nonzero(severity)),
        criterion=criterion,
        powerless=too_short(severity.size, level, criterion),
    )


def severity_traffic_light(total: float, sample_size: int, level: float) -> SeverityLight:
    """Return the zone of a sum of severities, with the Basel probabilities of the count's zones.

    Args:
        total: sum of the severities, from 0 to T.
        sample_size: decisions T.
        level: of the quantile, in (0.5, 1).

    Raises:
        InputError: a sum outside 0..T, T below 1, or level outside (0.5, 1).

    Source: Costanzino and Curran (2018), A simple traffic light approach to backtesting expected
    shortfall, Risks 6(1), doi:10.3390/risks6010002.
    """
    level = require_level(level)
    if sample_size < 1 or not 0.0 <= total <= sample_size:
        raise InputError(
            f"found a sum of severities of {total:g} in {sample_size} decisions; there must be at "
            "least one decision, and a sum from 0 to their number"
        )
    yellow_from = _limit(YELLOW_PROBABILITY, sample_size, level)
    red_from = _limit(RED_PROBABILITY, sample_size, level)
    zone: Zone = "green"
    if total > 0.0 and total >= red_from:
        zone = "red"
    elif total > 0.0 and total >= yellow_from:
        zone = "yellow"
    return SeverityLight(zone, total, _tails(total, sample_size, level)[0], yellow_from, red_from)


def severity_moments(sample_size: int, level: float) -> tuple[float, float]:
    """Return mean and standard deviation of the mean severity of correct forecasts.

    Raises:
        InputError: level outside (0.5, 1).
    """
    tail = 1.0 - require_level(level)
    return tail / 2.0, math.sqrt(tail * (1.0 / 3.0 - tail / 4.0) / sample_size)


@lru_cache(maxsize=4096)
def _tails(total: float, sample_size: int, level: float) -> tuple[float, float]:
    """Return P(S <= total) and P(S >= total) of the sum S of severities of correct forecasts.

    The law of a sum of n uniforms (Irwin-Hall) from that of n - 1, at total, total - 1, ...: every
    step is an average, so that no digit is lost; the alternating formula loses all beyond n = 20.
    """
    law = stats.binom(sample_size, 1.0 - level)
    largest = int(law.isf(NEGLIGIBLE)) + 1
    weights = law.pmf(np.arange(largest + 1))
    points = total - np.arange(math.floor(total) + 1)
    below = np.ones(points.size)  # the empty sum is 0
    at_most = float(weights[0])
    for count in range(1, largest + 1):
        previous = np.append(below[1:], 0.0)
        below = (points * below + (count - points) * previous) / count
        below[points >= count] = 1.0
        below[below < UNDERFLOW] = 0.0  # arithmetic below the normal range is slow
        at_most += float(weights[count] * below[0])
    at_most = min(at_most, 1.0)
    # only the sum 0, no exceedance, has a probability of its own
    return at_most, 1.0 - at_most if total > 0.0 else 1.0


@lru_cache(maxsize=256)
def _limit(probability: float, sample_size: int, level: float) -> float:
    """Return the sum of severities reached with a probability; 0 where no exceedance reaches it."""
    if _tails(0.0, sample_size, level)[0] >= probability:
        return 0.0
    mean, deviation = severity_moments(sample_size, level)
    highest = min(1.0, mean + FAR * deviation) * sample_size
    while _tails(highest, sample_size, level)[0] < probability:
        highest = min(2.0 * highest, float(sample_size))
    return float(
        optimize.brentq(
            lambda total: _tails(total, sample_size, level)[0] - probability,
            0.0,
            highest,
            xtol=1e-6,
        )
    )
