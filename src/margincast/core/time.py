"""UTC time and durations: the clock against which every input row must have been known."""

import re
from calendar import monthrange
from datetime import MAXYEAR, MINYEAR, UTC, date, datetime, timedelta

import numpy as np

_UNITS = {
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
    "w": timedelta(weeks=1),
}
_DURATION = re.compile(r"^(\d+)(s|m|h|d|w)$")
_CALENDAR_STEP = re.compile(r"^(\d+)(mo|q|y)$")
_MONTHS = {"mo": 1, "q": 3, "y": 12}


def parse_duration(text: str) -> timedelta:
    """Read a duration such as ``"30s"``, ``"10m"``, ``"8h"``, ``"7d"`` or ``"2w"``.

    Raises:
        ValueError: the text is not a positive whole number followed by one of s, m, h, d, w.

    >>> parse_duration("8h")
    datetime.timedelta(seconds=28800)
    """
    match = _DURATION.match(text.strip()) if isinstance(text, str) else None
    if match is None or int(match[1]) == 0:
        raise ValueError(
            f"{text!r} is not a duration; write a positive whole number and a unit "
            "(s, m, h, d or w), for example '8h'"
        )
    try:
        return int(match[1]) * _UNITS[match[2]]
    except OverflowError:
        raise ValueError(f"{text!r} is longer than time itself; write a shorter one") from None


def format_duration(duration: timedelta) -> str:
    """Write a duration in its largest whole unit; the inverse of :func:`parse_duration`.

    >>> format_duration(timedelta(minutes=480))
    '8h'
    """
    seconds = int(duration.total_seconds())
    if seconds == 0:
        return "0s"
    for unit in ("d", "h", "m"):
        size = int(_UNITS[unit].total_seconds())
        if seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def parse_instant(value: str | date | datetime) -> datetime:
    """Read a date or time as a UTC datetime; text and dates without an offset are taken as UTC.

    Raises:
        ValueError: the text is not an ISO 8601 date or time.

    >>> parse_instant("2023-01-01")
    datetime.datetime(2023, 1, 1, 0, 0, tzinfo=datetime.timezone.utc)
    """
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value.strip())
        except ValueError:
            raise ValueError(
                f"{value!r} is not a date or time; write ISO 8601, for example "
                "'2023-01-01' or '2023-01-01T08:00:00+00:00'"
            ) from None
    if not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day, tzinfo=UTC)
    if value.tzinfo is None:
        return value.replace(tzinfo=UTC)
    return value.astimezone(UTC)


def instant64(instant: datetime) -> np.datetime64:
    """Return an instant as numpy keeps it: UTC without a zone, in microseconds.

    >>> instant64(parse_instant("2023-01-01T08:00:00+02:00"))
    np.datetime64('2023-01-01T06:00:00.000000')
    """
    return np.datetime64(instant.astimezone(UTC).replace(tzinfo=None), "us")


def format_minutes(minutes: int) -> str:
    """Write a horizon as specs do.

    >>> format_minutes(480)
    '8h'
    """
    return format_duration(timedelta(minutes=minutes))


def add_step(instant: datetime, step: str, count: int = 1) -> datetime:
    """Move an instant by ``count`` steps, a duration (``"90d"``) or calendar step (``"1q"``).

    Calendar steps keep the day of the month, or take the month's last day where it is shorter.

    Raises:
        ValueError: neither a duration nor a calendar step, or beyond the years 1 to 9999.

    >>> add_step(parse_instant("2023-11-01"), "1q").date()
    datetime.date(2024, 2, 1)
    """
    match = _CALENDAR_STEP.match(step)
    if match is None or int(match[1]) == 0:
        try:
            return instant + count * parse_duration(step)
        except OverflowError:
            raise _beyond_the_calendar(instant, step, count) from None
        except ValueError as error:
            raise ValueError(f"{error}, or a calendar step such as '1mo', '1q', '1y'") from None
    months = instant.year * 12 + instant.month - 1 + count * int(match[1]) * _MONTHS[match[2]]
    year, month = months // 12, months % 12 + 1
    if not MINYEAR <= year <= MAXYEAR:
        raise _beyond_the_calendar(instant, step, count)
    return instant.replace(year=year, month=month, day=min(instant.day, monthrange(year, month)[1]))


def _beyond_the_calendar(instant: datetime, step: str, count: int) -> ValueError:
    return ValueError(
        f"{count} x {step} from {instant:%F} lies beyond the years {MINYEAR} to {MAXYEAR}; "
        "write a shorter step"
    )


def steps_between(start: datetime, end: datetime, step: str) -> list[tuple[datetime, datetime]]:
    """Cut ``[start, end)`` into consecutive half-open spans of one ``step``; the last may be short.

    >>> spans = steps_between(parse_instant("2023-01-01"), parse_instant("2023-08-01"), "1q")
    >>> [start.month for start, _ in spans]
    [1, 4, 7]
    """
    spans: list[tuple[datetime, datetime]] = []
    left = start
    while left < end:
        right = min(add_step(start, step, len(spans) + 1), end)
        spans.append((left, right))
        left = right
    return spans
