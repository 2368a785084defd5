"""Standard errors of sums over contracts and overlapping horizons, days counted as one observation.

Responsible for what keeps a pooled test from taking one crash of forty contracts for forty
exceedances: the covariance of sums of moments when the rows of a day, and of neighbouring days,
depend on each other, and how much such a covariance is to be relied on.
"""

import numpy as np
import numpy.typing as npt

from margincast.core.types import FloatArray


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


def at_least(covariance: FloatArray, floor: FloatArray) -> FloatArray:
    """Raise a covariance in the directions in which it lies below ``floor``.

    Exceedances come in crowds, never more evenly than independent ones: a sample in which they
    happen not to, because few speak of some moment, must not be surer of it than if they did.

    Args:
        covariance: shape (k, k), positive semi-definite.
        floor: shape (k, k), positive definite.
    """
    root = np.linalg.cholesky(floor)
    whitened = np.linalg.solve(root, np.linalg.solve(root, covariance).T)
    values, directions = np.linalg.eigh((whitened + whitened.T) / 2.0)
    back = root @ directions
    return np.asarray(back * np.maximum(values, 1.0) @ back.T, dtype=np.float64)


def _sums_by_cluster(moments: FloatArray, clusters: npt.NDArray[np.integer]) -> FloatArray:
    count = int(clusters.max()) + 1
    return np.column_stack([np.bincount(clusters, weights=m, minlength=count) for m in moments.T])
