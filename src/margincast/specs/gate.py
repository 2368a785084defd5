"""The promotion gate of a training job: what must be shown before a model sets margins.

Every limit is written in the job's file; ``training/README.md`` says why the shipped ones are what
they are.
"""

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from margincast.specs.base import (
    Delay,
    Fraction,
    Level,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    Spec,
    to_tuple,
)


class CoverageBand(Spec):
    """What a level's exceedances must look like; one row of ``gate.coverage``."""

    level: Level
    exceedance_ratio_min: NonNegativeFloat
    exceedance_ratio_max: PositiveFloat
    """Band for observed over nominal exceedances, pooled over contracts and sides."""
    expected_exceedances_min: NonNegativeFloat
    """Independent exceedances the test period must expect for the band to mean anything."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.exceedance_ratio_min > self.exceedance_ratio_max:
            raise ValueError(
                f"exceedance_ratio_min {self.exceedance_ratio_min:g} lies above "
                f"exceedance_ratio_max {self.exceedance_ratio_max:g}"
            )
        return self


BatteryTest = Literal[
    "traffic light",
    "exact binomial",
    "kupiec",
    "independence",
    "conditional coverage",
    "tbf",
    "tbfi",
    "weibull duration",
    "dynamic quantile",
    "quantile regression (score)",
    "acerbi-szekely conditional",
    "acerbi-szekely unconditional",
    "acerbi-szekely quantile",
    "du-escanciano unconditional",
]
"""Tests a gate may ask for; see :mod:`margincast.backtest.battery`."""


class BatteryLimits(Spec):
    """How many contracts and sides must stand the tests, and which tests all together."""

    tests: Annotated[tuple[BatteryTest, ...], BeforeValidator(to_tuple)]
    """Asked of every contract and side; empty: none."""
    levels: Annotated[tuple[Level, ...], BeforeValidator(to_tuple)]
    """Levels at which they are asked."""
    not_failed_min: Fraction
    """Smallest share of contracts and sides that do not fail after Benjamini-Hochberg."""
    without_power_max: Fraction
    """Largest share of them that may be too short to have told."""
    pooled_levels: Annotated[tuple[Level, ...], BeforeValidator(to_tuple)]
    """Levels at which the test of all contracts together must pass, and must have power."""


class ChampionLimits(Spec):
    """How a candidate must compare with the champion on the decisions both were asked."""

    significance: Annotated[float, Field(gt=0.0, lt=0.5)]
    """One-sided: a candidate that is worse with a smaller p-value does not pass."""
    difference_max: NonNegativeFloat
    """Largest extra loss, a share of the champion's, that may not be excluded at that level."""
    without_comparison: Literal["refuse", "accept"]
    """What it means that a champion's losses cannot be compared."""


class ProcyclicalityLimits(Spec):
    """How jumpy the forecast may be: medians over contracts and sides."""

    largest_one_day_rise_max: PositiveFloat
    """Relative: 3 means four times as high a day later."""
    peak_to_trough_max: PositiveFloat


class StressLimits(Spec):
    """How much may be lost beyond margin in the known windows of stress."""

    windows_min: NonNegativeInt
    """Known windows that the test period must hold."""
    shortfall_ratio_max: PositiveFloat
    """In each: mean loss beyond margin over the reference's, margins brought to one mean."""


class DataLimits(Spec):
    """How good the data of the test period must be."""

    without_forecast_max: Fraction
    """Largest share of decisions with an outcome that our model has no forecast for."""
    without_outcome_max: Fraction
    """Largest share of decisions without an outcome."""
    missing_decisions_max: Fraction
    """Largest share of decisions lost to missing or stale rows, between a contract's first and
    last."""
    faults_max: NonNegativeInt
    """Findings of severity fault."""
    warnings_max: NonNegativeInt
    """Findings of severity warning."""


class Gate(Spec):
    """What a backtest must show before a model may become champion."""

    reference: str
    """The peer that must be beaten."""
    pinball_ratio_max: PositiveFloat
    """Mean pinball over levels and sides, relative to the reference."""
    crossings_max: NonNegativeInt
    longest_override: Delay
    """Longest time for which a person may let a version set margins whose gate failed; 0s: none."""
    coverage: Annotated[tuple[CoverageBand, ...], BeforeValidator(to_tuple), Field(min_length=1)]
    battery: BatteryLimits
    champion: ChampionLimits
    procyclicality: ProcyclicalityLimits
    stress: StressLimits
    data: DataLimits

    @property
    def levels(self) -> tuple[float, ...]:
        """Every level that something is asked at, increasing."""
        banded = [band.level for band in self.coverage]
        return tuple(sorted({*banded, *self.battery.levels, *self.battery.pooled_levels}))

    @model_validator(mode="after")
    def _one_band_a_level(self) -> Self:
        banded = [band.level for band in self.coverage]
        if banded != sorted(set(banded)):
            raise ValueError(f"coverage names levels {banded}; they must be strictly increasing")
        return self
