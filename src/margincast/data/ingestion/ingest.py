"""Bring one source into the store: recognise, translate, check, put aside, commit.

Staging reads a source and may run in parallel; committing compares it with what the store holds and
is done by one process, source after source, so that the outcome does not depend on who was faster.
Until the manifest record is written nothing of a source counts; then all of it does.
"""

import hashlib
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from margincast import __version__
from margincast.core.errors import InputError
from margincast.data.formats.format import Account, Format, Hints, Match, Options
from margincast.data.formats.registry import FORMATS, recognise
from margincast.data.formats.source import Source, digest_of_source
from margincast.data.ingestion.duplicates import CONFLICT, settle_against
from margincast.data.ingestion.staging import PartWriter, QuarantineWriter, write_part
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


@dataclass(frozen=True)
class Request:
    """A source to ingest, and what the user says about it.

    Attributes:
        source: the file.
        hints: table, venue and symbol where the user knows better.
        options: how to build books.
        formats: formats tried before the general ones.
    """

    source: Source
    hints: Hints = field(default_factory=Hints)
    options: Options = field(default_factory=Options)
    formats: tuple[Format, ...] = FORMATS


@dataclass(frozen=True)
class Identified:
    """A request whose source was recognised.

    Attributes:
        request: the request.
        form: format of the source.
        match: what it was recognised as.
        identity: name of the source in the store: the same content, read as the same thing, is
            the same source wherever the file lies.
        digest: SHA-256 of the stored bytes.
    """

    request: Request
    form: Format
    match: Match
    identity: str
    digest: str

    @property
    def settings(self) -> dict[str, Any]:
        """What the source was recognised as and how it is read, for the manifest."""
        options = asdict(self.match.options)
        return {
            "table": self.match.table,
            "venue": self.match.venue,
            "symbol": self.match.symbol,
            "book_every": str(options["book_every"]),
            "book_levels": options["book_levels"],
            "details": {
                key: str(value)
                for key, value in self.match.details.items()
                if isinstance(value, str | int | float | timedelta)
            },
        }


@dataclass(frozen=True)
class Staged:
    """A source whose rows lie ready in a staging folder.

    Attributes:
        record: the manifest record to be, counted before the comparison with the store.
        folder: the staging folder.
    """

    record: Record
    folder: Path


def identify(request: Request) -> Identified:
    """Recognise a source and name it.

    Raises:
        InputError: the source cannot be read or is of no known kind.
    """
    form, match = recognise(request.source, request.hints, request.options, request.formats)
    companions = form.companions(request.source, match)
    digest = digest_of_source(request.source, companions)
    meaning = "\n".join([digest, form.name, match.table, match.venue, match.symbol or ""])
    identity = hashlib.sha256(meaning.encode()).hexdigest()[:16]
    return Identified(request, form, match, identity, digest)


def check_settings(identified: Identified, record: Record) -> None:
    """Check that a source in the store was read the way it would be read now.

    Raises:
        InputError: it was read with other settings; its rows would differ.
    """
    now = {**identified.settings, "format": identified.form.name}
    then = {**record.settings, "format": record.format}
    for key in ("format", "table", "book_every", "book_levels"):
        if now[key] != then[key]:
            raise InputError(
                f"{identified.request.source} is in the store, read with {key} = {then[key]}, not "
                f"{now[key]}; ingest into another store, or with the same settings"
            )


def stage(
    identified: Identified,
    root: Path,
    staging: Path,
    now: datetime,
    progressed: Callable[[int], None] = lambda _rows: None,
) -> Staged:
    """Read a source and put its rows aside, checked and sorted.

    Args:
        identified: the source.
        root: the store.
        staging: folder for sources that are not committed.
        now: time of the ingest.
        progressed: told the number of rows of each batch.

    Raises:
        InputError: the source is damaged, or its rows cannot be written; nothing is left behind.
    """
    source = identified.request.source
    folder = staging / identified.identity
    shutil.rmtree(folder, ignore_errors=True)
    account = Account()
    quarantine = QuarantineWriter(folder / QUARANTINE / f"{identified.identity}.parquet")
    writer = PartWriter(folder, identified.identity, quarantine)
    try:
        folder.mkdir(parents=True)
        for batch in identified.form.read(source, identified.match, account):
            writer.add(batch)
            quarantine.reject(account.drain())
            progressed(len(batch.frame))
        quarantine.reject(account.drain())
        writer.finish()
        quarantine.close()
    except InputError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    except (OSError, pl.exceptions.PolarsError) as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise InputError(
            f"{source} could not be written to the store {root}: {error}; make room or choose "
            "another folder with --out, then run the same command again"
        ) from None
    status = source.path.stat()
    record = Record(
        identity=identified.identity,
        source=str(source),
        digest=identified.digest,
        size_bytes=status.st_size,
        modified_ns=status.st_mtime_ns,
        format=identified.form.name,
        settings=identified.settings,
        records=dict(account.outcomes),
        rejected=dict(account.rejected),
        quarantined=dict(quarantine.reasons),
        events=dict(account.events),
        tables=writer.counts(),
        parts=tuple(writer.parts),
        ingested_at=now,
        version=__version__,
    )
    return Staged(record, folder)


def commit(store: Store, staged: Staged, present: dict[Partition, list[Part]]) -> Record:
    """Compare staged rows with the store's, move them in, and write the manifest record.

    Args:
        store: the store, locked by this process.
        staged: the source.
        present: committed parts by partition; the new ones are added.

    Returns:
        The record as written.
    """
    parts: list[Part] = []
    changes: dict[tuple[str, str, str], tuple[int, int]] = {}
    quarantine = QuarantineWriter(
        staged.folder / QUARANTINE / f"{staged.record.identity}-against-the-store.parquet"
    )
    for part in staged.record.parts:
        others = [other for other in present.get(part.partition, []) if other.overlaps(part)]
        kept: Part | None = part
        if others:
            kept, duplicates, conflicts = _settle_part(
                store, staged.folder, part, others, quarantine
            )
            key = (part.partition.table, part.partition.venue, part.partition.symbol)
            before = changes.get(key, (0, 0))
            changes[key] = (before[0] + duplicates, before[1] + conflicts)
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
    for part in parts:
        _move(staged.folder / part.path, store.root / part.path)
        present.setdefault(part.partition, []).append(part)
    for kept_aside in sorted((staged.folder / QUARANTINE).glob("*.parquet")):
        _move(kept_aside, store.root / QUARANTINE / kept_aside.name)
    store.write_record(record)
    shutil.rmtree(staged.folder, ignore_errors=True)
    return record


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
        if path.relative_to(store.root) not in committed:
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
    schema = schema_of(part.partition.table)
    rows = pl.read_parquet(folder / part.path)
    window = pl.col("ts").is_between(part.first, part.last)
    present = pl.concat(
        [pl.scan_parquet(store.root / other.path).filter(window) for other in others],
        how="diagonal_relaxed",
    ).collect()
    settled = settle_against(rows, present, schema)
    if not settled.duplicates and settled.conflicts.is_empty():
        return part, 0, 0
    (folder / part.path).unlink()
    quarantine.keep(settled.conflicts, part.partition.table, part.partition.venue, pl.lit(CONFLICT))
    kept = None
    if len(settled.kept):
        kept = write_part(folder, part.partition, part.name, settled.kept)
    return kept, settled.duplicates, len(settled.conflicts)


def _changed(
    table: TableCount, changes: Mapping[tuple[str, str, str], tuple[int, int]]
) -> TableCount:
    duplicates, conflicts = changes.get((table.table, table.venue, table.symbol), (0, 0))
    return replace(
        table,
        rows_out=table.rows_out - duplicates - conflicts,
        duplicates=table.duplicates + duplicates,
        quarantined=table.quarantined + conflicts,
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


def _move(origin: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    origin.replace(target)  # atomic: staging lies in the store, on the same file system
