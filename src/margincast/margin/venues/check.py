"""The check of a venue's table: its own margins beside those of our tiers, notional by notional.

Responsible for saying by how much a position pays more or less on the venue than our tiers ask.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from margincast.core.errors import CheckFailedError
from margincast.margin.rounding import exact
from margincast.margin.venues.imported import VenueMargin
from margincast.margin.venues.tiers import Tiers, TiersBySymbol, exact_amounts, tier_of

WITHIN_A_TIER = 16
"""Notionals a tier at which margins are compared, besides its edges."""
FIRST_TIER_FROM = 1e-3
"""The first of them in the first tier, a share of its cap."""
CENT = Fraction(1, 100)
SAME = Fraction(1, 10**9)
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
    points: set[Fraction] = set()
    for tier in tiers:
        floor = tier.floor_usd or FIRST_TIER_FROM * tier.cap_usd
        between = np.geomspace(floor, tier.cap_usd, WITHIN_A_TIER)
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
    amounts = exact_amounts(tiers)
    notionals = notionals_of(tiers)
    differences: list[Fraction] = []
    initial: list[Fraction] = []
    changed: set[int] = set()
    for notional in notionals:
        position = tier_of(tiers, notional)
        tier = tiers[position]
        ours = notional * exact(tier.mmr) - amounts[position]
        differences.append(venue.maintenance_usd(notional) / ours - 1)
        changed |= {position} if abs(differences[-1]) > SAME else set()
        initial.append(venue.initial_rate(notional) / exact(tier.imr) - 1)
    largest = max(range(len(notionals)), key=differences.__getitem__)
    return Check(
        symbol=symbol,
        tiers=len(tiers),
        venue_tiers=venue.tiers,
        least=float(min(differences)),
        mean=float(sum(differences, Fraction(0)) / len(differences)),
        largest=float(differences[largest]),
        largest_at_usd=float(notionals[largest]),
        changed=len(changed),
        initial_least=float(min(initial)),
        initial_largest=float(max(initial)),
    )


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
