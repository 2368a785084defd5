"""Procyclicality: how high and how fast a margin rises, whatever it covers.

A margin that jumps in a crash causes the next liquidations. The measures are those of Murphy,
Vasios and Vause (2014), An investigation into the procyclicality of risk-based initial margin
models, Bank of England Financial Stability Paper 29: peak to trough, and the largest rise over n
days. Beside them stand how often a margin rises by more than a given share, how much it moves from
one day to the next, and how it answers to volatility.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from margincast.core.errors import InputError
from margincast.core.types import FloatArray

DAYS_OF_RISES = (1, 5, 20, 30)
"""Spans of the n-day rise that the Bank of England's paper and CCPs' disclosures look at."""
NOTABLE_RISES = (0.1, 0.25)
"""One-day rises that are counted, fractions of the margin."""


def peak_to_trough(margin: FloatArray) -> float:
    """Return the largest over the smallest margin, shape (n,), positive; at least 1.

    The peak may come before the trough.
    """
    margin = _known_and_positive(margin)
    return float(margin.max() / margin.min())


def rolling_peak_to_trough(margin: FloatArray, window: int) -> FloatArray:
    """Return the largest over the smallest margin of the last ``window``, shape (n,).

    Args:
        margin: see :func:`largest_increase`.
        window: margins looked at, the present one included; at least 1.

    Returns:
        NaN before the first full window and where no margin of the window is known; an unknown
        one among known ones does not count.

    Raises:
        InputError: no margin known, one not positive, or a window below 1.
    """
    _known_and_positive(margin)
    if window < 1:
        raise InputError(f"window must be at least 1, found {window}")
    rolling = pd.Series(margin).rolling(window, min_periods=1)
    ratio = (rolling.max() / rolling.min()).to_numpy(dtype=np.float64, copy=True)
    ratio[: window - 1] = np.nan
    return ratio


def margin_calls(margin: FloatArray, steps: int) -> FloatArray:
    """Return by how much each margin lies above that of ``steps`` before, shape (n,).

    ``margin[t] / margin[t - steps] - 1``: what a holder of a position of one USD notional must
    bring, as a share of what he had posted; negative when margin is released.

    Args:
        margin: see :func:`largest_increase`.
        steps: see :func:`largest_increase`.

    Returns:
        NaN in the first ``steps`` places and where a margin of the pair is not known.

    Raises:
        InputError: see :func:`largest_increase`.
    """
    _require_steps(margin, steps)
    _known_and_positive(margin)
    calls = np.full(len(margin), np.nan)
    calls[steps:] = margin[steps:] / margin[:-steps] - 1.0
    return calls


def rises_from_low(margin: FloatArray, steps: int) -> FloatArray:
    """Return by how much each margin lies above the least of the ``steps`` before it, shape (n,).

    Never below :func:`margin_calls` of the same steps: it finds a rise that was over sooner.

    Returns:
        NaN in the first ``steps`` places and where the margin, or every one before it, is unknown.

    Raises:
        InputError: see :func:`largest_increase`.
    """
    _require_steps(margin, steps)
    _known_and_positive(margin)
    low = pd.Series(margin).rolling(steps, min_periods=1).min().to_numpy(dtype=np.float64)
    rises = np.full(len(margin), np.nan)
    rises[steps:] = margin[steps:] / low[steps - 1 : -1] - 1.0
    return rises


def largest_increase(margin: FloatArray, steps: int) -> float:
    """Return the largest relative rise over ``steps`` steps: max of margin[t + n] / margin[t] - 1.

    Args:
        margin: margins or margin rates on a regular grid, shape (n,), positive; NaN where there is
            none (a pair with one unknown does not count).
        steps: n, at least 1 and below the number of margins.

    Returns:
        NaN where no pair is known; negative for a margin that only falls.

    Raises:
        InputError: no margin known, one not positive, or ``steps`` out of range.
    """
    return _largest(margin_calls(margin, steps))


def count_of_rises(margin: FloatArray, steps: int, above: float) -> int:
    """Return how often a margin lies more than ``above`` (a fraction) over that of steps before.

    Raises:
        InputError: see :func:`largest_increase`.
    """
    return int(np.count_nonzero(margin_calls(margin, steps) > above))


def volatility_of_margin(margin: FloatArray) -> float:
    """Return the standard deviation of log changes from one step to the next.

    With one less than the number of changes as divisor. Logs, so that doubling and halving weigh
    the same. NaN with fewer than two known changes.

    Raises:
        InputError: see :func:`largest_increase`.
    """
    _known_and_positive(margin)
    changes = np.diff(np.log(margin))
    changes = changes[np.isfinite(changes)]
    return float(changes.std(ddof=1)) if changes.size > 1 else float("nan")


@dataclass(frozen=True)
class Responsiveness:
    """How a margin answered to volatility in one observation period.

    Attributes:
        margin_increase: largest relative rise of the margin over the steps, in the period.
        volatility_increase: largest relative rise of volatility over as many, in the period.
        ratio: the first over the second: 1 follows volatility one for one, above 1 overreacts, near
            0 does not answer; NaN with the reason where volatility did not rise.
        reason: why there is no ratio; empty otherwise.
    """

    margin_increase: float
    volatility_increase: float
    ratio: float
    reason: str = ""


def responsiveness(
    margin: FloatArray, volatility: FloatArray, steps: int, window: int
) -> Responsiveness:
    """Set the largest rise of a margin beside that of volatility, over the last ``window`` steps.

    Standard setters ask for the largest change of margin over 1 and over 20 business days, in
    observation periods of 3 and 12 months, published every quarter beside a measure of volatility.
    That is what is stated. Ours: relative rises only (a fall calls for no money), the largest rise
    of each of the two wherever in the period it comes (margins lag), calendar days (these markets
    do not close), the caller's volatility, and the ratio of the two.

    Args:
        margin: see :func:`largest_increase`.
        volatility: of the contract, in any unit, on the grid of the margin, shape (n,), positive;
            NaN where not known.
        steps: see :func:`largest_increase`; 1 and 20 days are asked for.
        window: length of the observation period, the last ones of the grid, above ``steps``; 3
            and 12 months are asked for.

    Raises:
        InputError: shapes differ, or see :func:`largest_increase`.

    Source: BCBS-CPMI-IOSCO (January 2025), Transparency and responsiveness of initial margin in
    centrally cleared markets: review and policy proposals (bis.org/bcbs/publ/d590.htm), and
    CPMI-IOSCO's consultation of May 2026 on public quantitative disclosures that implements it.
    """
    if margin.shape != volatility.shape:
        raise InputError(
            f"margin has shape {margin.shape} and volatility {volatility.shape}; "
            "they must lie on one grid"
        )
    if not steps < window <= len(margin):
        raise InputError(
            f"window must lie in {steps + 1}..{len(margin)} for rises over {steps} steps, "
            f"found {window}"
        )
    rise = largest_increase(margin[-window:], steps)
    of_volatility = largest_increase(volatility[-window:], steps)
    if np.isnan(rise) or np.isnan(of_volatility):
        reason = "no pair of known margins, or of known volatilities, so many steps apart"
        return Responsiveness(rise, of_volatility, float("nan"), reason)
    if of_volatility <= 0.0:
        reason = "volatility did not rise"
        return Responsiveness(rise, of_volatility, float("nan"), reason)
    return Responsiveness(rise, of_volatility, rise / of_volatility)


@dataclass(frozen=True)
class Procyclicality:
    """All measures of one margin that need nothing but the margin.

    Attributes:
        mean_margin: what traders pay.
        peak_to_trough: largest over smallest.
        volatility: standard deviation of daily log changes.
        largest_rises: by number of days, the largest relative rise over that many days.
        rises_from_low: by number of days, the largest rise from the least of that many days before.
        days_of_rises: by size, the number of one-day rises above it.
    """

    mean_margin: float
    peak_to_trough: float
    volatility: float
    largest_rises: dict[int, float]
    rises_from_low: dict[int, float]
    days_of_rises: dict[float, int]


def measure(
    daily_margin: FloatArray,
    days: tuple[int, ...] = DAYS_OF_RISES,
    sizes: tuple[float, ...] = NOTABLE_RISES,
) -> Procyclicality:
    """Measure the procyclicality of a daily margin, shape (n,); spans longer than it give NaN.

    Raises:
        InputError: see :func:`largest_increase`; fewer than two margins.
    """
    known = _known_and_positive(daily_margin)
    _require_steps(daily_margin, 1)
    possible = [span for span in days if span < len(daily_margin)]
    none = dict.fromkeys(days, float("nan"))
    return Procyclicality(
        mean_margin=float(known.mean()),
        peak_to_trough=peak_to_trough(daily_margin),
        volatility=volatility_of_margin(daily_margin),
        largest_rises=none | {span: largest_increase(daily_margin, span) for span in possible},
        rises_from_low=none
        | {span: _largest(rises_from_low(daily_margin, span)) for span in possible},
        days_of_rises={size: count_of_rises(daily_margin, 1, size) for size in sizes},
    )


def _largest(values: FloatArray) -> float:
    known = values[np.isfinite(values)]
    return float(known.max()) if known.size else float("nan")


def _require_steps(margin: FloatArray, steps: int) -> None:
    if not 1 <= steps < len(margin):
        raise InputError(f"steps must lie in 1..{len(margin) - 1}, found {steps}")


def _known_and_positive(margin: FloatArray) -> FloatArray:
    known = margin[np.isfinite(margin)]
    if known.size == 0 or known.min() <= 0:
        raise InputError("margins must be positive, and at least one must be known")
    return known
