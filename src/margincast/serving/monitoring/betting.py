"""Evidence against a promised rate of exceedances that may be looked at after every outcome.

Responsible for the one number an alarm hangs on: an e-process, which under the hypothesis "the
rate is what was promised, or better" has a mean of at most 1 whenever one stops to look, so that it
ever reaches ``1 / p`` with a probability of at most ``p`` (Ville). It is the wealth of somebody who
bets on exceedances at the promised odds: with a rate ``r`` and a stake ``c`` of all he has, a share
``s`` of exceedances turns a wealth of 1 into

- too many: ``1 - c + c s / r``, a mean of at most 1 if the mean of ``s`` is at most ``r``;
- too few: ``1 + c (r - s) / (1 - r)``, a mean of at most 1 if the mean of ``s`` is at least ``r``.

Stakes are not tuned: wealth is spread over several of them, and over the moments to start. Starting
at bet ``j`` gets a share of ``1 / (j (j + 1))``, so that a rate that changes after years of calm is
noticed, and the alarm still is false with a probability of at most ``p`` over the whole time.

Sources: Ramdas, Grunwald, Vovk and Shafer (2023), Game-theoretic statistics and safe anytime-valid
inference, doi:10.1214/23-STS894; Waudby-Smith and Ramdas (2024), Estimating means of bounded random
variables by betting, doi:10.1093/jrsssb/qkad009; Shin, Ramdas and Rinaldo (2023), E-detectors,
doi:10.51387/23-NEJSDS51 (starts).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from margincast.core.errors import InputError
from margincast.core.types import BoolArray, FloatArray

Direction = Literal["too many", "too few"]
DIRECTIONS: tuple[Direction, ...] = ("too many", "too few")

STAKES: dict[Direction, tuple[float, ...]] = {
    # the best stake against a true rate p is p - r of one contract, and as much as p / r - 1 of
    # many independent ones: three decades in half steps hold both for 0.9 to 0.999
    "too many": (0.001, 0.003, 0.01, 0.03, 0.1, 0.3),
    # here it is 1 - p / r, whatever the rate
    "too few": (0.25, 0.5, 0.75, 0.95),
}
"""Shares of the wealth that are bet, each with the same part of the whole."""

MOST_WEALTH = 1e300
"""Wealth beyond this is given away, which leaves evidence valid, and a number."""

_SMALLEST = 1e-9
_HALVINGS = 40


@dataclass(frozen=True)
class Evidence:
    """Wealth of m streams of bets, all in one direction.

    Attributes:
        direction: what is bet on.
        bets: settled bets, shape (m,).
        wealth: of what has been bet, by stake; what waits for a later start is not in it, shape
            (m, stakes).
        largest: largest e-value so far, shape (m,).
    """

    direction: Direction
    bets: npt.NDArray[np.int64]
    wealth: FloatArray
    largest: FloatArray

    @classmethod
    def none(cls, direction: Direction, streams: int) -> "Evidence":
        """Return the evidence before any bet: e-values of 1."""
        stakes = len(STAKES[direction])
        nothing = np.zeros(streams, dtype=np.int64)
        return cls(direction, nothing, np.zeros((streams, stakes)), np.ones(streams))

    @property
    def e_values(self) -> FloatArray:
        """The e-values, shape (m,): wealth that was bet, and what waits for a later start."""
        return np.asarray(self.wealth.mean(axis=1) + 1.0 / (self.bets + 1.0))

    def settle(self, shares: FloatArray, rates: FloatArray) -> "Evidence":
        """Settle one bet of every stream.

        Args:
            shares: of the stream's decisions that were exceeded, in [0, 1], shape (m,); NaN where
                the stream had no bet.
            rates: that are bet against, shape (m,).

        Raises:
            InputError: a share outside [0, 1].
        """
        had = ~np.isnan(shares)
        if np.any((shares[had] < 0.0) | (shares[had] > 1.0)):
            raise InputError(f"a share of exceedances lies in [0, 1], found {shares[had]}")
        started = 1.0 / ((self.bets + 1.0) * (self.bets + 2.0))
        factors = growth(self.direction, np.where(had, shares, 0.0), rates)
        grown = np.minimum((self.wealth + started[:, None]) * factors, MOST_WEALTH)
        wealth = np.where(had[:, None], grown, self.wealth)
        bets = self.bets + had
        after = Evidence(self.direction, bets, wealth, self.largest)
        return Evidence(
            self.direction, bets, wealth, np.asarray(np.maximum(self.largest, after.e_values))
        )


def growth(direction: Direction, shares: FloatArray, rates: FloatArray) -> FloatArray:
    """Return what every stake turns a wealth of 1 into, shape (m, stakes); see the module.

    Args:
        direction: what is bet on.
        shares: of exceedances, in [0, 1], shape (m,).
        rates: that are bet against, in (0, 1), shape (m,).
    """
    stakes = np.array(STAKES[direction])
    share, rate = shares[:, None], rates[:, None]
    if direction == "too many":
        return np.asarray(1.0 - stakes + stakes * share / rate)
    return np.asarray(1.0 + stakes * (rate - share) / (1.0 - rate))


def confidence_sequence(shares: FloatArray, confidence: float) -> tuple[float, float]:
    """Return bounds of a rate of exceedances that hold at all times together.

    A rate is outside when half the wealth of betting against it, in either direction, has passed
    ``1 / (1 - confidence)``. The bounds hold for a rate that does not change; of a changing one the
    lower bound lies below its largest value and the upper bound above its smallest. Here nothing
    waits for a later start: what is asked for is the rate since the first bet.

    Args:
        shares: of exceedances at every bet, in order, shape (n,), each in [0, 1].
        confidence: with which the bounds hold, all times together.

    Returns:
        Lower and upper bound; 0 and 1 where nothing is known.

    Source: Waudby-Smith and Ramdas (2024), doi:10.1093/jrsssb/qkad009, section 4.
    """
    limit = np.log(2.0 / (1.0 - confidence))

    def beyond(direction: Direction, rate: float) -> bool:
        grown = growth(direction, shares, np.full(len(shares), rate))
        logs = np.log(grown).sum(axis=0)
        return bool(np.logaddexp.reduce(logs) - np.log(len(logs)) > limit)

    return (
        _turning_point(lambda rate: beyond("too many", rate), outside_below=True),
        _turning_point(lambda rate: beyond("too few", rate), outside_below=False),
    )


def e_benjamini_hochberg(values: FloatArray, rate: float) -> BoolArray:
    """Say which of m e-values stand out, with a false discovery rate of at most ``rate``.

    The k largest stand out, for the largest k whose k-th e-value is at least ``m / (k rate)``; they
    may depend on each other in any way.

    Args:
        values: e-values, shape (m,).
        rate: expected share of the false among those that stand out.

    Source: Wang and Ramdas (2022), False discovery rate control with e-values,
    doi:10.1111/rssb.12489.
    """
    order = np.argsort(-values, kind="stable")
    ranks = np.arange(1, len(values) + 1)
    passing = np.flatnonzero(ranks * values[order] >= len(values) / rate)
    found = np.zeros(len(values), dtype=np.bool_)
    if len(passing):
        found[order[: passing[-1] + 1]] = True
    return found


def _turning_point(outside: Callable[[float], bool], *, outside_below: bool) -> float:
    """Return the bound between rates outside and inside, by halving; the end where there is none.

    Args:
        outside: whether a rate is outside, monotone in it.
        outside_below: whether small rates are outside, or large ones.
    """
    low, high = _SMALLEST, 1.0 - _SMALLEST
    if not outside(low if outside_below else high):
        return 0.0 if outside_below else 1.0
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        if outside(middle) == outside_below:
            low = middle
        else:
            high = middle
    # the end that is outside: a bound is never too narrow
    return low if outside_below else high
