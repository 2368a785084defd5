"""Berkowitz's tests: are the normal scores of outcomes standard normal, everywhere or in the tail.

Responsible for judging the size of exceedances and not only their number. A score is the normal
quantile of the probability that the forecast gave to outcomes no larger: 2.33 at the 0.99 forecast.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from scipy import special

from margincast.backtest.monte_carlo import SimulatedExceedances, luck_of, rank_p_value
from margincast.backtest.var_tests.forecast_series import require_levels
from margincast.backtest.var_tests.judgement import too_short
from margincast.backtest.var_tests.normal_scores import censored_log_likelihood
from margincast.backtest.verdicts import (
    NAN,
    USUAL,
    Criterion,
    TestResult,
    chi_squared_p,
    conclude,
    undefined,
)
from margincast.core.errors import InputError
from margincast.core.types import FloatArray
from margincast.scoring.coverage import require_level

CHUNK = 2_000_000
"""Simulated scores held at once."""

LOG_ROOT_TWO_PI = 0.5 * np.log(2.0 * np.pi)


def scores_of_quantiles(
    outcome: FloatArray, forecasts: FloatArray, levels: Sequence[float]
) -> FloatArray:
    """Return normal scores of outcomes beyond the first level from forecasts of several levels.

    Between two levels, and beyond the last one, the survival probability is taken as a power of the
    outcome, ``(1 - level_k) (y / f_k)^-b`` with b from the two forecasts around (or the last two):
    the tail of a Pareto law, which is what far quantiles of returns look like. That is an
    assumption on top of the forecasts; where none is wanted, use the multinomial test, whose
    likelihood ratio needs the cells only.

    Args:
        outcome: realised adverse excursions, simple fractions, shape (T,).
        forecasts: quantile forecasts, simple fractions, positive and strictly increasing in level,
            shape (T, N).
        levels: shares not exceeded, at least two, strictly increasing, each in (0.5, 1).

    Returns:
        Scores, shape (T,); minus infinity where the outcome is not beyond the first forecast, of
        which quantile forecasts from that level on say no more.

    Raises:
        InputError: fewer than two levels, levels outside (0.5, 1) or not increasing; shapes do not
            fit; forecasts not positive or not strictly increasing (says in how many rows); empty,
            NaN, infinite or in per cent.
    """
    outcome, forecasts = require_levels(outcome, forecasts, tuple(levels))
    if len(levels) < 2:
        raise InputError(f"scores need at least two levels, found {list(levels)}")
    logs = np.log(np.where(forecasts > 0.0, forecasts, np.nan))
    widths = np.diff(logs, axis=1)
    unusable = int(np.count_nonzero(~np.all(widths > 0.0, axis=1)))
    if unusable:
        raise InputError(
            f"in {unusable} of {len(forecasts)} rows forecasts are not positive or do not increase "
            "strictly with the level; leave these rows out, or use the multinomial test"
        )
    exceeded = np.count_nonzero(outcome[:, np.newaxis] > forecasts, axis=1)
    (tail,) = np.nonzero(exceeded)
    begin = np.minimum(exceeded[tail], len(levels) - 1) - 1
    log_survival = np.log1p(-np.asarray(levels))
    powers = np.diff(log_survival)[begin] / widths[tail, begin]
    distance = np.log(outcome[tail]) - logs[tail, begin]
    scores = np.full(outcome.size, -np.inf)
    scores[tail] = -special.ndtri_exp(log_survival[begin] + powers * distance)
    return scores


def berkowitz(
    scores: FloatArray,
    criterion: Criterion = USUAL,
    *,
    lags: int = 1,
    monte_carlo: SimulatedExceedances | None = None,
) -> TestResult:
    """Test that scores are independent and standard normal, against an autoregression.

    Twice the log-likelihood ratio of ``z_t - m = sum_j r_j (z_{t-j} - m) + s e_t`` and the standard
    normal law; chi-squared with lags + 2 degrees of freedom. As rugarch: m is the mean of all
    scores, earlier scores before the first are zero after subtraction in the regression, s has
    T - lags degrees of freedom, and both likelihoods are those of the last T - lags scores. So the
    ratio can be slightly negative; its p-value is then 1. Asymptotic and Monte-Carlo p-value both
    reject true forecasts in 5 % of samples from T = 250 on.

    Args:
        scores: normal scores ``ndtri(probability of no more than the outcome)`` in time order,
            shape (T,), from a forecast of the whole distribution.
        criterion: what fails.
        lags: order of the autoregression, at least 1.
        monte_carlo: gives number and seed of simulated scores; adds the p-value that then decides.

    Returns:
        The result; undefined where T is below 2 lags + 3, or scores are infinite (an outcome the
        forecast took for impossible: report it, it is a failure of its own). Exceedances count
        scores beyond that of 0.99.

    Raises:
        InputError: not a non-empty series, NaN, or lags below 1.

    Source: Berkowitz (2001), doi:10.1198/07350010152596718.
    """
    scores = _require_scores(scores)
    if lags < 1:
        raise InputError(f"lags must be at least 1, found {lags}")
    counts = _counts(scores, 0.99)
    infinite = int(np.count_nonzero(np.isinf(scores)))
    if infinite:
        reason = f"{infinite} scores are infinite: their probabilities are exactly 0 or 1"
        return undefined("berkowitz", reason, **counts)
    if scores.size < 2 * lags + 3 or np.ptp(scores) == 0.0:
        reason = f"{scores.size} scores are too few, or all equal, for {lags} lags"
        return undefined("berkowitz", reason, **counts)
    statistic = float(_ratios(scores[np.newaxis], lags)[0])
    simulated_p = NAN
    if monte_carlo is not None:
        drawn = _drawn_ratios(monte_carlo.replications, monte_carlo.seed, scores.size, lags)
        generator = np.random.default_rng((monte_carlo.seed, luck_of(scores)))
        simulated_p = rank_p_value(statistic, drawn, generator)
    return conclude(
        "berkowitz",
        statistic,
        chi_squared_p(max(0.0, statistic), lags + 2),
        degrees_of_freedom=lags + 2,
        monte_carlo_p_value=simulated_p,
        sample_size=scores.size,
        exceedances=counts["exceedances"],
        criterion=criterion,
    )


def berkowitz_tail(
    scores: FloatArray,
    level: float,
    criterion: Criterion = USUAL,
    *,
    monte_carlo: SimulatedExceedances | None = None,
) -> TestResult:
    """Test that scores beyond a level are as many and as far out as standard normal ones.

    Twice the log-likelihood ratio of a normal law with free mean and standard deviation, censored
    at the level's score, and the standard normal law; chi-squared with 2 degrees of freedom. The
    upper tail, that of losses; rugarch and vartests test the lower tail of returns, which is the
    same of scores with the other sign. Their optimiser stops about 1e-9 short of the maximum found
    here. Without a score beyond the level the ratio is ``-2 T log(level)``.

    The asymptotic p-value rejects true forecasts in 4 to 6 % of samples for T = 250 to 5000, at
    0.95 and 0.99.

    Args:
        scores: normal scores in any order, shape (T,); all that is used of one not beyond the level
            is that it is not, so minus infinity will do.
        level: the share not exceeded, in (0.5, 1), where the tail begins.
        criterion: what fails, and what has too little power to pass.
        monte_carlo: gives number and seed of simulated scores; adds the p-value that then decides.

    Returns:
        The result; undefined where a score is plus infinity (see :func:`berkowitz`).

    Raises:
        InputError: not a non-empty series, NaN, or a level outside (0.5, 1).

    Source: Berkowitz (2001), doi:10.1198/07350010152596718.
    """
    scores, level = _require_scores(scores), require_level(level)
    counts = _counts(scores, level)
    impossible = int(np.count_nonzero(scores == np.inf))
    if impossible:
        reason = f"{impossible} scores are infinite: outcomes beyond all that was thought possible"
        return undefined("berkowitz tail", reason, **counts)
    threshold = float(special.ndtri(level))
    beyond = scores[scores > threshold]
    sums = np.array([[beyond.size], [beyond.sum()], [beyond @ beyond]])
    statistic = float(_tail_ratios(sums, scores.size, level)[0])
    simulated_p = NAN
    if monte_carlo is not None:
        replications, seed = monte_carlo.replications, monte_carlo.seed
        drawn = _drawn_tail_ratios(replications, seed, scores.size, level)
        generator = np.random.default_rng((seed, luck_of(scores)))
        simulated_p = rank_p_value(statistic, drawn, generator)
    return conclude(
        "berkowitz tail",
        statistic,
        chi_squared_p(statistic, 2),
        degrees_of_freedom=2,
        monte_carlo_p_value=simulated_p,
        criterion=criterion,
        powerless=too_short(scores.size, level, criterion),
        **counts,
    )


def _require_scores(scores: FloatArray) -> FloatArray:
    scores = np.asarray(scores, dtype=np.float64)
    unknown = int(np.count_nonzero(np.isnan(scores)))
    if scores.ndim != 1 or scores.size == 0 or unknown:
        raise InputError(
            f"scores has shape {scores.shape} and {unknown} NaN; expected a non-empty series "
            "without: leave such rows out and report their number"
        )
    return scores


def _counts(scores: FloatArray, level: float) -> dict[str, int]:
    exceedances = int(np.count_nonzero(scores > special.ndtri(level)))
    return {"sample_size": scores.size, "exceedances": exceedances}


def _ratios(scores: FloatArray, lags: int) -> FloatArray:
    """Return the full test's statistics of sequences of scores, shape (R, T)."""
    size = scores.shape[1]
    centred = scores - scores.mean(axis=1, keepdims=True)
    earlier = np.zeros((lags, *centred.shape))
    for lag in range(1, lags + 1):
        earlier[lag - 1, :, lag:] = centred[:, :-lag]
    gram = np.einsum("irt,jrt->rij", earlier, earlier)
    moments = np.einsum("irt,rt->ri", earlier, centred)
    slopes = np.linalg.solve(gram, moments[:, :, np.newaxis])[:, :, 0]
    residuals = centred - np.einsum("ri,irt->rt", slopes, earlier)
    variance = np.sum(residuals**2, axis=1) / (size - lags)
    used = size - lags
    # both likelihoods without their common used * log(sqrt(2 pi))
    free = -0.5 * (used * np.log(variance) + np.sum(residuals[:, lags:] ** 2, axis=1) / variance)
    standard = -0.5 * np.sum(scores[:, lags:] ** 2, axis=1)
    return np.asarray(2.0 * (free - standard))


@lru_cache(maxsize=16)
def _drawn_ratios(replications: int, seed: int, sample_size: int, lags: int) -> FloatArray:
    generator = np.random.default_rng((seed, sample_size, lags, 1))
    rows = max(1, CHUNK // sample_size)
    chunks = [
        _ratios(generator.standard_normal((min(rows, replications - begin), sample_size)), lags)
        for begin in range(0, replications, rows)
    ]
    return np.concatenate(chunks)


def _tail_ratios(sums: FloatArray, sample_size: int, level: float) -> FloatArray:
    """Return the tail test's statistics from count, sum and sum of squares beyond, shape (3, R)."""
    count, total, squares = sums
    censored = sample_size - count
    threshold = float(special.ndtri(level))
    free = censored_log_likelihood(count, total, squares, censored, threshold)
    standard = -0.5 * squares - count * LOG_ROOT_TWO_PI + censored * np.log(level)
    return np.asarray(np.maximum(0.0, 2.0 * (free - standard)))


@lru_cache(maxsize=64)
def _drawn_tail_ratios(replications: int, seed: int, sample_size: int, level: float) -> FloatArray:
    generator = np.random.default_rng((seed, sample_size, round(level * 1_000_000), 2))
    counts = generator.binomial(sample_size, 1.0 - level, size=replications)
    rows = np.repeat(np.arange(replications), counts)
    scores = -special.ndtri((1.0 - level) * generator.random(rows.size))
    sums = [
        np.bincount(rows, weights=weights, minlength=replications)
        for weights in (np.ones_like(scores), scores, scores**2)
    ]
    return _tail_ratios(np.array(sums), sample_size, level)
