"""The liquidation price: how far prices may move before an account falls below its requirement.

Responsible for the exact distance to liquidation. Equity is linear in a move of prices, and the
maintenance margin of notional tiers is convex and piecewise linear, so what is left between the two
(the headroom) is concave and piecewise linear: it is zero at most twice, and between two edges of
tiers each zero is a quotient. Nothing is searched for by steps, and nothing is rounded on the way.

Source: Binance, "How to Calculate Liquidation Price of USD-M Futures Contracts", whose formula is
the zero of one piece, with the note that another tier's rate must be tried where the notional at
the result lies in it; here all pieces are one function.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from margincast.core.errors import InputError
from margincast.margin.maintenance import maintenance_amounts
from margincast.margin.rounding import exact

_NOWHERE = Fraction(-1)
"""Move at which a price is zero."""


@dataclass(frozen=True)
class Requirement:
    """Maintenance margin of one position as a function of its notional, exact.

    Attributes:
        caps_usd: where the tiers end, rising.
        rates: maintenance margin rates of the tiers, not falling.
        amounts_usd: their maintenance amounts.
    """

    caps_usd: tuple[Fraction, ...]
    rates: tuple[Fraction, ...]
    amounts_usd: tuple[Fraction, ...]

    @classmethod
    def of(
        cls, floors_usd: Sequence[float], caps_usd: Sequence[float], mmrs: Sequence[float]
    ) -> "Requirement":
        """Return the requirement of published tiers.

        Args:
            floors_usd: where the tiers start, rising from 0, each where the one before ends.
            caps_usd: where they end.
            mmrs: their rates, fractions.

        Raises:
            InputError: tiers that are not contiguous, or rates that fall.
        """
        edges = [0.0, *caps_usd]
        if list(floors_usd) != edges[:-1] or any(low >= high for low, high in pairwise(edges)):
            raise InputError(
                f"tiers must follow one another from 0, found floors {list(floors_usd)} and caps "
                f"{list(caps_usd)}"
            )
        if any(lower > upper for lower, upper in pairwise(mmrs)):
            raise InputError(f"maintenance margin rates must not fall, found {list(mmrs)}")
        amounts = maintenance_amounts(floors_usd, mmrs)
        return cls(*(tuple(map(exact, values)) for values in (caps_usd, mmrs, amounts)))

    def at(self, notional_usd: Fraction) -> Fraction:
        """Return the maintenance margin, USD; above the last tier its rate goes on."""
        tier = min(bisect_left(self.caps_usd, notional_usd), len(self.caps_usd) - 1)
        return notional_usd * self.rates[tier] - self.amounts_usd[tier]


@dataclass(frozen=True)
class Headroom:
    """Equity less maintenance requirement as a function of one move m of prices, from -1 up.

    ``still + slope * m - sum of requirements at (1 + m) * notional``.

    Attributes:
        still_usd: equity less the requirements of what does not move, at m = 0.
        slope_usd: what equity gains when prices double.
        moving: requirement and present notional of every position that moves.
    """

    still_usd: Fraction
    slope_usd: Fraction
    moving: tuple[tuple[Requirement, Fraction], ...]

    def at(self, move: Fraction) -> Fraction:
        """Return what is left after a move, USD."""
        required = sum(
            (each.at((1 + move) * notional) for each, notional in self.moving), Fraction(0)
        )
        return self.still_usd + self.slope_usd * move - required

    def distance(self) -> "Distance":
        """Return the moves down and up at which nothing is left.

        Raises:
            InputError: nothing is left already.
        """
        if self.at(Fraction(0)) < 0:
            raise InputError("the account is below its maintenance requirement already")
        edges = {
            cap / notional - 1
            for each, notional in self.moving
            for cap in each.caps_usd[:-1]
            if cap > 0 and notional > 0
        }
        down = [_NOWHERE, *sorted(edge for edge in edges if edge < 0), Fraction(0)]
        up = [Fraction(0), *sorted(edge for edge in edges if edge > 0)]
        return Distance(self._below(down), self._above(up))

    def _below(self, points: Sequence[Fraction]) -> Fraction | None:
        # concave, and not negative at 0: once it is not negative it stays so up to 0
        first = bisect_left(points, 1, key=lambda point: int(self.at(point) >= 0))
        return None if first == 0 else self._between(points[first - 1], points[first])

    def _above(self, points: Sequence[Fraction]) -> Fraction | None:
        first = bisect_left(points, 1, key=lambda point: int(self.at(point) < 0))
        if first < len(points):
            return self._between(points[first - 1], points[first])
        last = points[-1]
        # beyond the last edge there is one piece more, without an end
        fall = self.at(last) - self.at(last + 1)
        return last + self.at(last) / fall if fall > 0 else None

    def _between(self, left: Fraction, right: Fraction) -> Fraction:
        at_left, at_right = self.at(left), self.at(right)
        return left + (right - left) * at_left / (at_left - at_right)


@dataclass(frozen=True)
class Distance:
    """Moves at which an account meets its requirement exactly, simple fractions.

    Attributes:
        down: at or below 0; None where even a price of zero leaves something.
        up: at or above 0; None where no rise takes all.
    """

    down: Fraction | None
    up: Fraction | None
