"""The Drift ratios and premium whose margins lie above our tiers, and least above them.

Responsible for the choice among the parameters that are safe: with a larger maintenance ratio the
premium for size can be smaller, and small positions pay for large ones.
"""

import math
from typing import NamedTuple

import numpy as np

from margincast.core.errors import InputError
from margincast.core.types import FloatArray
from margincast.margin.rounding import exact
from margincast.margin.venues.tiers import ExactTiers, Tiers

UNITS = 10_000
"""Units of a margin ratio (MARGIN_PRECISION), and its largest value (MAX_MARGIN_RATIO)."""
LEAST_UNITS = 200
"""Smallest ratio the program accepts (MIN_MARGIN_RATIO, 50x)."""
MOST_IMF = 1_000_000
"""``imf_factor`` lies below (SPOT_IMF_PRECISION); the largest ratio needs none."""
ROOT_SCALE = 1e10
"""The program's root of a size in coins: sqrt(10 x 1e9 x coins)."""
PREMIUM_SCALE = 1e7
"""Units of a ratio are root x imf_factor over this (1e5 x 1e6 / 1e4)."""
GRID = 100
"""Notionals at which the excess is averaged, evenly in their logarithm."""
GRID_FROM = 1e-3
"""The first of them, a share of the first tier's cap."""


class Fitted(NamedTuple):
    """Parameters of a market: ratios in units of 1e-4, the premium in units of 1e-6."""

    initial: int
    maintenance: int
    imf_factor: int


class _Tiers(NamedTuple):
    """Our tiers as arrays of shape (K,): edges in USD, rates and amounts in units of a ratio."""

    floors: FloatArray
    caps: FloatArray
    rates: FloatArray
    owed: FloatArray
    initial: FloatArray

    @classmethod
    def of(cls, tiers: Tiers) -> "_Tiers":
        amounts = ExactTiers.of(tiers).amounts_usd
        return cls(
            np.array([tier.floor_usd for tier in tiers]),
            np.array([tier.cap_usd for tier in tiers]),
            np.array([float(exact(tier.mmr) * UNITS) for tier in tiers]),
            np.array([float(amount * UNITS) for amount in amounts]),
            np.array([math.ceil(exact(tier.imr) * UNITS) for tier in tiers], dtype=np.float64),
        )


def fit(symbol: str, tiers: Tiers, price_usd: float) -> Fitted:
    """Return the safe parameters with the least mean relative excess of maintenance margin.

    Safe: ``max(r, 0.8 r + imf x sqrt(coins))`` is at least margin over notional at every notional
    of the tiers, and the same with the initial ratio at least the tiers' initial rates. For every
    ratio r the least premium is known in closed form: where a tier with rate a and amount b asks
    more than r, the premium must be (a - 0.8 r - b / n) / sqrt(n / price), which over n has one
    maximum, at n = 3 b / (a - 0.8 r), or lies largest at an end. One unit more makes up for the
    program's rounding down. The initial ratio is the least that goes with that premium.

    Args:
        symbol: the contract, for the message.
        tiers: our tiers.
        price_usd: price of a coin, USD.

    Raises:
        InputError: the price is not positive.
    """
    if not (math.isfinite(price_usd) and price_usd > 0.0):
        raise InputError(f"{symbol}: a price must be above 0, found {price_usd:g}")
    ours = _Tiers.of(tiers)
    effective_end = ours.rates[-1] - ours.owed[-1] / ours.caps[-1]
    least = max(LEAST_UNITS, math.ceil(ours.rates[0]))
    most = min(max(least, math.ceil(effective_end)), UNITS - 1)
    ratios = np.arange(least, most + 1, dtype=np.float64)
    factors = least_factors(ratios, tiers, price_usd)
    excess = _excess(ratios, factors, ours, price_usd)
    best = int(np.argmin(np.where(factors < MOST_IMF, excess, np.inf)))
    maintenance, imf_factor = int(ratios[best]), int(factors[best])
    return Fitted(_least_initial(maintenance, imf_factor, ours, price_usd), maintenance, imf_factor)


def least_factors(ratios: FloatArray, tiers: Tiers, price_usd: float) -> FloatArray:
    """Return for every maintenance ratio the least safe ``imf_factor``, a whole number.

    Args:
        ratios: candidates in units of 1e-4, not below the first tier's rate, shape (M,).
        tiers: our tiers, K of them.
        price_usd: price of a coin, USD.

    Returns:
        Shape (M,); 0 where the ratio alone is enough.
    """
    ours = _Tiers.of(tiers)
    above = ours.rates - ratios[:, None]
    rise = ours.rates - _base(ratios)[:, None] + 1.0
    with np.errstate(divide="ignore", invalid="ignore"):
        # where a tier begins to ask more than the ratio; never, where its rate does not
        start = np.where(above > 0.0, np.maximum(ours.floors, ours.owed / above), np.inf)
        turn = 3.0 * ours.owed / rise
    needed = np.zeros(start.shape)
    for notional in (start, np.broadcast_to(ours.caps, start.shape), turn):
        inside = (notional >= start) & (notional <= ours.caps) & (notional > 0.0)
        at = np.where(inside, notional, ours.caps)
        # the root is rounded down twice, the size and itself
        root = np.maximum(_root(at, price_usd) - 2.0, 1.0)
        factor = PREMIUM_SCALE * (rise - ours.owed / at) / root
        needed = np.maximum(needed, np.where(inside, factor, 0.0))
    factors: FloatArray = np.ceil(needed.max(axis=1))
    return factors


def _least_initial(maintenance: int, imf_factor: int, ours: _Tiers, price_usd: float) -> int:
    """Return the least initial ratio, above the maintenance ratio, that the tiers' rates ask.

    A tier asks most at its floor, where the premium is smallest; 0.8 i and premium are enough, or
    i alone.
    """
    root = np.maximum(_root(ours.floors, price_usd) - 2.0, 0.0)
    premium = np.floor(root * imf_factor / PREMIUM_SCALE)
    with_premium = np.ceil((ours.initial - premium) * 1.25)
    return max(int(np.minimum(ours.initial, with_premium).max()), maintenance + 1)


def _excess(ratios: FloatArray, factors: FloatArray, ours: _Tiers, price_usd: float) -> FloatArray:
    """Return the mean relative excess of maintenance margin over the grid, shape (M,)."""
    notionals = np.geomspace(GRID_FROM * ours.caps[0], ours.caps[-1], GRID)
    tier = np.minimum(np.searchsorted(ours.caps, notionals), len(ours.caps) - 1)
    asked = ours.rates[tier] - ours.owed[tier] / notionals
    premium = np.floor(_root(notionals, price_usd) * factors[:, None] / PREMIUM_SCALE)
    charged = np.maximum(ratios[:, None], _base(ratios)[:, None] + premium)
    excess: FloatArray = (charged / asked).mean(axis=1) - 1.0
    return excess


def _base(ratios: FloatArray) -> FloatArray:
    """Four fifths of a ratio, the fifth rounded down as the program does."""
    fifth: FloatArray = np.floor(ratios / 5.0)
    return ratios - fifth


def _root(notionals_usd: FloatArray, price_usd: float) -> FloatArray:
    root: FloatArray = np.sqrt(ROOT_SCALE * notionals_usd / price_usd)
    return root
