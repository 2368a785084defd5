"""What order-book features cost beyond reading the book: 20 levels, a snapshot a second.

The reference is what nobody can do without: Polars scans the same columns of the same file and sums
them. Two figures. *Reduction*: from the file to every book feature of the shipped set on a
one-minute grid, the book known to be without faults. *With reading*: the same and, before it, the
pass that judges every snapshot and counts what is irregular, which decodes the file once more.
``--every`` takes all functions of the library with all statistics instead. Budget: a ratio of 1.5.

Run: ``POLARS_MAX_THREADS=1 python benchmarks/order_book_speed.py``, and with 2
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import polars as pl

from ingest_speed import LEVELS, made_book
from margincast.data.book import read_books
from margincast.data.schemas import book_columns
from margincast.features.library import LIBRARY
from margincast.features.order_book import reduce_book
from margincast.specs.features import Feature, FeatureSet
from margincast.specs.loading import load_spec

WORKSPACE = Path(__file__).resolve().parents[1]
BUDGET = 1.5
NOTIONALS = (10_000.0, 100_000.0, 1_000_000.0)
BANDS_BPS = (5.0, 10.0, 25.0, 50.0)
LEVEL_COUNTS = (1.0, 5.0, 10.0, 20.0)


def main() -> None:
    """Scan, reduce, and read and reduce, in turn; the least time of each counts."""
    parser = argparse.ArgumentParser(description="order-book features against scanning the book")
    parser.add_argument("--days", type=int, default=3, help="days of snapshots")
    parser.add_argument("--repeats", type=int, default=7, help="runs of each")
    parser.add_argument("--every", action="store_true", help="all functions, all statistics")
    arguments = parser.parse_args()
    shipped = load_spec(WORKSPACE / "features" / "book-1m.toml", FeatureSet)
    entries = every_function() if arguments.every else shipped.book
    grid = shipped.grid
    # CPU time is steadier on a busy machine, but that of threads that wait says nothing.
    clock = time.process_time if pl.thread_pool_size() == 1 else time.perf_counter
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        file = root / "book" / "BTC-USD.parquet"
        file.parent.mkdir()
        # A hundred thousand USD at a level: the costs of the set walk some of the book, not all.
        sizes = (pl.col("^.*_size_.*$") / 20).round(3).clip(0.001)
        made_book(arguments.days * 86_400, seed=1).with_columns(sizes).write_parquet(file)

        def scan() -> pl.DataFrame:
            return pl.scan_parquet(file).select(book_columns(LEVELS)).sum().collect()

        def reduce(frame: pl.LazyFrame) -> pl.DataFrame:
            return reduce_book(frame, LEVELS, entries, grid.interval, grid.minimum_present)

        def read() -> pl.LazyFrame:
            return read_books(root, ["book"], [], timedelta(seconds=1)).frames["BTC-USD"]

        frame = read()
        features = reduce(frame)
        runs: dict[str, Callable[[], object]] = {
            "scan and sum": scan,
            "reduction": lambda: reduce(frame),
            "with reading": lambda: reduce(read()),
        }
        seconds: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(arguments.repeats):
            for name, run in runs.items():
                started = clock()
                run()
                seconds[name].append(clock() - started)
    least = {name: min(taken) for name, taken in seconds.items()}
    print(f"{features.height:,} decisions, {features.width - 1} features, ", end="")
    print(f"{pl.thread_pool_size()} thread(s)")
    for name, taken in least.items():
        ratio = taken / least["scan and sum"]
        verdict = "kept" if ratio <= BUDGET else "EXCEEDED"
        print(f"{name:13} {taken:.3f} s, ratio {ratio:.2f}, budget {BUDGET} ({verdict})")


def every_function() -> list[Feature]:
    """All functions of the library at the values a researcher would ask for."""
    special = {
        "depth_recovery": (5.0, 30.0),
        **dict.fromkeys(
            ("effective_spread", "cost_to_buy", "cost_to_sell", "depth_shortage"), NOTIONALS
        ),
        **dict.fromkeys(
            ("imbalance_within", "bid_depth_usd_within", "ask_depth_usd_within"), BANDS_BPS
        ),
    }
    return [
        Feature(
            function=name,
            values=special.get(name, LEVEL_COUNTS) if function.argument == "values" else (),
            statistics=("last", "mean", "deviation", "time_mean", "minimum", "rank"),
            windows=(timedelta(minutes=1), timedelta(minutes=10)),
        )
        for (family, name), function in LIBRARY.items()
        if family == "book"
    ]


if __name__ == "__main__":
    main()
