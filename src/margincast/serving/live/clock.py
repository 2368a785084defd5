"""The clock of live mode: what time it is, and how long something has lasted.

Responsible for the two being told apart: the time of day can be set, and a fault of it is one of
those that are watched for.
"""

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

_MICROSECOND = timedelta(microseconds=1)


class Clock(Protocol):
    """Tells the time."""

    def now(self) -> datetime:
        """Return the time of day, UTC."""
        ...

    def elapsed_us(self) -> int:
        """Return microseconds that only go forward."""
        ...

    def hear(self, known: datetime) -> None:
        """Hear when a row of the feed was known."""
        ...


@dataclass
class SystemClock:
    """The machine's."""

    def now(self) -> datetime:
        """Return the time of day, UTC."""
        return datetime.now(UTC)

    def elapsed_us(self) -> int:
        """Return microseconds that only go forward."""
        return time.monotonic_ns() // 1000

    def hear(self, known: datetime) -> None:
        """Learn nothing from the feed."""


@dataclass
class FeedClock:
    """The feed's: it is as late as the newest row was known, for the replay of a recorded feed.

    Attributes:
        newest: time of the newest row.
    """

    newest: datetime

    def now(self) -> datetime:
        """Return the time of the newest row."""
        return self.newest

    def elapsed_us(self) -> int:
        """Return microseconds between 1970 and the newest row."""
        return (self.newest - datetime(1970, 1, 1, tzinfo=UTC)) // _MICROSECOND

    def hear(self, known: datetime) -> None:
        """Go forward to a row's time."""
        self.newest = max(self.newest, known)


@dataclass
class ClockWatch:
    """Notices that the time of day was set: it and the elapsed time must go on together.

    Attributes:
        clock: that is watched.
        largest: allowed difference between two looks.
    """

    clock: Clock
    largest: timedelta
    _last: tuple[datetime, int] | None = None

    def look(self) -> str | None:
        """Say by how much the clock jumped since the last look; None where it did not."""
        now, elapsed = self.clock.now(), self.clock.elapsed_us()
        last, self._last = self._last, (now, elapsed)
        if last is None:
            return None
        jumped = (now - last[0]) - (elapsed - last[1]) * _MICROSECOND
        if abs(jumped) <= self.largest:
            return None
        return f"the clock jumped by {jumped.total_seconds():+.1f} s between two looks"
