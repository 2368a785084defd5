"""Write the rows of one source as sorted Parquet parts, aside from the store until all is well.

Rows come in batches, in whatever order the source has them; parts hold one contract and period
each, in time order, without repetitions. Memory is bounded by a part, and by a partition only where
a source is out of order beyond it.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from margincast.data.formats.format import ROW, Batch, Reject
from margincast.data.ingestion.duplicates import CONFLICT, settle
from margincast.data.ingestion.hard_rules import REASON, breaches_any, with_reason
from margincast.data.schemas import Schema, Span, schema_of
from margincast.data.store import Part, Partition, TableCount

PART_BYTES = 64 * 1024**2
"""Estimated bytes in memory from which the rows of a partition are written as a part."""

PENDING_BYTES = 192 * 1024**2
"""Estimated bytes of all pending partitions from which the largest is written."""

_PERIODS: Mapping[Span, str] = {"day": "%Y-%m-%d", "month": "%Y-%m", "year": "%Y"}
_TRUNCATIONS: Mapping[Span, str] = {"day": "1d", "month": "1mo", "year": "1y"}

Contract = tuple[str, str, str]
"""Table, venue and symbol."""

_QUARANTINE = pa.schema(
    [
        ("record", pa.int64()),
        ("table", pa.string()),
        ("venue", pa.string()),
        ("symbol", pa.string()),
        ("ts", pa.timestamp("us", tz="UTC")),
        ("reason", pa.string()),
        ("content", pa.string()),
    ]
)
"""Columns of a quarantine file: number of the record in its source, what it would have been, why it
was kept aside, and what it says."""


class QuarantineWriter:
    """Writes rejected records and rows that break a rule; the file exists only if there are any."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.reasons: Counter[str] = Counter()
        self._writer: pq.ParquetWriter | None = None

    def reject(self, rejects: list[Reject]) -> None:
        """Keep records that could not be translated."""
        if rejects:
            self._write(
                pl.DataFrame(
                    {
                        "record": [reject.row for reject in rejects],
                        "reason": [reject.reason for reject in rejects],
                        "content": [reject.text for reject in rejects],
                    }
                )
            )

    def keep(self, rows: pl.DataFrame, table: str, venue: str, reason: pl.Expr) -> None:
        """Keep canonical rows that break a rule."""
        if rows.is_empty():
            return
        content = pl.struct(pl.exclude(ROW, REASON)).struct.json_encode()
        record = pl.col(ROW) if ROW in rows.columns else pl.lit(None, dtype=pl.Int64)
        kept = rows.select(
            record.alias("record"),
            pl.lit(table).alias("table"),
            pl.lit(venue).alias("venue"),
            "symbol",
            "ts",
            reason.alias("reason"),
            content.alias("content"),
        )
        self.reasons.update(kept["reason"].to_list())
        self._write(kept)

    def close(self) -> None:
        """Finish the file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _write(self, rows: pl.DataFrame) -> None:
        if self._writer is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = pq.ParquetWriter(self.path, _QUARANTINE, compression="zstd")
        arrow = rows.to_arrow()
        columns = [
            arrow.column(field.name).cast(field.type)
            if field.name in arrow.column_names
            else pa.nulls(len(arrow), field.type)
            for field in _QUARANTINE
        ]
        self._writer.write_table(pa.Table.from_arrays(columns, schema=_QUARANTINE))


@dataclass
class _Pending:
    """Rows of one partition that are not yet written."""

    schema: Schema
    frames: list[pl.DataFrame]
    size: int = 0


class PartWriter:
    """Writes the rows of one source into parts below a folder.

    Attributes:
        parts: parts written so far.
    """

    def __init__(self, folder: Path, identity: str, quarantine: QuarantineWriter) -> None:
        self.parts: list[Part] = []
        self._folder, self._identity, self._quarantine = folder, identity, quarantine
        self._pending: dict[Partition, _Pending] = {}
        self._numbers: Counter[Partition] = Counter()
        self._rows_in: Counter[Contract] = Counter()
        self._quarantined: Counter[Contract] = Counter()
        self._duplicates: Counter[Contract] = Counter()
        self._late: Counter[Contract] = Counter()
        self._latest: dict[Contract, int] = {}

    def add(self, batch: Batch) -> None:
        """Take a batch: rows that break a rule go to the quarantine, the others to their part."""
        schema = schema_of(batch.table)
        frame = batch.frame
        bad = None
        if breaches_any(frame, schema):
            judged = with_reason(frame, schema)
            bad = judged.filter(pl.col(REASON).is_not_null())
            frame = judged.filter(pl.col(REASON).is_null()).drop(REASON)
        for rows in _by(frame, "symbol"):
            contract = (batch.table, batch.venue, str(rows["symbol"][0]))
            self._rows_in[contract] += len(rows)
            self._count_late(contract, rows)
            for period in _by_period(rows, schema.span):
                self._append(contract, schema, period)
        if bad is not None:
            for rows in _by(bad, "symbol"):
                contract = (batch.table, batch.venue, str(rows["symbol"][0]))
                self._rows_in[contract] += len(rows)
                self._quarantined[contract] += len(rows)
            self._quarantine.keep(bad, batch.table, batch.venue, pl.col(REASON))
        while sum(pending.size for pending in self._pending.values()) > PENDING_BYTES:
            largest = max(self._pending, key=lambda key: self._pending[key].size)
            self._write(largest, whole=True)

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
                self._rewrite(partition, parts)

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
        pending.frames.append(rows)
        pending.size += int(rows.estimated_size())
        if pending.size > PART_BYTES:
            self._write(partition, whole=False)

    def _write(self, partition: Partition, *, whole: bool) -> None:
        """Write pending rows; unless ``whole``, those of the last time wait for more of it."""
        pending = self._pending.pop(partition)
        rows = _concatenated(pending.frames)
        if not rows["ts"].is_sorted():
            rows = rows.sort("ts", maintain_order=True)
        if not whole:
            later = rows.filter(pl.col("ts") == rows["ts"][-1])
            if len(later) < len(rows):
                rows = rows.head(len(rows) - len(later))
                self._pending[partition] = _Pending(
                    pending.schema, [later], int(later.estimated_size())
                )
        self._settle_and_write(partition, pending.schema, rows)

    def _settle_and_write(self, partition: Partition, schema: Schema, rows: pl.DataFrame) -> None:
        contract = (partition.table, partition.venue, partition.symbol)
        settled = settle(rows, schema)
        self._duplicates[contract] += settled.duplicates
        self._quarantined[contract] += len(settled.conflicts)
        self._quarantine.keep(settled.conflicts, partition.table, partition.venue, pl.lit(CONFLICT))
        if len(settled.kept):
            name = f"{self._identity}-{self._numbers[partition]}.parquet"
            self._numbers[partition] += 1
            self.parts.append(write_part(self._folder, partition, name, settled.kept))

    def _rewrite(self, partition: Partition, parts: list[Part]) -> None:
        """Merge overlapping parts: the source runs backwards further than one part reaches."""
        rows = _concatenated([pl.read_parquet(self._folder / part.path) for part in parts])
        for part in parts:
            (self._folder / part.path).unlink()
        self.parts = [part for part in self.parts if part.partition != partition]
        self._settle_and_write(
            partition, schema_of(partition.table), rows.sort("ts", maintain_order=True)
        )


def write_part(folder: Path, partition: Partition, name: str, rows: pl.DataFrame) -> Part:
    """Write one part below a folder and describe it."""
    path = folder / partition.folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    rows.drop(ROW, strict=False).write_parquet(path, compression="zstd")
    return Part(partition, name, len(rows), rows["ts"][0], rows["ts"][-1])


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
