"""Rounding up to the publication grid: the last digit of every published margin rate.

Rates are published in decimals, so the grid is decimal too: a number stands for the shortest
decimal that denotes it (what ``repr`` prints), and the arithmetic on it is exact.
"""

import math
from fractions import Fraction
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from margincast.core.errors import InputError
from margincast.core.types import FloatArray


@lru_cache(maxsize=65_536)  # rates on a grid come again and again
def exact(value: float) -> Fraction:
    """Return the decimal that a finite number is written as, exactly: 0.1 becomes 1/10.

    Raises:
        InputError: NaN or infinite.
    """
    number = float(value)
    if not math.isfinite(number):
        raise InputError(f"a rate or notional must be finite to be published, found {number:g}")
    return Fraction(repr(number))


def whole_numbers(values: FloatArray) -> tuple[npt.NDArray[np.object_], int]:
    """Return finite numbers as whole ones over a common denominator, each :func:`exact`.

    Raises:
        InputError: a number is NaN or infinite.

    >>> whole_numbers(np.array([0.5, 0.01]))
    (array([50, 1], dtype=object), 100)
    """
    distinct, place = np.unique(values, return_inverse=True)
    decimals = [exact(value) for value in distinct.tolist()]
    denominator = math.lcm(*(number.denominator for number in decimals))
    numerators = np.array([int(number * denominator) for number in decimals], dtype=object)
    return numerators[place], denominator


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


def rounded_up(value: FloatArray, step: float) -> FloatArray:
    """Return :func:`round_up` of every value, to the last bit; NaN stays NaN.

    A multiple ``n p / q`` of a step ``p / q`` is the correctly rounded quotient of two whole
    numbers, so that it is the double which the decimal denotes; and as rounding keeps the order,
    the smallest such double at or above a value belongs to the smallest multiple at or above it.
    """
    grid = exact(step)
    number = np.ceil(value / step)
    multiples = [(number + shift) * grid.numerator / grid.denominator for shift in (-1, 0, 1)]
    return np.where(
        multiples[0] >= value, multiples[0], np.where(multiples[1] >= value, *multiples[1:])
    )
