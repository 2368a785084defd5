"""The moment of use that a command line names (``--at``)."""

from datetime import UTC, datetime

from margincast.core.errors import InputError
from margincast.core.time import parse_instant


def moment_of(at: str) -> datetime:
    """Read a time in UTC, or ``now``.

    Raises:
        InputError: it is neither.
    """
    if at == "now":
        return datetime.now(UTC)
    try:
        return parse_instant(at)
    except ValueError as error:
        raise InputError(f"--at: {error}") from None
