"""What all specs share: strict frozen models, durations and instants as TOML writes them."""

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
)

from margincast.core.digest import digest_of
from margincast.core.time import add_step, format_duration, parse_duration, parse_instant


class Spec(BaseModel):
    """Base of every spec: frozen, strict types, unknown keys refused."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    def digest(self) -> str:
        """SHA-256 of the spec's canonical JSON; equal specs have equal digests.

        A key that is not given does not count, so that a key added later changes no digest.
        """
        return digest_of(self.model_dump(mode="json", exclude_defaults=True))


def _to_duration(value: object) -> object:
    if isinstance(value, timedelta):
        return value
    if not isinstance(value, str):
        # pydantic turns ValueError, and only that, into a message beside the key
        raise ValueError(f"{value!r} is not a duration; write text such as '8h'")  # noqa: TRY004
    return parse_duration(value)


def _to_instant(value: object) -> object:
    if isinstance(value, str | date | datetime):
        return parse_instant(value)
    raise ValueError(f"{value!r} is not a date or time; write for example 2023-01-01")


def _to_end(value: object) -> object:
    """A bare date as an end includes that whole day."""
    bare = (isinstance(value, date) and not isinstance(value, datetime)) or (
        isinstance(value, str) and len(value.strip()) == len("2024-12-31")
    )
    instant = _to_instant(value)
    return instant + timedelta(days=1) if bare and isinstance(instant, datetime) else instant


def _check_step(value: str) -> str:
    for count in (1, -1):
        add_step(datetime(2000, 1, 1, tzinfo=UTC), value, count)
    return value


def to_tuple(value: object) -> object:
    """TOML arrays arrive as lists; one value stands for a list of one."""
    if isinstance(value, str | int | float | dict):
        return (value,)
    return tuple(value) if isinstance(value, list) else value


def _check_level(value: float) -> float:
    if not 0.5 < value < 1.0:
        hint = f"; did you mean {value / 100:g}?" if 50.0 < value < 100.0 else ""
        raise ValueError(f"a level lies between 0.5 and 1, found {value:g}{hint}")
    return value


def _check_increasing(values: tuple[float, ...]) -> tuple[float, ...]:
    if list(values) != sorted(set(values)):
        raise ValueError(f"must be strictly increasing, found {list(values)}")
    return values


def _check_horizons(values: tuple[timedelta, ...]) -> tuple[timedelta, ...]:
    found = ", ".join(format_duration(value) for value in values)
    if any(value % timedelta(minutes=1) for value in values):
        raise ValueError(f"must be whole minutes, found {found}")
    if list(values) != sorted(set(values)):
        raise ValueError(f"must be strictly increasing, found {found}")
    return values


Duration = Annotated[
    timedelta,
    BeforeValidator(_to_duration),
    PlainSerializer(format_duration, return_type=str),
]
"""A positive length of time, written ``"8h"`` in TOML."""

Delay = Annotated[
    timedelta,
    BeforeValidator(lambda value: timedelta(0) if value == "0s" else _to_duration(value)),
    PlainSerializer(format_duration, return_type=str),
]
"""A length of time that may be ``"0s"``."""

Instant = Annotated[
    datetime,
    BeforeValidator(_to_instant),
    PlainSerializer(lambda value: value.isoformat(), return_type=str),
]
"""A point in time; without an offset it is UTC."""

EndInstant = Annotated[
    datetime,
    BeforeValidator(_to_end),
    PlainSerializer(lambda value: value.isoformat(), return_type=str),
]
"""An exclusive end; written as a bare date it stands for the end of that day."""

Step = Annotated[str, AfterValidator(_check_step)]
"""A duration or a calendar step (``"1mo"``, ``"1q"``, ``"1y"``)."""

Texts = Annotated[tuple[str, ...], BeforeValidator(to_tuple)]
Durations = Annotated[tuple[Duration, ...], BeforeValidator(to_tuple)]
Horizons = Annotated[
    tuple[Duration, ...],
    BeforeValidator(to_tuple),
    Field(min_length=1),
    AfterValidator(_check_horizons),
]
"""One or more increasing liquidation horizons in whole minutes."""
Integers = Annotated[tuple[int, ...], BeforeValidator(to_tuple)]
Floats = Annotated[tuple[float, ...], BeforeValidator(to_tuple)]
Level = Annotated[float, AfterValidator(_check_level)]
Levels = Annotated[
    tuple[Level, ...],
    BeforeValidator(to_tuple),
    Field(min_length=1),
    AfterValidator(_check_increasing),
]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
PositiveFraction = Annotated[float, Field(gt=0.0, le=1.0)]
PositiveFloat = Annotated[float, Field(gt=0.0)]
NonNegativeFloat = Annotated[float, Field(ge=0.0)]
PositiveInt = Annotated[int, Field(gt=0)]
PositiveRate = Annotated[float, Field(gt=0.0, le=1.0)]
RateBelowOne = Annotated[float, Field(gt=0.0, lt=1.0)]
Usd = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
NonNegativeInt = Annotated[int, Field(ge=0)]

RawSpec = Mapping[str, Any]
"""A spec as TOML gives it, before its model has looked at it."""
