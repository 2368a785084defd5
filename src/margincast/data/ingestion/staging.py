"""Write the rows of one source as sorted Parquet parts, aside from the store until all is well.

Rows come in batches, in whatever order the source has them; parts hold one contract and period
each, in time order, without repetitions. Memory is bounded by a part, and by a partition only where
a source is out of order beyond it.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

import polars as pl

from margincast.data.formats.format import ROW, Batch
from margincast.data.ingestion.duplicates import settle
from margincast.data.ingestion.hard_rules import REASON, breaches_any, with_reason
from margincast.data.ingestion.quarantine import QuarantineWriter
from margincast.data.schemas import TIMESTAMP, Schema, Span, schema_of
from margincast.data.store import Part, Partition, TableCount

PART_BYTES = 64 * 1024**2
"""Estimated bytes in memory from which the rows of a partition are written as a part."""

PENDING_BYTES = 192 * 1024**2
"""Estimated bytes of all pending partitions from which the largest are written."""

_FRAME_BYTES = 4 * 1024
"""Bytes a frame takes whatever it holds: what counts where rows of many partitions are mixed."""

_INSTANT = timedelta(microseconds=1)
_LONGEST_NAME = 255  # bytes of a folder's name on the usual file systems

_PERIODS: Mapping[Span, str] = {"day": "%Y-%m-%d", "month": "%Y-%m", "year": "%Y"}
_TRUNCATIONS: Mapping[Span, str] = {"day": "1d", "month": "1mo", "year": "1y"}

Contract = tuple[str, str, str]
"""Table, venue and symbol."""


@dataclass
class _Pending:
    """Rows of one partition that are not yet written."""

    schema: Schema
    frames: list[pl.DataFrame]

    def __post_init__(self) -> None:
        """Measure the rows."""
        self.size = sum(map(_size_of, self.frames))

    def add(self, rows: pl.DataFrame) -> None:
        """Take further rows."""
        self.frames.append(rows)
        self.size += _size_of(rows)

    def join(self) -> None:
        """Make one frame of all: small ones take more room than their rows."""
        self.frames = [_concatenated(self.frames).rechunk()]
        self.size = _size_of(self.frames[0])


class PartWriter:
    """Writes the rows of one source into parts below a folder.

    Attributes:
        parts: parts written so far.
    """

    def __init__(self, folder: Path, identity: str, quarantine: QuarantineWriter) -> None:
        self.parts: list[Part] = []
        self._folder, self._identity, self._quarantine = folder, identity, quarantine
        self._pending: dict[Partition, _Pending] = {}
        self._pending_bytes = 0
        self._numbers: Counter[Partition] = Counter()
        self._rows_in: Counter[Contract] = Counter()
        self._quarantined: Counter[Contract] = Counter()
        self._duplicates: Counter[Contract] = Counter()
        self._late: Counter[Contract] = Counter()
        self._latest: dict[Contract, int] = {}

    def add(self, batch: Batch) -> None:
        """Take a batch: rows that break a rule go to the quarantine, the others to their part."""
        schema = schema_of(batch.table)
        frame = _with_utc(batch.frame)
        bad = None
        if breaches_any(frame, schema):
            judged = with_reason(frame, schema)
            bad = judged.filter(pl.col(REASON).is_not_null())
            frame = judged.filter(pl.col(REASON).is_null()).drop(REASON)
        for rows in _by(frame, "symbol"):
            contract = (batch.table, batch.venue, str(rows["symbol"][0]))
            self._rows_in[contract] += len(rows)
            nameless = _why_no_folder(contract)
            if nameless:
                self._quarantined[contract] += len(rows)
                self._quarantine.keep(rows, batch.table, batch.venue, pl.lit(nameless))
                continue
            self._count_late(contract, rows)
            for period in _by_period(rows, schema.span):
                self._append(contract, schema, period)
        if bad is not None:
            for rows in _by(bad, "symbol"):
                contract = (batch.table, batch.venue, str(rows["symbol"][0]))
                self._rows_in[contract] += len(rows)
                self._quarantined[contract] += len(rows)
            self._quarantine.keep(bad, batch.table, batch.venue, pl.col(REASON))
        if self._pending_bytes > PENDING_BYTES:
            self._make_room()

    def finish(self) -> None:
        """Write what is pending and put partitions in order whose parts overlap."""
        for partition in list(self._pending):
            self._write(partition, whole=True)
        by_partition: dict[Partition, list[Part]] = {}
        for part in self.parts:
            by_partition.setdefault(part.partition, []).append(part)
        for partition, parts in by_partition.items():
            ordered = sorted(parts, key=lambda part: part.first)
            if any(one.last >= other.first for one, other in pairwise(ordered)):
                by_partition[partition] = self._rewritten(partition, parts)
        self.parts = [part for parts in by_partition.values() for part in parts]

    def counts(self) -> tuple[TableCount, ...]:
        """Rows by contract; ``rows_out`` is what the parts hold."""
        out: Counter[Contract] = Counter()
        for part in self.parts:
            key = part.partition
            out[key.table, key.venue, key.symbol] += part.rows
        return tuple(
            TableCount(
                *contract,
                rows_in=self._rows_in[contract],
                rows_out=out[contract],
                quarantined=self._quarantined[contract],
                duplicates=self._duplicates[contract],
                out_of_order=self._late[contract],
            )
            for contract in sorted(self._rows_in)
        )

    def _count_late(self, contract: Contract, rows: pl.DataFrame) -> None:
        times = rows["ts"].to_physical()
        before = self._latest.get(contract)
        reached = times.cum_max().shift(1, fill_value=before)
        if before is not None:
            reached = reached.clip(lower_bound=before)
        self._late[contract] += int((times < reached).sum())
        newest = times.max()
        assert isinstance(newest, int)
        self._latest[contract] = newest if before is None else max(before, newest)

    def _append(self, contract: Contract, schema: Schema, rows: pl.DataFrame) -> None:
        period = rows["ts"][0].strftime(_PERIODS[schema.span])
        partition = Partition(*contract, period=period)
        pending = self._pending.setdefault(partition, _Pending(schema, []))
        before = pending.size
        pending.add(rows)
        self._pending_bytes += pending.size - before
        if pending.size > PART_BYTES:
            self._write(partition, whole=False)

    def _make_room(self) -> None:
        """Write the largest partitions until half of the room is free again."""
        for pending in self._pending.values():
            before = pending.size
            pending.join()
            self._pending_bytes += pending.size - before
        # rows of one time are written together as long as that makes room: apart they would
        # overlap, and the parts would have to be put in order
        for whole in (False, True):
            for partition in sorted(self._pending, key=lambda key: -self._pending[key].size):
                if self._pending_bytes <= PENDING_BYTES // 2:
                    return
                self._write(partition, whole=whole)

    def _write(self, partition: Partition, *, whole: bool) -> None:
        """Write pending rows; unless ``whole``, those of the time that came last wait for more."""
        pending = self._pending.pop(partition)
        self._pending_bytes -= pending.size
        rows = _concatenated(pending.frames)
        if not whole:
            waits = pl.col("ts") == rows["ts"][-1]
            later = rows.filter(waits)
            if len(later) < len(rows):
                rows = rows.remove(waits)
                # copied: a view of a few rows would keep the whole frame in memory
                copied = later.select(pl.all().gather(pl.int_range(pl.len())))
                left = _Pending(pending.schema, [copied])
                self._pending[partition] = left
                self._pending_bytes += left.size
        if not rows["ts"].is_sorted():
            rows = rows.sort("ts", maintain_order=True)
        self.parts += self._settled(partition, pending.schema, rows)

    def _settled(self, partition: Partition, schema: Schema, rows: pl.DataFrame) -> list[Part]:
        """Write sorted rows without their repetitions; return the part, if any row is left."""
        contract = (partition.table, partition.venue, partition.symbol)
        settled = settle(rows, schema)
        self._duplicates[contract] += settled.duplicates
        self._quarantined[contract] += len(settled.set_aside)
        self._quarantine.keep(settled.set_aside, partition.table, partition.venue, pl.col(REASON))
        if settled.kept.is_empty():
            return []
        name = f"{self._identity}-{self._numbers[partition]}.parquet"
        self._numbers[partition] += 1
        return [write_part(self._folder, partition, name, settled.kept)]

    def _rewritten(self, partition: Partition, parts: list[Part]) -> list[Part]:
        """Merge overlapping parts: the source runs backwards further than one part reaches.

        Slice by slice of time, so that no more is held than a part has; all rows of one time are
        in one slice, and come in the order of the source.
        """
        scans = [pl.scan_parquet(self._folder / part.path, glob=False) for part in parts]
        together = pl.concat(scans, how="diagonal_relaxed")
        schema = schema_of(partition.table)
        merged: list[Part] = []
        for first, last in _slices(parts, together):
            rows = together.filter(pl.col("ts").is_between(first, last)).collect()
            merged += self._settled(partition, schema, rows.sort("ts", maintain_order=True))
        for part in parts:
            (self._folder / part.path).unlink()
        return merged


def _slices(parts: list[Part], together: pl.LazyFrame) -> Iterator[tuple[datetime, datetime]]:
    """Divide the time of parts until no slice has more rows than the largest part."""
    most = max(part.rows for part in parts)
    ahead = [(min(part.first for part in parts), max(part.last for part in parts))]
    while ahead:
        first, last = ahead.pop()
        rows = pl.col("ts").is_between(first, last)
        count = int(together.filter(rows).select(pl.len()).collect().item())
        if count > most and first < last:
            middle = first + (last - first) // 2
            ahead += [(middle + _INSTANT, last), (first, middle)]
        elif count:
            yield first, last


def write_part(folder: Path, partition: Partition, name: str, rows: pl.DataFrame) -> Part:
    """Write one part below a folder and describe it."""
    path = folder / partition.folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    rows.drop(ROW, strict=False).write_parquet(path, compression="zstd")
    return Part(partition, name, len(rows), rows["ts"][0], rows["ts"][-1])


def _size_of(rows: pl.DataFrame) -> int:
    return int(rows.estimated_size()) + _FRAME_BYTES


def _with_utc(frame: pl.DataFrame) -> pl.DataFrame:
    """Give all times one type, so that files of one contract go together; without a zone is UTC."""
    times = {
        name: pl.col(name).dt.replace_time_zone("UTC")
        if dtype.time_zone is None
        else pl.col(name).dt.convert_time_zone("UTC")
        for name, dtype in frame.schema.items()
        if isinstance(dtype, pl.Datetime) and dtype != TIMESTAMP
    }
    return frame.with_columns(time.cast(TIMESTAMP).alias(name) for name, time in times.items())


def _why_no_folder(contract: Contract) -> str:
    """Say why the rows of a contract cannot lie in a folder of its name; empty if they can."""
    table, venue, symbol = contract
    _, of_venue, of_symbol, _ = Partition(table, venue, symbol, "").folder.parts
    for what, name in (("venue", of_venue), ("symbol", of_symbol)):
        if len(name) > _LONGEST_NAME:
            return f"the {what} is too long to name a folder"
    return ""


def _concatenated(frames: list[pl.DataFrame]) -> pl.DataFrame:
    return frames[0] if len(frames) == 1 else pl.concat(frames, how="diagonal_relaxed")


def _by(frame: pl.DataFrame, column: str) -> list[pl.DataFrame]:
    if frame.is_empty():
        return []
    if frame[column].min() == frame[column].max():
        return [frame]
    return frame.partition_by(column, maintain_order=True)


def _by_period(frame: pl.DataFrame, span: Span) -> list[pl.DataFrame]:
    truncation = _TRUNCATIONS[span]
    ends = frame.select(
        pl.col("ts").min().dt.truncate(truncation).alias("first"),
        pl.col("ts").max().dt.truncate(truncation).alias("last"),
    )
    if ends["first"][0] == ends["last"][0]:
        return [frame]
    stamped = frame.with_columns(pl.col("ts").dt.truncate(truncation).alias("_period"))
    return [rows.drop("_period") for rows in stamped.partition_by("_period", maintain_order=True)]
