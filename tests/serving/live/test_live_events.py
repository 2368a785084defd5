"""Lines of a feed are read strictly: a row comes out as it was sent, or is refused and counted."""

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from margincast.serving.live.events import Event, Reader, Refusal
from margincast.serving.live.faults import Fault

BOOK = {
    "table": "book",
    "symbol": "A",
    "ts": "2026-01-01T00:00:01Z",
    "bid_price_0": 1.0,
    "bid_size_0": 2,
    "ask_price_0": 1.5,
    "ask_size_0": 3,
}
TRADE = {
    "table": "trades",
    "symbol": "A",
    "ts": "2026-01-01T01:00:01+01:00",
    "price": 1.0,
    "size": 1.0,
    "side": "buy",
}


def reader():
    return Reader(("book", "trades"), frozenset({"A"}), 2000)


def line(row, **changes):
    return json.dumps(
        {k: v for k, v in {**row, **changes}.items() if v != "absent"}, default=str
    ).encode()


def test_a_row_comes_out_as_it_was_sent():
    second = datetime(2026, 1, 1, 0, 0, 1, tzinfo=UTC)
    book = reader().read(line(BOOK, bid_price_1=None, received_at="2026-01-01T00:00:02Z"))
    assert book.row == {
        "ts": second,
        "received_at": second.replace(second=2),
        "is_valid": True,
        "bid_price_0": 1.0,
        "bid_size_0": 2.0,
        "ask_price_0": 1.5,
        "ask_size_0": 3.0,
        "bid_price_1": None,
    }
    trade = reader().read(line(TRADE))
    assert trade == Event("trades", "A", {"ts": second, "price": 1.0, "size": 1.0, "side": "buy"})


@pytest.mark.parametrize(
    ("raw", "fault", "said"),
    [
        (line(BOOK, bid_price_0=float("nan")), Fault.NOT_A_NUMBER, "bid_price_0 is not a finite"),
        (line(BOOK, bid_price_0=None), Fault.NOT_A_NUMBER, "bid_price_0 is not a finite"),
        (line(BOOK, bid_price_0="1.0"), Fault.NOT_A_NUMBER, "bid_price_0 is not a finite"),
        (line(BOOK, bid_price_0=True), Fault.NOT_A_NUMBER, "bid_price_0 is not a finite"),
        (line(BOOK, bid_price_0=10**400), Fault.NOT_A_NUMBER, "bid_price_0 is not a finite"),
        (line(BOOK, bid_price_0="absent"), Fault.BROKEN_ROW, "bid_price_0 is absent"),
        (line(BOOK, is_valid="yes"), Fault.BROKEN_ROW, "is_valid"),
        (line(BOOK, price=1.0), Fault.BROKEN_ROW, "a column that book has not"),
        (line(BOOK, ts="2026-01-01T00:00:01"), Fault.BROKEN_ROW, "ts is no ISO 8601 time"),
        (line(BOOK, ts=1_700_000_000), Fault.BROKEN_ROW, "ts is no ISO 8601 time"),
        (line(BOOK, received_at="soon"), Fault.BROKEN_ROW, "received_at is no ISO 8601 time"),
        (line(BOOK, table="quotes"), Fault.BROKEN_ROW, "table is none of book, trades"),
        (line(BOOK, symbol="B'; DROP TABLE"), Fault.BROKEN_ROW, "symbol is not among"),
        (line(TRADE, side="long"), Fault.BROKEN_ROW, "side is neither"),
        (b'{"table": "book", "table": "trades"}', Fault.BROKEN_ROW, "a name stands twice"),
        (b"[" * 1900, Fault.BROKEN_ROW, "not a JSON object"),
        (b"3", Fault.BROKEN_ROW, "not a JSON object"),
        (b"\xff", Fault.BROKEN_ROW, "not a JSON object"),
        (b" " * 2001, Fault.BROKEN_ROW, "longer than 2000 bytes"),
    ],
)
def test_what_breaks_a_rule_is_refused_whole_and_counted(raw, fault, said):
    one = reader()
    refusal = one.read(raw)
    assert isinstance(refusal, Refusal)
    assert refusal.fault is fault
    assert said in refusal.reason
    assert one.refused[refusal.table, refusal.reason] == 1
    assert not one.taken


@settings(max_examples=40)
@given(
    raw=st.binary(max_size=200)
    | st.dictionaries(
        st.sampled_from([*BOOK, "side", "price", "received_at"]),
        st.sampled_from([*BOOK.values(), None, [], {}, "", -1]),
    ).map(lambda row: json.dumps(row).encode())
)
def test_any_line_is_an_event_or_a_refusal(raw):
    one = reader()
    found = one.read(raw)
    assert isinstance(found, Event) == (one.taken.total() == 1)
    assert isinstance(found, Refusal) == (one.refused.total() == 1)


def test_what_is_not_known_of_a_bar_is_null_and_an_index_has_its_own_name():
    named = {"implied_vol": frozenset({"dvol"})}
    one = Reader(("bars", "implied_vol"), frozenset({"A"}), 2000, named=named)
    bar = {"table": "bars", "symbol": "A", "ts": "2026-01-01T00:00:00Z", "mark_open": None}
    bar |= dict.fromkeys(("open", "high", "low", "close", "volume"), 1.0)
    assert "mark_open" not in one.read(json.dumps(bar).encode()).row
    assert isinstance(one.read(json.dumps(bar | {"volume": None}).encode()), Refusal)
    index = {"table": "implied_vol", "symbol": "dvol", "ts": bar["ts"], "implied_volatility": 0.5}
    assert isinstance(one.read(json.dumps(index).encode()), Event)
    assert isinstance(one.read(json.dumps(bar | {"symbol": "dvol"}).encode()), Refusal)
