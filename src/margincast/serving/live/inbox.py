"""The inbox: rows that came and were not taken in yet, never more than was stated.

Responsible for a feed that outruns the engine: what does not fit is refused, counted and said, so
that margins fall back at once instead of being made of an ever older market.
"""

import threading
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass

from margincast.serving.live.events import Event


@dataclass(frozen=True)
class Load:
    """How the inbox stands.

    Attributes:
        waiting: rows that wait.
        oldest_us: when the first of them came, by the clock of :meth:`Inbox.put`; None if none.
        dropped: rows refused so far.
        dropped_us: when the last of them was; None if none was.
    """

    waiting: int
    oldest_us: int | None
    dropped: int
    dropped_us: int | None


class Inbox:
    """A bounded queue between who receives rows and who takes them in.

    Args:
        rows: most that wait.
    """

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._waiting: deque[tuple[int, Event]] = deque()
        self._dropped: Counter[tuple[str, str]] = Counter()
        self._dropped_us: int | None = None
        self._changed = threading.Condition()

    def put(self, events: Iterable[Event], now_us: int) -> int:
        """Let rows wait; returns how many did not fit. They are dropped, the newest first.

        The oldest stay: a hole at the end is one, a hole in the middle would be another with each
        row that comes.
        """
        with self._changed:
            refused = 0
            for event in events:
                if len(self._waiting) >= self._rows:
                    self._dropped[event.table, event.symbol] += 1
                    self._dropped_us = now_us
                    refused += 1
                else:
                    self._waiting.append((now_us, event))
            self._changed.notify()
            return refused

    def take(self, most: int, seconds: float) -> list[tuple[int, Event]]:
        """Return the rows that wait longest, with the times they came; waits for the first."""
        with self._changed:
            if not self._waiting:
                self._changed.wait(seconds)
            return [self._waiting.popleft() for _ in range(min(most, len(self._waiting)))]

    def load(self) -> Load:
        """Say how it stands."""
        with self._changed:
            oldest = self._waiting[0][0] if self._waiting else None
            dropped = sum(self._dropped.values())
            return Load(len(self._waiting), oldest, dropped, self._dropped_us)

    def dropped(self) -> dict[tuple[str, str], int]:
        """Return the rows refused so far, by table and contract."""
        with self._changed:
            return dict(self._dropped)
