"""The checksum of OKX and Bitget, on the venue's own examples and on damaged books."""

import json

import pytest

from margincast.data.formats.captures.bitget import BitgetDecoder
from margincast.data.formats.captures.checksum import MISMATCH, VERIFIED, ChecksummedLevels
from margincast.data.formats.captures.okx import OkxDecoder
from margincast.data.formats.captures.venue import AFTER_HOLE, HOLE
from margincast.data.formats.format import APPLIED, Account, Options

# OKX API v5, "Order book channel: Checksum", and Bitget API, "Websocket: Checksum": the texts
# 3366.1:7:3366.8:9:3366:6:3368:8 and 3366.1:7:3366.8:9:3368:8:3372:8; the numbers stand in OKX's
# documentation of API v3
ALIGNED = (
    [["3366.1", "7", "0", "3"], ["3366", "6", "3", "4"]],
    [["3366.8", "9", "10", "3"], ["3368", "8", "3", "4"]],
    -1881014294,
)
ONE_SIDE_LONGER = (
    [["3366.1", "7", "0", "3"]],
    [["3366.8", "9", "10", "3"], ["3368", "8", "3", "4"], ["3372", "8", "3", "4"]],
    831078360,
)


@pytest.mark.parametrize(("bids", "asks", "checksum"), [ALIGNED, ONE_SIDE_LONGER])
def test_documented_examples(bids, asks, checksum):
    levels = ChecksummedLevels()
    levels.update(reversed(bids), reversed(asks))
    assert levels.checksum() == checksum


def test_only_the_first_25_levels_count_and_deleted_levels_do_not():
    short, long = ChecksummedLevels(), ChecksummedLevels()
    bids = [[str(price), "1"] for price in range(100, 60, -1)]
    asks = [[str(price), "2"] for price in range(101, 141)]
    short.update(bids[:25], asks[:25])
    long.update(bids, asks)
    assert long.checksum() == short.checksum()
    long.update([["99", "0.0"], ["98.5", "0"]], [])
    short.update([["99", "0"], bids[25]], [])
    assert long.checksum() == short.checksum()


def test_a_level_keeps_the_text_it_was_last_given():
    levels, again = ChecksummedLevels(), ChecksummedLevels()
    levels.update([["5.10", "1.0"]], [["6", "1"]])
    levels.update([["5.1", "2"]], [])
    again.update([["5.1", "2"]], [["6", "1"]])
    assert levels.checksum() == again.checksum()


def _okx(bids, asks, checksum, action="update"):
    data = {"bids": bids, "asks": asks, "ts": "1652459225464", "checksum": checksum}
    return {"arg": {"channel": "books", "instId": "BTC-USDT"}, "action": action, "data": [data]}


def _bitget(bids, asks, checksum, action="update"):
    argument = {"instType": "sp", "channel": "books", "instId": "BTCUSDT"}
    return _okx(bids, asks, checksum, action) | {"arg": argument}


@pytest.mark.parametrize(("decoder", "say"), [(OkxDecoder, _okx), (BitgetDecoder, _bitget)])
def test_a_mismatch_is_a_hole_until_the_next_snapshot(decoder, say):
    bids, asks, checksum = ALIGNED
    account, reader = Account(), decoder(Options())
    messages = [
        say(bids, asks, checksum, "snapshot"),
        # the level that this says is gone is still in the book that the checksum is of
        say([["3366", "0"]], [], checksum),
        say(bids, [], checksum),
        say(*ONE_SIDE_LONGER, "snapshot"),
        say(*ONE_SIDE_LONGER[:2], 5, "snapshot"),
        say([], [], ONE_SIDE_LONGER[2]),
    ]
    for row, message in enumerate(messages, start=1):
        reader.received(json.dumps(message), "ws.1", 1652459225500000, row, account)
    books = [batch.frame for batch in reader.take(account, last=True)]
    assert account.outcomes == {APPLIED: 2, MISMATCH: 2, AFTER_HOLE: 2}
    assert (account.events[HOLE], account.events[VERIFIED]) == (2, 2)
    assert [book["_row"].to_list() for book in books] == [[1, 4]]


def test_a_number_where_a_text_should_be_is_rejected_not_checked():
    account, reader = Account(), OkxDecoder(Options())
    message = json.dumps(_okx([[3366.1, 7]], [], -1, "snapshot"))
    reader.received(message, "ws.1", 1652459225500000, 1, account)
    assert account.rejected == {"a message of another shape than documented": 1}
