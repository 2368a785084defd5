"""What the cache of built features saves: a first build, a second one, and one with a line added.

Each build is timed against the same build without a cache, in CPU time: books and trades of the
simulated market, or of a folder with ``--data`` and the places in it. Reading and checking the data
comes before every build, cached or not, and is shown beside it. Second, why functions over bars are
not kept: the columns of a set over bars computed, against the same columns read back from
uncompressed Parquet, a file a line and contract, with the digests of what they were computed from
and of what was read.

Run: ``POLARS_MAX_THREADS=1 python benchmarks/feature_cache.py``; on other data with ``--data DIR
--book PLACE --book-set book-1m --trades PLACE --bars PLACE ... --bars-set bars-1h``.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import polars as pl

from margincast.data.simulated.market import simulate_market, write_market
from margincast.data.simulated.parameters import MarketParameters
from margincast.features.cache import FeatureCache, Line
from margincast.features.cache_entries import entries_of
from margincast.features.column_digest import digest_of_series
from margincast.features.contract import own_columns
from margincast.features.lines import Column, columns_of
from margincast.features.pipeline import build_features
from margincast.features.plan import Plan
from margincast.specs.features import Feature, FeatureSet
from margincast.specs.loading import load_spec, validate_spec
from margincast.specs.training import Data
from margincast.training.market import read_market

WORKSPACE = Path(__file__).resolve().parents[1]
START = datetime(2026, 1, 1, tzinfo=UTC)
ADDED = Feature(function="effective_spread", values=(20_000.0,), statistics=("last",))
T = TypeVar("T")


def main() -> None:
    """Time every build, then the bars; print the ratios."""
    parser = argparse.ArgumentParser(description="built features read back")
    parser.add_argument("--data", type=Path, help="folder of market data; simulated without")
    parser.add_argument("--book", nargs="+", default=["book"])
    parser.add_argument("--trades", nargs="+", default=["trades"])
    parser.add_argument("--bars", nargs="+", default=["bars"])
    parser.add_argument("--book-set", default="demo-1m", help="feature set made for the books")
    parser.add_argument("--bars-set", default="demo-1m", help="feature set made for the bars")
    parser.add_argument("--known-after", default="1s")
    parser.add_argument("--days", type=int, default=10, help="days of the simulated market")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        root = arguments.data
        if root is None:
            root = Path(scratch) / "market"
            write_market(
                simulate_market(MarketParameters(), days=arguments.days, seed=7, start=START), root
            )
        books = {
            "book": arguments.book,
            "trades": arguments.trades,
            "book_known_after": arguments.known_after,
        }
        _books(root, books, arguments.book_set, Path(scratch), arguments.repeats)
        _bars(root, arguments.bars, arguments.bars_set, Path(scratch), arguments.repeats)


def _books(root: Path, places: dict[str, object], name: str, scratch: Path, repeats: int) -> None:
    feature_set = load_spec(WORKSPACE / "features" / f"{name}.toml", FeatureSet)
    wider = feature_set.model_copy(update={"book": (*feature_set.book, ADDED)})
    data = validate_spec(places, Data, "data")
    reading, sources = _fastest(repeats, lambda: read_market(data, feature_set, root).sources)
    without, fresh = _fastest(repeats, lambda: build_features(feature_set, sources))
    without_wider, _ = _fastest(repeats, lambda: build_features(wider, sources))
    first, second, added = [], [], []
    for number in range(repeats):
        folder = scratch / f"cache-{number}"
        for times, wanted in ((first, feature_set), (second, feature_set), (added, wider)):
            seconds, table = _timed(
                lambda: build_features(wanted, sources, FeatureCache(folder))  # noqa: B023  # now
            )
            times.append(seconds)
            if wanted is feature_set and not table.frame.equals(fresh.frame):
                raise SystemExit("a kept build differs from a fresh one")
    entries = list(entries_of(folder))
    print(f"{name}: {len(fresh.frame):,} decisions, {len(fresh.units)} features")
    print(f"  read and checked in {reading:.3f} s; built without a cache in {without:.3f} s")
    for what, times, against in (
        ("first build", first, without),
        ("second build, all lines read back", second, without),
        ("one line added", added, without_wider),
    ):
        print(f"  {what}: {min(times):.3f} s, ratio {min(times) / against:.2f}")
    print(f"  {len(entries)} entries, {sum(entry.size_bytes for entry in entries) / 1e6:.1f} MB")


def _bars(root: Path, places: Sequence[str], name: str, scratch: Path, repeats: int) -> None:
    shipped = load_spec(WORKSPACE / "features" / f"{name}.toml", FeatureSet)
    feature_set = shipped.model_copy(
        update={"book": (), "trades": (), "market": (), "calendar": ()}
    )
    data = validate_spec({"bars": list(places)}, Data, "data")
    frames = read_market(data, feature_set, root).bars.frames.values()
    plan = Plan.of(feature_set)
    columns = {column.name: column for column in plan.own}
    grid = feature_set.grid
    lines = [
        [
            columns[column.name]
            for column in columns_of([entry], "bars", grid.interval, grid.minimum_present)
        ]
        for entry in feature_set.bars
    ]

    def computed() -> list[pl.DataFrame]:
        return [own_columns(plan, frame, {}) for frame in frames]

    def kept() -> list[pl.DataFrame]:
        cache = FeatureCache(scratch / "bars")
        return [
            _read_back(cache, lines, frame, made)
            for frame, made in zip(frames, values, strict=True)
        ]

    computing, values = _fastest(repeats, computed)
    kept()
    reading, read = _fastest(repeats, kept)
    for one, other in zip(values, read, strict=True):
        if not one.select(other.columns).equals(other):
            raise SystemExit("kept columns differ from computed ones")
    rows = sum(map(len, values))
    print(f"{name}: {rows:,} bars of {len(values)} contracts, {len(columns)} columns")
    print(f"  computed {computing:.3f} s, read back {reading:.3f} s, {reading / computing:.2f}")


def _read_back(
    cache: FeatureCache, lines: list[list[Column]], frame: pl.DataFrame, made: pl.DataFrame
) -> pl.DataFrame:
    """The columns of a contract from the cache, each line below the digest of what it reads."""
    digests = {
        name: digest_of_series(frame[name]) for name in ("ts", "open", "high", "low", "close")
    }
    wanted = []
    for columns in lines:
        names = tuple(column.name for column in columns)
        inputs = digest_of_series(pl.Series([*digests.values(), *names]))
        wanted.append(Line("bars", names, inputs))
    parts = cache.lines(wanted, lambda _missing: made)
    return pl.DataFrame([series for part in parts for series in part])


def _timed(run: Callable[[], T]) -> tuple[float, T]:
    started = time.process_time()
    result = run()
    return time.process_time() - started, result


def _fastest(repeats: int, run: Callable[[], T]) -> tuple[float, T]:
    runs = [_timed(run) for _ in range(repeats)]
    return min(seconds for seconds, _ in runs), runs[-1][1]


if __name__ == "__main__":
    main()
