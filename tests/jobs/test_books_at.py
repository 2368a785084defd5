"""The books of a moment: nothing later, as much of the past as the policy looks at."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from margincast.data.book import BookTable, read_books, recent_snapshots
from margincast.jobs.books import books_at
from margincast.margin.liquidation_cost import liquidation_costs
from margincast.margin.schedule import tiers_for
from margincast.specs.loading import load_spec
from margincast.specs.schedule import BaseSchedule
from margincast.specs.serving import MarginPolicy

SERVING = Path(__file__).resolve().parents[2] / "serving"
WALKED = load_spec(SERVING / "demo.toml", MarginPolicy)
POLICY = load_spec(SERVING / "book-10m.toml", MarginPolicy)
START = datetime(2026, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)


@pytest.fixture(scope="module")
def books(tmp_path_factory: pytest.TempPathFactory) -> BookTable:
    """Five hours of one-second books, a level on each side, the second level never there."""
    seconds = np.arange(5 * 3_600)
    frame = pl.DataFrame(
        {
            "ts": [START + int(second) * SECOND for second in seconds],
            "bid_price_0": 99.9,
            "bid_size_0": 1.0 + seconds,
            "ask_price_0": 100.1,
            "ask_size_0": 1.0 + seconds,
        }
    ).with_columns(
        pl.lit(None, pl.Float64).alias(f"{side}_{what}_1")
        for side in ("bid", "ask")
        for what in ("price", "size")
    )
    folder = tmp_path_factory.mktemp("books")
    frame.write_parquet(folder / "X.parquet")
    return read_books(folder, ["X.parquet"], (), SECOND)


def test_every_period_is_represented_by_its_last_book_known_by_then(books):
    at = START + timedelta(hours=4, seconds=5)
    found = recent_snapshots(books, at, timedelta(minutes=1), timedelta(seconds=10))["X"]
    known = found["known_at"].to_list()
    assert known[-1] == at
    # a minute in periods of ten seconds: whole ones, and a part at either end
    assert known == [at - timedelta(seconds=s) for s in (56, 46, 36, 26, 16, 6, 0)]
    assert known[0] > at - timedelta(minutes=1)


def test_a_policy_that_looks_at_the_horizon_gets_the_window(books):
    at = START + timedelta(hours=4)
    book = books_at(POLICY, books, at)["X"]
    assert book.history is not None
    # a period at either end is a part of one
    assert book.history.covered(timedelta(seconds=10)) == timedelta(hours=3, seconds=10)
    assert book.bid_sizes[0] == 4 * 3_600.0
    assert np.isnan(book.history.bid_prices[:, 1]).all()
    only = books_at(WALKED, books, at)["X"]
    assert only.history is not None
    assert len(only.history) == 1
    assert only.bid_sizes[0] == book.bid_sizes[0]


def test_a_feed_that_stopped_has_no_book(books):
    end = START + timedelta(hours=5)
    allowed = POLICY.staleness.max_data_age
    assert "X" in books_at(POLICY, books, end + allowed)
    assert books_at(POLICY, books, end + allowed + SECOND) == {}
    assert books_at(POLICY, None, end) == {}


def test_real_books_cost_more_over_the_horizon_than_today(shared_data):
    source = "book/standx_BTC-USD_book20_1s.parquet"
    read = read_books(shared_data / "data", [source], (), SECOND)
    schedule = load_spec(SERVING / "schedules" / "btc-usd.toml", BaseSchedule)
    (symbol,) = read.frames
    tiers = tiers_for(schedule, symbol)
    at = datetime(2026, 1, 7, 12, tzinfo=UTC)
    now, over_horizon = (
        liquidation_costs(tiers, "long", policy, books_at(policy, read, at)[symbol])
        for policy in (WALKED, POLICY)
    )
    for before, after in zip(now, over_horizon, strict=True):
        assert after.trading_rate >= before.trading_rate * (1.0 - 1e-12)
    # depth within 3 bps of the mid is there at one moment and gone at the next
    assert over_horizon[0].trading_rate > 1.5 * now[0].trading_rate
    assert "quantile of 1,08" in over_horizon[0].reason
