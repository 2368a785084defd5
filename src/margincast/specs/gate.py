"""The promotion gate of a training job: what must be shown before a model sets margins.

Every limit is written in the job's file; ``training/README.md`` says why the shipped ones are what
they are.
"""

from typing import Self

from pydantic import model_validator

from margincast.specs.base import (
    Delay,
    Levels,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    Spec,
)


class Gate(Spec):
    """What a backtest must show before a model may become champion."""

    reference: str
    """The peer that must be beaten."""
    pinball_ratio_max: PositiveFloat
    """Mean pinball over levels and sides, relative to the reference."""
    exceedance_ratio_min: NonNegativeFloat
    exceedance_ratio_max: PositiveFloat
    """Band for observed over nominal exceedances, pooled, at every gated level."""
    gated_levels: Levels
    crossings_max: NonNegativeInt
    minimum_expected_exceedances: NonNegativeFloat
    """Independent exceedances the test period must expect for a verdict to mean anything."""
    longest_override: Delay
    """Longest time for which a person may let a version set margins whose gate failed; 0s: none."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.exceedance_ratio_min > self.exceedance_ratio_max:
            raise ValueError(
                f"exceedance_ratio_min {self.exceedance_ratio_min:g} lies above "
                f"exceedance_ratio_max {self.exceedance_ratio_max:g}"
            )
        return self
