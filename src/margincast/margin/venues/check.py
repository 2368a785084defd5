"""The check of a venue's table: its own margins beside those of our tiers, notional by notional.

Responsible for saying by how much a position pays more or less on the venue than our tiers ask.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from margincast.core.errors import CheckFailedError
from margincast.margin.rounding import exact
from margincast.margin.venues.imported import VenueMargin
from margincast.margin.venues.tiers import ExactTiers, Tiers, TiersBySymbol

BETWEEN_EDGES = 64
"""Notionals at which margins are compared, besides the edges, shared among the tiers."""
LEAST_WITHIN_A_TIER = 4
"""Of them in every tier, its edges included."""
FIRST_TIER_FROM = 1e-3
"""The first of them in the first tier, a share of its cap."""
CENT = Fraction(1, 100)
SAME = 1e-9
"""Relative difference below which margins count as equal: the last digits of a double."""


@dataclass(frozen=True)
class Check:
    """Margins on a venue relative to those of our tiers; 0.01 is one per cent more.

    Attributes:
        symbol: the contract.
        tiers: how many tiers we have.
        venue_tiers: how many the venue's table has.
        least: smallest difference of the maintenance margin; below 0 the venue asks less.
        mean: mean difference over the notionals compared, which lie evenly in their logarithm
            within every tier.
        largest: largest difference.
        largest_at_usd: the notional it is found at, USD.
        changed: tiers with a notional at which the margins differ.
        initial_least: smallest difference of the initial margin rate.
        initial_largest: largest difference of the initial margin rate.
    """

    symbol: str
    tiers: int
    venue_tiers: int
    least: float
    mean: float
    largest: float
    largest_at_usd: float
    changed: int
    initial_least: float
    initial_largest: float


def notionals_of(tiers: Tiers) -> list[Fraction]:
    """Return the notionals to compare at, USD, to the cent: edges, and between them."""
    each = max(LEAST_WITHIN_A_TIER, BETWEEN_EDGES // len(tiers))
    points: set[Fraction] = set()
    for tier in tiers:
        floor = tier.floor_usd or FIRST_TIER_FROM * tier.cap_usd
        between = np.geomspace(floor, tier.cap_usd, each)
        points |= {Fraction(round(float(notional) * 100), 100) for notional in between}
        points |= {exact(tier.cap_usd), exact(tier.cap_usd) + CENT}
    last = exact(tiers[-1].cap_usd)
    return sorted(point for point in points if 0 < point <= last)


def compare(symbol: str, tiers: Tiers, venue: VenueMargin) -> Check:
    """Compare a venue's margins with those of our tiers, exactly.

    Args:
        symbol: the contract.
        tiers: our tiers.
        venue: the venue's own arithmetic, which reaches at least as far.
    """
    own = ExactTiers.of(tiers)
    notionals = notionals_of(tiers)
    differences = [_relative(venue.maintenance_usd(n), own.maintenance_usd(n)) for n in notionals]
    initial = [_relative(venue.initial_rate(n), own.initial_rate(n)) for n in notionals]
    largest = max(range(len(notionals)), key=differences.__getitem__)
    changed = {
        own.position(notional)
        for notional, difference in zip(notionals, differences, strict=True)
        if abs(difference) > SAME
    }
    return Check(
        symbol=symbol,
        tiers=len(tiers),
        venue_tiers=venue.tiers,
        least=min(differences),
        mean=math.fsum(differences) / len(differences),
        largest=differences[largest],
        largest_at_usd=float(notionals[largest]),
        changed=len(changed),
        initial_least=min(initial),
        initial_largest=max(initial),
    )


def _relative(theirs: Fraction, ours: Fraction) -> float:
    """Return the relative difference; its sign is exact, as the difference is taken first."""
    return float(theirs - ours) / float(ours)


def compare_all(tiers: TiersBySymbol, venue: Mapping[str, VenueMargin]) -> list[Check]:
    """Compare every contract that has tiers."""
    return [compare(symbol, own, venue[symbol]) for symbol, own in tiers.items()]


def require_never_below(checks: list[Check]) -> None:
    """Check that no position pays less on the venue than our tiers ask.

    Raises:
        CheckFailedError: names the contract and by how much.
    """
    for check in checks:
        for what, least in (("maintenance", check.least), ("initial", check.initial_least)):
            if least < 0.0:
                raise CheckFailedError(
                    f"{check.symbol}: in the venue's arithmetic a position would pay "
                    f"{-least:.3%} less {what} margin than its tiers ask; nothing was written"
                )
