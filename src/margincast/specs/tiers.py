"""The shape of notional tiers (``[tiers]`` of a margin policy): how many, where, how close.

Responsible for what an operator asks of brackets that are made from a margin curve.
"""

from fractions import Fraction
from typing import Annotated, Self

from pydantic import Field, model_validator

from margincast.specs.base import Floats, NonNegativeFloat, PositiveFloat, PositiveInt, Spec


class TierShape(Spec):
    """What brackets made from a margin curve must keep."""

    max_brackets: PositiveInt
    smallest_usd: PositiveFloat
    """Where the curve begins to count; the first bracket ends at or above it."""
    largest_usd: PositiveFloat
    """Where the last bracket ends."""
    mantissas: Annotated[Floats, Field(min_length=1)]
    """Brackets end at these numbers times powers of ten."""
    mean_excess: NonNegativeFloat
    """How far the margin may lie above the curve, a fraction, on average over notionals."""
    hysteresis: NonNegativeFloat
    """Earlier edges stay while they cost at most so much more than the best ones, a fraction."""

    @model_validator(mode="after")
    def _round_numbers(self) -> Self:
        problems = []
        if list(self.mantissas) != sorted(set(self.mantissas)) or not all(
            1.0 <= one < 10.0 for one in self.mantissas
        ):
            problems.append(
                f"mantissas must rise within 1 up to below 10, found {list(self.mantissas)}"
            )
        if self.smallest_usd >= self.largest_usd:
            problems.append(
                f"smallest_usd must lie below largest_usd, found {self.smallest_usd:g} and "
                f"{self.largest_usd:g}"
            )
        if not problems and self.largest_usd not in self.edges_usd():
            problems.append(
                f"largest_usd must be one of the mantissas times a power of ten, found "
                f"{self.largest_usd:g}"
            )
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def edges_usd(self) -> tuple[float, ...]:
        """Return where brackets may end, from ``smallest_usd`` to ``largest_usd``."""
        small, large = Fraction(repr(self.smallest_usd)), Fraction(repr(self.largest_usd))
        found, power = [], Fraction(1, 10**12)
        while power <= large:
            found += [Fraction(repr(one)) * power for one in self.mantissas]
            power *= 10
        return tuple(float(edge) for edge in found if small <= edge <= large)
