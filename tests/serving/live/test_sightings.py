"""Which fault each row shows, when silence is one, and what is kept from the features."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from margincast.serving.live.events import Event, Refusal
from margincast.serving.live.faults import Fault
from margincast.serving.live.sightings import Sightings
from margincast.specs.live import LiveMode
from margincast.specs.loading import load_spec

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
SECOND = 1_000_000
LIVE = Path(__file__).resolve().parents[3] / "serving" / "live.toml"


@pytest.fixture
def sightings():
    watch = load_spec(LIVE, LiveMode).watch
    return Sightings(watch, MINUTE, {"A", "B"}, 0)


def book(bid=100.0, ask=101.0, ts=NOW, **more):
    row = {"bid_price_0": bid, "bid_size_0": 1.0, "ask_price_0": ask, "ask_size_0": 1.0}
    return Event("book", "A", {"ts": ts, "is_valid": True, **row, **more})


def bar(close=100.0, ts=NOW - MINUTE, **more):
    row = dict.fromkeys(("open", "high", "low", "close"), close) | {"volume": 1.0}
    return Event("bars", "A", {"ts": ts, **row, **more})


def trade(price):
    return Event("trades", "A", {"ts": NOW, "price": price, "size": 1.0, "side": "buy"})


def mark(price):
    return Event("mark", "A", {"ts": NOW, "mark_price": price})


def faults_after(sightings, *events, now_us=SECOND):
    given = [sightings.see(event, NOW, now_us) for event in events]
    return set(sightings.faults(now_us).get("A", {})), given


@pytest.mark.parametrize(
    ("event", "fault", "given"),
    [
        (book(), None, True),
        (book(bid=101.0, ask=101.0), None, True),  # locked: two sides at one price
        (book(bid=102.0), Fault.CROSSED_BOOK, True),
        (book(bid=0.0), Fault.BROKEN_ROW, True),
        (book(is_valid=False), Fault.BROKEN_ROW, True),
        (book(ts=NOW + timedelta(seconds=2)), None, True),
        (book(ts=NOW + timedelta(seconds=3)), Fault.CLOCK_SKEW, False),
        (book(received_at=NOW + timedelta(seconds=3)), Fault.CLOCK_SKEW, False),
        (book(ts=NOW - timedelta(seconds=31)), Fault.STALE_FEED, True),
        (bar(), None, True),
        (bar(ts=NOW - 2 * MINUTE), Fault.STALE_FEED, True),  # a minute after its close
        (bar(close=0.0), Fault.NOT_A_NUMBER, False),
        (bar(high=99.0), Fault.BROKEN_ROW, False),
        (trade(-1.0), Fault.NOT_A_NUMBER, False),
        (mark(0.0), Fault.NOT_A_NUMBER, False),
    ],
)
def test_a_row_shows_its_fault(sightings, event, fault, given):
    found, (passed,) = faults_after(sightings, event)
    assert found == ({fault} if fault else set())
    assert passed is given
    assert sightings.withheld == ({} if given else {("A", fault): 1})


@pytest.mark.parametrize("event", [book(93.0, 95.0), bar(94.0), trade(106.0)])
def test_a_price_far_from_the_mark_is_a_spike_until_a_near_one_comes(sightings, event):
    assert faults_after(sightings, mark(100.0), event) == ({Fault.SPIKE}, [True, True])
    near = {"book": book(99.0), "bars": bar(), "trades": trade(100.0)}[event.table]
    assert faults_after(sightings, near)[0] == set()


def test_without_a_mark_a_trade_is_held_against_the_book_and_a_book_against_none(sightings):
    assert faults_after(sightings, book(), trade(120.0))[0] == {Fault.SPIKE}
    # the market is there now: the book says so, and the next trade agrees
    assert faults_after(sightings, book(119.0, 121.0), trade(120.0))[0] == set()


def test_a_broken_row_is_no_measure_for_the_next(sightings):
    assert faults_after(sightings, book(), book(1000.0, 999.0), trade(100.0))[0] == {
        Fault.CROSSED_BOOK
    }


def test_silence_is_a_fault_from_its_limit_on_until_a_row_comes(sightings):
    sightings.see(book(), NOW, 5 * SECOND)
    sightings.see(bar(), NOW, 5 * SECOND)
    assert "A" not in sightings.faults(155 * SECOND)
    assert sightings.faults(155 * SECOND + 1)["A"] == {
        Fault.STALE_FEED: "no row of bars for more than 150s"
    }
    # a contract that never was heard of is silent since the start
    assert "B" not in sightings.faults(150 * SECOND)
    assert Fault.STALE_FEED in sightings.faults(150 * SECOND + 1)["B"]
    sightings.see(bar(), NOW, 160 * SECOND)
    sightings.see(book(), NOW, 160 * SECOND)
    assert "A" not in sightings.faults(161 * SECOND)


def test_a_refused_line_is_the_contracts_fault_until_a_sound_row_of_its_table(sightings):
    sightings.refuse(Refusal(Fault.NOT_A_NUMBER, "price is not a finite number", "trades", "A"))
    assert faults_after(sightings, book())[0] == {Fault.NOT_A_NUMBER}
    assert faults_after(sightings, trade(100.0))[0] == set()
    sightings.refuse(Refusal(Fault.BROKEN_ROW, "not a JSON object"))
    assert sightings.faults(SECOND) == {}


def test_a_feed_that_says_the_same_for_too_long_is_stale_though_it_sends():
    watch = load_spec(LIVE, LiveMode, ['watch.unchanged={book="10m"}', "watch.silence={}"]).watch
    seen = Sightings(watch, MINUTE, {"A"}, 0)
    for minute in range(12):
        at = NOW + minute * MINUTE
        seen.see(book(ts=at), at, minute * 60 * SECOND)
        frozen = seen.faults(minute * 60 * SECOND)
        assert bool(frozen) == (minute > 10)
    assert frozen["A"] == {Fault.STALE_FEED: "the rows of book say the same for more than 10m"}
    assert seen.see(book(ask=101.5, ts=at), at, 660 * SECOND)
    assert seen.faults(660 * SECOND) == {}
