"""Counts with sizes and counts in bins: Lopez's magnitude loss and Pearson's Q.

Responsible for two plain summaries that supervisors know: exceedances that weigh more the larger
they are, and a histogram of forecast probabilities that must be flat.
"""

from collections.abc import Sequence

import numpy as np

from margincast.backtest.monte_carlo import SimulatedExceedances, luck_of, rank_p_value
from margincast.backtest.var_tests.multinomial import draw_counts, statistics_of
from margincast.backtest.verdicts import (
    NAN,
    USUAL,
    Criterion,
    TestResult,
    chi_squared_p,
    conclude,
)
from margincast.core.errors import InputError
from margincast.core.types import FloatArray
from margincast.scoring.coverage import require_finite, shortfall

FEWEST_EXPECTED = 5.0
"""Expected count of the smallest bin below which the chi-squared law is not to be relied on
(Cochran 1954, doi:10.2307/3001616)."""


def lopez_loss(outcome: FloatArray, forecast: FloatArray, unit: float = 0.01) -> FloatArray:
    """Return ``1 + ((outcome - forecast) / unit)^2`` for each exceedance and 0 for the others.

    The size hangs on the unit: in fractions of the price the square would vanish beside the 1.
    Lopez works in per cent of the portfolio, as is the default here. The sum ranks models by number
    and size of exceedances; it is no consistent score (a margin that is always too large has none),
    so it describes and decides nothing.

    Args:
        outcome: realised adverse excursions, simple fractions, any shape.
        forecast: quantile forecasts, simple fractions, the same shape.
        unit: a shortfall that counts as much as an exceedance, a simple fraction; 0.01 is 1 %.

    Returns:
        Losses of that shape, without unit.

    Raises:
        InputError: a unit that is not positive; shapes differ; empty, NaN, infinite or in per cent.

    Source: Lopez (1999), Methods for evaluating value-at-risk estimates, Federal Reserve Bank of
    San Francisco Economic Review 2, 3-17.
    """
    if not unit > 0.0:
        raise InputError(f"unit must be positive, found {unit:g}")
    beyond = shortfall(outcome, forecast)
    return np.where(beyond > 0.0, 1.0 + (beyond / unit) ** 2, 0.0)


def pearson_q(
    probabilities: FloatArray,
    edges: Sequence[float],
    criterion: Criterion = USUAL,
    *,
    monte_carlo: SimulatedExceedances | None = None,
) -> TestResult:
    """Test that forecast probabilities of what happened are uniform, by Pearson's chi-squared.

    With counts O_j in k bins, ``sum (O_j - E_j)^2 / E_j`` with k - 1 degrees of freedom. With the
    levels of several quantile forecasts as edges it is the Pearson form of the multinomial test;
    with 20 equal bins it is the histogram test of R's GAS.

    Args:
        probabilities: that the forecasts gave to outcomes no larger than what happened (PIT), in
            [0, 1], shape (T,).
        edges: between bins, strictly increasing, in (0, 1); a bin holds its upper edge.
        criterion: what fails.
        monte_carlo: gives number and seed of simulated counts; adds the p-value that then decides.

    Returns:
        The result, "no power" where the smallest bin expects fewer than 5 and nothing is found.
        Exceedances count the last bin.

    Raises:
        InputError: no edge, edges outside (0, 1) or not increasing; probabilities empty, NaN,
            outside [0, 1], or not a series.

    Source: Campbell (2005), A review of backtesting and backtesting procedures, Federal Reserve
    Board, Finance and Economics Discussion Series 2005-21.
    """
    probabilities = require_finite(probabilities, "probabilities")
    bounds = np.asarray(edges, dtype=np.float64)
    if probabilities.ndim != 1 or probabilities.min() < 0.0 or probabilities.max() > 1.0:
        raise InputError(
            f"probabilities has shape {probabilities.shape} and values from "
            f"{probabilities.min():g} to {probabilities.max():g}; expected a series in [0, 1]"
        )
    widths = np.diff(np.concatenate([[0.0], bounds, [1.0]]))
    if bounds.ndim != 1 or bounds.size == 0 or not np.all(widths > 0.0):
        raise InputError(
            f"edges must increase strictly between 0 and 1, at least one, found {bounds.tolist()}"
        )
    size = probabilities.size
    places = np.searchsorted(bounds, probabilities, side="left")
    counts = np.bincount(places, minlength=widths.size).astype(np.float64)
    statistic = float(statistics_of(counts[np.newaxis], widths, "pearson")[0])
    simulated_p = NAN
    if monte_carlo is not None:
        generator = np.random.default_rng((monte_carlo.seed, size, widths.size, 3))
        drawn = draw_counts(size, widths, monte_carlo.replications, generator)
        simulated = statistics_of(drawn, widths, "pearson")
        luck = np.random.default_rng((monte_carlo.seed, luck_of(probabilities)))
        simulated_p = rank_p_value(statistic, simulated, luck)
    expected = size * float(widths.min())
    return conclude(
        "pearson q",
        statistic,
        chi_squared_p(statistic, widths.size - 1),
        degrees_of_freedom=widths.size - 1,
        monte_carlo_p_value=simulated_p,
        sample_size=size,
        exceedances=int(counts[-1]),
        criterion=criterion,
        powerless=(
            f"the smallest bin expects {expected:.1f} decisions, fewer than {FEWEST_EXPECTED:g}"
            if expected < FEWEST_EXPECTED
            else ""
        ),
    )
