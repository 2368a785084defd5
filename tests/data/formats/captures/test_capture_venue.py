"""What all decoders of recorded venues hold to: no broken message is lost, none is half used."""

import json
from copy import deepcopy
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from margincast.data.formats.captures.recording import EXCHANGES
from margincast.data.formats.captures.venue import CLOCK_BEHIND, ROWS_BEYOND
from margincast.data.formats.format import APPLIED, TRANSLATED, Account, Options

NOW_MS = 1_700_000_000_000
EVERY_STATE = Options(book_every=timedelta(0), book_levels=2)

# a book, its update, two trades and a ticker of each venue, as its documentation shows them
_BYBIT = {"s": "BTCUSDT", "b": [["16493.5", "0.006"]], "a": [["16611", "0.029"]], "seq": 7}
_TRADE = {"T": NOW_MS, "s": "BTCUSDT", "S": "Buy", "v": "0.001", "p": "16578.50", "i": "20f4"}
_OKX = {"bids": [["1", "2", "0", "1"]], "asks": [["3", "4", "0", "1"]], "ts": str(NOW_MS)}
_KRAKEN = {"product_id": "PI_XBTUSD", "timestamp": NOW_MS}
_DERIBIT = {"timestamp": NOW_MS, "instrument_name": "BTC-28JUN24-60000-C"}
_DERIBIT_QUOTE = {"best_bid_price": 0.1, "best_bid_amount": 1, "best_ask_price": 0.2}
MESSAGES = {
    "BYBIT": [
        {"topic": "orderbook.50.B", "type": "snapshot", "ts": NOW_MS, "data": _BYBIT | {"u": 2}},
        {"topic": "orderbook.50.B", "type": "delta", "ts": NOW_MS, "data": _BYBIT | {"u": 3}},
        {"topic": "publicTrade.B", "data": [_TRADE, _TRADE | {"BT": True, "RPI": False}]},
        {"topic": "tickers.B", "type": "snapshot", "ts": NOW_MS, "data": {"symbol": "B"}},
        {"topic": "allLiquidation.B", "data": [_TRADE]},
    ],
    "OKX": [
        {"arg": {"channel": "books", "instId": "B"}, "action": "snapshot", "data": [_OKX]},
        {"arg": {"channel": "books", "instId": "B"}, "action": "update", "data": [_OKX]},
        {
            "arg": {"channel": "trades", "instId": "B"},
            "data": 2
            * [
                {
                    "instId": "B",
                    "tradeId": "1",
                    "px": "1",
                    "sz": "2",
                    "side": "buy",
                    "ts": str(NOW_MS),
                }
            ],
        },
    ],
    "BITGET": [
        {
            "arg": {"instType": "mc", "channel": "books", "instId": "B"},
            "action": "snapshot",
            "data": [_OKX],
        },
        {
            "arg": {"instType": "sp", "channel": "trade", "instId": "B"},
            "data": 2 * [[str(NOW_MS), "1", "2", "sell"]],
        },
    ],
    "COINBASE": [
        {
            "channel": "l2_data",
            "timestamp": "2023-11-14T22:13:20.1Z",
            "sequence_num": 0,
            "events": [
                {
                    "type": "snapshot",
                    "product_id": "B",
                    "updates": [{"side": "bid", "price_level": "1", "new_quantity": "2"}],
                }
            ],
        },
        {
            "channel": "market_trades",
            "timestamp": "2023-11-14T22:13:20.1Z",
            "sequence_num": 1,
            "events": [
                {
                    "trades": 2
                    * [
                        {
                            "trade_id": "1",
                            "product_id": "B",
                            "price": "1",
                            "size": "2",
                            "side": "BUY",
                            "time": "2023-11-14T22:13:20Z",
                        }
                    ]
                }
            ],
        },
    ],
    "DERIBIT": [
        {
            "method": "subscription",
            "params": {
                "channel": "book.B.raw",
                "data": _DERIBIT
                | {"type": "snapshot", "change_id": 1, "bids": [["new", 1, 2]], "asks": []},
            },
        },
        {
            "method": "subscription",
            "params": {
                "channel": "ticker.B.raw",
                "data": _DERIBIT
                | _DERIBIT_QUOTE
                | {"best_ask_amount": 1, "mark_iv": 50, "bid_iv": 49, "ask_iv": 51}
                | dict.fromkeys(("last_price", "mark_price", "open_interest"), 1)
                | dict.fromkeys(("underlying_price", "index_price", "interest_rate"), 1)
                | {"greeks": dict.fromkeys(("delta", "gamma", "vega", "theta", "rho"), 0.1)},
            },
        },
    ],
    "KRAKEN_FUTURES": [
        _KRAKEN | {"feed": "book_snapshot", "seq": 1, "bids": [{"price": 1, "qty": 2}], "asks": []},
        _KRAKEN | {"feed": "book", "seq": 2, "side": "buy", "price": 1, "qty": 3},
        {
            "feed": "trade",
            "product_id": "B",
            "uid": "05af",
            "side": "sell",
            "type": "fill",
            "seq": 1,
            "time": NOW_MS,
            "qty": 1,
            "price": 2,
        },
    ],
}


def _decoder(exchange):
    decoder = EXCHANGES[exchange].decoder(EVERY_STATE)
    decoder.connected("ws.1", "wss://venue/v5/public/linear")
    return decoder


@pytest.mark.parametrize("exchange", MESSAGES)
def test_the_messages_above_are_sound(exchange):
    account, decoder = Account(), _decoder(exchange)
    for row, message in enumerate(MESSAGES[exchange]):
        decoder.received(json.dumps(message), "ws.1", NOW_MS * 1000, row, account)
    assert account.outcomes[APPLIED] + account.outcomes[TRANSLATED] == len(MESSAGES[exchange])


def _paths(value, path=()):
    """Ways to every part of a message."""
    yield path
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _paths(inner, (*path, key))


def _broken(message, path, put):
    if not path:
        return put
    copy = deepcopy(message)
    inner = copy
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = put
    return copy


_ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(["", "1e999", "-1", "99999999999999999999", "0", "snapshot", "1970-01-01"])
    | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=5,
)


@pytest.mark.parametrize("exchange", MESSAGES)
@settings(max_examples=60)
@given(data=st.data())
def test_a_broken_message_ends_in_one_place_and_does_no_harm(exchange, data):
    messages = MESSAGES[exchange]
    which = data.draw(st.integers(0, len(messages) - 1))
    path = data.draw(st.sampled_from([*_paths(messages[which])]))
    account, decoder = Account(), _decoder(exchange)
    for row, message in enumerate(messages):
        sent = _broken(message, path, data.draw(_ANYTHING)) if row == which else message
        decoder.received(json.dumps(sent), "ws.1", NOW_MS * 1000, row, account)
        assert account.records == row + 1
    rows = sum(len(batch.frame) for batch in decoder.take(account, last=True))
    carried = account.outcomes[APPLIED] + account.outcomes[TRANSLATED]
    assert rows <= carried + account.events[ROWS_BEYOND]
    assert account.rejected.total() <= 1


def test_a_message_received_before_it_was_sent_is_noted():
    account, decoder = Account(), _decoder("KRAKEN_FUTURES")
    for row, message in enumerate(MESSAGES["KRAKEN_FUTURES"]):
        decoder.received(json.dumps(message), "ws.1", NOW_MS * 1000 - 1, row, account)
    assert account.events[CLOCK_BEHIND] == 3
