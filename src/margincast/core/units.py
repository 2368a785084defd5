"""Units: fractions are the only unit inside; bps appear in names and at the edges.

A maintenance margin rate of 1.25 per cent is 0.0125 everywhere. A value above one where a rate
is expected is nearly always a per cent written for a fraction, and is refused with that advice.
"""

from margincast.core.errors import InputError

BPS = 1e-4
MINUTES_PER_YEAR = 365 * 24 * 60


def require_fraction(value: float, name: str) -> float:
    """Return ``value`` if it lies in [0, 1].

    Raises:
        InputError: it does not; a value in (1, 100] is answered with the fraction it may mean.
    """
    if 0.0 <= value <= 1.0:
        return value
    hint = f"; did you mean {value / 100:g}?" if 1.0 < value <= 100.0 else ""
    raise InputError(f"{name} must be a fraction between 0 and 1, found {value:g}{hint}")
