"""Errors put into simulated prices are found; a crash, which does not come back, is none."""

import json
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from margincast.data.check.sizes import absurd_sizes
from margincast.data.check.spikes import close_spikes, wick_spikes
from margincast.data.check.survey import survey_store
from margincast.data.check.units import smallest_increment


def found(store, word):
    return [finding for finding in survey_store(store).findings if word in finding.what]


def walk(seed, rows=400, volatility=0.005):
    return 100 * np.exp(np.cumsum(np.random.default_rng(seed).normal(0, volatility, rows)))


@given(st.integers(0, 2**31), st.integers(60, 340), st.sampled_from([0.5, 0.7, 1.4, 2.0, 10.0]))
def test_a_price_that_is_wrong_for_one_row_is_found_and_nothing_else(seed, at, factor):
    prices = walk(seed)
    prices[at] *= factor
    assert close_spikes(pl.Series(prices)).arg_true().to_list() == [at]


@given(st.integers(0, 2**31), st.integers(0, 399), st.floats(0.1, 0.9))
def test_a_crash_that_stays_is_no_spike(seed, at, left):
    prices = walk(seed)
    prices[at:] *= left
    assert not close_spikes(pl.Series(prices)).any()


@given(st.integers(0, 2**31), st.floats(0.001, 1000))
def test_spikes_do_not_hang_on_the_unit_of_the_price(seed, scale):
    prices = walk(seed)
    prices[100] *= 1.5
    rescaled = close_spikes(pl.Series(prices * scale))
    assert rescaled.to_list() == close_spikes(pl.Series(prices)).to_list()


def test_a_low_that_no_neighbour_knows_is_a_wick(make_bars):
    bars = make_bars(200)
    wrong = bars.with_columns(
        pl.when(pl.int_range(pl.len()) == 77).then(0.1).otherwise("low").alias("low")
    )
    assert not wick_spikes(bars).any()
    assert wick_spikes(wrong).arg_true().to_list() == [77]


@pytest.mark.parametrize("market", [("binance_alts_1h", "FTTUSDT"), ("binance_perp_1h", "BTCUSDT")])
def test_real_crashes_are_no_data_errors(shared_data, write_store, market):
    folder, symbol = market
    bars = pl.read_parquet(shared_data / "data" / "bars" / folder / f"{symbol}.parquet")
    crash = datetime(*((2022, 11, 8) if symbol == "FTTUSDT" else (2020, 3, 13)), tzinfo=UTC)
    around = bars.filter(pl.col("ts").is_between(crash - timedelta(10), crash + timedelta(5)))
    assert around["low"].min() < 0.65 * around["high"].max()
    store = write_store(("bars_1h", folder, around.with_columns(pl.lit(symbol).alias("symbol"))))
    named = [one.what for one in survey_store(store).findings if one.severity != "info"]
    assert not [what for what in named if "spike" in what or "10^k" in what]


def test_delisting_of_ftt_is_found(shared_data, write_store):
    bars = pl.read_parquet(shared_data / "data/bars/binance_alts_1h/FTTUSDT.parquet")
    store = write_store(("bars_1h", "v", bars.with_columns(pl.lit("FTTUSDT").alias("symbol"))))
    (finding,) = found(store, "delisted")
    assert f"{finding.first:%F}" == "2022-11-14"
    assert finding.last == bars["ts"][-1]
    assert finding.count == (finding.last - finding.first) / timedelta(hours=1) + 1
    assert finding.action == "treated as missing: no features, no targets"


def test_outage_of_the_five_minute_bars_is_listed(shared_data, write_store):
    bars = pl.read_parquet(shared_data / "data/bars/binance_spot_5m/BTCUSDT.parquet")
    bars = bars.filter(pl.col("ts") < datetime(2023, 5, 1, tzinfo=UTC))
    store = write_store(("bars_5m", "v", bars.with_columns(pl.lit("BTCUSDT").alias("symbol"))))
    (finding,) = found(store, "missing rows")
    assert finding.count == 16
    assert f"{finding.first:%F %R}" == "2023-03-24 12:35"


def test_stale_stretch_inside_is_no_delisting(write_store, make_bars, start):
    number = pl.int_range(pl.len())
    still = number.is_between(100, 129)
    bars = make_bars(300).with_columns(
        pl.when(still).then(100.0).otherwise(name).alias(name)
        for name in ("open", "high", "low", "close")
    )
    bars = bars.with_columns(pl.when(still).then(0.0).otherwise("volume").alias("volume"))
    store = write_store(("bars_1h", "venue", bars))
    assert not found(store, "delisted")
    (finding,) = found(store, "stale stretches")
    assert (finding.count, finding.first) == (30, start + timedelta(hours=100))


def test_contract_of_a_thousand_coins_is_told_from_a_crash(write_store, make_bars, start):
    later = pl.int_range(pl.len()) >= 150
    prices = ("open", "high", "low", "close")
    rescaled = make_bars(300).with_columns(
        pl.when(later).then(pl.col(name) * 1000).otherwise(name).alias(name) for name in prices
    )
    both = rescaled.with_columns(
        pl.when(later).then(pl.col("volume") / 1000).otherwise("volume").alias("volume")
    )
    (finding,) = found(write_store(("bars_1h", "v", both), name="both"), "unit change:")
    assert (finding.count, finding.severity) == (1, "fault")
    assert finding.first == start + timedelta(hours=150)
    (finding,) = found(write_store(("bars_1h", "v", rescaled), name="one"), "or a crash")
    assert (finding.count, finding.severity) == (1, "warning")


def test_volume_in_another_unit_is_found(write_store, make_bars, start):
    later = pl.int_range(pl.len()) >= 150
    bars = make_bars(300).with_columns(
        pl.when(later).then(pl.col("volume") * 1000).otherwise("volume").alias("volume")
    )
    store = write_store(("bars_1h", "v", bars))
    (finding,) = found(store, "volume by about")
    assert finding.first == start + timedelta(hours=150)
    assert not found(store, "unit change:")


def test_tick_change_is_told(write_store, make_bars):
    rows = 24 * 120
    prices = ("open", "high", "low", "close")
    fine = pl.int_range(pl.len()) >= rows // 2
    bars = make_bars(rows).with_columns(
        pl.when(fine).then(pl.col(name).round(3)).otherwise(pl.col(name).round(2)).alias(name)
        for name in prices
    )
    (finding,) = found(write_store(("bars_1h", "v", bars)), "increment")
    assert finding.count == 1
    assert finding.examples[0][1] == "0.01 to 0.001"


def test_few_prices_and_prices_off_any_tick_have_no_increment(make_bars):
    assert smallest_increment(make_bars(20), ("close",)) is None
    assert smallest_increment(make_bars(1000), ("close",)) is None


@given(st.integers(0, 2**31), st.integers(0, 299), st.floats(3e3, 1e9))
def test_absurd_sizes_are_those_put_in(seed, at, factor):
    sizes = np.random.default_rng(seed).lognormal(0, 0.5, 300)
    assert not absurd_sizes(pl.Series(sizes), 0.5).any()
    sizes[at] = factor
    assert absurd_sizes(pl.Series(sizes), 0.5).arg_true().to_list() == [at]


def test_close_far_from_mark_is_found_in_columns_and_in_tables(write_store, make_bars, start):
    bars = make_bars(200)
    wrong = pl.int_range(pl.len()).is_between(60, 64)
    mark = bars["close"].clone()
    bars = bars.with_columns(
        pl.when(wrong).then(pl.col(name) * 1.2).otherwise(name).alias(name)
        for name in ("open", "high", "low", "close")
    )
    column = write_store(
        ("bars_1h", "v", bars.with_columns(mark.alias("mark_close"))), name="column"
    )
    marks = bars.select(
        "symbol", "ts", *(mark.alias(name) for name in ("open", "high", "low", "close"))
    )
    table = write_store(("bars_1h", "v", bars), ("mark_bars_1h", "v", marks), name="table")
    for store in (column, table):
        (finding,) = found(store, "from the mark price")
        assert (finding.count, finding.total) == (5, 200)
        assert finding.first == start + timedelta(hours=60)
        assert json.dumps(finding.as_record())


def test_bars_that_open_off_the_grid_are_a_fault(write_store, make_bars):
    bars = make_bars(50).with_columns(pl.col("ts") + pl.duration(minutes=30))
    (finding,) = found(write_store(("bars_1h", "v", bars)), "off the grid")
    assert (finding.count, finding.severity) == (50, "fault")
