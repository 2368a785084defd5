"""The files of a cache of built features: what there is, and which of them are let go.

A margin never hangs on which of them are there: what is not there is computed.
"""

import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

PARTIAL = ".part"
PARTIAL_SECONDS = 300.0
"""Age at which a file that is being written belongs to a process that was killed.

One is written in far less; a writer that slept through it finds its file gone and keeps nothing.
"""

UNREAD_DAYS = 30
"""Days after which an entry that no build read is of data or code that is not built any more."""

_KEY_LENGTH = 64


@dataclass(frozen=True)
class Entry:
    """A file of the cache.

    Attributes:
        family: section of the feature set.
        path: its place.
        size_bytes: its size.
        read_at: when it was last written or read back, in Unix seconds.
    """

    family: str
    path: Path
    size_bytes: int
    read_at: float


@dataclass(frozen=True)
class Amount:
    """How many entries, and how large together."""

    count: int = 0
    size_bytes: int = 0

    def __add__(self, other: "Amount") -> "Amount":
        return Amount(self.count + other.count, self.size_bytes + other.size_bytes)

    def __str__(self) -> str:
        noun = "entry" if self.count == 1 else "entries"
        return f"{self.count:,} {noun}, {self.size_bytes / 1e6:,.1f} MB"


def entries_of(folder: Path) -> Iterator[Entry]:
    """List the entries of a cache, family by family; other files are passed over."""
    for path in sorted(folder.glob("*/*.parquet")):
        name = path.stem
        if len(name) == _KEY_LENGTH and not name.strip("0123456789abcdef"):
            with suppress(OSError):  # another process may remove it now
                status = path.stat()
                if stat.S_ISREG(status.st_mode):
                    yield Entry(path.parent.name, path, status.st_size, status.st_mtime)


def unread_entries(folder: Path, seconds: float) -> Iterator[Entry]:
    """List the entries that were neither written nor read back for so long."""
    latest = time.time() - seconds
    return (entry for entry in entries_of(folder) if entry.read_at <= latest)


def remove_entries(entries: Iterable[Entry]) -> dict[str, Amount]:
    """Remove entries and say by family how many there were; one that cannot be is passed over."""
    removed: dict[str, Amount] = {}
    for entry in entries:
        with suppress(OSError):
            entry.path.unlink()
            removed[entry.family] = removed.get(entry.family, Amount()) + Amount(
                1, entry.size_bytes
            )
    return removed


def remove_partial(folder: Path, older_than_seconds: float) -> int:
    """Remove what a killed process left half-written, and count it."""
    count = 0
    for path in folder.glob(f"*/*.parquet.*{PARTIAL}"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime >= older_than_seconds:
                path.unlink()
                count += 1
    return count
