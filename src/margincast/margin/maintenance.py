"""The maintenance amount: what makes the margin of a position continuous in its notional.

Responsible for turning the rates of the tiers into the margin of one position, in the arithmetic
that venues with notional tiers publish: ``margin = notional x MMR - maintenance amount``.
"""

from collections.abc import Sequence

import numpy as np

from margincast.core.errors import InputError
from margincast.core.types import BoolArray, FloatArray
from margincast.margin.rounding import exact, whole_numbers


def maintenance_amounts(floors_usd: Sequence[float], mmrs: Sequence[float]) -> tuple[float, ...]:
    """Return the maintenance amount of every tier, USD, zero for the first.

    ``amount_k = amount_(k-1) + floor_k x (MMR_k - MMR_(k-1))``: at the edge of two tiers both give
    the same margin. The sums are exact in decimals.

    Source: Binance USD-M futures, "Leverage and Margin" (maintenance amount of a bracket).

    Args:
        floors_usd: where the tiers start, USD notional, rising from 0.
        mmrs: maintenance margin rates of the tiers, fractions.

    Raises:
        InputError: the lists differ in length, are empty or hold a value that is not finite.

    >>> maintenance_amounts([0.0, 50_000.0, 600_000.0], [0.004, 0.005, 0.01])
    (0.0, 50.0, 3050.0)
    """
    if len(floors_usd) != len(mmrs) or not mmrs:
        raise InputError(
            f"a maintenance amount needs one MMR a tier, found {len(floors_usd)} tiers and "
            f"{len(mmrs)} rates"
        )
    amounts = [exact(0.0)]
    for number in range(1, len(mmrs)):
        rise = exact(mmrs[number]) - exact(mmrs[number - 1])
        amounts.append(amounts[-1] + exact(floors_usd[number]) * rise)
    return tuple(float(amount) for amount in amounts)


def maintenance_amounts_of_all(
    floors_usd: FloatArray, mmrs: FloatArray, first: BoolArray
) -> FloatArray:
    """Return :func:`maintenance_amounts` of many lists of tiers at once, to the last bit.

    Args:
        floors_usd: where the tiers start, USD notional, list after list, shape (k,).
        mmrs: their maintenance margin rates, fractions, shape (k,).
        first: where a list begins, shape (k,).

    Raises:
        InputError: a floor or rate is not finite.
    """
    floors, per_usd = whole_numbers(floors_usd)
    rates, per_one = whole_numbers(mmrs)
    rises = rates - np.roll(rates, 1)
    rises[first] = 0
    total = np.cumsum(floors * rises)
    start = np.maximum.accumulate(np.where(first, np.arange(len(mmrs)), 0))
    # whole numbers of any size: their quotient is the double nearest to the exact amount
    return np.asarray((total - total[start]) / (per_usd * per_one), dtype=np.float64)


def maintenance_margin_usd(
    notional_usd: float,
    caps_usd: Sequence[float],
    mmrs: Sequence[float],
    amounts_usd: Sequence[float],
) -> float:
    """Return the maintenance margin of a position, USD.

    Args:
        notional_usd: notional of the position, USD.
        caps_usd: where the tiers end, USD notional, rising; a position at a cap is in that tier.
        mmrs: maintenance margin rates of the tiers, fractions.
        amounts_usd: their maintenance amounts, USD.

    Raises:
        InputError: the notional is negative, not a number, or above the last tier.

    >>> caps, rates = [50_000.0, 600_000.0], [0.004, 0.005]
    >>> maintenance_margin_usd(100_000.0, caps, rates, [0.0, 50.0])
    450.0
    """
    if not 0.0 <= notional_usd <= caps_usd[-1]:
        raise InputError(
            f"a position of {notional_usd:,.2f} USD has no tier; the tiers reach from 0 to "
            f"{caps_usd[-1]:,.0f} USD"
        )
    tier = next(number for number, cap in enumerate(caps_usd) if notional_usd <= cap)
    return float(exact(notional_usd) * exact(mmrs[tier]) - exact(amounts_usd[tier]))
