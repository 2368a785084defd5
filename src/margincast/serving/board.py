"""The board on which the newest snapshot hangs, and where those who wait for the next one stand.

Responsible for changing the margins of a running service without a dropped request: who reads the
board holds a snapshot until his answer is made, whatever is put up meanwhile.
"""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from margincast.serving.snapshot import Snapshot


@dataclass(frozen=True, eq=False)
class Change:
    """A snapshot, and the one it took the place of."""

    before: Snapshot | None
    now: Snapshot


Listener = Callable[[Change | None], None]
"""Takes a change, or None: the board is closed."""


@dataclass
class Board:
    """The snapshot in force; readers take it without a lock.

    Attributes:
        current: the newest snapshot; None before the first.
    """

    current: Snapshot | None = None
    _listeners: list[Listener] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def show(self, snapshot: Snapshot) -> None:
        """Put up a snapshot, from any thread; the next request is answered from it.

        Listeners are told in the thread of the caller, one change after the other.
        """
        with self._lock:
            change = Change(self.current, snapshot)
            self.current = snapshot
            for listener in tuple(self._listeners):
                listener(change)

    @contextmanager
    def listening(self, listener: Listener) -> Iterator[None]:
        """Tell a listener of every change while the block runs.

        Args:
            listener: returns at once and raises nothing.
        """
        self._listeners.append(listener)
        try:
            yield
        finally:
            self._listeners.remove(listener)

    @contextmanager
    def subscribed(self, most_waiting: int) -> Iterator["asyncio.Queue[Change | None]"]:
        """Give the event loop of the caller a queue of every change from now on.

        None ends it: the board was closed, or the reader is so slow that more than
        ``most_waiting`` changes wait for him; he is better told to come again than given old
        margins.
        """
        loop = asyncio.get_running_loop()
        waiting: asyncio.Queue[Change | None] = asyncio.Queue()

        def tell(change: Change | None) -> None:
            late = waiting.qsize() >= most_waiting
            loop.call_soon_threadsafe(waiting.put_nowait, None if late else change)

        with self.listening(tell):
            yield waiting

    def close(self) -> None:
        """Tell all listeners that nothing will follow."""
        with self._lock:
            for listener in tuple(self._listeners):
                listener(None)
