"""How fast order books are rebuilt: the builder against a plain dictionary and sort a side.

A simulated stream of one contract: some 1,000 levels a side, messages of about 20 updates, 30 of
them a second, most updates near the best price, which wanders. Both versions must give equal books
before anything is timed; so must the same updates read from a Tardis file. Budget: 1,000,000
updates a second on one core with a book every 100 ms.

Run: ``POLARS_MAX_THREADS=1 python benchmarks/book_rebuild.py``
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
from polars.testing import assert_frame_equal

from margincast.data.book_builder import BookBuilder
from margincast.data.formats.format import BATCH_ROWS, ROW, Account, Options
from margincast.data.formats.registry import recognise
from margincast.data.formats.source import Source
from margincast.data.schemas import TIMESTAMP, book_columns

START = datetime(2026, 1, 5, 12, tzinfo=UTC)
SYMBOL = "BTCUSDT"
LEVELS = 20
DEPTH = 1_000
UPDATES_A_MESSAGE = 20
MESSAGES_A_SECOND = 30
EVERY = {
    "every 100 ms": timedelta(milliseconds=100),
    "every 1 s": timedelta(seconds=1),
    "after each message": timedelta(0),
}
BUDGET = 1e6


def main() -> None:
    """Build both ways, compare the books, then the fastest time of each."""
    parser = argparse.ArgumentParser(description="books rebuilt from incremental updates")
    parser.add_argument("--updates", type=int, default=1_000_000, help="updates to apply")
    parser.add_argument("--repeats", type=int, default=5, help="runs of the builder")
    arguments = parser.parse_args()

    updates = simulated_updates(arguments.updates, seed=7)
    print(f"{len(updates):,} updates, books of {LEVELS} levels; processor time")
    rates = {}
    for name, every in EVERY.items():
        started = time.process_time()
        plain = _plain(updates, every)
        plain_seconds = time.process_time() - started
        ours = []
        for _ in range(arguments.repeats):
            started = time.process_time()
            books = _rebuilt(updates, every)
            ours.append(time.process_time() - started)
            assert_frame_equal(books.select(plain.columns), plain, check_exact=True)
        rates[name] = len(updates) / min(ours)
        print(
            f"a book {name}: {len(plain):,} books, {rates[name]:,.0f} updates/s, "
            f"plain {len(updates) / plain_seconds:,.0f}, ratio {plain_seconds / min(ours):.1f}"
        )
    verdict = "kept" if rates["every 100 ms"] >= BUDGET else "MISSED"
    print(f"budget {BUDGET:,.0f} updates/s with a book every 100 ms ({verdict})")
    _time_file(updates, arguments.repeats)


def simulated_updates(count: int, seed: int) -> pl.DataFrame:
    """Updates of one contract, the first message a full book; never crossed."""
    rng = np.random.default_rng(seed)
    lengths = 3 + rng.poisson(UPDATES_A_MESSAGE - 3, count // UPDATES_A_MESSAGE)
    lengths[0] = 2 * DEPTH
    starts = np.cumsum(lengths) - lengths
    message = np.repeat(np.arange(len(lengths)), lengths)
    place = np.arange(len(message)) - starts[message]
    gaps_us = 1 + rng.exponential(1e6 / MESSAGES_A_SECOND, len(lengths)).astype(np.int64)
    move = rng.integers(-2, 3, len(lengths))
    move[0] = 0
    mid = 500_000 + np.cumsum(move)

    distance = np.minimum(rng.geometric(0.05, len(message)), DEPTH)
    far = rng.random(len(message)) < 0.1
    distance[far] = rng.integers(1, DEPTH + 1, np.count_nonzero(far))
    is_bid = rng.random(len(message)) < 0.5
    size = rng.integers(1, 5_000, len(message)) / 1e3
    size[rng.random(len(message)) < 0.25] = 0.0

    full = slice(0, 2 * DEPTH)
    is_bid[full] = place[full] < DEPTH
    distance[full] = 1 + place[full] % DEPTH
    size[full] = 1.0

    # the levels that the mid walks over are deleted by the message that moves it
    walked = place < np.abs(move)[message]
    is_bid[walked] = (move < 0)[message][walked]
    distance[walked] = -place[walked]
    size[walked] = 0.0
    tick = mid[message] + np.where(is_bid, -distance, distance)
    return pl.DataFrame(
        {
            ROW: np.arange(1, len(message) + 1),
            "message": message,
            "ts": (START + pl.Series(np.cumsum(gaps_us)).cast(pl.Duration("us")))
            .cast(TIMESTAMP)
            .gather(message),
            "is_snapshot": message == 0,
            "is_bid": is_bid,
            "price": tick / 10,
            "size": size,
        }
    )


def _batches(updates: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """Cut updates between messages, as readers do."""
    opens = np.flatnonzero(np.diff(updates["message"].to_numpy(), prepend=-1))
    cuts = np.unique(opens[np.searchsorted(opens, np.arange(0, opens[-1], BATCH_ROWS))])
    for start, stop in zip(cuts, [*cuts[1:], len(updates)], strict=True):
        yield updates[start:stop]


def _rebuilt(updates: pl.DataFrame, every: timedelta) -> pl.DataFrame:
    builder = BookBuilder(SYMBOL, levels=LEVELS, every=every)
    frames = [builder.apply(batch) for batch in _batches(updates)]
    return pl.concat([*frames, builder.flush()])


def _plain(updates: pl.DataFrame, every: timedelta) -> pl.DataFrame:
    """The same books, one update after the other."""
    last = updates.group_by("message", maintain_order=True).agg(
        pl.len(), pl.col("ts", "is_snapshot").last()
    )
    if every:
        interval = last["ts"].dt.truncate(every)
        is_final = (interval != interval.shift(-1)).fill_null(value=True)
    else:
        is_final = pl.repeat(value=True, n=len(last), eager=True)
    rows = updates.select("is_bid", "price", "size").iter_rows()
    bids: dict[float, float] = {}
    asks: dict[float, float] = {}
    books = []
    for (_, length, ts, is_snapshot), final in zip(last.iter_rows(), is_final, strict=True):
        if is_snapshot:
            bids, asks = {}, {}
        for _ in range(length):
            is_bid, price, size = next(rows)
            side = bids if is_bid else asks
            if size:
                side[price] = size
            else:
                side.pop(price, None)
        if final:
            book: list[object] = [ts]
            best_bids, best_asks = sorted(bids, reverse=True)[:LEVELS], sorted(asks)[:LEVELS]
            for bid, ask in zip(best_bids, best_asks, strict=True):
                book += (bid, bids[bid], ask, asks[ask])
            books.append(book)
    schema = {"ts": TIMESTAMP, **dict.fromkeys(book_columns(LEVELS), pl.Float64)}
    return pl.DataFrame(books, schema, orient="row")


def _time_file(updates: pl.DataFrame, repeats: int) -> None:
    """Time the whole way from a Tardis file to books."""
    every = EVERY["every 100 ms"]
    expected = _rebuilt(updates, every)
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"binance-futures_incremental_book_L2_{START:%F}_{SYMBOL}.csv"
        updates.select(
            pl.lit("binance-futures").alias("exchange"),
            pl.lit(SYMBOL).alias("symbol"),
            pl.col("ts").to_physical().alias("timestamp"),
            (pl.col("ts").to_physical() + 3_000).alias("local_timestamp"),
            "is_snapshot",
            pl.when("is_bid").then(pl.lit("bid")).otherwise(pl.lit("ask")).alias("side"),
            "price",
            pl.col("size").alias("amount"),
        ).write_csv(path)
        for _ in range(repeats):
            started = time.process_time()
            source, options = Source(path), Options(book_every=every, book_levels=LEVELS)
            form, match = recognise(source, options=options)
            books = pl.concat([batch.frame for batch in form.read(source, match, Account())])
            seconds.append(time.process_time() - started)
            columns = ["ts", *book_columns(LEVELS)]
            assert_frame_equal(books.select(columns), expected.select(columns), check_exact=True)
    print(f"a book every 100 ms from a Tardis file: {len(updates) / min(seconds):,.0f} updates/s")


if __name__ == "__main__":
    main()
