"""Messages of OKX as its API documentation (v5, "WS / Order book channel") shows them."""

import json

from margincast.data.formats.captures.okx import OkxDecoder
from margincast.data.formats.captures.venue import (
    AFTER_HOLE,
    CANDLES,
    HEARTBEAT,
    HOLE,
    NO_CONTENT,
    NO_SNAPSHOT,
    NOTICE,
    OTHER_CHANNEL,
    REPLY,
)
from margincast.data.formats.format import APPLIED, TRANSLATED, Account, Options

ARRIVAL_US = 1_700_000_000_000_000


def told(*messages):
    account, decoder = Account(), OkxDecoder(Options())
    for row, message in enumerate(messages, start=1):
        text = message if isinstance(message, str) else json.dumps(message)
        decoder.received(text, "ws.1", ARRIVAL_US, row, account)
    batches = decoder.take(account, last=True)
    return account, {batch.table: batch.frame for batch in batches}


def book(action, sequence, previous, bids=(), asks=(), *, ts="1597026383085"):
    data = {"asks": [*asks], "bids": [*bids], "ts": ts, "checksum": 0}
    data |= {"seqId": sequence, "prevSeqId": previous}
    return {"arg": {"channel": "books", "instId": "BTC-USDT"}, "action": action, "data": [data]}


SNAPSHOT = book(
    "snapshot",
    123456,
    -1,
    [["8476.97", "256", "0", "12"], ["8475.55", "101", "0", "1"]],
    [["8476.98", "415", "0", "13"], ["8477", "7", "0", "2"]],
)


def test_updates_follow_by_the_number_before_them():
    account, tables = told(
        SNAPSHOT,
        book("update", 123466, 123456, bids=[["8476.97", "0", "0", "0"]], ts="1597026384000"),
        # nothing changed for 60 s: the number stays
        book("update", 123466, 123466, ts="1597026384100"),
        # after maintenance numbers begin anew, and still name the one before
        book("update", 3, 123466, asks=[["8476.98", "12", "0", "1"]], ts="1597026384200"),
    )
    assert account.outcomes == {APPLIED: 4}
    assert not account.events[HOLE]
    last = tables["book"].tail(1)
    assert last.select("bid_price_0", "bid_size_0", "ask_size_0", "sequence").row(0) == (
        8475.55,
        101.0,
        12.0,
        3,
    )


def test_a_number_that_is_not_named_is_a_hole():
    account, tables = told(
        book("update", 123456, 123450),
        SNAPSHOT,
        book("update", 123470, 123466, ts="1597026384000"),
        book("update", 123471, 123470, ts="1597026384000"),
        SNAPSHOT,
    )
    assert account.outcomes == {NO_SNAPSHOT: 1, APPLIED: 2, AFTER_HOLE: 2}
    assert account.events[HOLE] == 1
    assert tables["book"]["_row"].to_list() == [2, 5]


def test_trades_and_quotes():
    trade = {"instId": "BTC-USDT", "tradeId": "130639474", "px": "42219.9", "sz": "0.12060306"}
    ticker = {"instType": "SPOT", "instId": "BTC-USDT", "last": "9999.99", "lastSz": "0.1"}
    ticker |= {"askPx": "9999.99", "askSz": "11", "bidPx": "", "bidSz": "", "ts": "1597026383085"}
    account, tables = told(
        {
            "arg": {"channel": "trades", "instId": "BTC-USDT"},
            "data": [trade | {"side": "buy", "ts": "1630048897897"}],
        },
        {"arg": {"channel": "tickers", "instId": "BTC-USDT"}, "data": [ticker]},
    )
    assert account.outcomes == {TRANSLATED: 2}
    (row,) = tables["trades"].drop("ts", "received_at").to_dicts()
    assert row == {
        "symbol": "BTC-USDT",
        "price": 42219.9,
        "size": 0.12060306,
        "side": "buy",
        "trade_id": 130639474,
        "_row": 1,
    }
    (row,) = tables["quotes"].drop("ts", "received_at").to_dicts()
    assert (row["bid_price_0"], row["bid_size_0"]) == (None, None)
    assert (row["ask_price_0"], row["ask_size_0"], row["last_price"]) == (9999.99, 11.0, 9999.99)


def test_what_is_not_market_data_is_counted_by_kind():
    argument = {"channel": "candle1m", "instId": "BTC-USDT"}
    account, tables = told(
        {"event": "subscribe", "arg": argument, "connId": "a4d3ae55"},
        {"event": "notice", "code": "64008", "msg": "service upgrade"},
        {"arg": argument, "data": []},
        {"arg": argument | {"channel": "books5"}, "data": []},
        {"arg": argument | {"channel": "trades"}, "data": []},
        "pong",
    )
    assert account.outcomes == dict.fromkeys(
        (REPLY, NOTICE, CANDLES, OTHER_CHANNEL, NO_CONTENT, HEARTBEAT), 1
    )
    assert not tables


def test_a_message_with_a_fault_is_rejected_whole():
    trade = {"instId": "A", "tradeId": "1", "px": "1", "sz": "1", "side": "buy", "ts": "1"}
    argument = {"channel": "trades", "instId": "A"}
    faulty = [{"side": "up"}, {"px": "1,5"}, {"ts": "now"}, {"tradeId": "x"}, {"instId": ""}]
    account, tables = told(
        *({"arg": argument, "data": [trade, trade | fault]} for fault in faulty),
        {"arg": argument, "data": {}},
        "pang",
        [1],
    )
    assert not tables
    assert account.rejected == {
        "a value that is no side": 1,
        "a value that is no number": 1,
        "a value that is no whole number": 2,
        "a value that is no text": 1,
        "a message of another shape than documented": 2,
        "not JSON": 1,
    }
