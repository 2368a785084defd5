"""Conformal calibration: factors that make out-of-fold coverage exact before a model is used.

Split conformal prediction with the score outcome / forecast (a one-sided, multiplicative version
of conformalised quantile regression, Romano et al. 2019, arXiv:1905.03222): forecasts multiplied
by the score's finite-sample quantile are exceeded by at most 1 - level of the calibration
outcomes. A contract's own factor is pooled with everybody's, because few contracts have enough
exceedances of their own.
"""

import math

import numpy as np
import numpy.typing as npt

from margincast.core.types import FloatArray

SMALLEST_FACTOR = 1e-6
"""A factor is 0 where that many outcomes are (a pinned price); logs take it as this."""


def conformal_factor(outcome: FloatArray, forecast: FloatArray, level: float) -> float:
    """Return the factor that gives forecasts exact finite-sample coverage.

    The ceil((n + 1) level)-th smallest of outcome / forecast, shape (n,) each; with fewer than
    level / (1 - level) scores no finite factor has the coverage, and the largest score is taken.
    """
    scores = np.sort(outcome / forecast)
    rank = min(math.ceil((len(scores) + 1) * level), len(scores))
    return float(scores[rank - 1])


def pooled_factors(
    outcome: FloatArray,
    forecast: FloatArray,
    contract: npt.NDArray[np.object_],
    level: float,
    *,
    overlap: float,
    prior_exceedances: float,
) -> tuple[float, dict[str, float]]:
    """Return everybody's factor and each contract's, partially pooled in logarithms.

    A contract's weight is n / (n + prior), n being the independent exceedances it can show:
    rows x (1 - level) / overlap.

    Args:
        outcome: adverse excursions, shape (n,).
        forecast: uncalibrated quantile forecasts, shape (n,), positive.
        contract: contract of each row, shape (n,).
        level: of the forecasts.
        overlap: rows that share one horizon, at least 1.
        prior_exceedances: weight of everybody's factor, in exceedances.
    """
    everybody = conformal_factor(outcome, forecast, level)
    factors = {}
    for name in np.unique(contract.astype(str)):
        rows = contract == name
        shown = rows.sum() * (1 - level) / overlap
        own = conformal_factor(outcome[rows], forecast[rows], level)
        weight = shown / (shown + prior_exceedances)
        factors[str(name)] = float(
            math.exp(
                weight * math.log(max(own, SMALLEST_FACTOR))
                + (1 - weight) * math.log(max(everybody, SMALLEST_FACTOR))
            )
        )
    return everybody, factors
