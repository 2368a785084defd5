"""Commit a staged source: compare it with the store, move it in, and write its manifest record.

One process commits, source after source, so that what is a duplicate of what does not depend on
who was faster. Until the record stands nothing of a source counts; then all of it does.
"""

import re
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import polars as pl

from margincast.core.errors import InputError
from margincast.data.ingestion.duplicates import settle_against
from margincast.data.ingestion.hard_rules import REASON
from margincast.data.ingestion.ingest import Staged
from margincast.data.ingestion.quarantine import QuarantineWriter
from margincast.data.ingestion.staging import Contract, write_part
from margincast.data.schemas import schema_of
from margincast.data.store import (
    MANIFEST,
    QUARANTINE,
    STAGING,
    Part,
    Partition,
    Record,
    Store,
    TableCount,
)

_PART_NAME = re.compile(r"[0-9a-f]{16}-\d+\.parquet")


def commit(store: Store, staged: Staged, present: dict[Partition, list[Part]]) -> Record:
    """Compare staged rows with the store's, move them in, and write the manifest record.

    Args:
        store: the store, locked by this process.
        staged: the source.
        present: committed parts by partition; the new ones are added.

    Returns:
        The record as written.

    Raises:
        InputError: a part of the store cannot be read, or the new ones cannot be written; the
            store is as it was.
    """
    moved: list[Path] = []
    try:
        record, aside = _settled(store, staged, present)
        # extended one by one: after a failure the list holds what was moved until then
        moved.extend(
            _moved(staged.folder / part.path, store.root / part.path) for part in record.parts
        )
        moved.extend(_moved(path, store.root / QUARANTINE / path.name) for path in aside)
        store.write_record(record)
    except BaseException as error:
        for path in moved:
            path.unlink(missing_ok=True)
        if isinstance(error, OSError | pl.exceptions.PolarsError):
            raise InputError(
                f"{staged.record.source} could not be brought into the store {store.root}: "
                f"{error}; the store is as it was: make room or mend what is named, then run the "
                "same command again"
            ) from None
        raise
    for part in record.parts:
        present.setdefault(part.partition, []).append(part)
    shutil.rmtree(staged.folder, ignore_errors=True)
    return record


def _settled(
    store: Store, staged: Staged, present: Mapping[Partition, list[Part]]
) -> tuple[Record, list[Path]]:
    """Settle staged parts against the store's; return the record and the quarantine files."""
    parts: list[Part] = []
    changes: Counter[tuple[Contract, str]] = Counter()
    quarantine = QuarantineWriter(
        staged.folder / QUARANTINE / f"{staged.record.identity}-against-the-store.parquet"
    )
    for part in staged.record.parts:
        others = [other for other in present.get(part.partition, []) if other.overlaps(part)]
        kept: Part | None = part
        if others:
            kept, duplicates, aside = _settle_part(store, staged.folder, part, others, quarantine)
            contract = (part.partition.table, part.partition.venue, part.partition.symbol)
            changes[contract, "duplicates"] += duplicates
            changes[contract, "quarantined"] += aside
        if kept is not None:
            parts.append(kept)
    quarantine.close()
    record = replace(
        staged.record,
        parts=tuple(parts),
        tables=tuple(_changed(table, changes) for table in staged.record.tables),
        quarantined=_summed(staged.record.quarantined, quarantine.reasons),
    )
    _check_balance(record)
    return record, sorted((staged.folder / QUARANTINE).glob("*.parquet"))


def parts_by_partition(records: Mapping[str, Record]) -> dict[Partition, list[Part]]:
    """Group the committed parts of a store."""
    grouped: dict[Partition, list[Part]] = {}
    for record in records.values():
        for part in record.parts:
            grouped.setdefault(part.partition, []).append(part)
    return grouped


def clean(store: Store, records: Mapping[str, Record]) -> int:
    """Remove what an ingest left that was ended from outside: staging and uncommitted parts.

    Returns:
        Number of files removed.
    """
    removed = 0
    staging = store.root / STAGING
    removed += sum(1 for path in staging.rglob("*") if path.is_file())
    shutil.rmtree(staging, ignore_errors=True)
    for path in (store.root / MANIFEST).glob("*.part"):
        path.unlink()
        removed += 1
    committed = {part.path for record in records.values() for part in record.parts}
    for path in store.root.glob("table=*/venue=*/symbol=*/date=*/*"):
        # only what an ingest can have written: a folder may hold files of others
        if _PART_NAME.fullmatch(path.name) and path.relative_to(store.root) not in committed:
            path.unlink()
            removed += 1
    for path in (store.root / QUARANTINE).glob("*.parquet"):
        if path.stem.partition("-")[0] not in records:
            path.unlink()
            removed += 1
    return removed


def _settle_part(
    store: Store, folder: Path, part: Part, others: list[Part], quarantine: QuarantineWriter
) -> tuple[Part | None, int, int]:
    """Settle one part; return what stays of it, the duplicates, and the rows set aside."""
    rows = pl.read_parquet(folder / part.path, glob=False)
    window = pl.col("ts").is_between(part.first, part.last)
    present = [
        pl.scan_parquet(store.root / other.path, glob=False).filter(window).collect()
        for other in others
    ]
    settled = settle_against(rows, present, schema_of(part.partition.table))
    aside = len(settled.set_aside)
    if not settled.duplicates and not aside:
        return part, 0, 0
    (folder / part.path).unlink()
    quarantine.keep(settled.set_aside, part.partition.table, part.partition.venue, pl.col(REASON))
    kept = None
    if len(settled.kept):
        kept = write_part(folder, part.partition, part.name, settled.kept)
    return kept, settled.duplicates, aside


def _changed(table: TableCount, changes: Mapping[tuple[Contract, str], int]) -> TableCount:
    contract = (table.table, table.venue, table.symbol)
    duplicates = changes.get((contract, "duplicates"), 0)
    aside = changes.get((contract, "quarantined"), 0)
    return replace(
        table,
        rows_out=table.rows_out - duplicates - aside,
        duplicates=table.duplicates + duplicates,
        quarantined=table.quarantined + aside,
    )


def _summed(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    return {key: one.get(key, 0) + other.get(key, 0) for key in {**one, **other}}


def _check_balance(record: Record) -> None:
    for table in record.tables:
        told = table.rows_out + table.quarantined + table.duplicates
        if table.rows_in != told:
            raise AssertionError(
                f"{record.source}: {table.rows_in} rows of {table.symbol} came in, {told} are "
                "accounted for"
            )


def _moved(origin: Path, target: Path) -> Path:
    """Move a file within the store, atomically: staging lies on the same file system."""
    target.parent.mkdir(parents=True, exist_ok=True)
    return origin.replace(target)
