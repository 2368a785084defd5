"""Monitors (``serving/monitor*.toml``): what is watched, what raises an alarm, what may follow.

Responsible for every threshold between a published margin and the person who is woken by it.
"""

from typing import Annotated, Literal, Self, get_args

from pydantic import BeforeValidator, Field, model_validator

from margincast.specs.base import (
    Delay,
    Duration,
    Fraction,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    RateBelowOne,
    Spec,
    Texts,
    to_tuple,
)

AlarmName = Literal[
    "champion",
    "forecasts exceeded too often",
    "forecasts exceeded too rarely",
    "contracts exceeded too often",
    "contracts exceeded too rarely",
    "margins exceeded too often",
    "data too old",
    "publications unreadable",
    "publication too old",
    "fallback",
    "features drifted",
    "features missing",
    "features out of range",
    "shadow better",
]
ALARMS: tuple[AlarmName, ...] = get_args(AlarmName)
Alarms = Annotated[tuple[AlarmName, ...], BeforeValidator(to_tuple), Field(min_length=1)]


class Exceedances(Spec):
    """How often forecasts and margins may be exceeded, and how sure an alarm must be."""

    most_ratio: Annotated[float, Field(ge=1.0)]
    """Exceedances over what the level promises; a higher rate is too many."""
    least_ratio: Annotated[float, Field(gt=0.0, le=1.0)]
    """A lower one is too few: margin that nobody needs."""
    false_alarm_rate: RateBelowOne
    """Probability that a model version which keeps its promise ever raises the alarm."""
    false_discovery_rate: RateBelowOne
    """Share of the false among contracts that stand out."""
    patience: Delay
    """How long an outcome is waited for after its horizon; what is missing then is counted."""
    window: Duration
    """Of rolling coverage, which is shown and raises nothing."""
    confidence: RateBelowOne
    """Of the bounds of exceedance rates that are shown."""


class Freshness(Spec):
    """How old data and publication may be."""

    stale_contracts_max: Fraction
    """Share of contracts whose newest data may be older than the policy's staleness allows."""
    publication_age_max: Duration
    fallback_max: Fraction
    """Share of the last publication's margins that may be a fallback."""


class Drift(Spec):
    """How far features may move from what the model was trained on."""

    stability_index_max: PositiveFloat
    """Population stability index above which a feature counts as drifted, if it is also above what
    was usual in training."""
    drifted_max: Fraction
    """Share of the features that may have drifted."""
    missing_rise_max: Fraction
    """Rise of a family's share of unknown values at the newest decisions, over training."""
    out_of_range_max: Fraction
    """Share of a feature's values that may lie outside of what training has seen."""


class Shadow(Spec):
    """How sure it must be that the shadow forecasts better than the champion."""

    confidence: RateBelowOne


class JobChoice(Spec):
    """A training job that alarms may start."""

    name: Annotated[str, Field(min_length=1)]
    """For the ledger, such as ``recalibrate``."""
    alarms: Alarms
    """Alarms of which one must be raised."""
    after: Delay
    """How long it must have been raised."""
    job: str
    """The training job, as a path relative to the workspace."""
    set: Texts
    """Values of it that are overridden, as ``section.key=value``."""


class Acting(Spec):
    """Which jobs alarms may start, and how seldom."""

    cool_down: Duration
    """From one start to the next, of whatever job."""
    starts_max: PositiveInt
    """Most starts within the period."""
    period: Duration
    jobs: Annotated[
        tuple[JobChoice, ...],
        BeforeValidator(to_tuple),
        Field(min_length=1),
    ]
    """Tried in this order; the first whose alarm is raised is started."""

    @model_validator(mode="after")
    def _period_holds_starts(self) -> Self:
        names = [job.name for job in self.jobs]
        if len(set(names)) < len(names):
            raise ValueError(f"jobs must have different names, found {', '.join(names)}")
        if self.cool_down > self.period:
            raise ValueError("cool_down is longer than period, in which starts are counted")
        return self


class Monitor(Spec):
    """A monitor; a section that is left out is not watched."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    description: str
    policy: str
    """Margin policy that is watched, as a path relative to the workspace."""
    calm: Delay
    """How long a reading must be good again before its alarm ends."""
    clears_at: NonNegativeFloat
    """Share of its limit below which a reading is good again."""
    exceedances: Exceedances
    freshness: Freshness
    drift: Drift | None = None
    shadow: Shadow | None = None
    acting: Acting | None = None

    @model_validator(mode="after")
    def _hysteresis(self) -> Self:
        if self.clears_at > 1.0:
            raise ValueError(
                f"clears_at is a share of the limit, at most 1, found {self.clears_at:g}"
            )
        return self
