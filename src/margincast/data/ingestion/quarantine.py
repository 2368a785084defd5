"""Keep what cannot enter a margin aside, with its reason: nothing that came in disappears."""

import json
from collections import Counter
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from margincast.core.errors import InputError
from margincast.data.formats.format import ROW, Reject
from margincast.data.ingestion.hard_rules import REASON

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
    """Writes rejected records and rows that break a rule; the file exists only if there are any.

    Raises:
        InputError: on writing, where the file cannot be written.
    """

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
        told = rows.select(pl.exclude(ROW, REASON))
        record = pl.col(ROW) if ROW in rows.columns else pl.lit(None, dtype=pl.Int64)
        kept = rows.select(
            record.alias("record"),
            pl.lit(table).alias("table"),
            pl.lit(venue).alias("venue"),
            "symbol",
            "ts",
            reason.alias("reason"),
        ).with_columns(_as_json(told).alias("content"))
        self.reasons.update(kept["reason"].to_list())
        self._write(kept)

    def close(self) -> None:
        """Finish the file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _write(self, rows: pl.DataFrame) -> None:
        arrow = rows.to_arrow()
        columns = [
            arrow.column(field.name).cast(field.type)
            if field.name in arrow.column_names
            else pa.nulls(len(arrow), field.type)
            for field in _QUARANTINE
        ]
        try:
            if self._writer is None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._writer = pq.ParquetWriter(self.path, _QUARANTINE, compression="zstd")
            self._writer.write_table(pa.Table.from_arrays(columns, schema=_QUARANTINE))
        except OSError as error:
            # records are rejected while a source is open: told so, it is not taken for its damage
            raise InputError(
                f"{self.path} could not be written: {error}; make room or choose another folder "
                "with --out, then run the same command again"
            ) from None


def _as_json(rows: pl.DataFrame) -> pl.Series:
    """Write rows as JSON objects; bytes in hexadecimal."""
    if not any("Binary" in str(dtype) for dtype in rows.dtypes):
        return rows.select(pl.struct(pl.all()).struct.json_encode()).to_series()
    texts = [
        json.dumps(row, default=_text_of, ensure_ascii=False, separators=(",", ":"))
        for row in rows.iter_rows(named=True)
    ]
    return pl.Series(texts, dtype=pl.String)


def _text_of(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)
