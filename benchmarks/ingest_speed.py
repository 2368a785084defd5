"""What ingest costs beyond reading and writing: a 20-level book Parquet into the store.

Ingest recognises the file, reads it in bounded batches, judges every value, orders rows, tells
repetitions apart, writes a part a day and a manifest record with the source's digest. The reference
is what nobody can do without: Polars reads the same file whole and writes it again, with the same
compression. Budget: at least half as fast, a ratio of 2.

Run: ``POLARS_MAX_THREADS=1 python benchmarks/ingest_speed.py`` (``--file`` takes a book of yours)
"""

import argparse
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl

from margincast.data.formats.source import Source
from margincast.data.ingestion.commit import commit
from margincast.data.ingestion.ingest import Request, identify, stage
from margincast.data.schemas import book_columns
from margincast.data.store import STAGING, Record, Store

BUDGET = 2.0
LEVELS = 20
START = datetime(2026, 1, 1, tzinfo=UTC)


def main() -> None:
    """Ingest and rewrite in turn; the least CPU time of each counts."""
    parser = argparse.ArgumentParser(description="ingest against reading and rewriting")
    parser.add_argument("--rows", type=int, default=200_000, help="snapshots of the made book")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each")
    parser.add_argument("--file", type=Path, help="a book as Parquet, instead of the made one")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        source = arguments.file or place / "book" / "BTC-USD.parquet"
        if arguments.file is None:
            source.parent.mkdir()
            made_book(arguments.rows, seed=1).write_parquet(source)
        ours, plain = [], []
        for run in range(arguments.repeats):
            started = time.process_time()
            record = _ingest(source, place / f"store-{run}")
            ours.append(time.process_time() - started)
            started = time.process_time()
            pl.read_parquet(source).write_parquet(place / "again.parquet", compression="zstd")
            plain.append(time.process_time() - started)
    ratio = min(ours) / min(plain)
    print(f"{record.rows_in:,} snapshots in, {record.rows_out:,} out, {len(record.parts)} parts")
    print(f"ingest {min(ours):.3f} s, read and rewrite {min(plain):.3f} s")
    print(f"ratio {ratio:.3f}, budget {BUDGET} ({'kept' if ratio <= BUDGET else 'EXCEEDED'})")


def _ingest(path: Path, root: Path) -> Record:
    store = Store(root)
    with store.locked():
        identified = identify(Request(Source(path)))
        staged = stage(identified, root, root / STAGING / "1", datetime.now(UTC))
        return commit(store, staged, {})


def made_book(rows: int, seed: int) -> pl.DataFrame:
    """Make a book of a random walk, one snapshot a second: prices on a tick, sizes random."""
    generator = np.random.default_rng(seed)
    mid = 900_000 + np.cumsum(generator.integers(-3, 4, rows))
    seconds = pl.Series("ts", np.arange(rows) * 1_000_000).cast(pl.Duration("us"))
    columns = {}
    for name in book_columns(LEVELS):
        side, what, level = name.split("_")
        if what == "price":
            offset = (1 + int(level)) * (1 if side == "ask" else -1)
            columns[name] = (mid + offset) / 10
        else:
            columns[name] = generator.integers(1, 50_000, rows) / 1000
    return pl.DataFrame(
        {"symbol": pl.repeat("BTC-USD", rows, eager=True), "ts": START + seconds, **columns}
    )


if __name__ == "__main__":
    main()
