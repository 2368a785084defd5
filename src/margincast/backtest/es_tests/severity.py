"""Severity of exceedances: how deep into the promised tail an outcome went, between 0 and 1.

Responsible for the cumulative violations of Du and Escanciano, the severities of Costanzino and
Curran: ``max(0, u - level) / (1 - level)`` with u the probability that the forecast law gave to
outcomes no larger (the PIT). 0 where the margin held, 0.9 for an exceedance that only a tenth of
exceedances should surpass. Under correct forecasts a severity is 0 with probability ``level`` and
uniform otherwise, whatever the law: tests of it need no simulation of outcomes.

Forecasts of a few quantile levels and an expected shortfall are no whole law. Between two levels
the chance of going further is taken to fall as a power of the outcome (a Pareto tail through both),
and beyond the highest level as the excess law given, with the mean that the expected shortfall
there promises; below the lowest level the severity is 0 and no PIT is needed. Where a model has a
law of its own, give its PITs: severities hang on the law more than any other statistic here, at
0.95 one-sided tests of them reject 22 % of correct forecasts of normal outcomes under the usual
law, which has a heavier tail.
"""

from collections.abc import Sequence

import numpy as np

from margincast.backtest.es_tests.tail_law import USUAL_TAIL, TailLaw
from margincast.backtest.es_tests.tail_sample import tail_sample
from margincast.backtest.var_tests.forecast_series import require_levels
from margincast.core.errors import InputError
from margincast.core.types import FloatArray
from margincast.scoring.coverage import require_finite, require_level


def severity_of_pit(pit: FloatArray, level: float) -> FloatArray:
    """Return severities from PITs of losses, ``max(0, pit - level) / (1 - level)``.

    Args:
        pit: probability that the forecast law gave to losses no larger, in [0, 1], shape (T,). The
            PIT of a return is one less this.
        level: the share not exceeded, in (0.5, 1).

    Raises:
        InputError: PITs outside [0, 1], NaN, empty, not (T,); level outside (0.5, 1).

    Source: Du and Escanciano (2017), doi:10.1287/mnsc.2015.2342.
    """
    level = require_level(level)
    pit = require_finite(pit, "pit")
    if pit.ndim != 1 or pit.min() < 0.0 or pit.max() > 1.0:
        raise InputError(
            f"pit must have shape (T,) and lie in [0, 1], found shape {pit.shape} and values from "
            f"{float(pit.min()):g} to {float(pit.max()):g}"
        )
    return np.maximum(pit - level, 0.0) / (1.0 - level)


def severity_of_forecasts(
    outcome: FloatArray,
    forecast: FloatArray,
    expected_shortfall: FloatArray,
    level: float,
    *,
    law: TailLaw = USUAL_TAIL,
) -> FloatArray:
    """Return severities from one quantile and expected shortfall, shape (T,).

    Args:
        outcome: realised adverse excursions, positive losses, simple fractions, shape (T,).
        forecast: quantile forecasts at ``level``, simple fractions, the same shape.
        expected_shortfall: of the same level, simple fractions, the same shape.
        level: the share not exceeded, in (0.5, 1).
        law: of the excess beyond the forecast.

    Raises:
        InputError: level outside (0.5, 1); shapes differ or are not (T,); empty, NaN, infinite or
            in per cent; an expected shortfall that is not positive or lies below its forecast.
    """
    sample = tail_sample(outcome, forecast, expected_shortfall, level)
    severity = np.zeros(sample.sample_size)
    severity[sample.hits] = 1.0 - law.share_beyond(sample.unit_excess)
    return severity


def severity_of_levels(
    outcome: FloatArray,
    forecasts: FloatArray,
    levels: Sequence[float],
    expected_shortfall: FloatArray,
    *,
    law: TailLaw = USUAL_TAIL,
) -> FloatArray:
    """Return severities beyond the lowest of several levels, shape (T,); see the module.

    Args:
        outcome: realised adverse excursions, positive losses, simple fractions, shape (T,).
        forecasts: quantile forecasts, positive and strictly increasing in level, shape (T, N).
        levels: shares not exceeded, strictly increasing, each in (0.5, 1).
        expected_shortfall: of the highest level, simple fractions, shape (T,).
        law: of the excess beyond the highest forecast.

    Raises:
        InputError: as :func:`severity_of_forecasts`; not one column a level; levels not increasing;
            forecasts not positive or not strictly increasing.
    """
    steps = tuple(levels)
    outcome, forecasts = require_levels(outcome, forecasts, steps)
    flat = (np.diff(forecasts, axis=1) <= 0.0).any(axis=1) | (forecasts[:, 0] <= 0.0)
    if flat.any():
        raise InputError(
            f"forecasts of {int(flat.sum())} decisions are not positive or do not rise from level "
            f"to level, the first in row {int(np.flatnonzero(flat)[0])}; rearrange crossed "
            "quantiles first"
        )
    top = severity_of_forecasts(outcome, forecasts[:, -1], expected_shortfall, steps[-1], law=law)
    beyond = np.where(outcome > forecasts[:, 0], 1.0 - steps[0], 1.0)
    for column in range(len(steps) - 1):
        low, high = forecasts[:, column], forecasts[:, column + 1]
        inside = (outcome > low) & (outcome <= high)
        power = np.log((1.0 - steps[column]) / (1.0 - steps[column + 1])) / np.log(high / low)
        reached = (outcome[inside] / low[inside]) ** -power[inside]
        beyond[inside] = (1.0 - steps[column]) * reached
    far = outcome > forecasts[:, -1]
    beyond[far] = (1.0 - steps[-1]) * (1.0 - top[far])
    return np.where(beyond < 1.0, 1.0 - beyond / (1.0 - steps[0]), 0.0)


def require_severity(severity: FloatArray) -> FloatArray:
    """Return severities if they are one series in [0, 1].

    Raises:
        InputError: they are not, or hold NaN.
    """
    severity = require_finite(severity, "severity")
    if severity.ndim != 1 or severity.min() < 0.0 or severity.max() > 1.0:
        raise InputError(
            f"severity must have shape (T,) and lie in [0, 1], found shape {severity.shape} and "
            f"values from {float(severity.min()):g} to {float(severity.max()):g}"
        )
    return severity
