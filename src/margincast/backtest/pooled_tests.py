"""Tests of all contracts together, whose outcomes overlap in time and fall on the same days.

Responsible for the one question a single contract's history is too short for: is the margin, over
all contracts, exceeded as often as its level promises, and no more often after an exceedance or
where the forecast is low. Decisions may be taken every hour with outcomes over a day, and contracts
crash together: standard errors count whole days, all contracts in them, as one observation each,
and let neighbouring days depend on each other.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import stats

from margincast.backtest.clusters import at_least, cluster_covariance, effective_clusters
from margincast.backtest.verdicts import (
    USUAL,
    Criterion,
    TestResult,
    conclude,
    undefined,
)
from margincast.core.errors import InputError
from margincast.core.types import BoolArray, FloatArray
from margincast.scoring.coverage import require_level

FEWEST_CLUSTERS = 100
"""Below so many days with decisions the law of a cluster sum is not to be relied on: with
thirty the coverage test rejects right forecasts in one case of nine."""
FEWEST_BEYOND_MOMENTS = 3
"""Effective observations a joint test needs beyond the number of moments it tests."""


def pooled_coverage(
    hits: BoolArray,
    level: float,
    clusters: npt.NDArray[np.integer],
    *,
    lag: int,
    criterion: Criterion = USUAL,
) -> TestResult:
    """Test the pooled share of exceedances, two sided, with a cluster-robust standard error.

    The statistic is Student's t with :func:`effective_clusters` degrees of freedom.

    Args:
        hits: exceedances of all contracts and sides, shape (n,), in any order.
        level: share not exceeded.
        clusters: see :func:`cluster_covariance`.
        lag: see there.
        criterion: what fails; "no power" where a true ratio of ``detectable_ratio`` would be seen
            with less than ``minimum_power``, by the standard error of the sample.

    Raises:
        InputError: empty or not boolean exceedances, clusters of another length.
    """
    hits, clusters = _require_clustered(hits, clusters)
    level = require_level(level)
    name, count, size = "pooled coverage", int(hits.sum()), hits.size
    days = np.unique(clusters).size
    if days < FEWEST_CLUSTERS:
        reason = f"{days} clusters of time; at least {FEWEST_CLUSTERS} are needed"
        return undefined(name, reason, sample_size=size, exceedances=count)
    if count == 0:
        reason = "no exceedance, so no standard error: use the exact binomial of thinned decisions"
        return undefined(name, reason, sample_size=size, exceedances=count)
    deviation = hits - (1.0 - level)
    error = max(_standard_error(hits, clusters, lag), float(np.sqrt(level * (1.0 - level) / size)))
    worth = effective_clusters((hits - hits.mean())[:, None], clusters)
    if not error > 0.0 or not worth > 0.0:
        reason = (
            "the same share of exceedances every day, so no standard error: use the exact binomial "
            "of thinned decisions"
        )
        return undefined(name, reason, sample_size=size, exceedances=count)
    statistic = float(deviation.mean()) / error
    law = stats.t(worth)
    shift = (criterion.detectable_ratio - 1.0) * (1.0 - level) / error
    power = float(law.sf(law.isf(criterion.significance / 2.0) - shift))
    powerless = ""
    if power < criterion.minimum_power:
        powerless = (
            f"{criterion.detectable_ratio:g} times the promised exceedances would be seen with "
            f"probability {power:.2f} only"
        )
    return conclude(
        name,
        statistic,
        2.0 * float(law.sf(abs(statistic))),
        sample_size=size,
        exceedances=count,
        criterion=criterion,
        powerless=powerless,
    )


def pooled_levels(
    hits: BoolArray,
    levels: Sequence[float],
    clusters: npt.NDArray[np.integer],
    *,
    lag: int,
    criterion: Criterion = USUAL,
) -> TestResult:
    """Test the pooled shares of exceedances of several levels together, a Wald test.

    Args:
        hits: shape (n, L), a column a level.
        levels: of the columns.
        clusters: see :func:`cluster_covariance`.
        lag: see there.
        criterion: what fails; "no power" where ``detectable_ratio`` times the promised exceedances
            at every level would be seen with less than ``minimum_power``.

    Raises:
        InputError: as :func:`pooled_coverage`; a column for each level.
    """
    if hits.ndim != 2 or hits.shape[1] != len(levels):
        raise InputError(f"hits has shape {hits.shape}; expected (n, {len(levels)})")
    for column in hits.T:
        _require_clustered(column, clusters)
    nominal = np.array([1.0 - require_level(level) for level in levels])
    deviations = hits - nominal
    return _wald(
        "pooled levels",
        deviations,
        independent=(np.minimum.outer(nominal, nominal) - np.outer(nominal, nominal)) * len(hits),
        shift=(criterion.detectable_ratio - 1.0) * nominal,
        hits=hits[:, 0],
        clusters=np.asarray(clusters),
        lag=lag,
        criterion=criterion,
    )


def pooled_dynamics(
    hits: BoolArray,
    level: float,
    clusters: npt.NDArray[np.integer],
    instruments: FloatArray,
    *,
    lag: int,
    criterion: Criterion = USUAL,
) -> TestResult:
    """Test that exceedances cannot be foretold from what was known, over all contracts.

    The dynamic quantile idea with cluster-robust covariance: the exceedance less ``1 - level`` is
    orthogonal to a constant and to every instrument, for example whether the contract's last
    finished horizon was an exceedance, and the logarithm of the forecast.

    Args:
        hits: shape (n,).
        level: share not exceeded.
        clusters: see :func:`cluster_covariance`.
        instruments: known at the decision, shape (n, k), finite; standardised here.
        lag: see :func:`cluster_covariance`.
        criterion: what fails; "no power" where exceedances that are ``detectable_ratio`` times the
            promised ones, and can be foretold by nothing, would be seen with less than
            ``minimum_power``.

    Raises:
        InputError: as :func:`pooled_coverage`; instruments of another length or not finite.

    Source: Engle and Manganelli (2004), doi:10.1198/073500104000000370.
    """
    hits, clusters = _require_clustered(hits, clusters)
    level = require_level(level)
    if instruments.ndim != 2 or len(instruments) != hits.size or not np.isfinite(instruments).all():
        raise InputError(
            f"instruments has shape {instruments.shape}; expected finite values of shape "
            f"({hits.size}, k)"
        )
    spread = instruments.std(axis=0)
    # the deviation of a constant is rounding, not zero
    varying = spread > 1e-9 * np.maximum(np.abs(instruments).max(axis=0), 1e-300)
    standard = (instruments[:, varying] - instruments[:, varying].mean(axis=0)) / spread[varying]
    known = np.column_stack([np.ones(hits.size), standard])
    shift = np.zeros(known.shape[1])
    shift[0] = (criterion.detectable_ratio - 1.0) * (1.0 - level)
    return _wald(
        "pooled dynamics",
        (hits - (1.0 - level))[:, None] * known,
        independent=level * (1.0 - level) * np.asarray(known.T @ known, dtype=np.float64),
        shift=shift,
        hits=hits,
        clusters=clusters,
        lag=lag,
        criterion=criterion,
    )


def _wald(
    name: str,
    moments: FloatArray,
    *,
    independent: FloatArray,
    shift: FloatArray,
    hits: BoolArray,
    clusters: npt.NDArray[np.integer],
    lag: int,
    criterion: Criterion,
) -> TestResult:
    """Test that all moments are zero.

    ``independent`` is the covariance of their sum if a true margin's exceedances were independent;
    ``shift`` is the mean they would have where the margin is so wrong that it must be seen.
    """
    size, count = len(hits), int(hits.sum())
    degrees = moments.shape[1]
    days = np.unique(clusters).size
    if days < FEWEST_CLUSTERS:
        reason = f"{days} clusters of time; at least {FEWEST_CLUSTERS} are needed"
        return undefined(name, reason, sample_size=size, exceedances=count)
    covariance = at_least(cluster_covariance(moments, clusters, lag), independent)
    total = moments.sum(axis=0)
    statistic = float(total @ np.linalg.solve(covariance, total))
    worth = effective_clusters(moments, clusters)
    if worth < degrees + FEWEST_BEYOND_MOMENTS:
        reason = f"all that speaks is worth {worth:.1f} independent observations"
        return undefined(name, reason, sample_size=size, exceedances=count)
    # Hotelling's factor: the covariance itself is estimated from so few observations
    scaled = statistic * (worth - degrees + 1.0) / (degrees * worth)
    law = stats.f(degrees, worth - degrees + 1.0)
    p_value = float(law.sf(scaled))
    power = _wald_power(shift * size, covariance, (lag + 1.0) / days, worth, criterion.significance)
    powerless = ""
    if power < criterion.minimum_power:
        powerless = (
            f"{criterion.detectable_ratio:g} times the promised exceedances would be seen with "
            f"probability {power:.2f} only"
        )
    return conclude(
        name,
        statistic,
        p_value,
        degrees_of_freedom=degrees,
        sample_size=size,
        exceedances=count,
        criterion=criterion,
        powerless=powerless,
    )


def _wald_power(
    shift: FloatArray, covariance: FloatArray, share: float, worth: float, significance: float
) -> float:
    """Return the probability that a sum of moments moved by ``shift`` is rejected.

    The covariance is that of a true margin, uncentred: a wrong margin adds ``share * shift shift'``
    to it (each of the clusters and of its neighbours within the lag holds its part of the shift),
    which is what makes these tests timid in short samples.
    """
    distance = float(shift @ np.linalg.solve(covariance, shift))
    distance /= 1.0 + share * distance
    degrees, rest = len(shift), worth - len(shift) + 1.0
    return float(stats.ncf.sf(stats.f.isf(significance, degrees, rest), degrees, rest, distance))


def _standard_error(hits: BoolArray, clusters: npt.NDArray[np.integer], lag: int) -> float:
    moments = (hits - hits.mean())[:, None]
    return float(np.sqrt(cluster_covariance(moments, clusters, lag)[0, 0])) / hits.size


def _require_clustered(
    hits: BoolArray, clusters: npt.NDArray[np.integer]
) -> tuple[BoolArray, npt.NDArray[np.integer]]:
    hits, clusters = np.asarray(hits), np.asarray(clusters)
    if hits.ndim != 1 or hits.size == 0 or hits.dtype != np.bool_:
        raise InputError(
            f"hits has shape {hits.shape} and type {hits.dtype}; expected a non-empty "
            "one-dimensional boolean array"
        )
    if clusters.shape != hits.shape or clusters.min() < 0:
        raise InputError(
            f"clusters has shape {clusters.shape}; expected one number from 0 for each of the "
            f"{hits.size} decisions"
        )
    return hits, clusters
