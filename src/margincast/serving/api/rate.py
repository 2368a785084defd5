"""Rate limits: how many requests a second one caller may make, over all workers together.

A token bucket in the form that needs one number a caller (the generic cell rate algorithm, ITU-T
I.371 annex A): the time at which its bucket would be full again. The numbers lie in a file that
all workers map into memory, so that a caller has one bucket and not one a worker.
"""

import fcntl
import mmap
import struct
import zlib
from pathlib import Path

SLOTS = 65_536
"""Callers are told apart by a hash; two in one slot share a bucket, which errs on the safe side."""
_TIME = struct.Struct("d")
_BYTES = SLOTS * _TIME.size


def waiting_time(full_at: float, now: float, every: float, burst: int) -> tuple[float, float]:
    """Say whether a request may pass.

    Args:
        full_at: seconds, when the bucket would be full again.
        now: seconds, on the same clock.
        every: seconds in which one token comes back.
        burst: tokens in a full bucket.

    Returns:
        Seconds to wait (0.0: it may pass), and when the bucket would be full now.

    >>> waiting_time(0.0, 10.0, every=1.0, burst=2)
    (0.0, 11.0)
    >>> waiting_time(12.0, 10.0, every=1.0, burst=2)
    (1.0, 12.0)
    """
    # a time further ahead than a whole bucket is from another boot of the machine
    ahead = max(full_at, now) if full_at <= now + every * burst else now
    wait = ahead + every - now - every * burst
    return (wait, ahead) if wait > 0.0 else (0.0, ahead + every)


class RateLimit:
    """Token buckets of all callers, shared between processes.

    Args:
        path: file of the buckets, made where it is not there; on a disk of this machine.
        per_second: tokens that come back in a second.
        burst: tokens in a full bucket.
    """

    def __init__(self, path: Path, per_second: float, burst: int) -> None:
        self._every, self._burst = 1.0 / per_second, burst
        self._file = path.open("a+b")
        self._file.truncate(_BYTES)
        self._slots = mmap.mmap(self._file.fileno(), _BYTES)

    def take(self, caller: str, now: float) -> float:
        """Take a token; return 0.0, or the seconds after which there will be one.

        Args:
            caller: whose bucket.
            now: seconds of a clock that all processes share (``time.monotonic`` on Linux).
        """
        place = zlib.crc32(caller.encode()) % SLOTS * _TIME.size
        # a lock on the slot's own bytes: callers do not wait for one another
        fcntl.lockf(self._file, fcntl.LOCK_EX, _TIME.size, place)
        try:
            (full_at,) = _TIME.unpack_from(self._slots, place)
            wait, full_at = waiting_time(full_at, now, self._every, self._burst)
            _TIME.pack_into(self._slots, place, full_at)
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN, _TIME.size, place)
        return wait

    def close(self) -> None:
        """Let go of the file."""
        self._slots.close()
        self._file.close()
