"""What a policy publishes beside the maintenance margin: initial margin, open interest, fees.

Responsible for the sections ``[initial]``, ``[open_interest]`` and ``[fees]`` of a margin policy.
"""

from typing import Annotated, Self

from pydantic import BeforeValidator, Field, model_validator

from margincast.specs.base import (
    Duration,
    Fraction,
    Level,
    NonNegativeFloat,
    PositiveFloat,
    Spec,
    Texts,
    Usd,
    to_tuple,
)


class InitialForecast(Spec):
    """Another forecast of the same model that the initial margin covers as well."""

    level: Level
    horizon: Duration


class Initial(Spec):
    """Initial margin rate from the maintenance margin rate, and from a forecast of its own."""

    imr_over_mmr: Annotated[float, Field(gt=1.0)]
    forecast: InitialForecast | None = None
    """Present: at least that forecast plus the cost of closing; absent: the ratio is all."""


class OpenInterestCaps(Spec):
    """Open interest of some contracts between which the initial margin rate rises to 1."""

    symbols: Texts = Field(min_length=1)
    lower_cap_usd: Usd
    upper_cap_usd: Usd

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.lower_cap_usd >= self.upper_cap_usd:
            raise ValueError(
                f"lower_cap_usd must lie below upper_cap_usd, found {self.lower_cap_usd:g} and "
                f"{self.upper_cap_usd:g}"
            )
        return self


class OpenInterestDays(Spec):
    """The same in days of a contract's own trading, for every contract that no caps name."""

    lower_cap_days: NonNegativeFloat
    upper_cap_days: PositiveFloat
    window: Duration
    """Over which a day's trading is averaged."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.lower_cap_days >= self.upper_cap_days:
            raise ValueError(
                f"lower_cap_days must lie below upper_cap_days, found {self.lower_cap_days:g} and "
                f"{self.upper_cap_days:g}"
            )
        return self


class OpenInterest(Spec):
    """Initial margin that grows with open interest: what cannot be closed is not to be opened."""

    max_age: Duration
    """Older open interest is not known."""
    unknown_share: Fraction
    """Share of the way to 1 that is taken where open interest is not known."""
    caps: Annotated[tuple[OpenInterestCaps, ...], BeforeValidator(to_tuple)] = ()
    days: OpenInterestDays | None = None

    @model_validator(mode="after")
    def _says_something_once(self) -> Self:
        symbols = [symbol for caps in self.caps for symbol in caps.symbols]
        twice = sorted({symbol for symbol in symbols if symbols.count(symbol) > 1})
        if twice:
            raise ValueError(f"a contract has one pair of caps; found twice: {', '.join(twice)}")
        if not symbols and self.days is None:
            raise ValueError(
                "there are no caps; write [[open_interest.caps]] or [open_interest.days]"
            )
        return self


class Fees(Spec):
    """A multiplier on taker and liquidation fees that follows volatility."""

    exponent: PositiveFloat
    """Power of forecast over long-run rate."""
    floor: PositiveFloat
    cap: PositiveFloat
    step: PositiveFloat
    """Multipliers are rounded up to multiples of it."""
    hold: Annotated[float, Field(ge=0.0, lt=1.0)]
    """A change by this share or less of the multiplier in force waits."""
