"""What order-book features cost beyond reading the book: 20 levels, a snapshot a second.

The reference is what nobody can do without: Polars scans the same columns of the same file and sums
them, by the faster of its two engines. Two figures, each from the file to features on a one-minute
grid. *Reduction*: the book is known to be without faults. *With reading*: as a job runs it, every
snapshot is judged and what is irregular is counted first, in a pass over the file of its own.

Counted are all functions of the book family at the values that a rich set asks for (1, 5, 10 and 20
levels; bands of 5, 10, 25 and 50 bps; 10 thousand, 100 thousand and a million USD; recovery after 5
and 30 seconds), each with all six statistics, those of windows over 1 and 10 minutes. ``--shipped``
takes the book lines of ``features/book-1m.toml`` instead. Budget: a ratio of 1.5, by the wall
clock and by the processor time of all threads; the least of several runs counts.

Run: ``POLARS_MAX_THREADS=2 python benchmarks/order_book_speed.py``, and with 1
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
SYMBOL = "BTC-USD"


def main() -> None:
    """Scan, reduce, and read and reduce, in turn; the least time of each counts."""
    parser = argparse.ArgumentParser(description="order-book features against scanning the book")
    parser.add_argument("--days", type=int, default=3, help="days of snapshots")
    parser.add_argument("--repeats", type=int, default=7, help="runs of each")
    parser.add_argument("--shipped", action="store_true", help="the book lines of book-1m")
    arguments = parser.parse_args()
    shipped = load_spec(WORKSPACE / "features" / "book-1m.toml", FeatureSet)
    entries = shipped.book if arguments.shipped else every_function()
    grid = shipped.grid
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        file = root / "book" / f"{SYMBOL}.parquet"
        file.parent.mkdir()
        made_book_of_depth(arguments.days * 86_400, seed=1).write_parquet(file)

        def scan() -> pl.LazyFrame:
            return pl.scan_parquet(file).select(book_columns(LEVELS)).sum()

        def reduce(frame: pl.LazyFrame) -> pl.DataFrame:
            return reduce_book(frame, LEVELS, entries, grid.interval, grid.minimum_present)

        def read() -> pl.LazyFrame:
            return read_books(root, ["book"], [], timedelta(seconds=1)).frames[SYMBOL]

        frame = read()
        features = reduce(frame)
        runs: dict[str, Callable[[], object]] = {
            "scan and sum": scan().collect,
            "streaming": lambda: scan().collect(engine="streaming"),
            "reduction": lambda: reduce(frame),
            "with reading": lambda: reduce(read()),
        }
        seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
        for _ in range(arguments.repeats):
            for name, run in runs.items():
                wall, processor = time.perf_counter(), time.process_time()
                run()
                taken = time.perf_counter() - wall, time.process_time() - processor
                seconds[name].append(taken)
    print(f"{features.height:,} decisions, {features.width - 1} features, ", end="")
    print(f"{pl.thread_pool_size()} thread(s)")
    for place, clock in enumerate(("wall", "processor")):
        least = {name: min(one[place] for one in taken) for name, taken in seconds.items()}
        reference = min(least.pop("scan and sum"), least.pop("streaming"))
        print(f"{clock}: scan and sum {reference:.3f} s")
        for name, taken in least.items():
            verdict = "kept" if taken <= BUDGET * reference else "EXCEEDED"
            ratio = f"ratio {taken / reference:.2f}, budget {BUDGET} ({verdict})"
            print(f"{clock}: {name:12} {taken:.3f} s, {ratio}")


def made_book_of_depth(rows: int, seed: int) -> pl.DataFrame:
    """Make a book of some 100 thousand USD a level: costs to trade walk some of it, not all."""
    sizes = (pl.col("^.*_size_.*$") / 20).round(3).clip(0.001)
    return made_book(rows, seed).with_columns(sizes)


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
