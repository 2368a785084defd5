"""``[tuning]`` of a training job: what the search may change, how it is judged, when it ends."""

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from margincast.specs.base import (
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Spec,
    Texts,
    to_tuple,
)

TUNABLE = (
    "rounds",
    "num_leaves",
    "learning_rate",
    "min_data_factor",
    "feature_fraction",
    "bagging_fraction",
)
"""Keys of ``model.head`` that trials may vary: none of them changes the bins."""
NOT_TUNABLE = {
    "max_bin": "the bins are built once and shared by all trials; compare two files instead",
    "seed": "a lucky seed is not a better model",
}
"""Keys of ``model.head`` that trials may not vary, and why."""

Objective = Literal["loss", "coverage_error", "procyclicality", "mean_margin"]
"""What a trial can be judged by; all are minimised."""


class Range(Spec):
    """One dimension of a search space."""

    low: float
    high: float
    log: bool
    integer: bool

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low {self.low:g} lies above high {self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError(f"a logarithmic range needs low above 0, found {self.low:g}")
        if self.integer and not (self.low.is_integer() and self.high.is_integer()):
            raise ValueError(
                f"an integer range needs whole ends, found {self.low:g}, {self.high:g}"
            )
        return self

    @property
    def ends(self) -> tuple[float, float]:
        """Both ends, as whole numbers where the range is one of integers."""
        return (int(self.low), int(self.high)) if self.integer else (self.low, self.high)


class Tuning(Spec):
    """A study of trials over keys of ``model.head``, on time before the test period only."""

    trials: NonNegativeInt
    """0 keeps the values of ``model.head``."""
    workers: PositiveInt
    """Trials under way at a time; what is tried hangs on it, so it belongs to the spec."""
    folds: PositiveInt
    """Blocks of the study's later half; each is forecast from what lay before it."""
    held_out_share: Annotated[float, Field(ge=0.0, lt=0.5)]
    """Latest share of the decisions that no trial sees; the candidates are scored on it."""
    seed: NonNegativeInt
    sampler: Literal["tpe", "random", "nsgaii"]
    pruner: Literal["median", "none"]
    objectives: Annotated[tuple[Objective, ...], BeforeValidator(to_tuple), Field(min_length=1)]
    """The first one decides which trial is chosen."""
    exceedance_ratio_min: NonNegativeFloat
    exceedance_ratio_max: PositiveFloat
    """Band for observed over nominal exceedances at every level of the head, over all folds."""
    patience_trials: NonNegativeInt
    """The study ends when so many trials in a row have brought nothing; 0: never early."""
    least_gain: NonNegativeFloat
    """Share by which a trial must better the best before it to count as a gain."""
    candidates: PositiveInt
    """Best trials that are scored on the held-out time, and that a warm start takes over."""
    storage: str
    """Where studies are kept: an SQLite file, a PostgreSQL database or a journal file."""
    warm_start: Texts
    """Jobs whose latest study lends its best trials to a new one."""
    space: dict[str, Range]

    @model_validator(mode="after")
    def _keys_of_the_head(self) -> Self:
        for key in self.space:
            if key in NOT_TUNABLE:
                raise ValueError(f"space names {key}, which no trial may vary: {NOT_TUNABLE[key]}")
        unknown = sorted(set(self.space) - set(TUNABLE))
        if unknown:
            raise ValueError(
                f"space names {', '.join(unknown)}, which model.head does not have; trials may "
                f"vary {', '.join(sorted(TUNABLE))}"
            )
        return self

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        twice = sorted({name for name in self.objectives if self.objectives.count(name) > 1})
        if twice:
            raise ValueError(f"objectives names {', '.join(twice)} more than once")
        if len(self.objectives) > 1 and self.pruner != "none":
            raise ValueError(
                f"pruner is {self.pruner!r}, but a study of several objectives cannot stop a trial "
                "early: write pruner = 'none'"
            )
        if self.exceedance_ratio_min > self.exceedance_ratio_max:
            raise ValueError(
                f"exceedance_ratio_min {self.exceedance_ratio_min:g} lies above "
                f"exceedance_ratio_max {self.exceedance_ratio_max:g}"
            )
        return self
