"""Collateral policies (``serving/collateral.toml``): which assets count as margin, and how.

Responsible for what an operator may choose between a tail forecast and a published haircut.
"""

from fractions import Fraction
from typing import Annotated, Self

from pydantic import BeforeValidator, Field, model_validator

from margincast.specs.base import (
    Duration,
    Level,
    NonNegativeFloat,
    PositiveFloat,
    PositiveFraction,
    RateBelowOne,
    Spec,
    to_tuple,
)

Haircut = Annotated[float, Field(ge=0.0, le=1.0)]
CostBps = Annotated[float, Field(ge=0.0, lt=10_000.0)]


class HaircutForecast(Spec):
    """Which long-side forecasts become haircuts."""

    level: Level
    """Share of falls over the asset's liquidation horizon that a haircut covers."""
    tail_level: Level
    """A higher level of the same model; both say how fat the tail is beyond."""
    max_age: Duration
    """Older forecasts are not used."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.tail_level <= self.level:
            raise ValueError(
                f"tail_level must lie above level, found {self.tail_level:g} and {self.level:g}"
            )
        return self


class HaircutLongRun(Spec):
    """A floor from the asset's own history, so that haircuts do not rise first in a crash."""

    window: Duration
    """History looked back on."""
    minimum_history: Duration
    """Age at which an asset's own history counts as much as the others' median."""
    floor: NonNegativeFloat
    """Share of the long-run quantile below which no haircut is published."""


class HaircutLimits(Spec):
    """Floor, cap and grid of every haircut."""

    floor: Haircut
    cap: PositiveFraction
    step: PositiveFraction
    """Haircuts are rounded up to multiples of it."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        problems = []
        if self.floor > self.cap:
            problems.append(f"floor must not lie above cap, found {self.floor:g} and {self.cap:g}")
        problems += [
            f"{name} must be a multiple of step = {self.step:g}, found {value:g}"
            for name, value in (("floor", self.floor), ("cap", self.cap))
            if (Fraction(repr(value)) / Fraction(repr(self.step))).denominator != 1
        ]
        if problems:
            raise ValueError("; ".join(problems))
        return self


class MarketRisk(Spec):
    """An asset whose price moves, and that is sold when an account is liquidated."""

    contract: str
    """Contract of which forecasts are taken, and whose price the asset follows."""
    horizon: Duration
    """Time allowed to sell the asset: its own liquidation horizon."""
    cost_bps: CostBps
    """What selling costs, spread, impact and fee."""
    joint_tail: PositiveFraction
    """How often it is beyond its forecast when another contract's long is beyond its own."""
    fallback: RateBelowOne
    """Haircut where no forecast can be used; never less than the limits say."""


class Asset(Spec):
    """An asset that counts as collateral."""

    asset: str
    market: MarketRisk | None = None
    """Absent: cash or a stablecoin whose price is not forecast."""
    depeg_floor: PositiveFloat | None = Field(default=None, le=1.0)
    """Least haircut of a stablecoin, whatever its calm past says."""

    @model_validator(mode="after")
    def _has_a_haircut(self) -> Self:
        if self.market is None and self.depeg_floor is None:
            raise ValueError(
                f"asset {self.asset!r} has neither a market nor a depeg_floor, so nothing says its "
                "haircut; write one of them"
            )
        return self


class CollateralPolicy(Spec):
    """A collateral policy, its sections in the order in which a haircut passes them."""

    name: str
    description: str
    forecast: HaircutForecast
    long_run: HaircutLongRun | None = None
    limits: HaircutLimits
    assets: Annotated[tuple[Asset, ...], BeforeValidator(to_tuple), Field(min_length=1)]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [each.asset for each in self.assets]
        problems = [
            f"asset {name!r} stands twice"
            for name in sorted({n for n in names if names.count(n) > 1})
        ]
        for each in self.assets:
            own = (each.depeg_floor, each.market.fallback if each.market else None)
            problems += [
                f"asset {each.asset!r}: {value:g} lies above limits.cap = {self.limits.cap:g}"
                for value in own
                if value is not None and value > self.limits.cap
            ]
        if problems:
            raise ValueError("; ".join(problems))
        return self
