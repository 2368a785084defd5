"""Margin policies (``serving/*.toml``).

Responsible for what an operator may choose between a forecast and a published margin, and for
refusing choices that contradict each other before any margin is computed from them.
"""

from fractions import Fraction
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from margincast.core.time import format_duration
from margincast.specs.base import (
    Duration,
    Level,
    NonNegativeFloat,
    PositiveFloat,
    PositiveRate,
    RateBelowOne,
    Spec,
)
from margincast.specs.beside_maintenance import Fees, Initial, OpenInterest
from margincast.specs.liquidation import Liquidation
from margincast.specs.tiers import TierShape


def _is_multiple(value: float, step: float) -> bool:
    """Compare the decimals as written, so that 0.3 is a multiple of 0.1."""
    return (Fraction(repr(value)) / Fraction(repr(step))).denominator == 1


class ModelChoice(Spec):
    """Which forecast the policy turns into margin."""

    registered_model: str
    level: Level
    horizon: Duration


class TrackingStore(Spec):
    """Where the registered model is looked up."""

    uri: str
    """MLflow tracking URI; a relative SQLite path starts at the workspace."""


class ForecastUse(Spec):
    """How the forecasts of the two sides are used, and which are not believed."""

    sides: Literal["each", "larger"]
    """``each``: every side its own forecast; ``larger``: both sides the larger of the two."""
    largest_plausible: PositiveFloat
    """A forecast above this fraction is taken for an error and leads to the fallback."""


class ScheduleChoice(Spec):
    """Which base schedule is multiplied, as a path relative to the workspace."""

    file: str


class Drawdown(Spec):
    """When the buffer is used: as requirements rise above their long-run level."""

    starts_at: PositiveFloat
    """Requirement over the long-run rate up to which the buffer is full."""
    ends_at: PositiveFloat
    """The same from which it is used up; in between it falls linearly."""
    rebuild: Duration
    """Time in which an empty buffer is full again; it never grows faster."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.starts_at >= self.ends_at:
            raise ValueError(
                f"starts_at must lie below ends_at, found {self.starts_at:g} and {self.ends_at:g}"
            )
        return self


class Buffer(Spec):
    """A multiplicative buffer on forecast plus liquidation cost."""

    rate: NonNegativeFloat
    drawdown: Drawdown | None = None
    """Present: the buffer may be used in rising markets; absent: it is always there."""


class LongRun(Spec):
    """What a contract's own history says: its long-run rate, below which margin does not fall."""

    window: Duration
    """History looked back on."""
    minimum_history: Duration
    """Age at which a contract's own history counts as much as the others' median."""
    elasticity: PositiveFloat
    """Power of forecast over long-run rate that is margined; 1 margins the forecast."""
    floor: NonNegativeFloat
    """Share of the long-run rate below which no margin is published."""
    cap: PositiveFloat
    """Multiple of the long-run rate above which a forecast is not followed."""

    @model_validator(mode="after")
    def _floor_below_cap(self) -> Self:
        if self.floor > self.cap:
            raise ValueError(f"floor must not lie above cap, found {self.floor:g} and {self.cap:g}")
        return self


class Stress(Spec):
    """Weight of stressed observations: those of the contract's worst period in its history."""

    weight: Annotated[float, Field(ge=0.0, lt=1.0)]
    period: Duration
    """Length of the period."""


class Speed(Spec):
    """How fast a published margin may move: up fast, down slowly."""

    rise_per_hour: PositiveFloat
    """Largest rise within an hour, a fraction of the margin."""
    rise_per_day: PositiveFloat
    """Largest rise over 24 hours."""
    fall_half_life: Duration
    """Time in which a margin may halve."""


class Publication(Spec):
    """When a new margin is published, and when it comes into force."""

    every: Duration
    """Time between publications."""
    hold: Annotated[float, Field(ge=0.0, lt=1.0)]
    """A margin is lowered only once it would fall by more than this share."""
    notice_of_rise: Duration | None = None
    """Time between publication and force of a higher margin; absent: at once."""
    notice_of_fall: Duration | None = None
    """The same of a lower one."""


class Limits(Spec):
    """Floors and caps of the published maintenance margin rate."""

    mmr_floor: RateBelowOne
    mmr_cap: RateBelowOne
    multiplier_floor: NonNegativeFloat
    """Least multiplier on the base schedule; 1 never publishes less than the schedule."""
    multiplier_cap: PositiveFloat

    @model_validator(mode="after")
    def _floors_below_caps(self) -> Self:
        problems = [
            f"{name}_floor must not lie above {name}_cap, found {floor:g} and {cap:g}"
            for name, floor, cap in (
                ("mmr", self.mmr_floor, self.mmr_cap),
                ("multiplier", self.multiplier_floor, self.multiplier_cap),
            )
            if floor > cap
        ]
        if problems:
            raise ValueError("; ".join(problems))
        return self


class Rounding(Spec):
    """The publication grid; published rates are rounded up to it."""

    mmr_step: PositiveRate
    imr_step: PositiveRate

    @model_validator(mode="after")
    def _steps_divide_one(self) -> Self:
        problems = [
            f"{name} must divide 1 (for example 0.0005), found {step:g}"
            for name, step in (("mmr_step", self.mmr_step), ("imr_step", self.imr_step))
            if not _is_multiple(1.0, step)
        ]
        if problems:
            raise ValueError("; ".join(problems))
        return self


class Staleness(Spec):
    """How old the newest data may be before the base schedule is published instead."""

    max_data_age: Duration


class Changes(Spec):
    """What somebody should look at before margins are published."""

    notable: PositiveFloat
    """Relative rise or fall from which the change of a level is flagged."""


class MarginPolicy(Spec):
    """A margin policy, its sections in the order in which a margin passes them."""

    name: str
    description: str
    tracking: TrackingStore
    model: ModelChoice
    staleness: Staleness
    schedule: ScheduleChoice
    forecast: ForecastUse
    liquidation: Liquidation
    buffer: Buffer
    stress: Stress | None = None
    long_run: LongRun | None = None
    limits: Limits
    speed: Speed | None = None
    rounding: Rounding
    publication: Publication | None = None
    initial: Initial
    open_interest: OpenInterest | None = None
    fees: Fees | None = None
    tiers: TierShape | None = None
    """Present: ``margincast tiers`` can make a base schedule from the margin curve."""
    changes: Changes | None = None
    """Present: changes since the last publication are flagged."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        problems = []
        if self.long_run is None:
            needing = [
                name
                for name, section in (
                    ("[buffer.drawdown]", self.buffer.drawdown),
                    ("[stress]", self.stress),
                )
                if section is not None
            ]
            problems += [f"{name} needs [long_run], which is not given" for name in needing]
        elif self.stress is not None and self.stress.period > self.long_run.window:
            problems.append("stress.period is longer than long_run.window")
        notice = self.publication.notice_of_rise if self.publication is not None else None
        if notice is not None and notice > self.model.horizon:
            problems.append(
                f"publication.notice_of_rise is longer than the horizon "
                f"{format_duration(self.model.horizon)}: a higher margin would come into force "
                "after the positions it is for are closed"
            )
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @model_validator(mode="after")
    def _fees_within_the_margin(self) -> Self:
        fees = self.fees
        if fees is None:
            return self
        problems = [] if self.long_run is not None else ["[fees] needs [long_run], not given"]
        if fees.floor > fees.cap:
            problems.append(f"fees.floor lies above fees.cap: {fees.floor:g} and {fees.cap:g}")
        problems += [
            f"fees.{name} must be a multiple of fees.step = {fees.step:g}, found {value:g}"
            for name, value in (("floor", fees.floor), ("cap", fees.cap))
            if not _is_multiple(value, fees.step)
        ]
        charged = self.liquidation.taker_fee_rate + self.liquidation.liquidation_fee_rate
        if fees.cap * charged > self.limits.mmr_floor:
            problems.append(
                f"fees.cap x the fees of [liquidation] = {fees.cap * charged:g} lies above "
                f"limits.mmr_floor = {self.limits.mmr_floor:g}: a margin must pay for closing; "
                "lower the cap or raise the floor"
            )
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @model_validator(mode="after")
    def _initial_covers_more(self) -> Self:
        other = self.initial.forecast
        if other is not None and (
            other.level < self.model.level or other.horizon < self.model.horizon
        ):
            raise ValueError(
                "initial.forecast must have at least the level and horizon of [model], found "
                f"{other.level:g} over {format_duration(other.horizon)} against "
                f"{self.model.level:g} over {format_duration(self.model.horizon)}"
            )
        return self

    @model_validator(mode="after")
    def _limits_on_the_grid(self) -> Self:
        step = self.rounding.mmr_step
        problems = [
            f"limits.{name} must be a multiple of rounding.mmr_step = {step:g}, found {value:g}"
            for name, value in (
                ("mmr_floor", self.limits.mmr_floor),
                ("mmr_cap", self.limits.mmr_cap),
            )
            if not _is_multiple(value, step)
        ]
        if problems:
            raise ValueError("; ".join(problems))
        return self
