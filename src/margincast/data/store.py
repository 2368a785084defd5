"""The store: market data as partitioned Parquet with a manifest that says where each row came from.

A margin can be audited back to a file only if the store remembers its sources. A source counts as
ingested once its manifest record stands; the record is written last and appears whole, so readers,
who follow the manifest, see all of a source or nothing of it.

``STORE/table=bars_1h/venue=binance/symbol=BTCUSDT/date=2024-01/<source>-0.parquet``
    Rows of one contract and period, sorted by ``ts``. The period is a day for books and trades, a
    month or a year for sparser tables (:class:`margincast.data.schemas.Schema.span`).
``STORE/_manifest/<source>.json``
    One record a source.
``STORE/_quarantine/<source>.parquet``
    Rows and records that were kept aside, each with its reason.
"""

import fcntl
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from margincast.core.errors import InputError

MANIFEST, QUARANTINE, STAGING = "_manifest", "_quarantine", "_staging"
_LOCK = "_lock"


@dataclass(frozen=True)
class Partition:
    """Where rows of one contract and period lie."""

    table: str
    venue: str
    symbol: str
    period: str

    @property
    def folder(self) -> Path:
        """Folder of the partition, relative to the store; names are percent-encoded."""
        return Path(
            f"table={_encoded(self.table)}",
            f"venue={_encoded(self.venue)}",
            f"symbol={_encoded(self.symbol)}",
            f"date={self.period}",
        )


@dataclass(frozen=True)
class Part:
    """One Parquet file of a partition.

    Attributes:
        partition: the partition it belongs to.
        name: file name.
        rows: number of rows.
        first: time of the first row.
        last: time of the last row.
    """

    partition: Partition
    name: str
    rows: int
    first: datetime
    last: datetime

    @property
    def path(self) -> Path:
        """File of the part, relative to the store."""
        return self.partition.folder / self.name

    def overlaps(self, other: "Part") -> bool:
        """Whether the two parts' times meet."""
        return self.first <= other.last and other.first <= self.last


@dataclass(frozen=True)
class TableCount:
    """Rows of one contract's table that a source held and what became of them.

    ``rows_in = rows_out + quarantined + duplicates`` always holds.
    """

    table: str
    venue: str
    symbol: str
    rows_in: int
    rows_out: int
    quarantined: int
    duplicates: int
    out_of_order: int


@dataclass(frozen=True)
class Record:
    """What the manifest says of one source.

    Attributes:
        identity: name of the source in the store, from content and meaning.
        source: path as it was given, with the member of an archive after ``!``.
        digest: SHA-256 of the stored bytes.
        size_bytes: size of the file.
        modified_ns: its modification time, nanoseconds since 1970.
        format: name of the format it was read as.
        settings: what it was recognised as and how it was read.
        records: what became of its records: number by outcome.
        rejected: records that could not be translated: number by reason.
        quarantined: rows that broke a rule: number by reason.
        events: what else was noticed (holes in a sequence): number by name.
        tables: rows by contract and table.
        parts: files written.
        ingested_at: when, UTC.
        version: of margincast.
    """

    identity: str
    source: str
    digest: str
    size_bytes: int
    modified_ns: int
    format: str
    settings: dict[str, Any]
    records: dict[str, int]
    rejected: dict[str, int]
    quarantined: dict[str, int]
    events: dict[str, int]
    tables: tuple[TableCount, ...]
    parts: tuple[Part, ...]
    ingested_at: datetime
    version: str

    @property
    def rows_in(self) -> int:
        """Canonical rows the source gave."""
        return sum(table.rows_in for table in self.tables)

    @property
    def rows_out(self) -> int:
        """Rows of it that the store holds."""
        return sum(table.rows_out for table in self.tables)

    @property
    def duplicates(self) -> int:
        """Rows equal to another that the store holds."""
        return sum(table.duplicates for table in self.tables)

    @property
    def quarantined_rows(self) -> int:
        """Rows kept aside; rejected records are counted apart, they never became rows."""
        return sum(table.quarantined for table in self.tables)


class Store:
    """A store on disk."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @classmethod
    def around(cls, path: Path) -> "Store | None":
        """Return the store that a path is or lies in; None if it is in none."""
        for folder in (path, *path.parents):
            if (folder / MANIFEST).is_dir():
                return cls(folder)
        return None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other ingests out; the lock falls with the process, however it ends.

        Raises:
            InputError: another ingest is writing to the store, or it cannot be written.
        """
        if not (self.root / MANIFEST).is_dir() and any(self.root.glob("table=*")):
            raise InputError(
                f"{self.root} holds partitions but no manifest: it is no store, or its {MANIFEST} "
                "folder was lost; choose another folder with --out"
            )
        try:
            (self.root / MANIFEST).mkdir(parents=True, exist_ok=True)
            lock = (self.root / _LOCK).open("w")
        except OSError as error:
            raise InputError(
                f"the store {self.root} cannot be written: {error.strerror}; choose a folder that "
                "can, with --out"
            ) from None
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InputError(
                    f"another ingest is writing to {self.root}; wait until it has ended"
                ) from None
            yield

    def records(self) -> dict[str, Record]:
        """Read the manifest, by identity of the source.

        Raises:
            InputError: a record cannot be read.
        """
        return {
            path.stem: read_record(path) for path in sorted((self.root / MANIFEST).glob("*.json"))
        }

    def parts(self, below: Path = Path()) -> list[Part]:
        """List committed parts below a folder of the store, sorted by contract and time."""
        wanted = below.parts
        parts = [
            part
            for record in self.records().values()
            for part in record.parts
            if part.path.parts[: len(wanted)] == wanted
        ]
        return sorted(
            parts,
            key=lambda part: (
                part.partition.table,
                part.partition.venue,
                part.partition.symbol,
                part.first,
                part.name,
            ),
        )

    def write_record(self, record: Record) -> None:
        """Write a manifest record: from here on the source counts as ingested."""
        path = self.root / MANIFEST / f"{record.identity}.json"
        partial = path.with_name(path.name + ".part")
        partial.write_text(json.dumps(_to_json(record), indent=1) + "\n", encoding="utf-8")
        partial.replace(path)


def read_record(path: Path) -> Record:
    """Read a manifest record.

    Raises:
        InputError: the file is no such record.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        return Record(
            **(
                raw
                | {
                    "tables": tuple(TableCount(**table) for table in raw["tables"]),
                    "parts": tuple(_part(part) for part in raw["parts"]),
                    "ingested_at": datetime.fromisoformat(raw["ingested_at"]),
                }
            )
        )
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"{path} is no manifest record that this version can read ({error}); restore it from a "
            "copy of the store, or ingest all sources into a new store"
        ) from None


def partition_of(folders: Sequence[str]) -> Partition:
    """Read a partition from the names of its four folders.

    Raises:
        ValueError: the folders are not those of a partition.
    """
    values = dict(folder.split("=", 1) for folder in folders)
    table, venue, symbol = (unquote(values[name]) for name in ("table", "venue", "symbol"))
    return Partition(table, venue, symbol, values["date"])


def _part(raw: dict[str, Any]) -> Part:
    path = Path(raw["path"])
    return Part(
        partition_of(path.parent.parts),
        path.name,
        raw["rows"],
        datetime.fromisoformat(raw["first"]),
        datetime.fromisoformat(raw["last"]),
    )


def _to_json(record: Record) -> dict[str, Any]:
    return asdict(record) | {
        "tables": [asdict(table) for table in record.tables],
        "parts": [
            {
                "path": part.path.as_posix(),
                "rows": part.rows,
                "first": part.first.isoformat(),
                "last": part.last.isoformat(),
            }
            for part in record.parts
        ],
        "ingested_at": record.ingested_at.isoformat(),
    }


def _encoded(name: str) -> str:
    """Percent-encode a name so that it is one folder on any system, whatever it holds."""
    encoded = quote(name, safe=" @+()").replace("~", "%7E")
    return encoded.replace(".", "%2E", 1) if encoded.startswith(".") else encoded
