"""Dependence between decisions: how much a backtest's sample is really worth.

Responsible for keeping a margin's evidence honest. Liquidation horizons overlap, volatility
clusters and contracts fall together, so n decisions carry the information of far fewer: effective
sample size, thinning to outcomes that do not overlap, block bootstrap intervals, and
Benjamini-Hochberg where many contracts are tested at once.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from margincast.backtest.block_bootstrap import (
    BlockBootstrap,
    BlockLabels,
    block_index,
    percentile_interval,
)
from margincast.core.errors import InputError
from margincast.core.types import BoolArray, FloatArray
from margincast.scoring.coverage import require_finite


@dataclass(frozen=True)
class BootstrapInterval:
    """A ratio or mean with its percentile interval.

    Bounds are NaN (not known) when some resample had no denominator, for example a mean shortfall
    per exceedance where exceedances fell into very few blocks.
    """

    estimate: float
    lower: float
    upper: float
    confidence: float
    block_count: int
    replications: int


def long_run_variance(values: FloatArray, lag: int) -> float:
    """Return the Bartlett long-run variance of a series: n times the variance of its mean.

    ``g(0) + 2 sum_{j=1..lag} (1 - j / (lag + 1)) g(j)``, with autocovariances divided by n and no
    small-sample factor; never negative.

    Args:
        values: one series in time order, shape (n,).
        lag: number of autocovariances used, from 0 to n - 1.

    Raises:
        InputError: empty, NaN, infinite or not one-dimensional; lag outside 0..n-1.

    Source: Newey and West (1987), doi:10.2307/1913610.
    """
    series = _require_series(values, "values")
    if not 0 <= lag < series.size:
        raise InputError(
            f"lag must lie between 0 and the number of values less one ({series.size - 1}), "
            f"found {lag}"
        )
    deviation = series - series.mean()
    variance = float(deviation @ deviation)
    for shift in range(1, lag + 1):
        weight = 1.0 - shift / (lag + 1.0)
        variance += 2.0 * weight * float(deviation[shift:] @ deviation[:-shift])
    return max(0.0, variance / series.size)


def effective_sample_size(values: FloatArray, lag: int) -> float:
    """Return how many independent values one autocorrelated series is worth for its mean.

    ``n * variance / long-run variance``, at most n (negative autocorrelation earns nothing).

    Args:
        values: one series in time order, shape (n,), for example exceedances as 0.0 and 1.0.
        lag: see :func:`long_run_variance`; at least the number of overlapping decisions less one.

    Returns:
        A number in (0, n]; NaN (not known) for a constant series.

    Raises:
        InputError: see :func:`long_run_variance`.
    """
    variance = long_run_variance(values, 0)
    if variance == 0.0:
        return float("nan")
    size = float(np.size(values))
    long_run = long_run_variance(values, lag)
    return size if long_run <= variance else size * variance / long_run


def clustered_sample_size(values: FloatArray, blocks: BlockLabels) -> float:
    """Return how many independent values a panel is worth when whole blocks move together.

    ``n`` over Kish's design effect, here the sum of squared block sums of the deviations over the
    sum of their squares. With days as blocks it counts both overlap in time within a day and
    dependence between contracts; dependence from day to day is not counted.

    Args:
        values: shape (n,), in any order.
        blocks: block label of each value, shape (n,), for example the day.

    Returns:
        A number in (0, n]; NaN (not known) for constant values.

    Raises:
        InputError: empty, NaN or infinite values, labels of another length, or a single block.

    Source: Kish (1965), Survey Sampling, ISBN 9780471109495.
    """
    series = _require_series(values, "values")
    labels, count = block_index(blocks, series.size)
    deviation = series - series.mean()
    independent = float(deviation @ deviation)
    if independent == 0.0:
        return float("nan")
    sums = np.bincount(labels, weights=deviation, minlength=count)
    clustered = float(sums @ sums) * count / (count - 1)
    return float(series.size) * min(1.0, independent / max(clustered, independent))


def non_overlapping(
    decision_time: npt.NDArray[np.datetime64], horizon_minutes: float, *, first: int = 0
) -> BoolArray:
    """Mark decisions of one contract whose outcome windows (t, t + horizon] do not overlap.

    Greedy from position ``first``: keep a decision, skip all whose time is before its window's
    end. Different values of ``first`` give the different phases of the same horizon.

    Args:
        decision_time: strictly increasing UTC times of one contract, shape (n,), datetime64.
        horizon_minutes: length of the outcome window, positive.
        first: position of the first decision to keep.

    Returns:
        Booleans, shape (n,).

    Raises:
        InputError: not datetime64, empty, NaT, not strictly increasing; a horizon not positive; a
            position outside the series.
    """
    times = np.asarray(decision_time)
    if times.ndim != 1 or times.size == 0 or times.dtype.kind != "M":
        raise InputError(
            f"decision_time has shape {times.shape} and type {times.dtype}; expected a non-empty "
            "one-dimensional datetime64 array (UTC, without an offset)"
        )
    if np.isnat(times).any():
        raise InputError(f"decision_time holds {int(np.isnat(times).sum())} missing times")
    stamps = times.astype("datetime64[us]").astype(np.int64)
    if np.any(np.diff(stamps) <= 0):
        raise InputError(
            "decision_time is not strictly increasing; sort it and thin one contract at a time"
        )
    if not horizon_minutes > 0.0 or not 0 <= first < stamps.size:
        raise InputError(
            f"horizon_minutes must be positive and first lie in 0..{stamps.size - 1}, "
            f"found {horizon_minutes:g} and {first}"
        )
    span = round(horizon_minutes * 60_000_000)
    kept = np.zeros(stamps.size, dtype=np.bool_)
    position = first
    while position < stamps.size:
        kept[position] = True
        position = int(np.searchsorted(stamps, stamps[position] + span))
    return kept


def block_bootstrap_interval(
    values_numerator: FloatArray,
    values_denominator: FloatArray | None = None,
    *,
    blocks: BlockLabels,
    generator: np.random.Generator,
    run_length: int = 1,
    confidence: float = 0.95,
    replications: int = 2000,
) -> BootstrapInterval:
    """Return a percentile interval of a ratio of sums (or a mean) by a circular block bootstrap.

    Values are summed within blocks first; then runs of ``run_length`` consecutive blocks, on a
    circle so that the ends count as much as the middle, are drawn with replacement until the
    original number of blocks is reached. One multinomial draw a replication counts the runs, so
    the cost does not grow with the number of values.

    Args:
        values_numerator: shape (n,), for example exceedances as 0.0 and 1.0, or pinball losses.
        values_denominator: non-negative, shape (n,), for example ``1 - level`` (exceedance ratio),
            a peer's losses (loss ratio) or exceedances (mean shortfall); ones (a mean) when absent.
        blocks: block label of each value, shape (n,), for example the day; blocks are taken in the
            order of their labels, and every value of one day and all contracts stays together.
        generator: seeded source of randomness.
        run_length: consecutive blocks kept together; 1 treats blocks as independent. The blocks
            drawn are ``run_length * ceil(blocks / run_length)``.
        confidence: coverage of the interval, in (0, 1).
        replications: number of resamples.

    Raises:
        InputError: empty, NaN or infinite values; lengths differ; a negative or all-zero
            denominator; fewer than 2 blocks; run_length not below the number of blocks; a
            confidence or number of replications out of range.

    Source: Politis and Romano (1992), A circular block resampling procedure for stationary data,
    in LePage and Billard (eds), Exploring the Limits of Bootstrap, ISBN 9780471536314.
    """
    numerator = _require_series(values_numerator, "values_numerator")
    denominator = np.ones_like(numerator)
    if values_denominator is not None:
        denominator = _require_series(values_denominator, "values_denominator")
    if denominator.size != numerator.size:
        raise InputError(
            f"found {numerator.size} numerators and {denominator.size} denominators; "
            "they must pair one to one"
        )
    if denominator.min() < 0.0 or not denominator.any():
        raise InputError(
            "values_denominator must be non-negative and not all zero, found a smallest of "
            f"{denominator.min():g} and a sum of {denominator.sum():g}"
        )
    labels, count = block_index(blocks, numerator.size)
    bootstrap = BlockBootstrap(
        count, generator=generator, run_length=run_length, replications=replications
    )
    block_sums = np.array(
        [np.bincount(labels, weights=w, minlength=count) for w in (numerator, denominator)],
        dtype=np.float64,
    )
    totals = bootstrap.totals(block_sums)
    ratios = np.full(replications, np.nan)
    if np.all(totals[1] > 0.0):
        ratios = totals[0] / totals[1]
    lower, upper = percentile_interval(ratios, confidence)
    return BootstrapInterval(
        estimate=float(numerator.sum() / denominator.sum()),
        lower=lower,
        upper=upper,
        confidence=confidence,
        block_count=count,
        replications=replications,
    )


def benjamini_hochberg(p_values: FloatArray) -> FloatArray:
    """Return p-values adjusted so that rejecting those at most q keeps the false discovery rate q.

    Args:
        p_values: one p-value a hypothesis (for example a contract), shape (m,), each in [0, 1];
            valid for independent or positively dependent tests.

    Returns:
        Adjusted p-values in the same order, shape (m,).

    Raises:
        InputError: empty, NaN, or outside [0, 1].

    Source: Benjamini and Hochberg (1995), doi:10.1111/j.2517-6161.1995.tb02031.x.
    """
    p_values = _require_series(p_values, "p_values")
    if p_values.min() < 0.0 or p_values.max() > 1.0:
        raise InputError(
            f"p-values must lie in [0, 1], found {p_values.min():g} to {p_values.max():g}"
        )
    return np.asarray(stats.false_discovery_control(p_values, method="bh"), dtype=np.float64)


def _require_series(values: FloatArray, name: str) -> FloatArray:
    series = require_finite(values, name)
    if series.ndim != 1:
        raise InputError(f"{name} has shape {series.shape}; expected one dimension")
    return series
