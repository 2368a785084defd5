"""Samples follow Bybit's API documentation v5 ("Public: Orderbook") and its public archive."""

import json
import zipfile
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from margincast.core.errors import InputError
from margincast.data.formats.bybit import books as bybit_books
from margincast.data.formats.bybit.books import (
    AFTER_HOLE,
    BEFORE_SNAPSHOT,
    HOLE,
    NO_BOOK_MESSAGE,
    REPLACED,
    RESTARTED,
)
from margincast.data.formats.format import APPLIED, ROW, Hints, Options
from margincast.data.formats.source import sources_in
from margincast.data.formats.testing import check_format, read_whole
from margincast.data.schemas import book_columns

BOOKS = "Bybit order book archive"
LEVELS = 3
EVERY_MESSAGE = Options(book_every=timedelta(0), book_levels=LEVELS)
FIRST_MS = 1733011200691


@dataclass(frozen=True)
class Message:
    u: int
    is_snapshot: bool
    bids: tuple[tuple[int, int], ...] = ()
    asks: tuple[tuple[int, int], ...] = ()
    ts: int = FIRST_MS

    def line(self, symbol="XRPUSDT"):
        return json.dumps(
            {
                "topic": f"orderbook.500.{symbol}",
                "type": "snapshot" if self.is_snapshot else "delta",
                "ts": self.ts,
                "data": {
                    "s": symbol,
                    "b": [[str(price), str(size)] for price, size in self.bids],
                    "a": [[str(price), str(size)] for price, size in self.asks],
                    "u": self.u,
                    "seq": 130020238981,
                },
                "cts": self.ts - 2,
            },
            separators=(",", ":"),
        )


SNAPSHOT = Message(7, is_snapshot=True, bids=((9, 1), (8, 2)), asks=((10, 3),))
DELTA = Message(8, is_snapshot=False, bids=((9, 0),), asks=((11, 1),), ts=FIRST_MS + 100)
NEXT = Message(9, is_snapshot=False, asks=((10, 4),), ts=FIRST_MS + 200)


def save(folder, lines, name="2024-12-01_XRPUSDT_ob500.data"):
    path = folder / f"{name}.zip"
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name.rsplit("/", maxsplit=1)[-1], "\n".join([*lines, ""]))
    (source,) = sources_in([path])
    return source


def found_books(reading):
    books = reading.table("book")
    if books.is_empty():
        return {}
    return {row[0]: row[1:] for row in books.select(ROW, *book_columns(LEVELS)).iter_rows()}


def top_of(state):
    bids = sorted(state["bid"].items(), reverse=True)
    asks = sorted(state["ask"].items())
    cells = []
    for level in range(LEVELS):
        for side in (bids, asks):
            cells += side[level] if level < len(side) else (None, None)
    return tuple(cells)


def slow_reading(stream):
    """Books by record, and what became of each message, one message after the other."""
    books, outcomes = {}, []
    state, last_u, had_snapshot = None, None, False
    for row, message in enumerate(stream, start=1):
        begins = message.is_snapshot or message.u == 1
        if begins:
            state, had_snapshot = {"bid": {}, "ask": {}}, True
        elif last_u is not None and message.u != last_u + 1:
            state = None
        last_u = message.u
        if state is None:
            outcomes.append(AFTER_HOLE if had_snapshot else BEFORE_SNAPSHOT)
            continue
        outcomes.append(APPLIED)
        for side, levels in (("bid", message.bids), ("ask", message.asks)):
            for price, size in levels:
                state[side].pop(price, None)
                if size:
                    state[side][price] = size
        if begins or message.bids or message.asks:
            books[row] = top_of(state)
    return books, outcomes


SIDE = st.lists(st.tuples(st.integers(1, 9), st.integers(0, 3)), max_size=4).map(tuple)


@st.composite
def streams(draw):
    u, stream = draw(st.integers(2, 50)), []
    for number in range(draw(st.integers(1, 10))):
        u = draw(st.sampled_from([u + 1, u + 1, u + 1, u + 1, u + 2, u, 1]))
        kind = draw(st.sampled_from([True, False, False, False]))
        stream.append(Message(u, kind, draw(SIDE), draw(SIDE), FIRST_MS + 100 * number))
    return stream


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(stream=streams(), block=st.integers(1, 2000))
def test_books_follow_the_sequence_rules_of_the_venue(tmp_path, monkeypatch, stream, block):
    monkeypatch.setattr(bybit_books, "_BLOCK_BYTES", block)
    source = save(tmp_path, [message.line() for message in stream])
    reading = read_whole(source, options=EVERY_MESSAGE)
    books, outcomes = slow_reading(stream)
    assert found_books(reading) == books
    found = {name: count for name, count in reading.account.outcomes.items() if count}
    assert found == {name: outcomes.count(name) for name in set(outcomes)}
    assert not reading.account.rejected


def test_messages_of_the_documentation(tmp_path):
    source = save(tmp_path, [message.line() for message in (SNAPSHOT, DELTA, NEXT)])
    reading = check_format(source, BOOKS, options=EVERY_MESSAGE)
    books = reading.table("book")
    assert books.columns == ["symbol", "ts", "sequence", *book_columns(LEVELS), ROW]
    # the time is when the venue made the message (ts), not when the engine made the change (cts)
    assert books["ts"].to_list()[0] == datetime(2024, 12, 1, 0, 0, 0, 691_000, tzinfo=UTC)
    assert books["sequence"].to_list() == [7, 8, 9]
    assert books["bid_price_0"].to_list() == [9, 8, 8]
    assert books["ask_size_0"].to_list() == [3, 3, 4]
    assert reading.account.outcomes == {APPLIED: 3}
    assert {batch.venue for batch in reading.batches} == {"bybit"}


def test_events_of_a_sequence(tmp_path):
    restart = replace(SNAPSHOT, u=1)
    after_restart = replace(DELTA, u=2)
    resent = replace(SNAPSHOT, u=3)
    beyond_a_hole = replace(NEXT, u=6)
    stream = [DELTA, SNAPSHOT, DELTA, restart, after_restart, resent, beyond_a_hole]
    source = save(tmp_path, [message.line() for message in stream])
    account = check_format(source, BOOKS, options=EVERY_MESSAGE).account
    assert account.events == {RESTARTED: 1, REPLACED: 1, HOLE: 1}
    assert account.outcomes == {BEFORE_SNAPSHOT: 1, APPLIED: 5, AFTER_HOLE: 1}


def test_an_empty_snapshot_is_an_empty_book(tmp_path):
    stream = [SNAPSHOT, Message(8, is_snapshot=True), Message(9, is_snapshot=False, bids=((5, 1),))]
    reading = check_format(
        save(tmp_path, [message.line() for message in stream]), BOOKS, options=EVERY_MESSAGE
    )
    assert reading.table("book")["bid_price_0"].to_list() == [9, None, 5]
    assert reading.table("book")["ask_price_0"].to_list() == [10, None, None]


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (DELTA.line()[:-30], "no message in JSON of the documented types"),
        ("[1, 2]", "no message in JSON of the documented types"),
        (DELTA.line().replace('"u":8', '"u":"8b"'), "no message in JSON of the documented types"),
        (DELTA.line().replace('"u":8,', ""), "lacks type, ts, s, u, b or a"),
        (DELTA.line().replace('"b"', '"bids"'), "lacks type, ts, s, u, b or a"),
        (DELTA.line().replace("delta", "update"), "type is neither snapshot nor delta"),
        (DELTA.line().replace('"ts":1', '"ts":-1'), "ts is no time in milliseconds"),
        (DELTA.line().replace('"9"', '"9,0"'), "a level is no price and size"),
        (DELTA.line().replace('["9","0"]', '["9"]'), "a level is no price and size"),
        (DELTA.line().replace('["9","0"]', "null"), "a level is no price and size"),
        (DELTA.line().replace('"9"', '"NaN"'), "a level is no price and size"),
    ],
)
def test_a_faulty_message_leaves_a_hole(tmp_path, fault, reason):
    lines = [SNAPSHOT.line(), fault, NEXT.line(), SNAPSHOT.line()]
    reading = check_format(save(tmp_path, lines), BOOKS, options=EVERY_MESSAGE)
    account = reading.account
    assert [(reject.row, reject.reason, reject.text) for reject in account.rejects] == [
        (2, reason, fault)
    ]
    assert set(found_books(reading)) == {1, 4}
    assert account.outcomes == {APPLIED: 2, AFTER_HOLE: 1}
    assert account.events == {HOLE: 1}


def test_other_messages_and_empty_lines(tmp_path):
    other = '{"success":true,"ret_msg":"","op":"subscribe"}'
    ticker = '{"topic":"tickers.XRPUSDT","type":"delta","ts":1733011200691,"data":{}}'
    lines = [SNAPSHOT.line(), other, "", ticker, DELTA.line()]
    account = check_format(save(tmp_path, lines), BOOKS, options=EVERY_MESSAGE).account
    assert account.outcomes == {APPLIED: 2, NO_BOOK_MESSAGE: 2}


def test_streams_of_several_contracts_have_a_book_each(tmp_path):
    lines = [
        *(SNAPSHOT.line("XRPUSDT"), replace(SNAPSHOT, u=90).line("BTCUSD")),
        *(DELTA.line("XRPUSDT"), replace(DELTA, u=91).line("BTCUSD")),
    ]
    reading = check_format(save(tmp_path, lines), BOOKS, options=EVERY_MESSAGE)
    books = reading.table("book")
    assert sorted(books.select("symbol", "sequence").rows()) == [
        *(("BTCUSD", 90), ("BTCUSD", 91)),
        *(("XRPUSDT", 7), ("XRPUSDT", 8)),
    ]
    assert not reading.account.events


@pytest.mark.parametrize(
    ("folder", "venue"),
    [("orderbook/spot/XRPUSDT", "bybit-spot"), ("linear", "bybit"), ("anywhere", "bybit")],
)
def test_spot_is_known_by_its_folder(tmp_path, folder, venue):
    source = save(tmp_path / folder, [SNAPSHOT.line()])
    assert {batch.venue for batch in check_format(source, BOOKS).batches} == {venue}


def test_the_word_of_the_user_stands(tmp_path):
    source = save(tmp_path, [SNAPSHOT.line()])
    (batch,) = check_format(source, BOOKS, Hints(venue="bybit-spot", symbol="XRP")).batches
    assert (batch.venue, batch.frame["symbol"].to_list()) == ("bybit-spot", ["XRP"])


def test_a_damaged_archive_is_no_shorter_archive(tmp_path):
    source = save(tmp_path, [SNAPSHOT.line()] * 300)
    content = bytearray(source.path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    source.path.write_bytes(content)
    with pytest.raises(InputError, match=r"ob500\.data is damaged or incomplete after byte"):
        read_whole(source)


def test_the_real_archive(shared_data):
    path = shared_data / "data" / "native" / "vendor_fixtures" / "bybit"
    (source,) = sources_in([path])
    reading = check_format(source, BOOKS, options=EVERY_MESSAGE)
    with source.open() as content:
        messages = [json.loads(line) for line in content]
    assert reading.account.outcomes == {APPLIED: len(messages)} == {APPLIED: 50}
    assert not reading.account.events
    stream = [
        Message(
            message["data"]["u"],
            message["type"] == "snapshot",
            *(
                tuple((float(price), float(size)) for price, size in message["data"][side])
                for side in ("b", "a")
            ),
            message["ts"],
        )
        for message in messages
    ]
    assert found_books(reading) == slow_reading(stream)[0]
    books = reading.table("book")
    assert (books["bid_price_0"] < books["ask_price_0"]).all()
