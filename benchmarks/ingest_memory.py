"""How much memory ingest needs for a source far larger than memory should be: its peak.

A book of the asked size is made in a temporary folder and ingested by a command of its own; the
resident memory of all its processes together is read twenty times a second. The reference, in the
same run, is the size of the source. Budget: 1.5 GiB for 10 GiB.

Run: ``python benchmarks/ingest_memory.py --gib 10`` (needs twice that on disk)
"""

import argparse
import contextlib
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq

from ingest_speed import LEVELS, made_book

BUDGET_GIB = 1.5
_CHUNK = 200_000


def main() -> None:
    """Make the source, ingest it, and read the peak."""
    parser = argparse.ArgumentParser(description="peak memory of an ingest")
    parser.add_argument("--gib", type=float, default=1.0, help="size of the source in GiB")
    parser.add_argument("--files", type=int, default=1, help="files it is spread over")
    parser.add_argument("--workers", type=int, default=2, help="processes of the ingest")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        size, rows = _make(place / "book", arguments.gib, arguments.files)
        print(
            f"source: {size / 1024**3:.2f} GiB, {rows:,} snapshots of {LEVELS} levels", flush=True
        )
        started = time.perf_counter()
        process = subprocess.Popen(  # noqa: S603  # our own command with our own arguments
            [
                str(Path(sys.executable).parent / "margincast"),
                *("data", "ingest", str(place / "book")),
                *("--out", str(place / "store"), "--venue", "made"),
                *("--workers", str(arguments.workers)),
            ],
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        peak = 0.0
        while process.poll() is None:
            peak = max(peak, _resident_gib(process.pid))
            time.sleep(0.05)
        seconds = time.perf_counter() - started
        if process.returncode:
            sys.exit(f"the ingest failed with exit code {process.returncode}")
    print(f"ingested in {seconds:.0f} s by {min(arguments.workers, arguments.files)} process(es)")
    print(
        f"peak {peak:.2f} GiB in all of them together, budget {BUDGET_GIB} "
        f"({'kept' if peak <= BUDGET_GIB else 'EXCEEDED'})"
    )


def _resident_gib(root: int) -> float:
    """Sum the resident memory of a process and all below it (Linux)."""
    below: dict[int, list[int]] = {}
    resident: dict[int, int] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                below.setdefault(int(fields[1]), []).append(int(folder.name))
                resident[int(folder.name)] = int(fields[21])
    total, waiting = 0, [root]
    while waiting:
        process = waiting.pop()
        total += resident.get(process, 0)
        waiting += below.get(process, [])
    return total * resource.getpagesize() / 1024**3


def _make(folder: Path, gib: float, files: int) -> tuple[int, int]:
    folder.mkdir()
    size = rows = 0
    chunk = made_book(_CHUNK, seed=1)
    for number in range(files):
        path = folder / f"BTC-{number}.parquet"
        with pq.ParquetWriter(path, chunk.to_arrow().schema, compression="none") as writer:
            while path.stat().st_size < gib * 1024**3 / files:
                moved = chunk.with_columns(pl.col("ts") + pl.duration(seconds=rows))
                writer.write_table(moved.to_arrow(), row_group_size=50_000)
                rows += len(chunk)
        size += path.stat().st_size
    return size, rows


if __name__ == "__main__":
    main()
