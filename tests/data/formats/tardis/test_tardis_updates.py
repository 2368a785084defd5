"""Books from ``incremental_book_L2`` against a slow reading of Tardis' own description of it."""

import gzip
from dataclasses import dataclass
from datetime import timedelta

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from margincast.core.errors import InputError
from margincast.data.formats import format as format_module
from margincast.data.formats.format import APPLIED, ROW, Account, Hints, Options
from margincast.data.formats.registry import recognise
from margincast.data.formats.source import Source
from margincast.data.formats.tardis import rows as tardis_rows
from margincast.data.formats.tardis.updates import (
    AFTER_FAULT,
    BEFORE_SNAPSHOT,
    BESIDE_FAULT,
    LOST,
    REPLACED,
)
from margincast.data.formats.testing import check_format, read_whole
from margincast.data.formats.text import HEADER_IN_THE_MIDDLE
from margincast.data.schemas import book_columns

HEADER = "exchange,symbol,timestamp,local_timestamp,is_snapshot,side,price,amount"
NAME = "Tardis incremental_book_L2"
FIRST = 1585699200000000
LEVELS = 4
EVERY_MESSAGE = Options(book_every=timedelta(0), book_levels=LEVELS)


@dataclass(frozen=True)
class Message:
    symbol: str
    number: int
    is_snapshot: bool
    levels: tuple[tuple[str, int, int], ...]

    def lines(self):
        ts = FIRST + 1000 * self.number
        flag = "true" if self.is_snapshot else "false"
        return [
            f"deribit,{self.symbol},{ts},{ts + 90_000},{flag},{side},{price},{size}"
            for side, price, size in self.levels
        ]


LEVEL = st.tuples(st.sampled_from(["bid", "ask"]), st.integers(1, 12), st.integers(0, 3))


@st.composite
def messages(draw):
    count = draw(st.integers(1, 8))
    return [
        Message(
            draw(st.sampled_from(["BTC", "ETH"])),
            number,
            draw(st.sampled_from([True, False, False, False])),
            tuple(draw(st.lists(LEVEL, min_size=1, max_size=6))),
        )
        for number in range(count)
    ]


def slow_books(stream):
    """One book after every message, as the vendor's FAQ says; keyed by the last row of each."""
    books, states, row = {}, {}, 0
    for message in stream:
        row += len(message.levels)
        if message.is_snapshot:
            states[message.symbol] = {"bid": {}, "ask": {}}
        if message.symbol not in states:
            continue
        state = states[message.symbol]
        for side, price, size in message.levels:
            state[side].pop(price, None)
            if size:
                state[side][price] = size
        bids = sorted(state["bid"].items(), reverse=True)
        asks = sorted(state["ask"].items())
        cells = []
        for level in range(LEVELS):
            for side in (bids, asks):
                cells += side[level] if level < len(side) else (None, None)
        books[row] = (message.symbol, *cells)
    return books


def write(folder, lines, name="deribit_incremental_book_L2_2020-04-01_PERPETUALS.csv"):
    path = folder / name
    content = "\n".join([HEADER, *lines, ""]).encode()
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return Source(path)


def found_books(reading):
    books = reading.table("book")
    if books.is_empty():
        return {}
    return {
        row[0]: row[1:] for row in books.select(ROW, "symbol", *book_columns(LEVELS)).iter_rows()
    }


PROPERTY = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])


@PROPERTY
@given(stream=messages(), block=st.integers(1, 300))
def test_books_are_those_of_the_vendors_description(tmp_path, monkeypatch, stream, block):
    # small blocks cut messages anywhere
    monkeypatch.setattr(tardis_rows, "_BLOCK_BYTES", block)
    lines = [line for message in stream for line in message.lines()]
    reading = read_whole(write(tmp_path, lines), options=EVERY_MESSAGE)
    expected = slow_books(stream)
    assert found_books(reading) == expected
    outcomes = reading.account.outcomes
    assert reading.account.records == len(lines)
    known, without = set(), 0
    replaced, last = 0, {}
    for message in stream:
        is_known = message.symbol in known
        replaced += is_known and message.is_snapshot and not last[message.symbol]
        last[message.symbol] = message.is_snapshot
        if message.is_snapshot:
            known.add(message.symbol)
        elif not is_known:
            without += len(message.levels)
    assert outcomes[BEFORE_SNAPSHOT] == without
    assert outcomes[APPLIED] == len(lines) - without
    assert reading.account.events[REPLACED] == replaced


@PROPERTY
@given(
    stream=messages(),
    block=st.integers(1, 300),
    faults=st.sets(st.integers(0, 25), min_size=1, max_size=3),
    fault=st.sampled_from(["deribit,BTC", "deribit,BTC,1,2,false,bid,1x,1", "?,?,?,?,?,?,?,?"]),
)
def test_a_faulty_row_never_makes_a_wrong_book(
    *, tmp_path, monkeypatch, stream, block, faults, fault
):
    monkeypatch.setattr(tardis_rows, "_BLOCK_BYTES", block)
    lines = [line for message in stream for line in message.lines()]
    faulty = {place for place in faults if place < len(lines)}
    garbled = [fault if place in faulty else line for place, line in enumerate(lines)]
    reading = read_whole(write(tmp_path, garbled), options=EVERY_MESSAGE)
    found, true = found_books(reading), slow_books(stream)
    for row, book in found.items():
        assert true[row] == book
    account = reading.account
    assert account.records == len(lines)
    assert account.rejected.total() == len(faulty)
    assert bool(account.events[LOST]) == (0 < len(faulty) < len(lines))
    if not faulty:
        assert found == true
        return
    # what comes before the message ahead of the first fault is as if nothing had happened
    ends = [0]
    for message in stream:
        ends.append(ends[-1] + len(message.levels))
    whole = max(end for end in ends if end <= min(faulty))
    ahead = max((end for end in ends if end < whole), default=0)
    assert {row for row in found if row <= ahead} == {row for row in true if row <= ahead}


BTC = Message("BTC", 0, is_snapshot=True, levels=(("bid", 5, 1), ("ask", 6, 2)))
UPDATE = Message("BTC", 1, is_snapshot=False, levels=(("bid", 4, 1), ("bid", 5, 0)))
LATER = Message("BTC", 2, is_snapshot=False, levels=(("bid", 3, 1),))
AGAIN = Message("BTC", 3, is_snapshot=True, levels=(("bid", 7, 1), ("ask", 8, 2)))
LAST = Message("BTC", 4, is_snapshot=False, levels=(("ask", 9, 1),))


def test_after_a_fault_books_begin_again_with_the_next_snapshot(tmp_path):
    stream = [BTC, UPDATE, LATER, AGAIN, LAST]
    lines = [line for message in stream for line in message.lines()]
    lines[3] = lines[3].replace("bid,5,0", "bid,five,0")
    reading = check_format(write(tmp_path, lines), NAME, options=EVERY_MESSAGE)
    # the fault stands between the rows of two messages, which are not believed
    true = slow_books(stream)
    assert found_books(reading) == {row: true[row] for row in (2, 7, 8)}
    assert reading.account.outcomes == {APPLIED: 5, BESIDE_FAULT: 2}
    assert reading.account.events == {LOST: 1}
    assert dict(reading.account.rejected) == {"column 'price' is not a number": 1}


def test_updates_after_a_fault_are_counted_apart(tmp_path):
    stream = [BTC, UPDATE, LATER, Message("BTC", 3, is_snapshot=False, levels=(("bid", 2, 1),))]
    lines = [line for message in stream for line in message.lines()]
    lines[2] = "garbage"
    account = read_whole(write(tmp_path, lines), options=EVERY_MESSAGE).account
    # the row of the same message and the snapshot ahead stand beside the fault
    assert account.outcomes == {BESIDE_FAULT: 3, AFTER_FAULT: 2}


def test_a_cut_last_line_takes_its_message_with_it(tmp_path):
    lines = [*BTC.lines(), *UPDATE.lines()]
    lines[-1] = lines[-1][:20]
    reading = read_whole(write(tmp_path, lines), options=EVERY_MESSAGE)
    assert set(found_books(reading)) == {2}
    assert reading.account.outcomes == {APPLIED: 2, BESIDE_FAULT: 1}


def test_files_put_together_go_on_with_the_snapshot_of_the_second(tmp_path):
    lines = [*BTC.lines(), *UPDATE.lines(), HEADER, *AGAIN.lines()]
    reading = check_format(write(tmp_path, lines), NAME, options=EVERY_MESSAGE)
    assert set(found_books(reading)) == {2, 4, 7}
    assert dict(reading.account.rejected) == {HEADER_IN_THE_MIDDLE: 1}
    assert reading.account.events == {REPLACED: 1}


def test_faults_that_were_handed_on_still_make_the_book_unknown(tmp_path, monkeypatch):
    monkeypatch.setattr(format_module, "MOST_REJECTS", 1)
    source = write(tmp_path, [*BTC.lines(), *UPDATE.lines(), HEADER, *AGAIN.lines(), "garbage"])
    form, match = recognise(source, options=EVERY_MESSAGE)
    handed_on, kept = Account(lambda _rejects: None), Account()
    one, other = (list(form.read(source, match, account)) for account in (handed_on, kept))
    assert handed_on.outcomes == kept.outcomes == {APPLIED: 4, BESIDE_FAULT: 2}
    assert handed_on.events == kept.events == {LOST: 1}
    assert [batch.frame.rows() for batch in one] == [batch.frame.rows() for batch in other]


def test_times_and_one_book_an_interval(tmp_path):
    lines = [line for message in (BTC, UPDATE, LATER) for line in message.lines()]
    options = Options(book_every=timedelta(milliseconds=2), book_levels=2)
    source = write(tmp_path, lines, "deribit_incremental_book_L2_2020-04-01_BTC.csv.gz")
    books = check_format(source, NAME, options=options).table("book")
    assert books["ts"].dt.epoch("us").to_list() == [FIRST + 1000, FIRST + 2000]
    assert books["received_at"].dt.epoch("us").to_list() == [FIRST + 91_000, FIRST + 92_000]
    assert books["bid_price_0"].to_list() == [4.0, 4.0]
    assert books["bid_price_1"].to_list() == [None, 3.0]


def test_the_word_of_the_user_stands(tmp_path):
    reading = read_whole(write(tmp_path, BTC.lines()), Hints(venue="mine", symbol="BTC-1"))
    (batch,) = reading.batches
    assert (batch.venue, batch.frame["symbol"].to_list()) == ("mine", ["BTC-1"])


def test_a_truncated_file_is_no_shorter_file(tmp_path):
    source = write(tmp_path, BTC.lines() * 500, "deribit_incremental_book_L2_x_BTC.csv.gz")
    source.path.write_bytes(source.path.read_bytes()[:-9])
    with pytest.raises(InputError, match="is damaged or incomplete after byte"):
        read_whole(source)


def test_memory_holds_a_block_and_not_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(tardis_rows, "_BLOCK_BYTES", 10_000)
    many = [Message("BTC", n, is_snapshot=not n, levels=(("bid", 5, 1),)) for n in range(3000)]
    source = write(tmp_path, [line for message in many for line in message.lines()])
    frames = list(tardis_rows.read_update_rows(source, ",", Account()))
    assert sum(map(len, frames)) == 3000
    assert max(map(len, frames)) < 200
    assert pl.concat(frames)[ROW].to_list() == list(range(1, 3001))
