"""Messages of Kraken Futures as its API documentation ("WebSocket") shows them."""

import json
from datetime import UTC, datetime

import pytest

from margincast.data.formats.captures.kraken_futures import KrakenFuturesDecoder
from margincast.data.formats.captures.venue import (
    AFTER_HOLE,
    HEARTBEAT,
    HOLE,
    NOTICE,
    OTHER_CHANNEL,
    REPLY,
    ROWS_BEYOND,
    TICKER,
)
from margincast.data.formats.format import APPLIED, TRANSLATED, Account, Options

ARRIVAL_US = 1_700_000_000_000_000


def told(*messages):
    account, decoder = Account(), KrakenFuturesDecoder(Options())
    for row, message in enumerate(messages, start=1):
        decoder.received(json.dumps(message), "ws.1", ARRIVAL_US, row, account)
    batches = decoder.take(account, last=True)
    return account, {batch.table: batch.frame for batch in batches}


SNAPSHOT = {
    "feed": "book_snapshot",
    "product_id": "PI_XBTUSD",
    "timestamp": 1612269825817,
    "seq": 326072249,
    "tickSize": None,
    "bids": [{"price": 34892.5, "qty": 6385}, {"price": 34892, "qty": 10924}],
    "asks": [{"price": 34911.5, "qty": 20598}, {"price": 34912, "qty": 2300}],
}
UPDATE = {
    "feed": "book",
    "product_id": "PI_XBTUSD",
    "side": "sell",
    "seq": 326072250,
    "price": 34911.5,
    "qty": 0,
    "timestamp": 1612269953629,
}
TRADE = {
    "feed": "trade",
    "product_id": "PI_XBTUSD",
    "uid": "05af78ac-a774-478c-a50c-8b9c234e071e",
    "side": "sell",
    "type": "liquidation",
    "seq": 653355,
    "time": 1612266317519,
    "qty": 15000,
    "price": 34969.5,
}


def test_levels_follow_by_one_for_each_product():
    account, tables = told(
        SNAPSHOT,
        SNAPSHOT | {"product_id": "PI_ETHUSD", "seq": 7},
        UPDATE,
        UPDATE | {"product_id": "PI_ETHUSD", "seq": 8, "side": "buy", "price": 34892.5},
    )
    assert account.outcomes == {APPLIED: 4}
    assert not account.events[HOLE]
    # the table of the last product told
    assert tables["book"].select("bid_price_0", "ask_price_0").rows() == [
        (34892.5, 34911.5),
        (34892.0, 34911.5),
    ]


def test_a_left_out_number_is_a_hole_until_the_next_snapshot():
    account, tables = told(
        SNAPSHOT,
        UPDATE | {"seq": 326072251},
        UPDATE | {"seq": 326072252},
        SNAPSHOT | {"seq": 326072260, "timestamp": 1612269960000},
        UPDATE | {"seq": 326072261, "timestamp": 1612269960200},
    )
    assert account.outcomes == {APPLIED: 3, AFTER_HOLE: 2}
    assert account.events[HOLE] == 1
    assert tables["book"].select("_row", "ask_price_0").rows() == [
        (1, 34911.5),
        (4, 34911.5),
        (5, 34912.0),
    ]


def test_trades_of_a_snapshot_are_trades_too():
    snapshot = {"feed": "trade_snapshot", "product_id": "PI_XBTUSD", "trades": [TRADE, TRADE]}
    account, tables = told(snapshot, TRADE | {"type": "fill", "seq": 653356})
    assert account.outcomes == {TRANSLATED: 2}
    assert account.events[ROWS_BEYOND] == 1
    assert tables["trades"].row(0, named=True) == {
        "symbol": "PI_XBTUSD",
        "ts": datetime(2021, 2, 2, 11, 45, 17, 519000, UTC),
        "received_at": datetime.fromtimestamp(ARRIVAL_US / 1e6, UTC),
        "price": 34969.5,
        "size": 15000.0,
        "side": "sell",
        "trade_id": "05af78ac-a774-478c-a50c-8b9c234e071e",
        "sequence": 653355,
        "trade_type": "liquidation",
        "_row": 1,
    }
    assert tables["trades"]["trade_type"].to_list() == ["liquidation", "liquidation", "fill"]


def test_the_funding_rate_of_a_ticker_is_the_relative_one():
    # a message of PF_XBTUSD on 2026-08-06; funding_rate is USD a contract of one bitcoin
    ticker = {
        "time": 1786046338005,
        "product_id": "PF_XBTUSD",
        "funding_rate": 0.1767923925826881,
        "funding_rate_prediction": -0.045351956680625,
        "relative_funding_rate": 2.747066666667e-6,
        "relative_funding_rate_prediction": -7.043125e-7,
        "next_funding_rate_time": 1786046400000,
        "feed": "ticker",
        "bid": 64401.0,
        "ask": 64402.0,
        "bid_size": 0.1239,
        "ask_size": 0.1179,
        "index": 64401.07,
        "last": 64403.0,
        "openInterest": 2157.6281,
        "markPrice": 64399.68035588646,
        "maturityTime": 0,
    }
    future = {
        name: value
        for name, value in ticker.items()
        if "funding" not in name and name not in ("bid", "bid_size")
    }
    account, tables = told(ticker, future | {"product_id": "FI_XBTUSD_260925"})
    assert account.outcomes == {TRANSLATED: 2}
    first, second = tables["derivative_ticker"].drop("ts", "received_at").to_dicts()
    assert first == {
        "symbol": "PF_XBTUSD",
        "last_price": 64403.0,
        "mark_price": 64399.68035588646,
        "index_price": 64401.07,
        "open_interest": 2157.6281,
        "funding_rate": 2.747066666667e-6,
        "predicted_funding_rate": -7.043125e-7,
        "bid_price_0": 64401.0,
        "bid_size_0": 0.1239,
        "ask_price_0": 64402.0,
        "ask_size_0": 0.1179,
        "funding_timestamp": datetime(2026, 8, 6, 20, tzinfo=UTC),
        "_row": 1,
    }
    not_told = ("funding_rate", "predicted_funding_rate", "funding_timestamp", "bid_price_0")
    assert [second[name] for name in not_told] == [None] * 4
    # the two rates of the message agree
    in_money = first["funding_rate"] * first["index_price"]
    assert in_money == pytest.approx(ticker["funding_rate"], rel=0.01)


def test_what_is_not_stored_is_counted_by_kind():
    account, tables = told(
        {"event": "subscribed", "feed": "book", "product_ids": ["PI_XBTUSD"]},
        {"event": "info", "version": 1},
        {"feed": "ticker_lite", "product_id": "PI_XBTUSD", "bid": 34932, "ask": 34949.5},
        {"feed": "heartbeat", "time": 1534262350627},
        {"feed": "open_orders"},
        UPDATE | {"side": "hold"},
        UPDATE | {"seq": 1.5},
    )
    assert not tables
    kinds = (REPLY, NOTICE, TICKER, HEARTBEAT, OTHER_CHANNEL)
    assert account.outcomes == dict.fromkeys(kinds, 1)
    assert account.rejected == {"a value that is no side": 1, "a value that is no whole number": 1}
