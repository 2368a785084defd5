"""The time a run's records carry: it starts at the wall clock and never goes back.

A server's clock may be set while a job of hours runs. What is logged then would lie before its own
run's start, and durations would be negative; elapsed time is therefore monotonic.
"""

import time

NANOSECONDS_A_MILLISECOND = 1_000_000


class RunClock:
    """Milliseconds since 1970 (UTC), read once from the wall clock and counted on from there.

    Args:
        not_before: earliest time to start from, milliseconds; a run's start in another process.
    """

    def __init__(self, not_before: int = 0) -> None:
        self._first = max(time.time_ns() // NANOSECONDS_A_MILLISECOND, not_before)
        self._started = time.monotonic_ns()

    def now(self) -> int:
        """Return the time, milliseconds; never less than before."""
        elapsed = time.monotonic_ns() - self._started
        return self._first + elapsed // NANOSECONDS_A_MILLISECOND
