"""Price impact: how far a liquidation order moves the price it is filled at.

Responsible for the part of a stress loss that the liquidation itself makes. Two laws, both in the
size over the depth of the book: linear, as in the simulated market, and the square root that
metaorders are measured to follow.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from margincast.core.errors import InputError
from margincast.core.types import FloatArray

_EXPONENTS = {"linear": 1.0, "square-root": 0.5}


@dataclass(frozen=True)
class ImpactLaw:
    """``move = coefficient * (size / depth) ** exponent``, a move of the log price.

    Attributes:
        coefficient: move made by an order as large as the depth, a fraction; zero: no impact.
        kind: ``linear`` (exponent 1), or ``square-root`` (exponent 1/2).

    Raises:
        InputError: a coefficient that is negative or not finite, or a kind that is not known.

    Source: square root: Toth et al. (2011), doi:10.1103/PhysRevX.1.021006; linear: Kyle (1985),
    doi:10.2307/1913210. With the depth of the best level and the spread as coefficient the linear
    law is that of ``margincast.data.simulated``.
    """

    coefficient: float
    kind: Literal["linear", "square-root"] = "square-root"

    def __post_init__(self) -> None:
        if not (np.isfinite(self.coefficient) and self.coefficient >= 0.0):
            raise InputError(
                f"coefficient of the impact must be zero or more, found {self.coefficient:g}"
            )
        if self.kind not in _EXPONENTS:
            raise InputError(f"the impact is 'linear' or 'square-root', found {self.kind!r}")

    @property
    def exponent(self) -> float:
        """Power of size over depth."""
        return _EXPONENTS[self.kind]

    def move(self, size_usd: FloatArray | float, depth_usd: FloatArray | float) -> FloatArray:
        """Return the move of the log price after an order; negative for a negative size."""
        ratio = np.asarray(size_usd, dtype=np.float64) / depth_usd
        moved: FloatArray = self.coefficient * np.sign(ratio) * np.abs(ratio) ** self.exponent
        return moved

    def cost(self, size_usd: FloatArray | float, depth_usd: FloatArray | float) -> FloatArray:
        """Return the mean move over the order's fills: what it pays, a fraction of its size.

        ``move / (1 + exponent)``: half the move under the linear law, two thirds of it under the
        square root.
        """
        paid: FloatArray = np.abs(self.move(size_usd, depth_usd)) / (1.0 + self.exponent)
        return paid

    def mean_move(self, before_usd: float, after_usd: float, depth_usd: float) -> float:
        """Return the mean move while the size pressing on the price goes from one to another.

        Args:
            before_usd: size pressing on the price before the order, signed, USD.
            after_usd: after it.
            depth_usd: depth of the book, USD.
        """
        if before_usd == after_usd:
            return float(self.move(before_usd, depth_usd))
        # The integral of the move over the size is |size| * move / (1 + exponent), even in it.
        power = 1.0 + self.exponent
        integral = [
            abs(size) * abs(float(self.move(size, depth_usd))) / power
            for size in (before_usd, after_usd)
        ]
        return (integral[1] - integral[0]) / (after_usd - before_usd)
