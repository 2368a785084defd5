"""One contract's table in a store, read block by block: what every check of the data looks at.

A block is one part, or the parts whose times meet, put in order, or several small ones that follow
each other; memory is bounded by it, however much the store holds.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl

from margincast.core.time import parse_duration
from margincast.data.files import readable
from margincast.data.schemas import Schema, schema_of, with_canonical_names
from margincast.data.store import Part, Store

BLOCK_ROWS = 50_000
"""Parts are put together up to about this many rows: each block costs time of its own."""


@dataclass(frozen=True)
class StoredTable:
    """One contract's rows in a store.

    Attributes:
        table: name under which the table is stored, with the interval where it has one.
        venue: where the contract trades.
        symbol: the contract.
        root: folder of the store.
        parts: its parts, in the order of time.
    """

    table: str
    venue: str
    symbol: str
    root: Path
    parts: tuple[Part, ...]

    @property
    def schema(self) -> Schema:
        """Schema of the table."""
        return schema_of(self.table)

    @property
    def interval(self) -> timedelta | None:
        """Interval that a row covers; None where rows are moments."""
        if not self.schema.covers_interval:
            return None
        return parse_duration(self.table.rpartition("_")[2])

    @property
    def name(self) -> str:
        """Table, venue and symbol, for messages."""
        return f"{self.table} {self.venue} {self.symbol}"

    @property
    def rows(self) -> int:
        """Number of rows."""
        return sum(part.rows for part in self.parts)

    @property
    def first(self) -> datetime:
        """Time of the first row."""
        return min(part.first for part in self.parts)

    @property
    def last(self) -> datetime:
        """Time of the last row."""
        return max(part.last for part in self.parts)

    def blocks(self, columns: Iterable[str] | None = None) -> Iterator[pl.DataFrame]:
        """Read the rows in the order of time.

        Args:
            columns: those wanted, as far as they are there; all when None.

        Raises:
            InputError: a part cannot be read.
        """
        wanted = None if columns is None else set(columns)
        for group in _blocks(self.parts):
            frames = [_read(self.root / part.path, wanted) for part in group]
            block = frames[0] if len(frames) == 1 else pl.concat(frames, how="diagonal_relaxed")
            yield block if block["ts"].is_sorted() else block.sort("ts", maintain_order=True)

    def between(self, first: datetime, last: datetime, columns: Iterable[str]) -> pl.DataFrame:
        """Read the rows of a stretch of time, both ends included.

        Raises:
            InputError: a part cannot be read.
        """
        wanted = set(columns)
        near = [part for part in self.parts if part.first <= last and part.last >= first]
        frames = [
            _read(self.root / part.path, wanted).filter(pl.col("ts").is_between(first, last))
            for part in near
        ]
        return pl.concat(frames, how="diagonal_relaxed").sort("ts") if frames else pl.DataFrame()


def stored_tables(store: Store) -> list[StoredTable]:
    """List the contracts' tables of a store, sorted by table, venue and symbol."""
    grouped: dict[tuple[str, str, str], list[Part]] = {}
    for part in store.parts():
        key = part.partition
        grouped.setdefault((key.table, key.venue, key.symbol), []).append(part)
    return [StoredTable(*key, store.root, tuple(parts)) for key, parts in sorted(grouped.items())]


def _blocks(parts: tuple[Part, ...]) -> list[list[Part]]:
    """Group parts, sorted by their first row, so that times of different groups never meet."""
    groups: list[list[Part]] = []
    reached: datetime | None = None
    for part in parts:
        meets = reached is not None and part.first <= reached
        small = bool(groups) and sum(one.rows for one in groups[-1]) + part.rows <= BLOCK_ROWS
        if meets or small:
            groups[-1].append(part)
        else:
            groups.append([part])
        reached = part.last if reached is None else max(reached, part.last)
    return groups


def _read(path: Path, wanted: set[str] | None) -> pl.DataFrame:
    with readable(str(path)):
        frame = with_canonical_names(pl.scan_parquet(path, hive_partitioning=False, glob=False))
        names = frame.collect_schema().names()
        chosen = names if wanted is None else [name for name in names if name in wanted]
        return frame.select(chosen).collect()
