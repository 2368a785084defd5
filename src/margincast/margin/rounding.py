"""Rounding up to the publication grid: the last digit of every published margin rate.

Rates are published in decimals, so the grid is decimal too: a number stands for the shortest
decimal that denotes it (what ``repr`` prints), and the arithmetic on it is exact.
"""

import math
from fractions import Fraction

from margincast.core.errors import InputError


def exact(value: float) -> Fraction:
    """Return the decimal that a finite number is written as, exactly: 0.1 becomes 1/10.

    Raises:
        InputError: NaN or infinite.
    """
    number = float(value)
    if not math.isfinite(number):
        raise InputError(f"a rate or notional must be finite to be published, found {number:g}")
    return Fraction(repr(number))


def round_up(value: float | Fraction, step: float) -> float:
    """Return the smallest multiple of ``step`` at or above ``value``.

    Never less than ``value``, less than one step more, and a value on the grid stays as it is.

    Args:
        value: a rate as a fraction, or its exact value.
        step: the grid's step, positive.

    Raises:
        InputError: a value is not finite, or the step is not positive.

    >>> round_up(0.04587, 0.0005)
    0.046
    >>> round_up(0.3, 0.1)
    0.3
    """
    grid = exact(step)
    if grid <= 0:
        raise InputError(f"the step of a publication grid must be positive, found {step:g}")
    number = value if isinstance(value, Fraction) else exact(value)
    return float(math.ceil(number / grid) * grid)
