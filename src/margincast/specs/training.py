"""Training jobs (``training/*.toml``): from data and target to model, backtest and gate."""

from datetime import timedelta
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from margincast.core.types import Side
from margincast.specs.base import (
    Delay,
    Duration,
    EndInstant,
    Horizons,
    Instant,
    Integers,
    Level,
    Levels,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveFraction,
    PositiveInt,
    Spec,
    Step,
    Texts,
    to_tuple,
)
from margincast.specs.gate import Gate
from margincast.specs.tuning import Tuning


class SimulatedData(Spec):
    """The embedded market: written once under ``folder``, seeded, then read like any data."""

    folder: str
    contracts: Texts
    start: Instant
    days: PositiveInt
    seed: int


class Data(Spec):
    """Where the market data lies, relative to ``--data`` (or the workspace)."""

    bars: Texts = ()
    """Folders or files of bars; earlier ones keep a symbol's plain name when two collide."""
    book: Texts = ()
    trades: Texts = ()
    funding: Texts = ()
    open_interest: Texts = ()
    """Open interest, or bars of its value in USD."""
    liquidations: Texts = ()
    """Single liquidations, or their sums in USD over intervals."""
    implied_vol: Texts = ()
    """Bars of an index of implied volatility, in percent a year."""
    options: Texts = ()
    """Snapshots of option chains."""
    symbols: Texts = ()
    """Contracts to use; none named means all."""
    book_known_after: Delay | None = None
    """Delay from a book row's ``ts`` until the row can have been known."""
    simulated: SimulatedData | None = None

    @model_validator(mode="after")
    def _something_to_read(self) -> Self:
        if not self.bars and not self.book:
            raise ValueError("name bars or a book to read (data.bars, data.book)")
        if self.book and self.book_known_after is None:
            raise ValueError("data.book needs data.book_known_after, for example '1s'")
        return self


class FeatureChoice(Spec):
    """Which feature set the model sees, as a path relative to the workspace."""

    set: str


class Target(Spec):
    """The adverse excursion that is forecast."""

    horizons: Horizons
    """Liquidation horizons, increasing; every one is forecast at the same decisions."""
    levels: Levels
    sides: Annotated[tuple[Side, ...], BeforeValidator(to_tuple), Field(min_length=1)]
    stride: PositiveInt
    """Decide every n-th bar."""
    kind: Literal["path", "terminal"]
    gap_tolerance: Duration
    """A window with missing bars has a target only if less than this is missing."""

    @property
    def horizons_minutes(self) -> tuple[int, ...]:
        """The horizons in minutes."""
        return tuple(horizon // timedelta(minutes=1) for horizon in self.horizons)

    @property
    def monotone(self) -> bool:
        """Whether an outcome cannot shrink with the horizon: end points can, extremes cannot."""
        return self.kind == "path"


class Scale(Spec):
    """Conditional scale: log-linear regression of the horizon's log range (HAR)."""

    columns: Texts
    """Volatility features, the windows of each short to long; where a longer window is not known
    the next shorter one of the same feature stands in; none: a constant scale."""
    seasonal_harmonics: Integers
    """Harmonics of the week whose sine and cosine enter (empty: no seasonality)."""
    ridge: NonNegativeFloat


class Head(Spec):
    """Quantile LightGBM on the standardised target."""

    rounds: PositiveInt
    num_leaves: Annotated[int, Field(ge=2)]
    learning_rate: PositiveFloat
    min_data_factor: Annotated[float, Field(ge=10.0)]
    """``min_data_in_leaf = min_data_factor / (1 - level)``: exceedances a leaf must expect."""
    feature_fraction: PositiveFraction
    bagging_fraction: PositiveFraction
    max_bin: Annotated[int, Field(ge=2)]
    seed: NonNegativeInt


class Tail(Spec):
    """Generalised Pareto tail for the levels beyond what trees can estimate."""

    threshold_level: Level
    from_level: Level
    """Levels at or above this one come from the tail."""

    @model_validator(mode="after")
    def _threshold_below(self) -> Self:
        if self.threshold_level >= self.from_level:
            raise ValueError(
                f"threshold_level must lie below from_level, found {self.threshold_level} "
                f"and {self.from_level}"
            )
        return self


class Online(Spec):
    """Correction between refits by what happened since (quantile tracking, in logarithms)."""

    everybody_rate: NonNegativeFloat
    """Log units a year by which a forecast rises when it is exceeded at every decision; 0: none."""
    contract_rate: NonNegativeFloat
    """The same for a contract's own correction."""
    lowest: PositiveFraction
    """No forecast is lowered below this share of itself."""


class Calibration(Spec):
    """Conformal factors from forecasts of earlier refits, partially pooled, and their tracking."""

    folds: Annotated[int, Field(ge=2)]
    """Blocks of the training period; each but the first is forecast by a model of those before."""
    prior: Duration
    """Time whose evidence a factor of 1 counts as: with that much, everybody's is half itself."""
    contract_prior: NonNegativeFloat
    """Expected exceedances of prior weight with which a contract's own factor is pooled."""
    online: Online


class Peers(Spec):
    """What the classical peers need to be as strong as they can be."""

    ewma_column: str
    """Feature that is the exponentially weighted volatility of EWMA-FHS."""
    parkinson_column: str
    """Feature that is the range-based volatility of Parkinson-FHS."""
    history: Duration
    """Trailing history of standardised outcomes whose quantile the peers take."""
    minimum_exceedances: PositiveFloat
    """A contract that expects fewer exceedances in that history uses the pooled quantile."""


class Model(Spec):
    """The margincast model, stage by stage."""

    window: Step
    """Longest history a fit looks back on."""
    stride: PositiveInt
    """Train on every n-th decision of each contract (overlapping labels add little)."""
    minimum_rows: PositiveInt
    """Where that would leave fewer decisions than this, more of them are taken."""
    scale: Scale
    head: Head
    tail: Tail
    calibration: Calibration
    peers: Peers


Peer = Literal[
    "static",
    "rolling_hs",
    "ewma_fhs",
    "parkinson_fhs",
    "har_fhs",
    "garch_t_fhs",
    "gjr_t_fhs",
    "garch_evt",
    "caviar_sav",
    "caviar_as",
    "har_qr",
    "har_qr_seasonal",
    "har_qr_log",
    "har_qr_log_seasonal",
    "quantile_forest",
    "sklearn_gbq",
    "lightgbm_raw",
    "lightgbm_raw_tuned",
]
"""The peers there are; see :mod:`margincast.models.catalogue`."""


class Backtest(Spec):
    """Walk-forward on held-out time."""

    start: Instant
    end: EndInstant
    refit_every: Step
    embargo: Duration
    """Time between the last training label's end and the first test decision."""
    peers: Annotated[tuple[Peer, ...], BeforeValidator(to_tuple), Field(min_length=1)]

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        twice = sorted({name for name in self.peers if self.peers.count(name) > 1})
        if twice:
            raise ValueError(f"backtest.peers names {', '.join(twice)} more than once")
        if self.start >= self.end:
            raise ValueError(f"start {self.start:%F} is not before end {self.end:%F}")
        return self


class Tracking(Spec):
    """Where runs, artifacts and model versions go."""

    uri: str
    """MLflow tracking URI; a relative SQLite path starts at the workspace."""
    experiment: Annotated[str, Field(min_length=1)]
    registered_model: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    trial_runs: NonNegativeInt
    """Best trials that become runs; a table holds all."""
    fold_runs: NonNegativeInt
    """Refits that become runs, half the worst, half the latest; a table holds all."""
    explained_decisions: NonNegativeInt
    """Latest decisions at which feature contributions are computed; 0: none."""


class TrainingJob(Spec):
    """A training job."""

    name: str
    description: str
    data: Data
    features: FeatureChoice
    target: Target
    model: Model
    tuning: Tuning
    backtest: Backtest
    gate: Gate
    tracking: Tracking

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        """Find now what would otherwise fail after hours of work."""
        problems = []
        if self.gate.reference not in self.backtest.peers:
            problems.append(
                f"gate.reference: {self.gate.reference!r} is not among backtest.peers "
                f"({', '.join(self.backtest.peers)})"
            )
        for key, bounds in self.tuning.space.items():
            for end in bounds.ends:
                try:
                    Head.model_validate(self.model.head.model_dump() | {key: end})
                except ValidationError as error:
                    message = error.errors()[0]["msg"]
                    problems.append(f"tuning.space.{key}: {end:g} is not allowed: {message}")
        if problems:
            raise ValueError("; ".join(problems))
        return self
