"""The price level of books, trades and liquidations is judged: wrong rows, wrong units, no more."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from margincast.data.check.contract import StoredTable
from margincast.data.check.price_level import PriceLevel, minute_bars
from margincast.data.check.spikes import smallest_spikes
from margincast.data.check.survey import survey_store
from margincast.data.schemas import TIMESTAMP
from margincast.data.simulated.contracts import select_contracts
from margincast.data.simulated.market import simulate_market
from margincast.data.simulated.parameters import MarketParameters

HOUR = 3600
SIDES = ("bid", "ask")


def told(store, word=""):
    return [one for one in survey_store(store).findings if word in one.what]


def book_of(rows, start, seed=7):
    """A book of two levels each second around a random walk of 0.5 bps a step."""
    random = np.random.default_rng(seed)
    mid = 50_000 * np.exp(np.cumsum(random.normal(0, 5e-5, rows)))
    columns = {
        f"{side}_price_{level}": mid * (1 + sign * (1e-5 + 1e-5 * level))
        for side, sign in (("bid", -1), ("ask", 1))
        for level in (0, 1)
    }
    columns |= {
        f"{side}_size_{level}": random.lognormal(0, 1, rows) for side in SIDES for level in (0, 1)
    }
    times = [start + timedelta(seconds=number) for number in range(rows)]
    named = {"symbol": "ABC", "ts": times, **columns}
    return pl.DataFrame(named, schema_overrides={"ts": TIMESTAMP})


def scaled(frame, where, prices=1.0, sizes=1.0):
    """Multiply prices and sizes of some rows."""
    factors = {name: prices for name in frame.columns if "price" in name}
    factors |= {name: sizes for name in frame.columns if "size" in name}
    return frame.with_columns(
        pl.when(where).then(pl.col(name) * factor).otherwise(name).alias(name)
        for name, factor in factors.items()
    )


def trades_of(rows, start, seed=8):
    random = np.random.default_rng(seed)
    price = 50_000 * np.exp(np.cumsum(random.normal(0, 5e-5, rows)))
    times = [start + timedelta(seconds=number) for number in range(rows)]
    return pl.DataFrame(
        {
            "symbol": "ABC",
            "ts": times,
            "price": price,
            "size": random.lognormal(0, 1, rows),
            "side": random.choice(["buy", "sell"], rows),
        },
        schema_overrides={"ts": TIMESTAMP},
    )


MAKE = {
    "book": book_of,
    "quotes": lambda rows, start: book_of(rows, start).select(
        "symbol", "ts", *(f"{side}_{what}_0" for side in SIDES for what in ("price", "size"))
    ),
    "trades": trades_of,
    "aggregate_trades": trades_of,
    "liquidations": trades_of,
}
NUMBER = pl.int_range(pl.len())


@pytest.mark.parametrize("table", MAKE)
def test_prices_by_a_thousand_and_sizes_by_a_thousandth_are_a_fault(table, write_store, start):
    frame = MAKE[table](2 * HOUR, start)
    assert not told(write_store((table, "v", frame), name="clean"), "unit")
    # in the middle of a minute
    changed = scaled(frame, NUMBER >= HOUR + 30, 1000, 1e-3)
    (finding,) = told(write_store((table, "v", changed)), "unit change:")
    assert finding.severity == "fault"
    assert finding.first == start + timedelta(hours=1)
    assert "on 2024-01-01 01:00" in finding.what
    assert finding.worst_move == pytest.approx(999, rel=0.01)


@pytest.mark.parametrize("table", MAKE)
def test_single_rows_at_half_as_much_again_are_found_and_no_others(table, write_store, start):
    frame = MAKE[table](2 * HOUR, start)
    assert not told(write_store((table, "v", frame), name="clean"), "spike")
    wrong = [100, 101, 900, 1800, 2700, 3599, 5000, 7000]
    spiked = scaled(frame, NUMBER.is_in(wrong), 1.5)
    (finding,) = told(write_store((table, "v", spiked)), "of a row)")
    assert (finding.count, finding.total) == (len(wrong), 2 * HOUR)
    assert finding.worst_move == pytest.approx(0.5, abs=0.02)
    assert not told(write_store((table, "v", spiked), name="again"), "wicks")


def test_a_book_that_is_wrong_for_some_seconds_is_found_by_its_minute(write_store, start):
    wrong = NUMBER.is_between(1810, 1829)
    store = write_store(("book", "v", scaled(book_of(HOUR, start), wrong, 1.5)))
    (finding,) = told(store, "wicks far beyond the minutes around (mid)")
    # rows of the minute, not minutes
    assert (finding.count, finding.total) == (60, HOUR)
    assert finding.first == start + timedelta(minutes=30)
    assert finding.worst_move == pytest.approx(0.5, abs=0.02)


def test_a_minute_that_ends_wrong_is_found(write_store, start):
    wrong = NUMBER.is_between(1800, 1859)
    store = write_store(("book", "v", scaled(book_of(HOUR, start), wrong, 1.5)))
    (finding,) = told(store, "(last mid of a minute)")
    assert (finding.count, finding.first) == (60, start + timedelta(minutes=30))


def test_liquidations_hours_apart_follow_the_market_and_are_no_spikes(write_store, start):
    random = np.random.default_rng(9)
    hours = np.cumsum(random.exponential(6.0, 2000))
    # 80 % a year: 0.85 % an hour
    moves = random.normal(0, 0.0085, 2000) * np.sqrt(np.diff(hours, prepend=0))
    price = 100 * np.exp(np.cumsum(moves))
    frame = pl.DataFrame(
        {
            "symbol": "ABC",
            "ts": [start + timedelta(hours=hour) for hour in hours],
            "price": price,
            "size": 1.0,
            "side": random.choice(["buy", "sell"], 2000),
        },
        schema_overrides={"ts": TIMESTAMP},
    )
    assert told(write_store(("liquidations", "v", frame), name="clean")) == []
    store = write_store(("liquidations", "v", scaled(frame, NUMBER == 1000, 10.0)))
    (finding,) = told(store, "price spikes that come back (price of a row)")
    assert (finding.count, finding.first) == (1, frame["ts"][1000])


def test_a_trade_of_the_price_before_a_jump_is_late_and_no_spike(write_store, start):
    jumped = scaled(trades_of(HOUR, start), (NUMBER >= 1800) & (NUMBER != 1810), 0.97)
    assert not told(write_store(("trades", "v", jumped), name="late"), "spike")
    above = scaled(trades_of(HOUR, start), (NUMBER >= 1800), 0.97)
    store = write_store(("trades", "v", scaled(above, NUMBER == 1810, 1.5)))
    (finding,) = told(store, "of a row)")
    assert finding.first == start + timedelta(seconds=1810)


def test_smallest_spike_grows_as_the_root_of_time(start):
    for step, expected in ((timedelta(seconds=1), 0.02), (timedelta(hours=2.4), 0.24)):
        times = pl.Series([start + number * step for number in range(20)], dtype=TIMESTAMP)
        assert smallest_spikes(times)[10] == pytest.approx(expected)


@settings(max_examples=20)
@given(st.lists(st.integers(1, 599), max_size=6), st.lists(st.integers(40, 560), max_size=4))
def test_levels_do_not_hang_on_how_blocks_are_cut(cuts, wrong):
    start = datetime(2024, 1, 1, tzinfo=UTC)
    frame = scaled(trades_of(600, start), NUMBER.is_in(wrong), 2.0)
    edges = sorted({0, 600, *cuts})
    findings = []
    for blocks in ([frame], [frame[one:other] for one, other in pairwise(edges)]):
        level = PriceLevel(StoredTable("trades", "v", "ABC", None, ()), "price")
        for block in blocks:
            level.add(block)
        findings.append(level.findings())
    assert findings[0] == findings[1]


def test_minutes_are_the_first_highest_lowest_and_last_price(start):
    frame = trades_of(150, start)
    minutes = minute_bars(frame)
    assert minutes["rows"].to_list() == [60, 60, 30]
    first = frame["price"][:60]
    assert minutes.row(0)[1:5] == (first[0], first.max(), first.min(), first[59])


def test_absurd_sizes_of_a_book_are_those_put_in(write_store, start):
    book = book_of(HOUR, start)
    assert not told(write_store(("book", "v", book), name="clean"), "sizes of a book")
    # a snapshot thin by itself shows the slip as well
    wrong = [700, 1400, 2800]
    (finding,) = told(
        write_store(("book", "v", scaled(book, NUMBER.is_in(wrong), 1.0, 1000))), "sizes of a book"
    )
    assert finding.count == len(wrong)
    assert finding.first == start + timedelta(seconds=700)


def test_crossed_books_do_not_enter_the_level(write_store, start):
    crossed = book_of(HOUR, start).with_columns(
        pl.when(NUMBER % 100 == 50)
        .then(pl.col("bid_price_0") * 2)
        .otherwise("bid_price_0")
        .alias("bid_price_0")
    )
    store = write_store(("book", "v", crossed))
    assert told(store, "crossed")[0].count == 36
    assert not told(store, "spike")


def test_a_clean_simulated_market_has_no_finding(write_store, start):
    contracts = select_contracts(["SIM-BTC", "SIM-ALT"])
    market = simulate_market(MarketParameters(contracts=contracts), days=2, seed=1, start=start)
    names = {"bars": "bars_1m"}
    store = write_store(
        *((names.get(name, name), "v", frame) for name, frame in market.tables.items())
    )
    assert len(market.liquidations) > 1000
    assert survey_store(store).findings == ()
