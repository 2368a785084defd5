"""Multinomial tests: are all levels of a margin model exceeded as often as promised, at once.

Responsible for the shape of the tail between a first and a far level: a model that is exceeded
rightly at 0.95 and too often at 0.99 is caught by no single level with enough confidence. With four
levels or more it is also an implicit test of expected shortfall.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import numpy as np
from scipy import special

from margincast.backtest.monte_carlo import SimulatedExceedances, luck_of, rank_p_value
from margincast.backtest.var_tests.forecast_series import require_levels
from margincast.backtest.var_tests.judgement import too_short
from margincast.backtest.var_tests.normal_scores import grouped_log_likelihood
from margincast.backtest.verdicts import (
    NAN,
    USUAL,
    Criterion,
    TestResult,
    chi_squared_p,
    conclude,
)
from margincast.core.types import FloatArray

Form = Literal["nass", "pearson", "likelihood ratio"]


def multinomial(
    outcome: FloatArray,
    forecasts: FloatArray,
    levels: Sequence[float],
    criterion: Criterion = USUAL,
    *,
    form: Form = "nass",
    monte_carlo: SimulatedExceedances | None = None,
) -> TestResult:
    """Test how many decisions exceeded none, the first, the first two, ... of N levels.

    With counts O_j of the N + 1 cells and their promised probabilities t_j:

    - "pearson": ``sum (O_j - T t_j)^2 / (T t_j)``, chi-squared with N degrees of freedom.
    - "nass": c times that, chi-squared with v = c N degrees of freedom (not an integer: recorded as
      0), where ``c = 2 N / V``, ``V = 2 N - (N^2 + 4 N + 1) / T + sum(1 / t_j) / T`` the exact
      variance: better for cells with few counts expected.
    - "likelihood ratio": against cell probabilities of a normal score with free mean and standard
      deviation, ``t_j = F((z_{j+1} - m) / s) - F((z_j - m) / s)``, chi-squared with 2 degrees of
      freedom: Berkowitz's tail test for exceedances alone. With one level it is Kupiec's, with 1.

    A level's exceedances count whether or not forecasts cross. The Monte-Carlo p-value is exact;
    asymptotic ones reject true forecasts of 0.95, 0.975, 0.99 and 0.995 in 5 to 6 % of samples for
    T = 250 to 5000, in all three forms.

    Args:
        outcome: realised adverse excursions, simple fractions, shape (T,).
        forecasts: quantile forecasts, simple fractions, shape (T, N), one column a level.
        levels: shares not exceeded, strictly increasing, each in (0.5, 1).
        criterion: what fails, and what has too little power to pass, at the first level.
        form: see above; Kratz, Lok and McNeil recommend Nass for its size.
        monte_carlo: gives number and seed of simulated counts; adds the p-value that then decides.

    Returns:
        The result; its exceedances are those of the first level.

    Raises:
        InputError: levels outside (0.5, 1) or not increasing; shapes do not fit; empty, NaN,
            infinite or in per cent.

    Source: Kratz, Lok and McNeil (2018), doi:10.1016/j.jbankfin.2018.01.002; Nass (1959),
    doi:10.1093/biomet/46.3-4.365.
    """
    outcome, forecasts = require_levels(outcome, forecasts, tuple(levels))
    size = outcome.size
    counts = cell_counts(outcome, forecasts)[np.newaxis]
    promised = cell_probabilities(levels)
    observed = float(statistics_of(counts, promised, form)[0])
    degrees_of_freedom = len(promised) - 1
    statistic = observed
    if form == "nass":
        factor = nass_factor(size, promised)
        statistic *= factor
        p_value = float(special.chdtrc(factor * degrees_of_freedom, statistic))
        degrees_of_freedom = 0
    else:
        if form == "likelihood ratio":
            degrees_of_freedom = min(2, degrees_of_freedom)
        p_value = chi_squared_p(statistic, degrees_of_freedom)
    simulated_p = NAN
    if monte_carlo is not None:
        replications, seed = monte_carlo.replications, monte_carlo.seed
        drawn = _drawn_statistics(replications, seed, size, tuple(levels), form)
        generator = np.random.default_rng((seed, luck_of(outcome)))
        simulated_p = rank_p_value(observed, drawn, generator)
    return conclude(
        f"multinomial ({form})",
        statistic,
        p_value,
        degrees_of_freedom=degrees_of_freedom,
        monte_carlo_p_value=simulated_p,
        sample_size=size,
        exceedances=int(size - counts[0, 0]),
        criterion=criterion,
        powerless=too_short(size, levels[0], criterion),
    )


def cell_counts(outcome: FloatArray, forecasts: FloatArray) -> FloatArray:
    """Count the decisions that exceeded 0, 1, ... N of the levels, shape (N + 1,)."""
    exceeded = np.count_nonzero(outcome[:, np.newaxis] > forecasts, axis=1)
    return np.bincount(exceeded, minlength=forecasts.shape[1] + 1).astype(np.float64)


def cell_probabilities(levels: Sequence[float]) -> FloatArray:
    """Return the probabilities of exceeding 0, 1, ... N of the levels, shape (N + 1,)."""
    return np.diff(np.concatenate([[0.0], levels, [1.0]]))


def draw_counts(
    sample_size: int, promised: FloatArray, replications: int, generator: np.random.Generator
) -> FloatArray:
    """Draw cell counts of correct forecasts, shape (replications, cells)."""
    return generator.multinomial(sample_size, promised, size=replications).astype(np.float64)


def nass_factor(sample_size: int, promised: FloatArray) -> float:
    """Return Nass's factor c, twice the mean over the variance of Pearson's statistic."""
    free = len(promised) - 1
    variance = 2.0 * free + (np.sum(1.0 / promised) - (free**2 + 4 * free + 1)) / sample_size
    return float(2.0 * free / variance)


def statistics_of(counts: FloatArray, promised: FloatArray, form: Form) -> FloatArray:
    """Return the statistics of cell counts, shape (R, N + 1) to (R,); Nass's without its factor."""
    size = counts.sum(axis=1, keepdims=True)
    if form != "likelihood ratio":
        return np.asarray(np.sum((counts - size * promised) ** 2 / (size * promised), axis=1))
    if len(promised) <= 3:  # mean and standard deviation reach any three probabilities
        return np.asarray(2.0 * np.sum(special.rel_entr(counts, size * promised), axis=1))
    fitted = grouped_log_likelihood(counts, special.ndtri(np.cumsum(promised)[:-1]))
    gain = fitted - np.sum(counts * np.log(promised), axis=1)
    return np.asarray(np.maximum(0.0, 2.0 * gain))


@lru_cache(maxsize=64)
def _drawn_statistics(
    replications: int, seed: int, sample_size: int, levels: tuple[float, ...], form: Form
) -> FloatArray:
    """Simulate once for all series of a length."""
    promised = cell_probabilities(levels)
    generator = np.random.default_rng((seed, sample_size, len(promised), 1))
    drawn = draw_counts(sample_size, promised, replications, generator)
    return statistics_of(drawn, promised, form)
