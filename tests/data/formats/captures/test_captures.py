"""Captures of a recorder: lines told apart, every one accounted for, books true or absent.

The real files are read whole and every book is compared with one rebuilt level by level; in
simulated feeds the truth is known, and messages are lost on the way.
"""

import gzip
import json
import zlib
from bisect import insort
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from margincast.core.errors import InputError
from margincast.data.formats.captures.checksum import VERIFIED
from margincast.data.formats.captures.recording import CONNECTION, EXCHANGES, HEADER, NOTE, REQUEST
from margincast.data.formats.captures.venue import HOLE
from margincast.data.formats.format import APPLIED, TRANSLATED, Account, Hints, Options
from margincast.data.formats.source import Source
from margincast.data.formats.testing import check_format, read_whole
from margincast.data.schemas import book_columns

NAME = "websocket capture"
LEVELS = 20
EVERY_STATE = Options(book_every=timedelta(0), book_levels=LEVELS)
FOLDER = Path("data") / "native" / "websocket_captures"


def line(kind, **fields):
    return json.dumps({"t": kind, **fields})


def header(exchange="KRAKEN_FUTURES", form=2):
    return line("header", format=form, exchange=exchange, config={}, recorded=1626994927.1)


def received(message, ts="1626994930.1", conn="ws.1"):
    text = message if isinstance(message, str) else json.dumps(message)
    return line("recv", conn=conn, ts=0, data=text).replace('"ts": 0', f'"ts": {ts}')


def kraken_trade(sequence=1, **fields):
    # Kraken Futures API, "WebSocket: Trade"
    return {
        "feed": "trade",
        "product_id": "PI_XBTUSD",
        "uid": "05af78ac-a774-478c-a50c-8b9c234e071e",
        "side": "sell",
        "type": "fill",
        "seq": sequence,
        "time": 1626994929946,
        "qty": 440,
        "price": 34893,
    } | fields


def written(path, *lines, end="\n"):
    path.write_bytes(("".join(text + end for text in lines)).encode())
    return Source(path)


# --- the lines of a capture


def test_every_line_ends_in_exactly_one_place(tmp_path):
    source = written(
        tmp_path / "kraken.jsonl",
        header(),
        line("http", conn="http.0", ts=1626994927.1, url="https://x/instruments", data="{}"),
        line("connect", conn="ws.1", ts=1626994927.2, addr="wss://futures.kraken.com/ws/v1"),
        line("send", conn="ws.1", ts=1626994927.3, addr="wss://x", data="{}"),
        received(kraken_trade()),
        line("close", conn="ws.1", ts=1626994931.0),
        "garbled",
        line("surprise"),
        line("recv", conn="ws.1", ts=1626994931.0),
        line("recv", conn="ws.1", ts="now", data="{}"),
        line("recv", conn="ws.1", ts=float("nan"), data="{}"),
        line("recv", conn="ws.1", ts=1626994931.0, data=7),
        "[" * 100_000,
        "[1]",
        received("{"),
        received({"feed": "trade", "product_id": "PI_XBTUSD"}),
    )
    reading = check_format(source, NAME)
    assert reading.account.records == 16
    assert reading.account.outcomes == {
        HEADER: 1,
        "not stored: answer to a request": 1,
        CONNECTION: 1,
        REQUEST: 1,
        TRANSLATED: 1,
        NOTE: 1,
    }
    assert reading.account.rejected == {
        "a line of a capture: not JSON": 1,
        "a line of an unknown type": 1,
        "a line of a capture: a message without 'data'": 1,
        "a line of a capture: a value that is no time": 2,
        "a line of a capture: a value that is no text": 1,
        "not JSON": 2,
        "a line of a capture: a message of another shape than documented": 1,
        "a message without 'price'": 1,
    }
    assert [reject.row for reject in reading.account.rejects] == [*range(7, 17)]
    assert reading.table("trades")["_row"].to_list() == [5]


@pytest.mark.parametrize(
    ("seconds", "microseconds"),
    [
        ("1633998512.0633569", 63_357),  # rounded up: it had not arrived before
        ("1786310819.526357", 526_357),  # a binary number would have made it 526_357.25
        ("1626994930", 0),
        ("1626994930.000000001", 1),
    ],
)
def test_receive_time_is_rounded_up_to_the_microsecond(tmp_path, seconds, microseconds):
    source = written(tmp_path / "a.jsonl", header(), received(kraken_trade(), seconds))
    (arrived,) = read_whole(source).table("trades")["received_at"]
    whole_second = datetime.fromtimestamp(int(seconds.partition(".")[0]), UTC)
    assert arrived == whole_second + timedelta(microseconds=microseconds)


def test_byte_order_mark_and_windows_line_ends_are_read(tmp_path):
    lines = [header(), received(kraken_trade())]
    plain = written(tmp_path / "plain.jsonl", *lines)
    odd = written(tmp_path / "odd.jsonl", "\ufeff" + lines[0], lines[1], end="\r\n")
    assert read_whole(odd).table("trades").equals(read_whole(plain).table("trades"))


@pytest.mark.parametrize(
    ("first", "reason"),
    [
        ("garbled", "the first line is no JSON"),
        ("[]", "the first line is no header of a capture"),
        (line("recv", data="{}"), "the first line is no header of a capture"),
        (header(form=3), "a capture of format 3, known is 2"),
        (header("BYBITT"), "a capture of 'BYBITT' (did you mean 'BYBIT'?), known are BINANCE"),
    ],
)
def test_a_file_that_is_no_known_capture_is_refused_with_the_reason(tmp_path, first, reason):
    source = written(tmp_path / "a.jsonl", first, received(kraken_trade()))
    with pytest.raises(InputError) as refused:
        read_whole(source)
    assert f"{NAME}: {reason}" in str(refused.value)


def test_a_header_in_the_middle_is_counted_if_it_is_of_the_same_exchange(tmp_path):
    again = [header(), received(kraken_trade())]
    reading = check_format(written(tmp_path / "a.jsonl", *again, *again), NAME)
    assert reading.account.outcomes == {HEADER: 2, TRANSLATED: 2}


def test_another_exchange_in_the_middle_is_an_error_that_names_the_line(tmp_path):
    source = written(tmp_path / "a.jsonl", header(), received(kraken_trade()), header("OKX"))
    with pytest.raises(InputError, match=r"line 3 begins a capture of 'OKX' in one of 'KRAKEN"):
        read_whole(source)


def test_a_truncated_capture_is_an_error_never_a_shorter_table(tmp_path):
    noise = np.random.default_rng(0)
    trades = [received(kraken_trade(seq, price=noise.random())) for seq in range(1, 5_000)]
    whole = gzip.compress("\n".join([header(), *trades]).encode())
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="damaged or incomplete after byte"):
        read_whole(Source(path))


def test_the_users_venue_stands_for_the_usual_one_only(tmp_path):
    source = written(
        tmp_path / "a.jsonl",
        header("BITGET"),
        *(
            received(
                {
                    "action": "update",
                    "arg": {"instType": market, "channel": "trade", "instId": "BTCUSDT"},
                    "data": [["1649290077777", "43000.1", "0.5", "buy"]],
                }
            )
            for market in ("sp", "mc")
        ),
    )
    reading = check_format(source, NAME, Hints(venue="mirror"))
    assert {batch.venue for batch in reading.batches} == {"mirror", "bitget-futures"}


def test_a_long_capture_comes_in_batches_and_is_the_same_as_a_short_one(tmp_path):
    count = 1_500
    book = {"feed": "book", "product_id": "PI_XBTUSD", "side": "buy", "timestamp": 1626994929946}
    snapshot = book | {"feed": "book_snapshot", "seq": 0, "bids": [], "asks": []}
    updates = [book | {"seq": i, "price": i % 7 + 1, "qty": i} for i in range(1, count)]
    lines = [header(), *map(received, [snapshot, *updates])]
    for middle in (1_000, 500):
        lines.insert(middle, line("send", conn="ws.1", ts=1626994927.3, data="x" * 9_000_000))
    reading = read_whole(written(tmp_path / "a.jsonl", *lines), options=EVERY_STATE)
    assert len(reading.batches) == 3
    best = reading.table("book")
    assert best["sequence"].to_list() == [*range(count)]
    # the highest price, 7, is set by every seventh message, the first time by the sixth
    sizes = [None, *range(1, 6), *(i - (i + 1) % 7 for i in range(6, count))]
    assert best["bid_size_0"].to_list() == sizes


# --- the real files

# tables, book messages, messages that carry rows, and rows beyond one a message
REAL = {
    "BITGET": ({"book", "derivative_ticker", "trades"}, 637, 282, 490),
    "BYBIT": ({"book", "derivative_ticker", "trades"}, 2148, 878, 227),
    "COINBASE": ({"book", "quotes", "trades"}, 775, 219, 220),
    "DERIBIT": ({"book", "options"}, 46, 89, 0),
    "KRAKEN_FUTURES": ({"book", "trades"}, 7024, 13, 990),
    "OKX": ({"book", "quotes", "trades"}, 290, 102, 0),
}


@pytest.fixture(scope="module")
def read_every_state(shared_data):
    @cache
    def read(exchange):
        return read_whole(_source(shared_data, exchange), options=EVERY_STATE)

    return read


def _source(shared_data, exchange):
    return Source(shared_data / FOLDER / f"{exchange}.jsonl.zst")


@pytest.mark.parametrize("exchange", [*REAL, "BINANCE", "BINANCE_FUTURES"])
def test_a_real_capture_passes_the_contract_and_loses_no_line(shared_data, exchange):
    source = _source(shared_data, exchange)
    account = check_format(source, NAME).account
    assert account.records == len(_lines(source))
    assert not account.rejected
    assert not account.events[HOLE]


@pytest.mark.parametrize("exchange", REAL)
def test_a_real_capture_gives_the_rows_its_messages_carry(read_every_state, exchange):
    tables, books, messages, further = REAL[exchange]
    reading = read_every_state(exchange)
    assert set(reading.tables) == tables
    outcomes, events = reading.account.outcomes, reading.account.events
    assert (outcomes[APPLIED], outcomes[TRANSLATED]) == (books, messages)
    assert events["rows beyond one a message"] == further
    assert reading.tables["book"] == books
    assert sum(reading.tables.values()) == books + messages + further
    assert events[VERIFIED] == (books if exchange in ("BITGET", "OKX") else 0)


@pytest.mark.parametrize("exchange", REAL)
def test_every_real_book_is_the_one_rebuilt_level_by_level(shared_data, read_every_state, exchange):
    book = read_every_state(exchange).table("book")
    assert book.filter(pl.col("bid_price_0") >= pl.col("ask_price_0")).is_empty()
    columns = book_columns(LEVELS)
    given = {row[0]: row[1:] for row in book.select("_row", *columns).iter_rows()}
    rebuilt = dict(_rebuilt(_source(shared_data, exchange), exchange))
    assert given == rebuilt


@pytest.mark.parametrize("exchange", ["BYBIT", "COINBASE", "OKX"])
def test_aggressors_pay_the_spread(read_every_state, exchange):
    """A buyer trades at the ask: were sides the makers', every trade would be on the wrong side."""

    def all_of(table):
        frames = [
            batch.frame.with_columns(venue=pl.lit(batch.venue))
            for batch in read_every_state(exchange).batches
            if batch.table == table
        ]
        return pl.concat(frames).sort("ts")

    mid = (pl.col("bid_price_0") + pl.col("ask_price_0")) / 2
    trades = all_of("trades").join_asof(
        all_of("book").select("venue", "symbol", "ts", mid=mid),
        on="ts",
        by=["venue", "symbol"],
        allow_exact_matches=False,
        check_sortedness=False,
    )
    known = trades.drop_nulls("mid")
    assert len(known) > 50
    assert ((known["side"] == "buy") == (known["price"] > known["mid"])).mean() > 0.99


def _lines(source):
    with source.open() as stream:
        return stream.read().splitlines()


class _Side:
    """Levels of a side, best first: the slow and obvious way."""

    def __init__(self, sign):
        self.sign, self.prices, self.sizes = sign, [], {}

    def set(self, price, size):
        key = self.sign * price
        if self.sizes.pop(key, None) is not None:
            self.prices.remove(key)
        if size:
            insort(self.prices, key)
            self.sizes[key] = size

    def best(self):
        return [(self.sign * key, self.sizes[key]) for key in self.prices[:LEVELS]]


def _rebuilt(source, exchange) -> Iterator[tuple[int, tuple[float | None, ...]]]:
    """Line number and best levels after each book message."""
    books = {}
    for row, text in enumerate(_lines(source), start=1):
        record = json.loads(text)
        told = TELL[exchange](json.loads(record["data"])) if record["t"] == "recv" else None
        if told is None:
            continue
        symbol, is_snapshot, *sides = told
        key = (record["conn"], symbol)
        if is_snapshot:
            books[key] = (_Side(-1), _Side(1))
        for held, changes in zip(books[key], sides, strict=True):
            for price, size in changes:
                held.set(float(price), float(size))
        yield row, _flat(*[side.best() for side in books[key]])


def _flat(*sides):
    none = (None, None)
    return tuple(
        value
        for level in range(LEVELS)
        for side in sides
        for value in (side[level] if level < len(side) else none)
    )


def _tell_bybit(message):
    if not message.get("topic", "").startswith("orderbook"):
        return None
    data = message["data"]
    return data["s"], message["type"] == "snapshot", data["b"], data["a"]


def _tell_by_action(message):
    if "data" not in message or message["arg"]["channel"] != "books":
        return None
    (data,) = message["data"]
    sides = [[level[:2] for level in data[side]] for side in ("bids", "asks")]
    return message["arg"]["instId"], message["action"] == "snapshot", *sides


def _tell_coinbase(message):
    if message["channel"] != "l2_data":
        return None
    (event,) = message["events"]
    sides = [
        [(u["price_level"], u["new_quantity"]) for u in event["updates"] if u["side"] == side]
        for side in ("bid", "offer")
    ]
    return event["product_id"], event["type"] == "snapshot", *sides


def _tell_deribit(message):
    parameters = message.get("params", {"channel": ""})
    if not parameters["channel"].startswith("book."):
        return None
    data = parameters["data"]
    sides = [
        [(price, 0 if action == "delete" else size) for action, price, size in data[side]]
        for side in ("bids", "asks")
    ]
    return data["instrument_name"], data["type"] == "snapshot", *sides


def _tell_kraken(message):
    if message.get("feed") == "book_snapshot":
        sides = [[(x["price"], x["qty"]) for x in message[side]] for side in ("bids", "asks")]
        return message["product_id"], True, *sides
    if message.get("feed") == "book" and "event" not in message:
        level = [(message["price"], message["qty"])]
        sides = (level, []) if message["side"] == "buy" else ([], level)
        return message["product_id"], False, *sides
    return None


TELL = {
    "BITGET": _tell_by_action,
    "BYBIT": _tell_bybit,
    "COINBASE": _tell_coinbase,
    "DERIBIT": _tell_deribit,
    "KRAKEN_FUTURES": _tell_kraken,
    "OKX": _tell_by_action,
}


# --- simulated feeds that lose messages

START_MS = 1_700_000_000_000


def _say_bybit(number, is_snapshot, bids, asks, _book):
    return {
        "topic": "orderbook.50.BTCUSDT",
        "type": "snapshot" if is_snapshot else "delta",
        "ts": START_MS + number,
        "data": {"s": "BTCUSDT", "b": bids, "a": asks, "u": 100 + number, "seq": 5 * number},
    }


def _say_okx(number, is_snapshot, bids, asks, _book):
    data = {"bids": bids, "asks": asks, "ts": str(START_MS + number), "checksum": 0}
    data |= {"seqId": 7 * number, "prevSeqId": -1 if is_snapshot else 7 * (number - 1)}
    return {
        "arg": {"channel": "books", "instId": "BTC-USDT"},
        "action": "snapshot" if is_snapshot else "update",
        "data": [data],
    }


def _say_bitget(number, is_snapshot, bids, asks, book):
    # fewer than 25 levels a side, so that the checksum covers the whole book
    best = [sorted(book[0].items(), reverse=True), sorted(book[1].items())]
    parts = []
    for level in range(max(map(len, best))):
        parts += [f"{p}:{s}" for side in best for p, s in side[level : level + 1]]
    unsigned = zlib.crc32(":".join(parts).encode())
    checksum = unsigned - (unsigned >> 31 << 32)
    data = {"bids": bids, "asks": asks, "ts": str(START_MS + number), "checksum": checksum}
    return {
        "arg": {"instType": "mc", "channel": "books", "instId": "BTCUSDT"},
        "action": "snapshot" if is_snapshot else "update",
        "data": [data],
    }


def _say_coinbase(number, is_snapshot, bids, asks, _book):
    updates = [
        {"side": side, "price_level": price, "new_quantity": size}
        for side, levels in (("bid", bids), ("offer", asks))
        for price, size in levels
    ]
    event = {"type": "snapshot" if is_snapshot else "update", "product_id": "BTC-USD"}
    return {
        "channel": "l2_data",
        "timestamp": f"2026-08-09T21:05:48.{number:09d}Z",
        "sequence_num": number,
        "events": [event | {"updates": updates}],
    }


def _say_deribit(number, is_snapshot, bids, asks, _book):
    data = {
        "type": "snapshot" if is_snapshot else "change",
        "timestamp": START_MS + number,
        "instrument_name": "BTC-PERPETUAL",
        "change_id": 3 * number,
        **({} if is_snapshot else {"prev_change_id": 3 * (number - 1)}),
    }
    for side, levels in (("bids", bids), ("asks", asks)):
        data[side] = [
            ["change" if float(size) else "delete", float(price), float(size)]
            for price, size in levels
        ]
    return {"method": "subscription", "params": {"channel": "book.BTC-PERPETUAL.raw", "data": data}}


def _say_kraken(number, is_snapshot, bids, asks, _book):
    head = {"product_id": "PI_XBTUSD", "timestamp": START_MS + number, "seq": number}
    sides = [
        [{"price": float(price), "qty": float(size)} for price, size in levels]
        for levels in (bids, asks)
    ]
    if is_snapshot:
        return head | {"feed": "book_snapshot", "bids": sides[0], "asks": sides[1]}
    side = "buy" if bids else "sell"
    return head | {"feed": "book", "side": side, **(sides[0] or sides[1])[0]}


SAY = {
    "BITGET": _say_bitget,
    "BYBIT": _say_bybit,
    "COINBASE": _say_coinbase,
    "DERIBIT": _say_deribit,
    "KRAKEN_FUTURES": _say_kraken,
    "OKX": _say_okx,
}


def _simulated(seed, exchange):
    """Messages of a feed and the true book after each: snapshots among one-level updates."""
    noise = np.random.default_rng(seed)
    book = ({}, {})
    messages, truth = [], []
    for number in range(40):
        is_snapshot = noise.random() < 0.08 or number == 0
        if is_snapshot:
            for side, prices in zip(book, (range(90, 100), range(100, 110)), strict=True):
                side.clear()
                side.update(
                    {f"{p}.5": f"{noise.integers(1, 9)}" for p in prices if noise.random() < 0.7}
                )
            changes = [[[p, s] for p, s in side.items()] for side in book]
        else:
            chosen = int(noise.integers(2))
            price = f"{noise.integers(90, 100) + 10 * chosen}.5"
            size = ("0", "1", "2.5")[noise.integers(3)]
            book[chosen].pop(price, None)
            if size != "0":
                book[chosen][price] = size
            changes = [[], []]
            changes[chosen] = [[price, size]]
        messages.append(SAY[exchange](number, is_snapshot, *changes, book))
        bids, asks = [[(float(p), float(s)) for p, s in side.items()] for side in book]
        truth.append((is_snapshot, _flat(sorted(bids, reverse=True), sorted(asks))))
    return messages, truth


@pytest.mark.parametrize("exchange", SAY)
@settings(max_examples=25)
@given(seed=st.integers(0, 2**32), lost=st.sets(st.integers(0, 39), max_size=4))
def test_what_is_lost_makes_the_book_unknown_until_the_next_snapshot(exchange, seed, lost):
    messages, truth = _simulated(seed, exchange)
    account, decoder = Account(), EXCHANGES[exchange].decoder(EVERY_STATE)
    decoder.connected("ws.1", "wss://venue/v5/public/linear")
    for number, message in enumerate(messages):
        if number not in lost:
            arrival_us = (START_MS + number) * 1000
            decoder.received(json.dumps(message), "ws.1", arrival_us, number, account)
    frames = [batch.frame for batch in decoder.take(account, last=True)]
    rows = [] if not frames else [*pl.concat(frames).iter_rows(named=True)]

    assert account.records == len(messages) - len(lost)
    assert account.outcomes[APPLIED] == len(rows)
    for row in rows:
        assert tuple(row[name] for name in book_columns(LEVELS)) == truth[row["_row"]][1]
    sound, holes = _sound(truth, lost, exchange)
    given_rows = [row["_row"] for row in rows]
    if exchange == "BITGET":
        # without numbers, a lost message shows only where it made a difference
        assert set(sound) <= set(given_rows)
    else:
        assert given_rows == sound
        assert account.events[HOLE] == holes


def _sound(truth, lost, exchange):
    """Messages after which the book can be known, and how often a known one was lost."""
    sound, holes, known = [], 0, False
    for number, (is_snapshot, _) in enumerate(truth):
        if number in lost:
            continue
        follows = number - 1 not in lost
        # a number of Coinbase's is missing whatever comes next; others' snapshots need not follow
        if known and not follows and (not is_snapshot or exchange == "COINBASE"):
            holes += 1
        known = is_snapshot or (known and follows)
        if known:
            sound.append(number)
    return sound, holes
