"""Procyclicality: how high and how fast a margin rises, whatever it covers.

A margin that jumps in a crash causes the next liquidations. The measures are those of Murphy,
Vasios and Vause (2014), An investigation into the procyclicality of risk-based initial margin
models, Bank of England Financial Stability Paper 29.
"""

import numpy as np

from margincast.core.errors import InputError
from margincast.core.types import FloatArray


def peak_to_trough(margin: FloatArray) -> float:
    """Return the largest over the smallest margin, shape (n,), positive; at least 1."""
    margin = _require_positive(margin)
    return float(margin.max() / margin.min())


def largest_increase(margin: FloatArray, steps: int) -> float:
    """Return the largest relative rise over ``steps`` steps: max of margin[t + n] / margin[t] - 1.

    Args:
        margin: margins or margin rates on a regular grid, shape (n,), positive; NaN where there is
            none (a pair with one unknown does not count).
        steps: n, at least 1 and below the number of margins.
    """
    if not 1 <= steps < len(margin):
        raise InputError(f"steps must lie in 1..{len(margin) - 1}, found {steps}")
    ratio = margin[steps:] / margin[:-steps]
    known = ratio[np.isfinite(ratio)]
    return float(known.max() - 1.0) if known.size else float("nan")


def _require_positive(margin: FloatArray) -> FloatArray:
    known = margin[np.isfinite(margin)]
    if known.size == 0 or known.min() <= 0:
        raise InputError("margins must be positive, and at least one must be known")
    return known
