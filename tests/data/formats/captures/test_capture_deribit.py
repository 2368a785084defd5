"""Messages of Deribit as its API documentation (v2, Subscriptions) shows them."""

import json
from datetime import UTC, datetime

import pytest

from margincast.data.formats.captures.deribit import GROUPED_BOOK, DeribitDecoder
from margincast.data.formats.captures.venue import (
    AFTER_HOLE,
    CANDLES,
    HEARTBEAT,
    HOLE,
    NO_CONTENT,
    NOTICE,
    OTHER_CHANNEL,
    REPLY,
)
from margincast.data.formats.format import APPLIED, TRANSLATED, Account, Options

ARRIVAL_US = 1_700_000_000_000_000


def told(*messages):
    account, decoder = Account(), DeribitDecoder(Options())
    for row, message in enumerate(messages, start=1):
        decoder.received(json.dumps(message), "ws.1", ARRIVAL_US, row, account)
    batches = decoder.take(account, last=True)
    return account, {batch.table: batch.frame for batch in batches}


def say(channel, data):
    parameters = {"channel": channel, "data": data}
    return {"jsonrpc": "2.0", "method": "subscription", "params": parameters}


def book(change_id, previous, bids, asks, timestamp=1554373962454):
    data = {
        "type": "snapshot" if previous is None else "change",
        "timestamp": timestamp,
        "instrument_name": "BTC-PERPETUAL",
        "change_id": change_id,
        "bids": bids,
        "asks": asks,
    }
    if previous is not None:
        data["prev_change_id"] = previous
    return say("book.BTC-PERPETUAL.100ms", data)


SNAPSHOT = book(
    297217,
    None,
    [["new", 5042.34, 30.0], ["new", 5041.94, 20.0]],
    [["new", 5042.64, 40.0], ["new", 5043.3, 40.0]],
)


def test_changes_follow_by_the_number_before_them():
    account, tables = told(
        SNAPSHOT,
        book(
            297218,
            297217,
            [["delete", 5042.34, 0.0], ["change", 5041.94, 15.0]],
            [["new", 5042.5, 3.0]],
            1554373962554,
        ),
        book(297225, 297219, [], [], 1554373962654),
        book(297226, 297225, [], [], 1554373962754),
    )
    assert account.outcomes == {APPLIED: 2, AFTER_HOLE: 2}
    assert account.events[HOLE] == 1
    columns = ["bid_price_0", "bid_size_0", "bid_price_1", "ask_price_0", "ask_price_1"]
    assert tables["book"].select(columns).rows() == [
        (5042.34, 30.0, 5041.94, 5042.64, 5043.3),
        (5041.94, 15.0, None, 5042.5, 5042.64),
    ]


def test_an_unknown_action_is_rejected_and_so_makes_a_hole():
    account, _ = told(
        SNAPSHOT,
        book(297218, 297217, [["move", 5042.34, 0.0]], []),
        book(297219, 297218, [], []),
    )
    assert account.rejected == {"a value that is no action on a level": 1}
    assert account.outcomes == {APPLIED: 1, AFTER_HOLE: 1}


def test_trades():
    perpetual = {
        "trade_seq": 30289442,
        "trade_id": "48079269",
        "timestamp": 1590484512188,
        "tick_direction": 2,
        "price": 8950,
        "mark_price": 8948.9,
        "instrument_name": "BTC-PERPETUAL",
        "index_price": 8955.88,
        "direction": "sell",
        "amount": 10,
        "liquidation": "T",
    }
    option = perpetual | {"instrument_name": "BTC-28JUN24-60000-C", "iv": 56.83}
    del option["liquidation"]
    account, tables = told(say("trades.BTC-PERPETUAL.raw", [perpetual, option]))
    assert account.outcomes == {TRANSLATED: 1}
    first, second = tables["trades"].drop("ts", "received_at").to_dicts()
    assert first == {
        "symbol": "BTC-PERPETUAL",
        "price": 8950.0,
        "size": 10.0,
        "side": "sell",
        "trade_id": "48079269",
        "sequence": 30289442,
        "mark_price": 8948.9,
        "index_price": 8955.88,
        "implied_volatility": None,
        "liquidation": "T",
        "block_trade_id": None,
        "tick_direction": 2,
        "_row": 1,
    }
    assert second["implied_volatility"] == pytest.approx(0.5683)
    assert second["liquidation"] is None


OPTION = {
    "underlying_price": 2003.61,
    "underlying_index": "ETH-30JUL21",
    "timestamp": 1626993723632,
    "stats": {"volume": 869.0, "price_change": 0.0, "low": 0.0015, "high": 0.0025},
    "state": "open",
    "settlement_price": 0.0,
    "open_interest": 12685.0,
    "min_price": 0.0001,
    "max_price": 0.025,
    "mark_price": 0.001972,
    "mark_iv": 120.74,
    "last_price": 0.002,
    "interest_rate": 0.0,
    "instrument_name": "ETH-30JUL21-2800-C",
    "index_price": 2006.72,
    "greeks": {"vega": 0.2, "theta": -1.64, "rho": 0.01, "gamma": 0.0002, "delta": 0.03127},
    "estimated_delivery_price": 2006.72,
    "bid_iv": 0.0,
    "best_bid_price": 0.0,
    "best_bid_amount": 0.0,
    "best_ask_price": 0.0025,
    "best_ask_amount": 873.0,
    "ask_iv": 125.63,
}


def test_a_ticker_of_an_option_is_a_row_of_the_chain():
    _, tables = told(say("ticker.ETH-30JUL21-2800-C.raw", OPTION))
    (row,) = tables["options"].to_dicts()
    assert (row["symbol"], row["instrument"]) == ("ETH", "ETH-30JUL21-2800-C")
    assert (row["option_type"], row["strike"]) == ("call", 2800.0)
    assert row["expiry"] == datetime(2021, 7, 30, 8, tzinfo=UTC)
    assert row["implied_volatility"] == pytest.approx(1.2074)
    assert row["ask_implied_volatility"] == pytest.approx(1.2563)
    # nobody bids: Deribit writes zeros
    assert [row[f"bid_{what}"] for what in ("price", "size", "implied_volatility")] == [None] * 3
    assert (row["ask_price"], row["mark_price"], row["delta"]) == (0.0025, 0.001972, 0.03127)
    assert (row["underlying_price"], row["index_price"]) == (2003.61, 2006.72)


@pytest.mark.parametrize(
    ("name", "currency", "strike", "kind", "expiry"),
    [
        ("BTC-1JAN27-100000-P", "BTC", 100_000.0, "put", datetime(2027, 1, 1, 8, tzinfo=UTC)),
        ("XRP_USDC-30JUN24-0d625-C", "XRP", 0.625, "call", datetime(2024, 6, 30, 8, tzinfo=UTC)),
    ],
)
def test_the_terms_of_an_option_are_in_its_name(name, currency, strike, kind, expiry):
    _, tables = told(say(f"ticker.{name}.raw", OPTION | {"instrument_name": name}))
    columns = ["symbol", "strike", "option_type", "expiry"]
    assert tables["options"].select(columns).row(0) == (currency, strike, kind, expiry)


@pytest.mark.parametrize("name", ["BTC-PERPETUAL", "BTC-30FEB24-1-C", "BTC-30FOO24-1-C"])
def test_what_is_no_name_of_an_option_is_rejected(name):
    account, tables = told(say(f"ticker.{name}.raw", OPTION | {"instrument_name": name}))
    assert not tables
    assert account.rejected.total() == 1


def test_a_ticker_of_a_perpetual_tells_funding_and_open_interest():
    ticker = {
        "timestamp": 1623060194301,
        "state": "open",
        "settlement_price": 36169.49,
        "open_interest": 502097590,
        "min_price": 35898.37,
        "max_price": 36991.72,
        "mark_price": 36446.51,
        "last_price": 36457.5,
        "instrument_name": "BTC-PERPETUAL",
        "index_price": 36441.64,
        "funding_8h": 0.0000211,
        "current_funding": 0.00001,
        "best_bid_price": 36442.5,
        "best_bid_amount": 5000,
        "best_ask_price": 36443,
        "best_ask_amount": 100,
    }
    _, tables = told(say("ticker.BTC-PERPETUAL.raw", ticker))
    (row,) = tables["derivative_ticker"].drop("ts", "received_at").to_dicts()
    assert row == {
        "symbol": "BTC-PERPETUAL",
        "last_price": 36457.5,
        "mark_price": 36446.51,
        "index_price": 36441.64,
        "open_interest": 502097590.0,
        "funding_rate": 0.00001,
        "funding_rate_8h": 0.0000211,
        "bid_price_0": 36442.5,
        "bid_size_0": 5000.0,
        "ask_price_0": 36443.0,
        "ask_size_0": 100.0,
        "_row": 1,
    }


def test_what_is_not_stored_is_counted_by_kind():
    grouped = {"timestamp": 1, "instrument_name": "BTC-PERPETUAL", "bids": [[1, 2]], "asks": []}
    account, tables = told(
        {"jsonrpc": "2.0", "id": 0, "result": ["trades.BTC-PERPETUAL.raw"]},
        {"jsonrpc": "2.0", "method": "heartbeat", "params": {"type": "test_request"}},
        {"jsonrpc": "2.0", "method": "notice", "params": {}},
        say("chart.trades.BTC-PERPETUAL.1", {}),
        say("platform_state", {}),
        say("book.BTC-PERPETUAL.none.10.100ms", grouped),
        say("trades.BTC-PERPETUAL.raw", []),
    )
    assert not tables
    kinds = (REPLY, HEARTBEAT, NOTICE, CANDLES, OTHER_CHANNEL, GROUPED_BOOK, NO_CONTENT)
    assert account.outcomes == dict.fromkeys(kinds, 1)
