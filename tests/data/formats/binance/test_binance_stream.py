"""Recordings of Binance's streams become rows and true books, every message accounted for."""

import gzip
import json
import shutil
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from margincast.core.errors import InputError
from margincast.data.formats.binance import stream as binance_stream
from margincast.data.formats.binance.decoder import (
    CLOCK_BEHIND,
    PARTIAL_BOOK,
    ROWS_BEYOND,
    SECOND_STREAM,
    UNATTRIBUTED,
    BinanceDecoder,
)
from margincast.data.formats.binance.depth import (
    ALREADY_APPLIED,
    HOLE,
    NO_SNAPSHOT,
    RECEIVE_TIME,
    UNJOINED_SNAPSHOT,
)
from margincast.data.formats.binance.stream import (
    BESIDE_UPDATES,
    EMPTY_LINE,
    NAME_TIME,
    NO_LINE,
)
from margincast.data.formats.format import APPLIED, TRANSLATED, Account, Hints, Options
from margincast.data.formats.json_text import lines_of
from margincast.data.formats.source import Source
from margincast.data.formats.testing import check_format, read_whole

EVERY_STATE = Options(book_every=timedelta(0))
RAW = "Binance raw websocket lines"
MESSAGES = "Binance JSON messages"
SNAPSHOT = "Binance depth snapshot"
DEPTH = "Binance historical depth"

# The examples of the venue's documentation, "Web Socket Streams" for spot and "Websocket Market
# Streams" for USD-M futures, with ids and times made to follow one another.
SPOT_LINES = """\
1672515782200000001 {"stream":"bnbbtc@depth@100ms","data":{"e":"depthUpdate","E":1672515782136,"s":"BNBBTC","U":157,"u":160,"b":[["0.0024","10"]],"a":[["0.0026","100"]]}}
1672515782210000000 {"lastUpdateId":158,"bids":[["0.0024","9"],["0.0023","5"]],"asks":[["0.0025","1"],["0.0026","2"]]}
1672515782300000000 {"stream":"bnbbtc@depth@100ms","data":{"e":"depthUpdate","E":1672515782236,"s":"BNBBTC","U":161,"u":161,"b":[],"a":[["0.0025","0.00000000"]]}}
1672515782300000001 {"stream":"bnbbtc@trade","data":{"e":"trade","E":1672515782136,"s":"BNBBTC","t":12345,"p":"0.001","q":"100","T":1672515782135,"m":true,"M":true}}
1672515782300000002 {"stream":"bnbbtc@aggTrade","data":{"e":"aggTrade","E":1672515782136,"s":"BNBBTC","a":12345,"p":"0.001","q":"100","f":100,"l":105,"T":1672515782134,"m":false,"M":true}}
1672515782300000003 {"stream":"bnbbtc@bookTicker","data":{"u":400900217,"s":"BNBBTC","b":"0.0024","B":"31.21000000","a":"0.0026","A":"40.66000000"}}
1672515782300000004 {"stream":"bnbbtc@kline_1m","data":{"e":"kline","E":1672515782136,"s":"BNBBTC","k":{}}}
1672515782300000005 {"result":null,"id":1}
"""  # noqa: E501 - a message is one line

FUTURES_LINES = """\
1700000000001000000 {"stream":"btcusdt@depth@0ms","data":{"e":"depthUpdate","E":1700000000000,"T":1699999999999,"s":"BTCUSDT","U":157,"u":160,"pu":149,"b":[["9.5","10"]],"a":[["10","100"]]}}
1700000000002000000 {"lastUpdateId":152,"E":1700000000000,"T":1699999999998,"bids":[["9","1"]],"asks":[["10","2"]]}
1700000000003000000 {"stream":"btcusdt@trade","data":{"e":"trade","E":1700000000001,"T":1700000000000,"s":"BTCUSDT","t":4,"p":"10","q":"1","X":"MARKET","m":false}}
1700000000003000000 {"stream":"opusdt@trade","data":{"e":"trade","E":1704282915916,"T":1704282915915,"s":"OPUSDT","t":460859189,"p":"3.7041208","q":"3.5","X":"INSURANCE_FUND","m":true}}
1700000000004000000 {"stream":"btcusdt@markPrice","data":{"e":"markPriceUpdate","E":1562305380000,"s":"BTCUSDT","p":"11794.15000000","i":"11784.62659091","P":"11784.25641265","r":"0.00038167","T":1562306400000}}
1700000000005000000 {"stream":"btcusdt@forceOrder","data":{"e":"forceOrder","E":1568014460893,"o":{"s":"BTCUSDT","S":"SELL","o":"LIMIT","f":"IOC","q":"0.014","p":"9910","ap":"9905","X":"FILLED","l":"0.002","z":"0.013","T":1568014460892}}}
1700000000006000000 {"stream":"!markPrice@arr@1s","data":[{"e":"markPriceUpdate","E":1562305380000,"s":"ETHUSDT","p":"200.1","i":"200","P":"","r":"","T":0},{"e":"markPriceUpdate","E":1562305380000,"s":"BNBUSDT","p":"30","i":"30.5","P":"30","r":"-0.0001","T":1562306400000}]}
1700000000007000000 {"stream":"btcusdt@depth20@100ms","data":{"e":"depthUpdate","E":1,"T":1,"s":"BTCUSDT","U":1,"u":2,"pu":0,"b":[],"a":[]}}
1700000000008000000 {"stream":"btcusdt@bookTicker","data":{"e":"bookTicker","u":400900217,"E":1568014460893,"T":1568014460891,"s":"BTCUSDT","b":"25.3519","B":"31.21","a":"25.3652","A":"40.66"}}
"""  # noqa: E501 - a message is one line


def at(milliseconds, microseconds=0):
    return datetime.fromtimestamp(0, UTC) + timedelta(
        milliseconds=milliseconds, microseconds=microseconds
    )


def written(tmp_path, text, name="recording.gz"):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    content = text.encode() if isinstance(text, str) else text
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return Source(path)


def test_spot_messages_of_the_documentation(tmp_path):
    read = check_format(written(tmp_path, SPOT_LINES), RAW, options=EVERY_STATE)
    assert read.match.venue == "binance"
    assert read.account.outcomes == {
        APPLIED: 3,
        TRANSLATED: 3,
        "not stored: kline": 1,
        "not stored: subscription reply": 1,
    }
    assert read.account.events == {RECEIVE_TIME: 1}
    book = read.table("book")
    assert book.select(
        "ts", "received_at", "sequence", "bid_size_0", "bid_price_1", "ask_price_0", "_row"
    ).rows() == [
        (at(1672515782136), at(1672515782210), 160, 10.0, 0.0023, 0.0025, 1),
        (at(1672515782236), at(1672515782300), 161, 10.0, 0.0023, 0.0026, 3),
    ]
    assert read.table("trades").select(
        "symbol", "ts", "received_at", "price", "size", "side", "trade_id", "kind"
    ).rows() == [
        ("BNBBTC", at(1672515782135), at(1672515782300, 1), 0.001, 100.0, "sell", 12345, None)
    ]
    assert read.table("aggregate_trades").select(
        "ts", "side", "trade_id", "first_trade_id", "last_trade_id"
    ).rows() == [(at(1672515782134), "buy", 12345, 100, 105)]
    # a spot best quote has no time but that of its arrival
    assert read.table("quotes").select("ts", "received_at", "sequence", "ask_size_0").rows() == [
        (at(1672515782300, 1), at(1672515782300, 1), 400900217, 40.66)
    ]


def test_futures_messages_of_the_documentation(tmp_path):
    read = read_whole(written(tmp_path, FUTURES_LINES), options=EVERY_STATE)
    assert (read.form.name, read.match.venue) == (RAW, "binance-futures")
    assert read.account.outcomes == {APPLIED: 2, TRANSLATED: 6, PARTIAL_BOOK: 1}
    assert read.account.events == {ROWS_BEYOND: 1, CLOCK_BEHIND: 1}
    # U = 157 is beyond the snapshot's 152, but pu = 149 says that nothing was between
    assert read.table("book").select("ts", "sequence", "bid_price_0", "ask_size_0").rows() == [
        (at(1699999999998), 152, 9.0, 2.0),
        (at(1699999999999), 160, 9.5, 100.0),
    ]
    assert read.table("trades").select("symbol", "side", "kind").rows() == [
        ("BTCUSDT", "buy", "market"),
        ("OPUSDT", "sell", "insurance_fund"),
    ]
    assert read.table("derivative_ticker").select(
        "symbol", "ts", "mark_price", "index_price", "funding_rate", "funding_timestamp"
    ).rows() == [
        ("BTCUSDT", at(1562305380000), 11794.15, 11784.62659091, 0.00038167, at(1562306400000)),
        ("ETHUSDT", at(1562305380000), 200.1, 200.0, None, None),
        ("BNBUSDT", at(1562305380000), 30.0, 30.5, -0.0001, at(1562306400000)),
    ]
    # what was executed and at what average price, not what was ordered
    assert read.table("liquidations").select(
        "ts", "price", "size", "side", "order_price", "original_quantity"
    ).rows() == [(at(1568014460892), 9905.0, 0.013, "sell", 9910.0, 0.014)]
    assert read.table("quotes")["ts"].to_list() == [at(1568014460891)]


SOUND = SPOT_LINES.splitlines()[3]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (SOUND.replace('"p":"0.001"', '"p":"0,001"'), "a value that is no number"),
        (SOUND.replace('"p":"0.001",', ""), "a message without 'p'"),
        (SOUND.replace('"T":1672515782135', '"T":"soon"'), "a value that is no whole number"),
        (SOUND.replace("true", "1"), "a message of another shape than documented"),
        (SOUND.replace('"s":"BNBBTC"', '"s":""'), "a message of another shape than documented"),
        (SOUND.replace('"e":"trade"', '"e":["trade"]'), "a message of another shape than"),
        (SOUND[:-3], "not JSON"),
        ("timestamp,message", NO_LINE),
        (SOUND[10:], NO_LINE),
        (SOUND[:20] + "17", NO_LINE),
        (SOUND[:20] + '{"a":1}', "a message of another shape than documented"),
        (SPOT_LINES.splitlines()[0].replace('["0.0024","10"]', '["0.0024"]'), "a message of"),
        (SPOT_LINES.splitlines()[1].replace('"lastUpdateId":158', '"lastUpdateId":{}'), "a value"),
    ],
)
def test_a_faulty_line_is_rejected_alone(tmp_path, line, reason):
    lines = [*SPOT_LINES.splitlines(), line, "", SOUND]
    read = check_format(written(tmp_path, "\n".join(lines)), RAW)
    assert read.account.records == 11
    assert read.account.outcomes[TRANSLATED] == 4
    assert read.account.outcomes[EMPTY_LINE] == 1
    (reject,) = read.account.rejects
    assert reject.row == 9
    assert reject.reason.startswith(reason)
    if reason not in {NO_LINE, "not JSON"}:
        assert json.loads(reject.text) == json.loads(line[20:])


def test_bytes_that_are_no_text_are_rejected_alone(tmp_path):
    read = check_format(written(tmp_path, SPOT_LINES.encode() + b"\xff\xfe\n"), RAW)
    assert read.account.rejected == {"not UTF-8 text": 1}


def test_a_lost_update_is_a_hole(tmp_path):
    lines = SPOT_LINES.splitlines()
    lines[2] = lines[2].replace('"U":161,"u":161', '"U":163,"u":163')
    read = check_format(written(tmp_path, "\n".join(lines)), RAW)
    assert read.account.events[HOLE] == 1
    assert read.account.outcomes["without a book: after a hole in the sequence"] == 1
    assert len(read.table("book")) == 1


def test_a_snapshot_without_a_symbol_needs_a_sole_contract(tmp_path):
    other = SPOT_LINES.splitlines()[2].replace("BNBBTC", "ETHBTC").replace("bnbbtc", "ethbtc")
    read = check_format(written(tmp_path, SPOT_LINES + other), RAW)
    assert read.account.rejected == {UNATTRIBUTED: 1}
    assert read.account.outcomes[NO_SNAPSHOT] == 3
    given = read_whole(written(tmp_path, SPOT_LINES + other), Hints(symbol="BNBBTC"))
    assert len(given.table("book")) == 2


def test_a_contract_has_one_depth_stream(tmp_path):
    slow = SPOT_LINES.splitlines()[2].replace("depth@100ms", "depth")
    read = check_format(written(tmp_path, SPOT_LINES + slow), RAW)
    assert read.account.outcomes[SECOND_STREAM] == 1
    assert len(read.table("book")) == 2


def test_a_recording_cut_short_is_an_error(tmp_path):
    source = written(tmp_path, SPOT_LINES * 50)
    source.path.write_bytes(source.path.read_bytes()[:-20])
    with pytest.raises(InputError, match="damaged or incomplete after byte"):
        read_whole(source)


@pytest.mark.parametrize(
    "text",
    [
        # other venues' messages in the same kind of file
        '1723161255030314667 {"topic":"orderbook.50.BTCUSDT","type":"delta","data":{}}\n',
        '1723161255030314667 {"stream":"depth.SOL_USDC","data":{"e":"depth"}}\n',
        '{"e":"depthUpdate","E":1,"s":"BTCUSDT"}\n',
    ],
)
def test_what_is_not_binance_is_refused(tmp_path, text):
    with pytest.raises(InputError, match=f"{RAW}: (the first line|no message)"):
        read_whole(written(tmp_path, text))


def test_a_market_that_messages_do_not_show_is_asked_for(tmp_path):
    line = (
        '1672515782300000002 {"stream":"a@aggTrade","data":{"e":"aggTrade","E":1672515782136,'
        '"s":"A","a":1,"p":"0.001","q":"100","f":100,"l":105,"T":1672515782134,"m":false}}\n'
    )
    with pytest.raises(InputError, match="which market of Binance"):
        read_whole(written(tmp_path, line))
    read = check_format(written(tmp_path, line), RAW, Hints(venue="binance-futures"))
    assert read.batches[0].venue == "binance-futures"


def messages_of(lines):
    return [json.loads(line[20:]) for line in lines]


def recorded(tmp_path, *parts):
    """A snapshot, its updates and trades as files beside one another, as in a REST recording."""
    wrapped = messages_of(SPOT_LINES.splitlines())
    contents = {
        "snapshot": wrapped[1],
        "update": [wrapped[0]["data"], wrapped[2]["data"]],
        "trades": [wrapped[4]["data"]],
    }
    folder = tmp_path / "BNBBTC"
    folder.mkdir()
    paths = {}
    for part in parts:
        paths[part] = folder / f"2022-12-31T19-43-00_{part}.json"
        paths[part].write_text(json.dumps(contents[part]))
    return {part: Source(path) for part, path in paths.items()}


def test_json_updates_are_joined_to_the_snapshot_beside_them(tmp_path):
    sources = recorded(tmp_path, "snapshot", "update", "trades")
    read = check_format(sources["update"], MESSAGES, options=EVERY_STATE)
    assert read.form.companions(sources["update"], read.match) == (sources["snapshot"].path,)
    assert read.account.outcomes == {APPLIED: 2}
    assert read.table("book")["sequence"].to_list() == [160, 161]
    assert "received_at" not in read.table("book").columns
    trades = check_format(sources["trades"], MESSAGES)
    assert (trades.match.symbol, trades.tables) == ("BNBBTC", {"aggregate_trades": 1})
    snapshot = check_format(sources["snapshot"], SNAPSHOT)
    assert (snapshot.tables, snapshot.account.outcomes) == ({}, {BESIDE_UPDATES: 1})


def test_a_dated_snapshot_beside_updates_makes_no_book_among_theirs(tmp_path):
    update, snapshot = messages_of(FUTURES_LINES.splitlines()[:2])
    folder = tmp_path / "BTCUSDT"
    folder.mkdir()
    (folder / "a_snapshot.json").write_text(json.dumps(snapshot))
    (folder / "a_update.json").write_text(json.dumps([update["data"]]))
    read = check_format(Source(folder / "a_update.json"), MESSAGES, options=EVERY_STATE)
    assert read.match.venue == "binance-futures"
    assert read.table("book").select("ts", "sequence", "bid_price_1").rows() == [
        (at(1699999999999), 160, 9.0)
    ]


def test_json_updates_without_a_snapshot_have_no_book(tmp_path):
    read = check_format(recorded(tmp_path, "update")["update"], MESSAGES)
    assert (read.tables, read.account.outcomes) == ({}, {NO_SNAPSHOT: 2})


def test_a_snapshot_on_its_own_is_one_book(tmp_path):
    read = check_format(recorded(tmp_path, "snapshot")["snapshot"], SNAPSHOT)
    assert read.account.events == {NAME_TIME: 1}
    assert read.table("book").select("symbol", "ts", "sequence", "ask_price_1").rows() == [
        ("BNBBTC", datetime(2022, 12, 31, 19, 43, tzinfo=UTC), 158, 0.0026)
    ]


def test_a_snapshot_of_unknown_contract_or_time_is_refused(tmp_path):
    content = SPOT_LINES.splitlines()[1][20:]
    with pytest.raises(InputError, match="give the symbol"):
        read_whole(written(tmp_path, content, "2022-12-31T19-43-00_snapshot.json"))
    for name in ("snapshot.json", "2022-13-31T19-43-00_snapshot.json"):
        with pytest.raises(InputError, match="has no time"):
            read_whole(written(tmp_path, content, f"BNBBTC/{name}"))


def test_a_damaged_snapshot_beside_updates_is_an_error(tmp_path):
    sources = recorded(tmp_path, "snapshot", "update")
    sources["snapshot"].path.write_text('{"lastUpdateId": 158, "bids": [["0.1"')
    with pytest.raises(InputError, match=r"snapshot\.json is no JSON"):
        read_whole(sources["update"])
    sources["snapshot"].path.write_text('{"lastUpdateId": 158, "bids": []}')
    with pytest.raises(InputError, match="is no depth snapshot: a message without 'asks'"):
        read_whole(sources["update"])


# "Binance Futures Order Book Historical Data" in the venue's support pages
HEADER = "symbol,timestamp,first_update_id,last_update_id,side,update_type,price,qty,pu"
SNAP = [
    "BTCUSDT,1667346579146,1000,1000,b,snap,20377.00,1.770,-1",
    "BTCUSDT,1667346579146,1000,1000,b,snap,20376.90,0.001,-1",
    "BTCUSDT,1667346579146,1000,1000,a,snap,20377.10,2.000,-1",
]
UPDATES = [
    "BTCUSDT,1667346579100,980,990,b,set,20300.00,9.000,970",
    "BTCUSDT,1667346579200,998,1010,a,set,20377.10,0.000,990",
    "BTCUSDT,1667346579200,998,1010,a,set,20377.20,3.000,990",
    "BTCUSDT,1667346579200,998,1010,b,set,20376.90,4.000,990",
    "BTCUSDT,1667346579300,1015,1020,b,set,20377.00,0.000,1010",
]


def depth_files(tmp_path, snap=SNAP, updates=UPDATES, header=HEADER):
    return {
        part: written(tmp_path, "\n".join([header, *rows]) + "\n", f"btcusdt-depth-{part}.csv")
        for part, rows in (("snap", snap), ("update", updates))
    }


def test_historical_updates_are_joined_to_the_snapshot_beside_them(tmp_path):
    sources = depth_files(tmp_path)
    read = check_format(sources["update"], DEPTH, options=EVERY_STATE)
    assert read.account.outcomes == {NO_SNAPSHOT: 1, APPLIED: 4}
    assert read.table("book").select(
        "symbol", "ts", "sequence", "bid_price_0", "bid_size_0", "ask_price_0", "_row"
    ).rows() == [
        ("BTCUSDT", at(1667346579200), 1010, 20377.0, 1.77, 20377.2, 4),
        ("BTCUSDT", at(1667346579300), 1020, 20376.9, 4.0, 20377.2, 5),
    ]
    snapshot = check_format(sources["snap"], DEPTH)
    assert snapshot.account.outcomes == {APPLIED: 3}
    assert snapshot.table("book").select("ts", "bid_price_1", "ask_size_0").rows() == [
        (at(1667346579146), 20376.9, 2.0)
    ]


def test_historical_updates_with_a_hole_wait_for_the_next_snapshot(tmp_path):
    later = [row.replace("1000,1000", "1050,1050") for row in SNAP]
    updates = [
        *UPDATES,
        "BTCUSDT,1667346579400,1035,1040,b,set,20300.00,1.000,1033",
        "BTCUSDT,1667346579500,1045,1060,b,set,20300.00,2.000,1040",
    ]
    sources = depth_files(tmp_path, SNAP + later, updates)
    read = check_format(sources["update"], DEPTH, options=EVERY_STATE)
    assert read.account.events == {HOLE: 1}
    assert read.account.outcomes == {
        NO_SNAPSHOT: 1,
        APPLIED: 5,
        "without a book: after a hole in the sequence": 1,
    }
    last = read.table("book")[-1].row(0, named=True)
    assert (last["sequence"], last["bid_price_0"], last["bid_size_2"]) == (1060, 20377.0, 2.0)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (UPDATES[1].replace("20377.10", "x"), "column 'price' is not a number"),
        (UPDATES[1].replace("20377.10", "nan"), "column 'price' or 'qty' is not finite"),
        (UPDATES[1].replace(",a,", ",c,"), "column 'side' is neither a nor b"),
        (UPDATES[1].replace("set", "del"), "column 'update_type' is neither snap nor set"),
        (UPDATES[1].replace("1010", ""), "an empty cell"),
        (HEADER, "a header in the middle of the file"),
        (UPDATES[1] + ",1", "a line with another number of fields than the header"),
    ],
)
def test_a_faulty_row_of_historical_depth_is_rejected_alone(tmp_path, row, reason):
    sources = depth_files(tmp_path, updates=[*UPDATES, row])
    read = check_format(sources["update"], DEPTH)
    assert read.account.rejected == {reason: 1}
    assert read.account.rejects[0].row == 6
    assert read.account.records == 6


def test_historical_depth_without_the_previous_id_is_refused(tmp_path):
    sources = depth_files(tmp_path, header=HEADER.removesuffix(",pu") + ",previous")
    # without it a hole cannot be told, so the file is not read as depth
    with pytest.raises(InputError, match=f"{DEPTH}: the header has no column pu"):
        read_whole(sources["update"], formats=binance_stream.FORMATS)


def test_coin_margined_contracts_are_of_their_own_venue(tmp_path):
    snap = [row.replace("BTCUSDT", "BTCUSD_PERP") for row in SNAP]
    assert read_whole(depth_files(tmp_path, snap)["snap"]).match.venue == "binance-delivery"


def test_messages_of_historical_depth_are_whole_wherever_blocks_end(tmp_path, monkeypatch):
    rows = [
        f"BTCUSDT,{1667346579200 + message},{1001 + message},{1001 + message},"
        f"{'ab'[level % 2]},set,{20377.1 + level if level % 2 == 0 else 20377 - level},"
        f"{message % 3},{1000 + message}"
        for message in range(200)
        for level in range(message % 7 + 1)
    ]
    sources = depth_files(tmp_path, updates=rows)
    whole = read_whole(sources["update"], options=EVERY_STATE)
    monkeypatch.setattr("margincast.data.formats.text._BLOCK_BYTES", 1_000)
    cut = read_whole(sources["update"], options=EVERY_STATE)
    assert cut.account.outcomes == whole.account.outcomes == {APPLIED: len(rows)}
    assert len(whole.table("book")) == 200
    assert cut.table("book").equals(whole.table("book"))


def test_snapshots_are_requested_with_their_symbol():
    account = Account()
    decoder = BinanceDecoder("binance", EVERY_STATE)
    update, snapshot = (message for message in messages_of(SPOT_LINES.splitlines()[:2]))
    url = "https://api.binance.com/api/v3/depth?symbol=BNBBTC&limit=1000"
    decoder.connected("ws.1", "wss://stream.binance.com:9443/ws/bnbbtc@depth@100ms")
    decoder.http("https://api.binance.com/api/v3/exchangeInfo", "{}", 1, 1, account)
    decoder.http(url, json.dumps(snapshot), 1672515782210000, 2, account)
    decoder.http(url, '{"code":-1003,"msg":"Too many requests"}', 1672515782210000, 3, account)
    decoder.received(json.dumps(update["data"]), "ws.1", 1672515782300000, 4, account)
    (batch,) = decoder.take(account, last=True)
    assert (batch.table, len(batch.frame)) == ("book", 1)
    assert account.outcomes == {"not stored: answer to exchangeInfo": 1, APPLIED: 2}
    assert account.rejected == {"a message without 'lastUpdateId'": 1}


def test_bare_messages_of_a_partial_stream_are_known_by_its_address():
    account = Account()
    decoder = BinanceDecoder("binance", EVERY_STATE)
    decoder.connected("ws.1", "wss://stream.binance.com:9443/ws/bnbbtc@depth20@100ms")
    decoder.received(SPOT_LINES.splitlines()[1][20:], "ws.1", 1, 1, account)
    assert account.outcomes == {PARTIAL_BOOK: 1}


def lines_in(path):
    with gzip.open(path) as stream:
        return sum(1 for _ in stream)


def agreement(book, quotes):
    """Share of books whose best prices and sizes are those of the last quote up to their id."""
    best = ["bid_price_0", "bid_size_0", "ask_price_0", "ask_size_0"]
    joined = book.select("sequence", *best).join_asof(
        quotes.select("sequence", *best), on="sequence", suffix="_quoted"
    )
    joined = joined.drop_nulls()
    same = joined.select(
        pl.all_horizontal(pl.col(name) == pl.col(f"{name}_quoted") for name in best)
    )
    return len(joined), same.to_series().mean()


@pytest.mark.parametrize(
    ("name", "tables", "outcomes"),
    [
        (
            "spot_btcusdt_20240808",
            {"book": 3449, "quotes": 28040, "trades": 9757},
            {TRANSLATED: 37797, APPLIED: 3450, NO_SNAPSHOT: 2},
        ),
        (
            "usdm_btcusdt_20240808",
            {"book": 6548, "quotes": 66089, "trades": 21313},
            {TRANSLATED: 87402, APPLIED: 6548, NO_SNAPSHOT: 4},
        ),
    ],
)
def test_real_recordings_give_books_that_agree_with_the_best_quotes(
    shared_data, name, tables, outcomes
):
    source = Source(shared_data / "data" / "native" / "binance_ws_raw" / f"{name}.gz")
    read = read_whole(source, options=EVERY_STATE)
    assert read.tables == tables
    assert read.account.outcomes == outcomes
    assert not read.account.rejects
    assert read.account.records == lines_in(source.path)
    assert HOLE not in read.account.events
    # the recorder's clock was 1.2 s behind the venue's
    assert read.account.events[CLOCK_BEHIND] > 10_000
    book = read.table("book")
    assert (book["bid_price_0"] < book["ask_price_0"]).all()
    assert book["ts"].is_sorted()
    # the quotes are another stream of the venue: an independent witness of every book
    assert agreement(book, read.table("quotes")) == (len(book), 1.0)


def test_a_real_recording_without_a_snapshot_has_no_book(shared_data):
    path = shared_data / "data" / "native" / "binance_ws_raw" / "usdm_ethusdt_20240719.gz"
    read = read_whole(Source(path))
    assert read.tables == {"quotes": 38239, "trades": 12015}
    assert read.account.outcomes == {TRANSLATED: 50254, NO_SNAPSHOT: 5656}
    assert read.account.records == lines_in(path)


@pytest.mark.parametrize(("hour", "updates", "trades"), [("09", 3600, 1736), ("10", 3599, 1765)])
def test_real_json_arrays(shared_data, hour, updates, trades):
    folder = shared_data / "data" / "native" / "binance_spot_depth_rest_2020" / "ETHBTC"
    stem = f"2020-11-01T{hour}-00-00"
    path = folder / f"{stem}_update.json"
    read = read_whole(Source(path))
    assert len(json.loads(path.read_text())) == updates
    assert read.account.outcomes == {ALREADY_APPLIED: 1, APPLIED: updates - 1}
    assert not read.account.events
    book = read.table("book")
    assert len(book) == updates - 1
    assert (book["bid_price_0"] < book["ask_price_0"]).all()
    path = folder / f"{stem}_trades.json"
    read = check_format(Source(path), MESSAGES)
    assert len(json.loads(path.read_text())) == read.account.outcomes[TRANSLATED] == trades
    # every trade met the book of its second
    met = read.table("aggregate_trades").join_asof(book, on="ts", tolerance="2s").drop_nulls()
    outside = (met["price"] < met["bid_price_0"] * 0.999) | (
        met["price"] > met["ask_price_0"] * 1.001
    )
    assert len(met) > trades - 20
    assert not outside.any()
    read = check_format(Source(folder / f"{stem}_snapshot.json"), SNAPSHOT)
    assert read.account.outcomes == {BESIDE_UPDATES: 1}


def test_a_real_snapshot_on_its_own(shared_data, tmp_path):
    name = "2020-11-01T09-00-00_snapshot.json"
    folder = shared_data / "data" / "native" / "binance_spot_depth_rest_2020" / "ETHBTC"
    (tmp_path / "ETHBTC").mkdir()
    shutil.copy(folder / name, tmp_path / "ETHBTC" / name)
    read = check_format(Source(tmp_path / "ETHBTC" / name), SNAPSHOT)
    assert read.account.outcomes == {APPLIED: 1}
    assert read.table("book").select("bid_price_0", "bid_size_0").rows() == [(0.028181, 7.666)]


def test_real_historical_depth_whose_files_do_not_fit(shared_data):
    folder = shared_data / "data" / "native" / "vendor_fixtures" / "binance"
    snapshot = check_format(Source(folder / "btcusdt-depth-snap.csv"), DEPTH)
    assert snapshot.account.outcomes == {APPLIED: 100}
    assert snapshot.table("book").select("bid_price_0", "ask_price_0").rows() == [(20377.0, None)]
    updates = check_format(Source(folder / "btcusdt-depth-update.csv"), DEPTH)
    assert updates.account.outcomes == {NO_SNAPSHOT: 100}
    assert updates.account.events == {UNJOINED_SNAPSHOT: 1}


@pytest.mark.parametrize(
    ("name", "venue", "lines", "tables"),
    [
        ("BINANCE", "binance", 272, {"aggregate_trades": 2, "book": 172, "quotes": 84}),
        (
            "BINANCE_FUTURES",
            "binance-futures",
            1542,
            {"aggregate_trades": 91, "book": 753, "quotes": 613},
        ),
    ],
)
def test_real_captures_of_several_contracts(shared_data, name, venue, lines, tables):
    path = shared_data / "data" / "native" / "websocket_captures" / f"{name}.jsonl.zst"
    account, decoder, others, count = Account(), BinanceDecoder(venue, EVERY_STATE), 0, 0
    for row, line in lines_of(Source(path)):
        record, count = json.loads(line), row
        received_us = round(record.get("ts", 0) * 1e6)
        if record["t"] == "http":
            decoder.http(record["url"], record["data"], received_us, row, account)
        elif record["t"] == "recv":
            decoder.received(record["data"], record["conn"], received_us, row, account)
        else:
            others += 1
    batches = decoder.take(account, last=True)
    assert count == lines == account.records + others
    assert not account.rejects
    assert HOLE not in account.events
    found: dict[str, int] = {}
    for batch in batches:
        found[batch.table] = found.get(batch.table, 0) + len(batch.frame)
    assert found == tables
    quotes = pl.concat([batch.frame for batch in batches if batch.table == "quotes"])
    for batch in batches:
        if batch.table == "book":
            quoted = quotes.filter(pl.col("symbol") == batch.frame["symbol"][0])
            assert (batch.frame["bid_price_0"] < batch.frame["ask_price_0"]).all()
            compared, share = agreement(batch.frame, quoted)
            assert share == 1.0 or compared == 0
