"""``margincast features cache``: what a folder of built features holds, and how to be rid of it."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from margincast.core.errors import InputError
from margincast.core.time import parse_duration
from margincast.features.cache_entries import (
    Amount,
    Entry,
    entries_of,
    remove_entries,
    remove_partial,
    unread_entries,
)


def run(folder: Path, *, clear: bool, older_than: str | None = None) -> str:
    """List the entries of a cache by family, or remove them; other files are left alone.

    An entry that a running build still wants is built again by it.

    Args:
        folder: the cache.
        clear: remove all entries.
        older_than: remove those that were neither written nor read back for so long, such as
            ``30d``.

    Returns:
        What there is; or what was removed, and how much is left.

    Raises:
        InputError: there is no such folder, both ways to remove are asked for, or the age is no
            duration.
    """
    if not folder.is_dir():
        raise InputError(
            f"{folder} is no folder; built features are kept in .margincast/features below the "
            "workspace, or where --cache says"
        )
    if clear and older_than is not None:
        raise InputError("--clear removes every entry, whatever its age; give it or --older-than")
    if older_than is not None:
        removed = remove_entries(unread_entries(folder, _seconds(older_than)))
        return _listed(removed, f"{folder}: {{}} not read for {older_than} removed", _left(folder))
    if clear:
        removed = remove_entries(entries_of(folder))
        half_written = remove_partial(folder, older_than_seconds=0.0)
        also = f", and {half_written} half-written" if half_written else ""
        return _listed(removed, f"{folder}: {{}} removed{also}", _left(folder))
    return _listed(_by_family(entries_of(folder)), f"{folder}: {{}}", Amount())


def _seconds(age: str) -> float:
    try:
        return parse_duration(age).total_seconds()
    except ValueError as error:
        raise InputError(f"--older-than: {error}") from None


def _by_family(entries: Iterable[Entry]) -> dict[str, Amount]:
    amounts: dict[str, Amount] = {}
    for entry in entries:
        before = amounts.get(entry.family, Amount())
        amounts[entry.family] = before + Amount(1, entry.size_bytes)
    return amounts


def _left(folder: Path) -> Amount:
    return sum(_by_family(entries_of(folder)).values(), Amount())


def _listed(amounts: Mapping[str, Amount], total: str, left: Amount) -> str:
    lines = [f"{family}: {amounts[family]}" for family in sorted(amounts)]
    last = total.format(sum(amounts.values(), Amount()))
    return "\n".join([*lines, last + (f"; {left} left" if left.count else "")])
