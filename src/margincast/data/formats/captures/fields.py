"""Read the fields of recorded messages: what a venue wrote, or that it is not known.

A price read from what is no number would move a margin, so each field is checked for what it must
be, and a message with one that is not is rejected whole.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

from margincast.data.formats.captures.decoder import microseconds_of, number, whole

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_OPPOSITE = {"buy": "sell", "sell": "buy"}


def text_of(value: object) -> str:
    """Read a text that is not empty.

    Raises:
        ValueError: it is none.
    """
    if isinstance(value, str) and value:
        return value
    raise ValueError("a value that is no text")


def side_of(value: object) -> str:
    """Read a side, ``buy`` or ``sell`` in any case.

    Raises:
        ValueError: it is neither.
    """
    side = text_of(value).lower()
    if side not in _OPPOSITE:
        raise ValueError("a value that is no side")
    return side


def opposite_of(side: str) -> str:
    """Return the other side."""
    return _OPPOSITE[side]


def text_or_none(value: object) -> str | None:
    """Read a text; what is absent or empty is not known."""
    return None if value in (None, "") else text_of(value)


def flag_or_none(value: object) -> bool | None:
    """Read true or false; what is absent is not known.

    Raises:
        ValueError: it is neither.
    """
    if value is None or isinstance(value, bool):
        return value
    raise ValueError("a value that is neither true nor false")


def number_or_none(value: object) -> float | None:
    """Read a number; what is absent or empty is not known."""
    return None if value in (None, "") else number(value)


def whole_or_none(value: object) -> int | None:
    """Read a whole number; what is absent or empty is not known."""
    return None if value in (None, "") else whole(value)


def microseconds_or_none(milliseconds: object) -> int | None:
    """Read a time in milliseconds; what is absent, empty or 0 is not known."""
    return microseconds_of(milliseconds) if whole_or_none(milliseconds) else None


def microseconds_of_text(value: object) -> int:
    """Read an ISO 8601 time as microseconds since 1970; finer digits are cut off.

    Raises:
        ValueError: it is none, or has no offset.
    """
    try:
        instant = datetime.fromisoformat(text_of(value))
    except ValueError:
        raise ValueError("a value that is no time") from None
    if instant.tzinfo is None:
        raise ValueError("a value that is no time")
    return (instant - _EPOCH) // timedelta(microseconds=1)


def object_of(value: object) -> Mapping[str, object]:
    """Check that a value is a JSON object.

    Raises:
        TypeError: it is none.
    """
    if not isinstance(value, dict):
        raise TypeError(value)
    return value


def list_of(value: object) -> Sequence[object]:
    """Check that a value is a JSON list.

    Raises:
        TypeError: it is none.
    """
    if not isinstance(value, list):
        raise TypeError(value)
    return value


def objects_in(value: object) -> list[Mapping[str, object]]:
    """Check that a value is a JSON list of objects; raises as :func:`object_of`."""
    return [object_of(item) for item in list_of(value)]


def pairs_in(value: object) -> list[Sequence[object]]:
    """Check that a value is a JSON list of lists; raises as :func:`list_of`."""
    return [list_of(item) for item in list_of(value)]
