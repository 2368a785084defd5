"""``margincast features cache``: what a folder of built features holds, and how to be rid of it."""

from collections import Counter
from contextlib import suppress
from pathlib import Path

from margincast.core.errors import InputError
from margincast.features.cache import entries_of, remove_partial


def run(folder: Path, *, clear: bool) -> str:
    """List the entries of a cache by family, or remove them; other files are left alone.

    An entry that a running build still wants is built again by it.

    Returns:
        What there is, or was.

    Raises:
        InputError: there is no such folder.
    """
    if not folder.is_dir():
        raise InputError(
            f"{folder} is no folder; built features are kept in .margincast/features below the "
            "workspace, or where --cache says"
        )
    counts: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for entry in entries_of(folder):
        counts[entry.family] += 1
        sizes[entry.family] += entry.size_bytes
        if clear:
            with suppress(FileNotFoundError):  # another process cleared it
                entry.path.unlink()
    half_written = remove_partial(folder, older_than_seconds=0.0) if clear else 0
    lines = [f"{family}: {_amount(counts[family], sizes[family])}" for family in sorted(counts)]
    total = _amount(counts.total(), sizes.total())
    if clear:
        total += " removed" + (f", and {half_written} half-written" if half_written else "")
    return "\n".join([*lines, f"{folder}: {total}"])


def _amount(count: int, size_bytes: int) -> str:
    return f"{count:,} {'entry' if count == 1 else 'entries'}, {size_bytes / 1e6:,.1f} MB"
