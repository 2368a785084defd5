"""What of a folder of market data a feature set is built from: tables that it needs and that fit.

Nobody should have to name eight folders to see features; what is chosen, and what is left out or
missing, is said.
"""

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

from margincast.core.errors import InputError
from margincast.core.time import format_duration
from margincast.data.bars import usual_step
from margincast.data.files import SUFFIX, find_table_files
from margincast.data.schemas import schema_of, stored_name
from margincast.data.store import Store
from margincast.features.tables import readings_of
from margincast.jobs.console import say
from margincast.specs.features import FeatureSet
from margincast.specs.loading import apply_overrides, validate_spec
from margincast.specs.training import Data
from margincast.training.market import TABLES

_STORED: Mapping[str, tuple[str, ...]] = {
    "open_interest": ("open_interest", "open_interest_bars"),
    "liquidations": ("liquidations", "liquidation_totals"),
}
"""Forms in which a store holds a table, the first found is read; others have their own name."""


def choose_data(root: Path, feature_set: FeatureSet, overrides: list[str]) -> Data:
    """Say what to read: what ``data.*`` names, else what lies in the folder and fits.

    A table that is named is not looked for. Where a book is named and bars are not, bars are those
    of its mid price; where both are found, bars count if they are of contracts that have a book,
    and no other contract's book is read.

    Args:
        root: a folder with ``bars/``, ``book/``, ``trades/``, ``funding/``, ``open_interest/``,
            ``liquidations/``, ``implied_vol/`` or ``options/`` below it, or Parquet files; or a
            store.
        feature_set: the set, which says which tables are needed and at which interval.
        overrides: ``data.KEY=VALUE``, as in a training spec.

    Raises:
        InputError: there are no prices to build on, or an override does not fit.
    """
    needed = {table for reading in readings_of(feature_set).values() for table in reading.names}
    named = {text.partition("=")[0].partition(".")[2].strip() for text in overrides}
    if feature_set.trades and "book_known_after" in named:
        # its snapshots say when the feed of trades was up
        needed.add("book")
    wanted = {"bars", *needed} - named
    if "book" in named:
        # whoever names a book alone means bars of its mid price
        wanted -= {"bars"}
    found = {
        table: entries
        for table in TABLES
        if table in wanted and (entries := _entries(root, table, feature_set.grid.interval))
    }
    if not found and not named & {"bars", "book"} and any(root.glob(f"*{SUFFIX}")):
        found = {"book" if "book" in needed else "bars": ["."]}
    if "bars" in found and "book" in found:
        found = _with_fitting_bars(root, found)
    if not (found.keys() | named) & {"bars", "book"}:
        raise InputError(
            f"{root} holds no bars {format_duration(feature_set.grid.interval)} apart"
            f"{' and no book' if 'book' in needed else ''}, in folders bars/ or book/, as Parquet "
            "files or as a store; name what to read with --set data.bars=FOLDER or --set "
            "data.book=FOLDER, or another grid with --set grid.interval=LENGTH"
        )
    data = validate_spec(apply_overrides({"data": found}, overrides)["data"], Data, "data")
    for table in TABLES:
        if getattr(data, table):
            say(f"{table}: {', '.join(getattr(data, table))}")
        elif table in needed - {"bars"}:
            say(f"{table}: none{_why_none(root / table)}; the columns that read it are NaN")
    return data


def _entries(root: Path, table: str, interval: timedelta) -> list[str]:
    """Entries of a table below the root; bars only at the feature set's interval."""
    if Store.around(root) is not None:
        return _stored_entries(root, table, interval)
    folder = root / table
    if not folder.is_dir():
        return []
    if any(folder.glob(f"*{SUFFIX}")):
        return [table]
    entries = []
    for path in sorted(folder.iterdir()):
        first = min(path.glob(f"*{SUFFIX}"), default=None) if path.is_dir() else None
        if first is None:
            continue
        if table == "bars" and usual_step(first) != interval:
            say(f"left out: {path} (its bars are not {format_duration(interval)} apart)")
            continue
        entries.append(f"{table}/{path.name}")
    return entries


def _stored_entries(root: Path, table: str, interval: timedelta) -> list[str]:
    store = Store.around(root)
    assert store is not None
    forms = _STORED.get(table, (table,))
    there: dict[str, set[str]] = {form: set() for form in forms}
    for part in store.parts(root.relative_to(store.root)):
        stored = part.partition.table
        form = schema_of(stored).table
        fits = table != "bars" or stored == stored_name("bars", interval)
        if form in forms and fits:
            entry = store.root / Path(*part.path.parts[:2])
            there[form].add(entry.relative_to(root).as_posix())
    return next((sorted(entries) for entries in there.values() if entries), [])


def _with_fitting_bars(root: Path, found: dict[str, list[str]]) -> dict[str, list[str]]:
    """Keep bars if some of their contracts have a book, and say what is not used."""
    bars, books = (
        {file.symbol for file in find_table_files(root, found[table], (), table)[0]}
        for table in ("bars", "book")
    )
    if not bars & books:
        say(
            f"left out: {', '.join(found['bars'])} (no contract of theirs has a book); bars are "
            "those of the book's mid price"
        )
        return {table: entries for table, entries in found.items() if table != "bars"}
    if books - bars:
        count = len(books - bars)
        say(f"not read: the book of {count} contract{'s' * (count > 1)} without bars")
    return found


def _why_none(folder: Path) -> str:
    if folder.is_dir() and any(path.is_file() for path in folder.rglob("*")):
        return (
            f" ({folder} holds no {SUFFIX} file; bring its files into a store with 'margincast "
            "data ingest')"
        )
    return ""
