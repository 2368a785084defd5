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


def cluster_covariance(
    moments: FloatArray, clusters: npt.NDArray[np.integer], lag: int
) -> FloatArray:
    """Return the covariance of the sum of moments, clustered by time and Bartlett between clusters.

    With ``g`` the sums of the rows of a cluster: ``G0 + sum_{j=1..lag} (1 - j/(lag+1)) (Gj + Gj')``
    with ``Gj = sum_d g_d g_{d-j}'``, times ``D/(D-1)``. Clusters follow each other as numbered;
    those without rows count as zeros, so that a gap in time breaks no pair wrongly.

    Args:
        moments: mean zero when the hypothesis is true, shape (n, k).
        clusters: number of the cluster of each row in time order, for example days since the
            first, shape (n,), not negative.
        lag: neighbouring clusters that may depend on each other; days: at least those a horizon
            spans, and those volatility clusters last.

    Returns:
        Shape (k, k), positive semi-definite.

    Source: Driscoll and Kraay (1998), doi:10.1162/003465398557825: Newey-West on the sums over the
    cross-section, consistent for any dependence between contracts.
    """
    sums = _sums_by_cluster(moments, clusters)
    count = len(sums)
    covariance = np.asarray(sums.T @ sums, dtype=np.float64)
    for shift in range(1, min(lag, count - 1) + 1):
        cross = sums[shift:].T @ sums[:-shift]
        covariance += (1.0 - shift / (lag + 1.0)) * np.asarray(cross + cross.T, dtype=np.float64)
    return covariance * (count / max(count - 1, 1))


def effective_clusters(moments: FloatArray, clusters: npt.NDArray[np.integer]) -> float:
    """Return how many normal observations a variance of these cluster sums is worth.

    Exceedances are rare and come in crowds: a few days make up most of a variance, which then is
    uncertain however many days there are. By Satterthwaite's rule, ``2 V^2 / var(V)`` with ``V``
    the sum of squares, the smallest of the columns'.

    Args:
        moments: shape (n, k).
        clusters: see :func:`cluster_covariance`.

    Source: Satterthwaite (1946), doi:10.2307/3002019; for clusters Carter, Schnepel and
    Steigerwald (2017), doi:10.1162/REST_a_00639.
    """
    squares = _sums_by_cluster(moments, clusters) ** 2
    total = squares.sum(axis=0)
    spread = (squares**2).sum(axis=0) - total**2 / len(squares)
    worth = np.divide(2.0 * total**2, spread, out=np.zeros_like(total), where=spread > 0.0)
    return float(worth.min())


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
    error = _standard_error(hits, clusters, lag)
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
        criterion: what fails.

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
        "pooled levels", deviations, hits[:, 0], np.asarray(clusters), lag=lag, criterion=criterion
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
        criterion: what fails.

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
    moments = (hits - (1.0 - level))[:, None] * np.column_stack([np.ones(hits.size), standard])
    return _wald("pooled dynamics", moments, hits, clusters, lag=lag, criterion=criterion)


def _wald(
    name: str,
    moments: FloatArray,
    hits: BoolArray,
    clusters: npt.NDArray[np.integer],
    *,
    lag: int,
    criterion: Criterion,
) -> TestResult:
    size, count = len(hits), int(hits.sum())
    degrees = moments.shape[1]
    days = np.unique(clusters).size
    if days < FEWEST_CLUSTERS:
        reason = f"{days} clusters of time; at least {FEWEST_CLUSTERS} are needed"
        return undefined(name, reason, sample_size=size, exceedances=count)
    covariance = cluster_covariance(moments, clusters, lag)
    if np.linalg.matrix_rank(covariance) < degrees:
        reason = "too few exceedances at some level for a covariance"
        return undefined(name, reason, sample_size=size, exceedances=count)
    total = moments.sum(axis=0)
    statistic = float(total @ np.linalg.solve(covariance, total))
    worth = effective_clusters(moments, clusters)
    if worth < degrees + FEWEST_BEYOND_MOMENTS:
        reason = f"all that speaks is worth {worth:.1f} independent observations"
        return undefined(name, reason, sample_size=size, exceedances=count)
    # Hotelling's factor: the covariance itself is estimated from so few observations
    scaled = statistic * (worth - degrees + 1.0) / (degrees * worth)
    p_value = float(stats.f.sf(scaled, degrees, worth - degrees + 1.0))
    return conclude(
        name,
        statistic,
        p_value,
        degrees_of_freedom=degrees,
        sample_size=size,
        exceedances=count,
        criterion=criterion,
    )


def _sums_by_cluster(moments: FloatArray, clusters: npt.NDArray[np.integer]) -> FloatArray:
    count = int(clusters.max()) + 1
    return np.column_stack([np.bincount(clusters, weights=m, minlength=count) for m in moments.T])


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
