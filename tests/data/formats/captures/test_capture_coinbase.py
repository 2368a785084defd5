"""Messages of Coinbase Advanced Trade as its documentation ("WebSocket Channels") shows them."""

import json
from datetime import UTC, datetime

from margincast.data.formats.captures.coinbase import LATE, MISSING, CoinbaseDecoder
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
    account, decoder = Account(), CoinbaseDecoder(Options())
    for row, message in enumerate(messages, start=1):
        if message == "reconnected":
            decoder.connected("ws.1", "wss://advanced-trade-ws.coinbase.com")
        else:
            decoder.received(json.dumps(message), "ws.1", ARRIVAL_US, row, account)
    batches = decoder.take(account, last=True)
    return account, [batch.frame for batch in batches]


def say(channel, sequence, *events, second=18):
    return {
        "channel": channel,
        "client_id": "",
        "timestamp": f"2023-02-09T20:32:{second}.714964855Z",
        "sequence_num": sequence,
        "events": [*events],
    }


def book(kind, product="BTC-USD", **levels):
    """Levels as side and price joined: ``bid_21921_73=0.06``."""
    updates = []
    for name, size in levels.items():
        side, _, price = name.partition("_")
        level = {"price_level": price.replace("_", "."), "new_quantity": str(size)}
        # the documentation's snapshots have times of 1970 in their levels
        updates.append({"side": side, "event_time": "1970-01-01T00:00:00Z", **level})
    return {"type": kind, "product_id": product, "updates": updates}


def test_a_book_is_dated_by_its_message_to_the_microsecond():
    account, (books,) = told(
        say("l2_data", 0, book("snapshot", bid_21921_73=0.06, bid_21921_3=0.02, offer_21922=1)),
        say("l2_data", 1, book("update", bid_21921_73=0, offer_21922=2), second=19),
    )
    assert account.outcomes == {APPLIED: 2}
    assert books["ts"].to_list() == [
        datetime(2023, 2, 9, 20, 32, second, 714964, UTC) for second in (18, 19)
    ]
    assert books.select("bid_price_0", "bid_price_1", "ask_size_0").rows() == [
        (21921.73, 21921.3, 1.0),
        (21921.3, None, 2.0),
    ]


def test_a_missing_number_loses_all_books_of_the_connection():
    account, frames = told(
        say("l2_data", 0, book("update", bid_1=1)),
        say("l2_data", 1, book("snapshot", bid_1=1, offer_2=1)),
        say("l2_data", 2, book("snapshot", "ETH-USD", bid_1=1, offer_2=1)),
        # 3 and 4 are missing, whatever they were: this is noticed by a trade's message
        say("market_trades", 5),
        say("l2_data", 6, book("update", bid_1=2), second=19),
        say("l2_data", 7, book("update", "ETH-USD", bid_1=2), second=19),
        say("l2_data", 8, book("snapshot", bid_1=3, offer_2=1), second=20),
        say("l2_data", 4, book("update", bid_1=4), second=21),
        "reconnected",
        say("l2_data", 0, book("update", bid_1=5), second=22),
    )
    assert account.outcomes == {NO_SNAPSHOT: 2, APPLIED: 3, NO_CONTENT: 1, AFTER_HOLE: 2, LATE: 1}
    assert (account.events[MISSING], account.events[HOLE]) == (2, 2)
    assert [frame.select("_row", "bid_size_0").rows() for frame in frames] == [
        [(2, 1.0), (7, 3.0)],
        [(3, 1.0)],
    ]


def test_a_message_that_cannot_be_read_is_a_missing_number():
    account, _ = told(
        say("l2_data", 0, book("snapshot", bid_1=1, offer_2=1)),
        say("l2_data", 1, book("update", bid_1="much")),
        say("l2_data", 2, book("update", bid_1=2)),
    )
    assert account.rejected == {"a value that is no number": 1}
    assert account.outcomes == {APPLIED: 1, AFTER_HOLE: 1}


def test_a_message_of_several_products_is_one_record():
    account, frames = told(
        say("l2_data", 0, book("snapshot", bid_1=1), book("snapshot", "ETH-USD", offer_2=1)),
        say("l2_data", 1, book("update", bid_1=2), book("update", "SOL-USD", offer_2=1)),
    )
    assert account.outcomes == {APPLIED: 2}
    assert [frame["symbol"].to_list() for frame in frames] == [["BTC-USD"], ["ETH-USD"]]


def test_the_aggressor_is_the_other_side_of_the_maker():
    trade = {"trade_id": "12345", "product_id": "ETH-USD", "price": "1260.01", "size": "0.3"}
    trades = [
        trade | {"side": side, "time": "2019-08-14T20:42:27.265Z"} for side in ("BUY", "SELL")
    ]
    account, (frame,) = told(
        say("market_trades", 0, {"type": "snapshot", "trades": trades[:1]}),
        say("market_trades", 1, {"type": "update", "trades": trades[1:]}),
    )
    assert account.outcomes == {TRANSLATED: 2}
    assert frame["side"].to_list() == ["sell", "buy"]
    assert frame["trade_id"].to_list() == [12345, 12345]
    assert frame["ts"][0] == datetime(2019, 8, 14, 20, 42, 27, 265000, UTC)


def test_best_quotes():
    ticker = {
        "type": "ticker",
        "product_id": "BTC-USD",
        "price": "21932.98",
        "volume_24_h": "16038.28770938",
        "best_bid": "21931.98",
        "best_bid_quantity": "8000.21",
        "best_ask": "21933.98",
        "best_ask_quantity": "8038.07770938",
    }
    _, (frame,) = told(say("ticker", 0, {"type": "snapshot", "tickers": [ticker]}))
    (row,) = frame.select("bid_price_0", "bid_size_0", "ask_price_0", "ask_size_0").rows()
    assert row == (21931.98, 8000.21, 21933.98, 8038.07770938)


def test_what_is_not_stored_is_counted_by_kind():
    account, frames = told(
        say("subscriptions", 0, {"subscriptions": {"level2": ["BTC-USD"]}}),
        say("heartbeats", 1, {"current_time": "2023-06-23 20:31:56", "heartbeat_counter": 3049}),
        say("candles", 2, {"type": "snapshot", "candles": []}),
        say("futures_balance_summary", 3),
        say("l2_data", 4),
        {"type": "error", "message": "authentication failure"},
        say("ticker", 5) | {"timestamp": "2023-02-09T20:32:50"},
    )
    assert not frames
    kinds = (REPLY, HEARTBEAT, CANDLES, OTHER_CHANNEL, NO_CONTENT, NOTICE)
    assert account.outcomes == dict.fromkeys(kinds, 1)
    assert account.rejected == {"a value that is no time": 1}
