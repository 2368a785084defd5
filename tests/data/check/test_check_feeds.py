"""Books, trades, funding and clocks: faults put in are the faults that are told."""

from datetime import timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from margincast.data.book import mended_book
from margincast.data.check.survey import survey_store
from margincast.data.check.time_zones import HourlyPrices, agree_on, find_shift
from margincast.data.schemas import TIMESTAMP

KINDS = ("good", "crossed", "locked", "empty", "disordered", "short", "invalid")
WORDS = {
    "crossed": "crossed (best bid > best ask)",
    "locked": "locked (best bid = best ask)",
    "empty": "empty side (best price or size missing or not above 0)",
    "disordered": "levels not best first",
    "short": "deeper levels missing",
    "invalid": "is_valid not true",
}


def book_of(kinds, start, seconds=1.0):
    """Books of two levels with one fault each; prices differ from row to row."""
    rows = []
    for number, kind in enumerate(kinds):
        mid = 100 + 0.01 * number
        row = {
            "symbol": "ABC",
            "ts": start + timedelta(seconds=seconds * number),
            "is_valid": kind != "invalid",
            "bid_price_0": mid - 0.1,
            "bid_price_1": mid - 0.2,
            "ask_price_0": mid + 0.1,
            "ask_price_1": mid + 0.2,
            **{f"{side}_size_{level}": 1.0 for side in ("bid", "ask") for level in (0, 1)},
        }
        row |= {
            "crossed": {"bid_price_0": mid + 0.15},
            "locked": {"bid_price_0": mid + 0.1},
            "empty": {"ask_size_0": 0.0},
            "disordered": {"bid_price_1": mid},
            "short": {"ask_price_1": None},
        }.get(kind, {})
        rows.append(row)
    return pl.DataFrame(rows, schema_overrides={"ts": TIMESTAMP, "ask_price_1": pl.Float64})


def told(store, table=None):
    return {
        finding.what: finding
        for finding in survey_store(store).findings
        if table in (None, finding.table)
    }


def test_book_faults_are_counted_as_reading_counts_them(write_store, start):
    random = np.random.default_rng(5)
    books = book_of(random.choice(KINDS, 500).tolist(), start)
    findings = told(write_store(("book", "v", books)))
    _, _, on_reading = mended_book(books.lazy(), "ABC", "test", timedelta(seconds=1))
    expected = {one.what: one for one in on_reading if one.what in WORDS.values()}
    assert set(expected) == set(WORDS.values())
    for what, one in expected.items():
        shown = findings[what]
        assert (shown.count, shown.total, shown.first) == (one.count, one.total, one.first)
        assert shown.action == one.action


def test_frozen_book_is_told(write_store, start):
    books = book_of(["good"] * 300, start)
    levels = [name for name in books.columns if "price" in name]
    frozen = pl.int_range(pl.len()).is_between(100, 199)
    books = books.with_columns(
        pl.when(frozen).then(pl.col(name).get(100)).otherwise(name).alias(name) for name in levels
    )
    findings = told(write_store(("book", "v", books)))
    (frozen_finding,) = (one for what, one in findings.items() if what.startswith("frozen"))
    assert frozen_finding.count == 99
    assert frozen_finding.first == start + timedelta(seconds=101)
    assert findings["snapshots equal to the one before"].count == 99


def test_spread_and_depth_by_hour(write_store, start):
    books = book_of(["good", "locked", "good", "crossed"], start, seconds=1800)
    (survey,) = survey_store(write_store(("book", "v", books))).tables
    first, second = survey.books.iter_rows(named=True)
    assert (first["snapshots"], first["locked_share"], second["locked_share"]) == (2, 0.5, 0.0)
    # spreads of 0.2 around 100 and of 0; the crossed book of the second hour is left out
    assert first["spread_bps"] == pytest.approx(10.0, rel=1e-3)
    assert second["spread_bps"] == pytest.approx(20.0, rel=1e-3)
    assert second["depth_usd"] == pytest.approx(400.08, rel=1e-6)


def trades_of(rows, start, **columns):
    random = np.random.default_rng(6)
    return pl.DataFrame(
        {
            "symbol": "ABC",
            "ts": [start + timedelta(seconds=number) for number in range(rows)],
            "price": 100 + np.round(np.cumsum(random.normal(0, 0.01, rows)), 2),
            "size": random.lognormal(0, 1, rows),
            "side": random.choice(["buy", "sell"], rows),
        },
        schema_overrides={"ts": TIMESTAMP},
    ).with_columns(**columns)


def test_trades_of_one_side_and_clocks_that_disagree(write_store, start):
    trades = trades_of(
        2000,
        start,
        side=pl.lit("sell"),
        received_at=pl.col("ts")
        + pl.duration(milliseconds=pl.when(pl.int_range(pl.len()) < 7).then(-5).otherwise(250)),
    )
    findings = told(write_store(("trades", "v", trades)))
    assert findings["all on one side: the aggressor is not known"].count == 2000
    assert findings["received before it was traded: clocks disagree"].count == 7
    assert any("received 250 ms after the trade (median" in what for what in findings)
    two_sided = told(write_store(("trades", "v", trades_of(2000, start)), name="two"))
    assert "all on one side: the aggressor is not known" not in two_sided


def test_a_burst_of_one_time_is_told_once(write_store, start):
    time = start + timedelta(seconds=500)
    inside = pl.int_range(pl.len()).is_between(500, 1999)
    trades = trades_of(3000, start, ts=pl.when(inside).then(time).otherwise("ts"))
    findings = told(write_store(("trades", "v", trades)))
    burst = findings["bursts of 1,000 trades of one time, and more"]
    assert (burst.count, burst.first, burst.examples[0][1]) == (1500, time, "1500 trades")


def test_funding_beyond_the_cap_off_the_hour_and_missing(write_store, start):
    rates = [0.0001] * 60
    rates[10], rates[20] = 0.02, -0.0076
    times = [start + timedelta(hours=8 * number, milliseconds=number % 9) for number in range(60)]
    times[30] += timedelta(minutes=20)
    funding = pl.DataFrame(
        {"symbol": "ABC", "ts": times, "funding_rate": rates}, schema_overrides={"ts": TIMESTAMP}
    ).filter(pl.int_range(pl.len()) != 40)
    findings = told(write_store(("funding", "v", funding)))
    assert findings["funding rate beyond +-0.75% an interval"].count == 2
    assert findings["funding off the full hour"].first == times[30]
    (missing,) = (one for what, one in findings.items() if what.startswith("missing rows"))
    assert (missing.count, missing.first) == (1, times[39])


@given(st.integers(-14, 14), st.integers(0, 2**31))
def test_a_feed_shifted_by_hours_is_found_whatever_the_shift(hours, seed):
    random = np.random.default_rng(seed)
    prices = 100 * np.exp(np.cumsum(random.normal(0, 0.01, 500)))
    one = HourlyPrices(np.arange(1000, 1500), prices)
    noise = np.exp(random.normal(0, 0.001, 500))
    other = HourlyPrices(np.arange(1000, 1500) + hours, 1000 * prices * noise)
    shift = find_shift(one, other)
    assert shift.hours == hours
    assert shift.ratio == pytest.approx(1000, rel=0.01)


@given(st.integers(0, 2**31))
def test_unrelated_feeds_have_no_shift(seed):
    random = np.random.default_rng(seed)
    one, other = (
        HourlyPrices(np.arange(500), np.exp(np.cumsum(random.normal(0, 0.01, 500))))
        for _ in range(2)
    )
    assert find_shift(one, other) is None


def test_the_majority_says_who_is_shifted():
    assert agree_on({"a": 0, "b": 8, "c": 8}) == {"a": -8, "b": 0, "c": 0}
    assert agree_on({"a": 0, "b": 8}) == {"a": 0, "b": 8}


def test_shifted_venue_and_other_unit_are_told_in_a_store(write_store, make_bars):
    bars = make_bars(600)
    late = make_bars(600).with_columns(pl.col("ts") + pl.duration(hours=8))
    coins = make_bars(600).with_columns(pl.col("open", "high", "low", "close") * 1000)
    store = write_store(
        ("bars_1h", "one", bars), ("bars_1h", "two", late), ("bars_1h", "three", coins)
    )
    findings = [one for one in survey_store(store).findings if one.severity == "warning"]
    assert {(one.venue, one.what.split(" (")[0]) for one in findings} == {
        ("two", "times 8 h late against one ABC bars_1h"),
        ("three", "prices about 10^3 times those of one ABC bars_1h"),
    }


@given(st.integers(1, 14), st.integers(0, 2**31))
def test_units_that_change_at_different_hours_are_no_shifted_clock(hours, seed):
    random = np.random.default_rng(seed)
    prices = 100 * np.exp(np.cumsum(random.normal(0, 0.01, 500)))
    number = np.arange(500)
    one = HourlyPrices(number, np.where(number >= 250, 1000 * prices, prices))
    other = HourlyPrices(number, np.where(number >= 250 + hours, 1000 * prices, prices))
    assert find_shift(one, other).hours == 0


def test_unit_that_changes_in_one_of_two_feeds_is_no_ratio_of_the_feeds(write_store, make_bars):
    bars = make_bars(600)
    later = pl.int_range(pl.len()) >= 250
    changed = bars.with_columns(
        pl.when(later).then(pl.col(name) * 1000).otherwise(name).alias(name)
        for name in ("open", "high", "low", "close")
    )
    store = write_store(("bars_1h", "one", bars), ("bars_1h", "two", changed))
    warnings = [one.what for one in survey_store(store).findings if one.severity == "warning"]
    assert len(warnings) == 1
    assert warnings[0].startswith("price by about 10^k and stays there")


def test_liquidations_on_a_raster_miss_no_rows(write_store, start):
    random = np.random.default_rng(10)
    seconds = 5 * np.flatnonzero(random.random(20_000) < 0.7)
    liquidations = trades_of(
        len(seconds), start, ts=pl.Series([start + timedelta(seconds=int(one)) for one in seconds])
    )
    findings = told(write_store(("liquidations", "v", liquidations)))
    assert not [what for what in findings if "missing" in what or "pause" in what]


def test_trades_on_a_raster_miss_no_rows_but_their_pauses_are_told(write_store, start):
    at = np.array([second for second in range(3000) if second % 3 and not 1000 < second < 1600])
    times = pl.Series([start + timedelta(seconds=int(one)) for one in at])
    findings = told(write_store(("trades", "v", trades_of(len(at), start, ts=times))))
    assert not [what for what in findings if "missing" in what]
    (pause,) = (one for what, one in findings.items() if what.startswith("pauses"))
    assert (pause.count, pause.severity) == (1, "info")


def test_equal_trades_are_counted_and_kept_unless_an_id_tells_them_apart(write_store, start):
    trades = trades_of(500, start, ts=pl.lit(start))
    again = pl.concat([trades, trades[[3, 3, 77]]]).sort("price", "size")
    said = "equal to the row before, and no id tells them apart"
    finding = told(write_store(("trades", "v", again)))[said]
    assert (finding.count, finding.total, finding.severity) == (3, 503, "info")
    assert "kept" in finding.action
    named = again.with_columns(pl.int_range(pl.len()).cast(pl.String).alias("trade_id"))
    assert said not in told(write_store(("trades", "v", named), name="named"))


def test_trades_received_before_they_were_traded_are_told_in_one_voice(write_store, start):
    trades = trades_of(500, start, received_at=pl.col("ts") - pl.duration(milliseconds=1300))
    findings = told(write_store(("trades", "v", trades)))
    (latency,) = (one for what, one in findings.items() if what.startswith("received 1.3 s"))
    assert latency.what == "received 1.3 s before the trade (median; 99 %: 1.3 s before it)"
    assert latency.action == "known when received, at the earliest when it was traded"
    early = findings["received before it was traded: clocks disagree"]
    assert early.action == "taken as known when it was traded"
