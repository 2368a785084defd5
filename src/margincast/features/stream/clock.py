"""Times of updates: microseconds since 1970 inside, UTC datetimes outside."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from margincast.core.errors import InputError
from margincast.core.time import format_duration

NEVER_US = -(2**62)
"""Time of the last decision before there was one."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def microseconds(time: datetime | timedelta) -> int:
    """Give a length, or a time since 1970, in whole microseconds."""
    return (time - _EPOCH if isinstance(time, datetime) else time) // _MICROSECOND


def instant(time_us: int) -> datetime:
    """Give the UTC time so many microseconds after 1970."""
    return _EPOCH + timedelta(microseconds=time_us)


def time_of(row: Mapping[str, Any], name: str, what: str) -> int:
    """Read a time of an update, in microseconds.

    Raises:
        InputError: there is none, or it has no time zone.
    """
    value = row.get(name)
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise InputError(
            f"{what}: '{name}' is {value!r}; a row needs a datetime with a time zone there"
        )
    return microseconds(value)


def known_time(
    row: Mapping[str, Any], ts_us: int, after_us: int, decided_us: int, what: str
) -> int:
    """When an update counts from, in microseconds.

    That is the time at which it says it was received (``received_at``), else its own and the feed's
    delay; never before its own time, nor before the decision made last: what comes after that
    was not known to it.
    """
    if row.get("received_at") is None:
        stated = ts_us + after_us
    else:
        stated = max(ts_us, time_of(row, "received_at", what))
    return max(stated, decided_us + 1)


def decision_time(decided_at: datetime, interval: timedelta, before_us: int) -> int:
    """Read the time of a decision, in microseconds.

    Raises:
        InputError: it has no time zone, is off the grid, or not after the decision before.
    """
    if decided_at.tzinfo is None:
        raise InputError(f"decision at {decided_at}: the time has no time zone; give UTC")
    decided_us = microseconds(decided_at)
    if decided_us % microseconds(interval):
        raise InputError(
            f"decision at {decided_at}: off the {format_duration(interval)} grid; decide at the "
            "close of a bar"
        )
    if decided_us <= before_us:
        raise InputError(
            f"decision at {decided_at}: the one before was at {instant(before_us)}; decide in "
            "order of time, once each"
        )
    return decided_us
