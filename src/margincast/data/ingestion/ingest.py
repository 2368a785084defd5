"""Read one source: recognise, translate, check, and put its rows aside, ready to be committed.

This may run in parallel; what a source adds to the store is decided when it is committed
(:mod:`margincast.data.ingestion.commit`).
"""

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from margincast import __version__
from margincast.core.digest import digest_of
from margincast.core.errors import InputError
from margincast.data.formats.format import APPLIED, Account, Format, Hints, Match, Options, Reject
from margincast.data.formats.registry import FORMATS, recognise
from margincast.data.formats.source import Source, digest_of_source
from margincast.data.ingestion.quarantine import QuarantineWriter
from margincast.data.ingestion.staging import PartWriter
from margincast.data.store import (
    QUARANTINE,
    Record,
)

MAPPED = "mapped table"
"""Name of the format that a user's mapping describes."""


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
            "reading": digest_of({key: str(value) for key, value in self.match.details.items()}),
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


def identify(request: Request, digest: str | None = None) -> Identified:
    """Recognise a source and name it.

    Args:
        request: the source and what is said about it.
        digest: SHA-256 of its bytes where that is known already.

    Raises:
        InputError: the source cannot be read or is of no known kind.
    """
    form, match = recognise(request.source, request.hints, request.options, request.formats)
    companions = form.companions(request.source, match)
    digest = digest or digest_of_source(request.source, companions)
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
    keys = ["format", "table"]
    if APPLIED in record.records or any(key.startswith("without") for key in record.records):
        keys += ["book_every", "book_levels"]  # these say nothing of files that hold whole books
    if identified.form.name == MAPPED:
        keys.append("reading")
    for key in keys:
        if now[key] != then.get(key):
            what = (
                "another mapping"
                if key == "reading"
                else f"{key} = {then.get(key)}, not {now[key]}"
            )
            raise InputError(
                f"{identified.request.source} is in the store, read with {what}; ingest into "
                "another store, or as it was read then"
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
    quarantine = QuarantineWriter(folder / QUARANTINE / f"{identified.identity}.parquet")
    writer = PartWriter(folder, identified.identity, quarantine)
    first: list[Reject] = []

    def set_aside(rejects: list[Reject]) -> None:
        first.extend(rejects[: 1 - len(first)])
        quarantine.reject(rejects)

    account = Account(set_aside)
    before = source.path.stat()
    try:
        folder.mkdir(parents=True)
        for batch in identified.form.read(source, identified.match, account):
            writer.add(batch)
            progressed(len(batch.frame))
        set_aside(account.drain())
        writer.finish()
        quarantine.close()
        _require_rows(source, account, first)
    except InputError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    except (OSError, pl.exceptions.PolarsError) as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise InputError(
            f"{source} could not be written to the store {root}: {error}; make room or choose "
            "another folder with --out, then run the same command again"
        ) from None
    record = Record(
        identity=identified.identity,
        source=str(source),
        digest=identified.digest,
        size_bytes=before.st_size,
        modified_ns=before.st_mtime_ns,
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


def _require_rows(source: Source, account: Account, first: list[Reject]) -> None:
    """Check that a source of which records were rejected gave anything else."""
    if first and not account.outcomes:
        raise InputError(
            f"{source}: none of its {account.records:,} records can be read; record "
            f"{first[0].row}: {first[0].reason}: {first[0].text[:200]}; describe the file with "
            "--mapping, or leave it out"
        )
