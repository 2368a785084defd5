"""How much memory the order-book features of many contracts need: the peak of a whole build.

Simulated: 30 contracts, each a day of one-second snapshots of 20 levels, in a temporary folder. A
process of its own reads them lazily, makes bars of their mid prices and builds the book features of
every function (those of ``order_book_speed.py``) on a one-minute grid; its peak resident memory is
what the operating system kept of it. The reference, in the same run, is the size of the decoded
books. Budget: 2 GiB.

Run: ``POLARS_MAX_THREADS=2 python benchmarks/book_memory.py``
"""

import argparse
import multiprocessing
import resource
import tempfile
import time
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import polars as pl

from ingest_speed import LEVELS
from margincast.data.book import read_books
from margincast.data.mid_bars import mid_bars
from margincast.features.pipeline import build_features
from margincast.features.sources import Sources
from margincast.specs.features import FeatureSet, Grid
from order_book_speed import every_function, made_book_of_depth

BUDGET_GIB = 2.0
SNAPSHOTS = 86_400


def main() -> None:
    """Make the books, build in another process, and say what it needed."""
    parser = argparse.ArgumentParser(description="peak memory of a build of book features")
    parser.add_argument("--contracts", type=int, default=30, help="contracts, a day of each")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "book").mkdir()
        for number in range(arguments.contracts):
            book = made_book_of_depth(SNAPSHOTS, seed=number)
            symbol = f"MADE-{number:02}"
            book.with_columns(pl.lit(symbol).alias("symbol")).write_parquet(
                root / "book" / f"{symbol}.parquet"
            )
        decoded = arguments.contracts * SNAPSHOTS * LEVELS * 4 * 8 / 1024**3
        print(f"{arguments.contracts} books, {decoded:.2f} GiB when decoded", flush=True)
        # a process of its own: the one that made the books has held one of them
        process = multiprocessing.get_context("spawn").Process(target=build, args=(root,))
        process.start()
        process.join()
    if process.exitcode:
        raise SystemExit(process.exitcode)


def build(root: Path) -> None:
    """Read the books of a folder, build their features, and print times and the peak."""
    feature_set = FeatureSet(
        name="every-book-function",
        description="All functions of the book family",
        grid=Grid(
            interval=timedelta(minutes=1),
            warm_up=timedelta(minutes=10),
            minimum_present=0.9,
            leader="MADE-00",
        ),
        book=tuple(every_function()),
    )
    stages = [("start", time.perf_counter(), _peak_gib())]
    books = read_books(root, ["book"], [], timedelta(seconds=1))
    stages.append(("read and judged", time.perf_counter(), _peak_gib()))
    bars = mid_bars(books, feature_set.grid.interval)
    stages.append(("bars of the mid", time.perf_counter(), _peak_gib()))
    table = build_features(feature_set, Sources(bars, books))
    stages.append(("features", time.perf_counter(), _peak_gib()))
    for (_, before, _), (name, after, peak) in pairwise(stages):
        print(f"{name}: {after - before:.1f} s, peak so far {peak:.2f} GiB")
    verdict = "kept" if stages[-1][2] <= BUDGET_GIB else "EXCEEDED"
    print(f"{len(table.frame):,} decisions, {len(table.units)} features")
    print(f"peak {stages[-1][2]:.2f} GiB, budget {BUDGET_GIB} GiB ({verdict})")


def _peak_gib() -> float:
    """Peak resident memory of this process so far (Linux: in KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2


if __name__ == "__main__":
    main()
