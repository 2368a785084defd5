"""Conformal calibration: factors that make coverage right out of sample before a model is used.

Split conformal prediction with the score outcome / forecast (a one-sided, multiplicative version
of conformalised quantile regression, Romano et al. 2019, arXiv:1905.03222): forecasts multiplied
by the score's finite-sample quantile are exceeded by at most 1 - level of the calibration
outcomes. The scores come from models fitted on what lay *before* (forward chaining): folds that
learn from the future as well meet crises they have already seen, and their factors are too large
for a model that has seen them all. Everybody's factor is pulled towards 1 while the evidence is
short, and a contract's own factor towards everybody's.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import numpy.typing as npt
import pandas as pd

from margincast.core.types import FloatArray

SMALLEST_FACTOR = 1e-6
"""A factor is 0 where that many outcomes are (a pinned price); logs take it as this."""


@dataclass(frozen=True)
class ConformalFactors:
    """Logarithms of factors for S sides and L levels.

    Attributes:
        everybody: shape (S, L); of a contract that was not there when the model was fitted.
        contracts: per contract what comes on top, both sides together, shape (L,).
    """

    everybody: FloatArray
    contracts: Mapping[str, FloatArray]

    def logs(self, symbols: "pd.Series[str] | npt.NDArray[np.object_]") -> FloatArray:
        """Return log factors, shape (n, S, L), of n rows' contracts."""
        codes, names = pd.factorize(symbols)
        none = np.zeros(self.everybody.shape[1])
        own = np.array([self.contracts.get(str(name), none) for name in names])
        own = own.reshape(len(names), self.everybody.shape[1])
        return np.asarray(self.everybody[None] + own[codes][:, None, :])


def conformal_factor(scores: FloatArray, level: float) -> float:
    """Return the factor that gives forecasts exact finite-sample coverage.

    The ceil((n + 1) level)-th smallest of the scores outcome / forecast, shape (n,); with fewer
    than level / (1 - level) scores no finite factor has the coverage, and the largest is taken.
    """
    ordered = np.sort(scores)
    rank = min(math.ceil((len(ordered) + 1) * level), len(ordered))
    return float(ordered[rank - 1])


def fit_factors(
    scores: FloatArray,
    contract: npt.NDArray[np.object_],
    levels: tuple[float, ...],
    *,
    span: timedelta,
    prior_span: timedelta,
    overlap: float,
    prior_exceedances: float,
) -> ConformalFactors:
    """Estimate everybody's factors and each contract's, both partially pooled in logarithms.

    Everybody's factor has weight span / (span + prior_span) against 1: contracts fall together, so
    evidence grows with time and not with rows. A contract's own has weight n / (n + prior) against
    everybody's, n being the independent exceedances a side can show: rows x (1 - level) / overlap.

    Args:
        scores: outcome / forecast out of sample, shape (n, S, L).
        contract: contract of each row, shape (n,).
        levels: L levels of the forecasts.
        span: time the scores cover.
        prior_span: evidence, in time, with which a factor of 1 counts.
        overlap: rows that share one horizon, at least 1.
        prior_exceedances: evidence, in exceedances, with which everybody's factor counts.
    """
    weight = span / (span + prior_span) if span else 0.0
    everybody = np.zeros(scores.shape[1:])
    for i, j in np.ndindex(everybody.shape):
        everybody[i, j] = weight * _log_factor(scores[:, i, j], levels[j])
    remaining = scores / np.exp(everybody)
    contracts = {}
    for name in np.unique(contract.astype(str)):
        rows = contract == name
        own = np.zeros(len(levels))
        for j, level in enumerate(levels):
            shown = rows.sum() * (1 - level) / overlap
            both_sides = remaining[rows, :, j].ravel()
            own[j] = shown / (shown + prior_exceedances) * _log_factor(both_sides, level)
        contracts[str(name)] = own
    return ConformalFactors(everybody, contracts)


def _log_factor(scores: FloatArray, level: float) -> float:
    return math.log(max(conformal_factor(scores, level), SMALLEST_FACTOR))
