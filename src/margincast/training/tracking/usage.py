"""What a job cost: seconds by phase, and the most memory it and its workers held."""

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_KIB = 1024
_MIB = 1024**2


class Usage:
    """Counts from its making on; durations are of a clock that only goes forward."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._seconds: dict[str, float] = {}
        self._largest_worker = 0

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count what is done in the block to a phase; a phase may be entered again."""
        started = time.monotonic()
        try:
            yield
        finally:
            self._seconds[name] = self._seconds.get(name, 0.0) + time.monotonic() - started
            self._largest_worker = max(self._largest_worker, largest_child_bytes())

    def metrics(self) -> dict[str, float]:
        """Return metrics: ``seconds/<phase>``, ``seconds/total`` and ``memory/...`` in MiB.

        ``memory/peak_mib`` is of the own process; ``memory/largest_worker_mib`` of the largest
        process it started, 0 where it started none.
        """
        own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _MAXRSS_UNIT
        worker = max(self._largest_worker, largest_child_bytes())
        return {
            **{f"seconds/{name}": seconds for name, seconds in self._seconds.items()},
            "seconds/total": time.monotonic() - self._started,
            "memory/peak_mib": own / _MIB,
            "memory/largest_worker_mib": worker / _MIB,
        }


_MAXRSS_UNIT = 1 if sys.platform == "darwin" else _KIB
"""Bytes that ``ru_maxrss`` counts in: KiB on Linux, bytes on macOS (getrusage(2))."""


def largest_child_bytes() -> int:
    """Return the most memory that any process started by this one held at once.

    Those that ended are known to the system; of those that live Linux alone tells.
    """
    ended = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * _MAXRSS_UNIT
    return max([ended, *(_peak_of(pid) for pid in _descendants("self"))])


def _descendants(process: str) -> list[str]:
    found = []
    for listed in Path(f"/proc/{process}/task").glob("*/children"):
        for pid in _text(listed).split():
            found += [pid, *_descendants(pid)]
    return found


def _peak_of(pid: str) -> int:
    for line in _text(Path(f"/proc/{pid}/status")).splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * _KIB
    return 0


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        # it has ended since it was listed
        return ""
