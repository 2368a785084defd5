"""Messages of Bybit as its API documentation (v5, "WebSocket Stream: Public") shows them."""

import json
from datetime import UTC, datetime

from margincast.data.formats.captures.bybit import BEFORE_TICKER, BybitDecoder
from margincast.data.formats.captures.venue import (
    AFTER_HOLE,
    CANDLES,
    HEARTBEAT,
    HOLE,
    NO_SNAPSHOT,
    OTHER_CHANNEL,
    REPLY,
    TICKER,
)
from margincast.data.formats.format import APPLIED, TRANSLATED, Account, Options

ARRIVAL_US = 1_700_000_000_000_000


def told(*messages, market="linear"):
    account, decoder = Account(), BybitDecoder(Options())
    decoder.connected("ws.1", f"wss://stream.bybit.com/v5/public/{market}")
    for row, message in enumerate(messages, start=1):
        if message == "reconnected":
            decoder.connected("ws.1", f"wss://stream.bybit.com/v5/public/{market}")
        else:
            decoder.received(json.dumps(message), "ws.1", ARRIVAL_US, row, account)
    batches = decoder.take(account, last=True)
    return account, {(batch.venue, batch.table): batch.frame for batch in batches}


def book(kind, update_id, bids=(), asks=(), cts=1672304484978):
    return {
        "topic": "orderbook.50.BTCUSDT",
        "type": kind,
        "ts": cts + 5,
        "data": {"s": "BTCUSDT", "b": [*bids], "a": [*asks], "u": update_id, "seq": 7961638724},
        "cts": cts,
    }


SNAPSHOT = book(
    "snapshot",
    18521288,
    [["16493.50", "0.006"], ["16493.00", "0.100"]],
    [["16611.00", "0.029"], ["16612.00", "0.213"]],
)


def test_deltas_follow_by_one_and_are_dated_by_their_message():
    account, tables = told(
        SNAPSHOT,
        book("delta", 18521289, [["16493.50", "0"]], [["16610.00", "1.5"]], cts=1672304485978),
    )
    assert account.outcomes == {APPLIED: 2}
    last = tables["bybit", "book"].row(-1, named=True)
    assert last["ts"] == datetime(2022, 12, 29, 9, 1, 25, 983000, UTC)
    assert (last["bid_price_0"], last["ask_price_0"], last["ask_price_1"]) == (16493, 16610, 16611)
    assert last["sequence"] == 18521289


def test_a_left_out_update_is_a_hole_and_a_restart_is_a_snapshot():
    account, tables = told(
        book("delta", 18521287),
        SNAPSHOT,
        book("delta", 18521290, cts=1672304485978),
        book("delta", 18521291, cts=1672304485978),
        book("delta", 1, [["16000", "1"]], [["17000", "2"]], cts=1672304486978),
        book("delta", 2, [["16001", "1"]], cts=1672304487978),
        "reconnected",
        book("delta", 3, [["16002", "1"]], cts=1672304488978),
    )
    assert account.outcomes == {NO_SNAPSHOT: 2, APPLIED: 3, AFTER_HOLE: 2}
    assert account.events[HOLE] == 1
    columns = ["bid_price_0", "ask_price_0", "ask_price_1"]
    assert tables["bybit", "book"].select("_row", *columns).rows() == [
        (2, 16493.5, 16611.0, 16612.0),
        (5, 16000.0, 17000.0, None),
        (6, 16001.0, 17000.0, None),
    ]


def test_another_connection_does_not_change_a_book():
    account, decoder = Account(), BybitDecoder(Options())
    for connection in ("ws.1", "ws.2"):
        decoder.connected(connection, "wss://stream.bybit.com/v5/public/linear")
    told_by = {"ws.1": [SNAPSHOT, book("delta", 18521289)], "ws.2": [book("delta", 18521289)]}
    for connection, messages in told_by.items():
        for message in messages:
            decoder.received(json.dumps(message), connection, ARRIVAL_US, 1, account)
    assert account.outcomes == {APPLIED: 2, NO_SNAPSHOT: 1}
    assert not account.events[HOLE]


def test_trades_are_the_takers_and_spot_is_a_venue_of_its_own():
    trade = {
        "topic": "publicTrade.BTCUSDT",
        "type": "snapshot",
        "ts": 1672304486868,
        "data": [
            {
                "T": 1672304486865,
                "s": "BTCUSDT",
                "S": "Buy",
                "v": "0.001",
                "p": "16578.50",
                "L": "PlusTick",
                "i": "20f43950-d8dd-5b31-9112-a178eb6023af",
                "BT": False,
                "seq": 1783284617,
            }
        ],
    }
    for market, venue in (("linear", "bybit"), ("inverse", "bybit"), ("spot", "bybit-spot")):
        _, tables = told(trade, market=market)
        (row,) = tables[venue, "trades"].drop("received_at").to_dicts()
    assert row == {
        "symbol": "BTCUSDT",
        "ts": datetime(2022, 12, 29, 9, 1, 26, 865000, UTC),
        "price": 16578.5,
        "size": 0.001,
        "side": "buy",
        "trade_id": "20f43950-d8dd-5b31-9112-a178eb6023af",
        "tick_direction": "PlusTick",
        "is_block_trade": False,
        "is_rpi_trade": None,
        "sequence": 1783284617,
        "_row": 1,
    }


def test_a_liquidated_long_is_sold():
    account, tables = told(
        {
            "topic": "allLiquidation.ROSEUSDT",
            "type": "snapshot",
            "ts": 1739502303204,
            "data": [
                {"T": 1739502302929, "s": "ROSEUSDT", "S": "Buy", "v": "20000", "p": "0.04499"},
                {"T": 1739502302930, "s": "ROSEUSDT", "S": "Sell", "v": "1", "p": "0.045"},
            ],
        },
        {
            "topic": "liquidation.BTCUSDT",
            "type": "snapshot",
            "ts": 1703485237953,
            "data": {
                "updatedTime": 1703485237953,
                "symbol": "BTCUSDT",
                "side": "Sell",
                "size": "0.003",
                "price": "43511.70",
            },
        },
    )
    assert account.outcomes == {TRANSLATED: 2}
    rows = tables["bybit", "liquidations"].select("symbol", "price", "size", "side").rows()
    assert rows == [
        ("ROSEUSDT", 0.04499, 20000.0, "sell"),
        ("ROSEUSDT", 0.045, 1.0, "buy"),
        ("BTCUSDT", 43511.7, 0.003, "buy"),
    ]


def ticker(kind, ts=1673272861686, **fields):
    data = {"symbol": "BTCUSDT", **fields}
    return {"topic": "tickers.BTCUSDT", "type": kind, "data": data, "cs": 24987956059, "ts": ts}


def test_a_ticker_says_all_that_is_in_force_and_nothing_it_never_said():
    account, tables = told(
        ticker("delta", markPrice="17216"),
        ticker(
            "snapshot",
            lastPrice="17216.00",
            markPrice="17217.33",
            indexPrice="17227.36",
            openInterest="68744.761",
            openInterestValue="1183601235.91",
            nextFundingTime="1673280000000",
            fundingRate="-0.000212",
            bid1Price="17215.50",
            bid1Size="84.489",
        ),
        ticker("delta", fundingRate="-0.0001", lastPrice="17217"),
        "reconnected",
        ticker("delta", lastPrice="17218"),
    )
    assert account.outcomes == {BEFORE_TICKER: 2, TRANSLATED: 2}
    first, second = tables["bybit", "derivative_ticker"].to_dicts()
    assert (first["last_price"], first["funding_rate"]) == (17216.0, -0.000212)
    assert first["funding_timestamp"] == datetime(2023, 1, 9, 16, tzinfo=UTC)
    changed = {"last_price": 17217.0, "funding_rate": -0.0001, "_row": 3}
    assert second == first | changed
    assert (first["ask_price_0"], first["ask_size_0"]) == (None, None)


def test_a_ticker_with_a_fault_leaves_what_is_in_force_alone():
    account, tables = told(
        ticker("snapshot", lastPrice="17216.00"),
        ticker("delta", lastPrice="high"),
        ticker("delta", fundingRate=""),
    )
    assert account.rejected == {"a value that is no number": 1}
    rows = tables["bybit", "derivative_ticker"].select("last_price", "funding_rate").rows()
    assert rows == [(17216.0, None), (17216.0, None)]


def test_what_is_not_stored_is_counted_by_kind():
    account, tables = told(
        {"success": True, "ret_msg": "subscribe", "conn_id": "1", "op": "subscribe"},
        {"success": True, "ret_msg": "pong", "conn_id": "1", "op": "ping"},
        {"topic": "kline.5.BTCUSDT", "data": [], "ts": 1672324988882, "type": "snapshot"},
        {"topic": "orderbook.rpi.BTCUSDT", "type": "snapshot", "ts": 1, "data": {}},
        ticker("snapshot", lastPrice="1"),
        market="spot",
    )
    assert not tables
    kinds = (REPLY, HEARTBEAT, CANDLES, OTHER_CHANNEL, TICKER)
    assert account.outcomes == dict.fromkeys(kinds, 1)


def test_a_message_of_an_unknown_market_is_rejected():
    account, tables = told(SNAPSHOT, market="v9")
    assert not tables
    assert account.rejected == {"a value that is no address of a known market": 1}
