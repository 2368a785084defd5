"""Publications on record, as the service reads them: the newest one, and the past of a contract.

Responsible for reading no more than is asked for: of an old publication only the rows of one
contract, once, and with the digest of what was read checked.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from margincast.core.types import Side
from margincast.serving.api.view import Json, written
from margincast.serving.publications.publication import Publication
from margincast.serving.publications.record import Record
from margincast.serving.publications.store import PublicationStore
from margincast.serving.publications.tables import LEVELS
from margincast.serving.snapshot import Header, Snapshot, number_or_none

COLUMNS = (
    "symbol", "side", "tier", "mmr", "imr", "multiplier", "forecast", "status", "binding_rule",
)  # fmt: skip
Found = TypeVar("Found")
_KEPT = 20_000
"""Contracts x publications kept in memory, a few kilobytes each."""


class Past:
    """The store of publications.

    Args:
        folder: where it lies.
    """

    def __init__(self, folder: Path) -> None:
        self._store = PublicationStore(folder)
        self._rows: OrderedDict[tuple[int, str], list[Json]] = OrderedDict()
        # old publications are read one at a time, and a read that nobody waits for any more goes on
        # in its one thread: who asks for today's margin waits for nobody
        self._reader = ThreadPoolExecutor(1, "past")

    def newer_than(self, number: int) -> tuple[Publication, Snapshot] | None:
        """Return the newest publication, indexed; None where it is the one of this number.

        Raises:
            PublicationError: it does not verify.
        """
        if self._store.last_number == number:
            return None
        found = self._store.latest()
        return None if found is None else (found, snapshot_of(found))

    def publication(self, number: int) -> Publication:
        """Return a publication.

        Raises:
            InputError: there is none of this number, or it does not verify.
        """
        return self._store.read(number)

    async def listed(self, numbers: Sequence[int]) -> list[Json]:
        """Return what some publications say of themselves.

        Args:
            numbers: falling.

        Raises:
            PublicationError: the chain of publications does not verify.
        """
        records = await self._read(lambda: self._records(numbers))
        return [
            {
                "number": record.number,
                "published_at": written(record.published_at),
                "by": record.by,
                "reason": record.reason,
                "kind": record.kind,
            }
            for record in records
        ]

    async def moments(
        self, numbers: Iterable[int], symbol: str, side: Side, tier: int
    ) -> list[Json]:
        """Return what publications said of one tier of a contract, in their order.

        A publication without the contract or tier says nothing.

        Raises:
            PublicationError: one of them does not verify.
        """
        wanted = list(numbers)
        found = await self._read(lambda: self._moments(wanted, symbol))
        return [
            {name: value for name, value in row.items() if name != "symbol"}
            for row in found
            if row["side"] == side and row["tier"] == tier
        ]

    async def _read(self, read: Callable[[], Found]) -> Found:
        return await asyncio.get_running_loop().run_in_executor(self._reader, read)

    def close(self) -> None:
        """Read nothing more."""
        self._reader.shutdown(wait=False, cancel_futures=True)

    def _records(self, numbers: Sequence[int]) -> list[Record]:
        every = self._store.records()
        return [every[number - 1] for number in numbers if number <= len(every)]

    def _moments(self, numbers: Sequence[int], symbol: str) -> list[Json]:
        missing = [number for number in numbers if (number, symbol) not in self._rows]
        if missing:
            for record in self._records(missing):
                publication = Publication(self._store.folder / f"{record.number:06}", record)
                self._rows[record.number, symbol] = rows_of(publication, symbol)
        found: list[Json] = []
        for number in numbers:
            if (number, symbol) in self._rows:
                self._rows.move_to_end((number, symbol))
                found += self._rows[number, symbol]
        while len(self._rows) > _KEPT:
            self._rows.popitem(last=False)
        return found


def snapshot_of(publication: Publication) -> Snapshot:
    """Return a publication as the service answers from it."""
    header = Header(
        publication.number, publication.published_at, publication.by, publication.reason
    )
    return Snapshot.of(publication.levels, header)


def rows_of(publication: Publication, symbol: str) -> list[Json]:
    """Return the rows of one contract in a publication, none where it has none.

    Raises:
        PublicationError: a file that is read was changed.
    """
    found: list[Json] = []
    for path in sorted(publication.record.files):
        if path.startswith(f"{LEVELS}/"):
            source = pa.BufferReader(publication.content(path))
            table = pq.read_table(source, columns=list(COLUMNS), filters=[("symbol", "=", symbol)])
            found += table.to_pylist()
    return [_moment(publication, row) for row in found]


def _moment(publication: Publication, row: dict[str, Any]) -> Json:
    return {
        "number": publication.number,
        "published_at": written(publication.published_at),
        **row,
        # not known is null in one file and NaN in another
        "forecast": None if row["forecast"] is None else number_or_none(row["forecast"]),
    }
