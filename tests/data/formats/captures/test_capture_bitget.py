"""Messages of Bitget's API v1 as its documentation shows them; books: ``test_capture_checksum``."""

import json
from datetime import UTC, datetime

from margincast.data.formats.captures.bitget import BitgetDecoder
from margincast.data.formats.captures.venue import (
    CANDLES,
    NOTICE,
    OTHER_CHANNEL,
    REPLY,
    ROWS_BEYOND,
    TICKER,
)
from margincast.data.formats.format import TRANSLATED, Account, Options

ARRIVAL_US = 1_700_000_000_000_000


def told(*messages):
    account, decoder = Account(), BitgetDecoder(Options())
    for row, message in enumerate(messages, start=1):
        decoder.received(json.dumps(message), "ws.1", ARRIVAL_US, row, account)
    batches = decoder.take(account, last=True)
    return account, {(batch.venue, batch.table): batch.frame for batch in batches}


def say(market, channel, data):
    argument = {"instType": market, "channel": channel, "instId": "BTCUSDT"}
    return {"action": "snapshot", "arg": argument, "data": data}


def test_one_name_is_a_coin_and_a_contract():
    trades = [["1632470889087", "50000.1", "0.01", "sell"], ["1632470889000", "50000", "1", "buy"]]
    account, tables = told(say("sp", "trade", trades), say("mc", "trade", trades[:1]))
    assert set(tables) == {("bitget", "trades"), ("bitget-futures", "trades")}
    assert tables["bitget", "trades"].select("price", "size", "side").rows() == [
        (50000.1, 0.01, "sell"),
        (50000.0, 1.0, "buy"),
    ]
    # a message is one record, whatever number of trades it carries
    assert account.outcomes == {TRANSLATED: 2}
    assert account.events[ROWS_BEYOND] == 1


def test_tickers_of_contracts_tell_funding_and_open_interest():
    ticker = {
        "instId": "BTCUSDT",
        "last": "43161.5",
        "bestAsk": "43162",
        "bestBid": "43161",
        "high24h": "43870",
        "low24h": "42851",
        "priceChangePercent": "0.0043",
        "capitalRate": "-0.000100",
        "nextSettleTime": 1649314800000,
        "systemTime": 1649290077309,
        "markPrice": "43156.13",
        "indexPrice": "43177.78",
        "holding": "2157.8132",
        "baseVolume": "40000",
        "quoteVolume": "1726000000",
    }
    account, tables = told(
        say("mc", "ticker", [ticker]),
        say("mc", "ticker", [ticker | {"nextSettleTime": 0, "capitalRate": ""}]),
        say("sp", "ticker", [{"instId": "BTCUSDT", "bestBid": "43161", "ts": 1649290077309}]),
    )
    assert account.outcomes == {TRANSLATED: 2, TICKER: 1}
    first, second = tables["bitget-futures", "derivative_ticker"].to_dicts()
    assert first["ts"] == datetime(2022, 4, 7, 0, 7, 57, 309000, UTC)
    assert first["funding_timestamp"] == datetime(2022, 4, 7, 7, tzinfo=UTC)
    assert (first["funding_rate"], first["open_interest"]) == (-0.0001, 2157.8132)
    assert (first["mark_price"], first["index_price"]) == (43156.13, 43177.78)
    assert (second["funding_rate"], second["funding_timestamp"]) == (None, None)


def test_what_is_not_stored_is_counted_and_another_api_is_rejected():
    account, tables = told(
        {"event": "subscribe", "arg": {}},
        {"event": "maintenance"},
        say("sp", "candle1m", []),
        say("sp", "books5", []),
        say("SPOT", "trade", [{"ts": "1695709835822", "price": "26293.4", "size": "0.0013"}]),
    )
    assert not tables
    assert account.outcomes == dict.fromkeys((REPLY, NOTICE, CANDLES, OTHER_CHANNEL), 1)
    assert account.rejected == {"a value that is no market of API v1 (sp or mc)": 1}
