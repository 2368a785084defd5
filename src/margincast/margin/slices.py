"""Closing in slices: how much of the book earlier slices still take away from later ones.

Responsible for the recovery assumption. Every slice consumes its part of the book, and what has
been consumed comes back exponentially: with E what is missing after a slice, ``E (1 - r)^m`` is
missing m minutes later. Sources: Obizhaeva and Wang (2013), Optimal trading strategy and
supply/demand dynamics, Journal of Financial Markets 16 (resilience); Alfonsi, Fruth and Schied
(2010), Optimal execution strategies in limit order books with general shape functions, Quantitative
Finance 10, model 1 (volume that recovers, in a book of any shape).
"""

from datetime import timedelta

import numpy as np

from margincast.core.types import FloatArray
from margincast.specs.liquidation import Recovery


def consumed_before(recovery: Recovery | None, horizon: timedelta) -> FloatArray:
    """Return the share of the notional that is missing from the book as each slice starts.

    The first of n slices is closed at once, the others follow a horizon over n apart. Slice j
    walks the book from ``consumed`` to ``consumed + 1 / n`` times the notional. Without refill
    ``consumed`` is ``j / n``, and the slices cost together what closing at once costs.

    Args:
        recovery: slices and refill; None closes all at once.
        horizon: the liquidation horizon.

    Returns:
        Shape (slices,).
    """
    if recovery is None:
        return np.zeros(1)
    minutes = horizon / timedelta(minutes=1) / recovery.slices
    left = (1.0 - recovery.refill_per_minute) ** minutes
    consumed = np.zeros(recovery.slices)
    for number in range(1, recovery.slices):
        consumed[number] = (consumed[number - 1] + 1.0 / recovery.slices) * left
    return consumed
