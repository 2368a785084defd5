"""Rejected records go on as they come: no file, however faulty, fills the memory with them."""

import polars as pl
import pyarrow as pa
import pytest

from margincast.core.errors import InputError
from margincast.data.formats import format as format_module
from margincast.data.formats import text as text_module
from margincast.data.formats.format import ROW, Account, Hints, Sample
from margincast.data.formats.source import Source
from margincast.data.formats.text import RAGGED, Column, read_text

COLUMNS = {"ts": Column("ts", "time"), "price": Column("price", "number")}
SOUND, RAGGED_LINE, GARBLED = "1704067200,1\n", "1704067200,1,2\n", "1704067200,one\n"


class Sink:
    """Takes rejects and remembers how many came at a time."""

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.sizes: list[int] = []

    def __call__(self, rejects) -> None:
        self.rows += [reject.row for reject in rejects]
        self.sizes.append(len(rejects))


@pytest.mark.parametrize("line", [RAGGED_LINE, GARBLED])
def test_an_account_never_holds_more_rejects_than_it_may(tmp_path, monkeypatch, line):
    monkeypatch.setattr(format_module, "MOST_REJECTS", 100)
    path = tmp_path / "BTC.csv"
    path.write_text("ts,price\n" + line * 10_050)
    sink = Sink()
    account = Account(sink)
    assert list(read_text(Source(path), COLUMNS, account)) == []
    assert sink.sizes == [100] * 100
    assert len(account.rejects) == 50
    assert [*sink.rows, *(reject.row for reject in account.drain())] == list(range(1, 10_051))
    assert account.rejected.total() == account.records == 10_050


def test_sound_rows_after_a_long_run_of_ragged_ones_keep_their_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr(text_module, "_BLOCK_BYTES", 1024)
    path = tmp_path / "BTC.csv"
    path.write_text("ts,price\n" + RAGGED_LINE * 7_000 + SOUND + RAGGED_LINE + SOUND)
    account = Account(lambda _rejects: None)
    frame = pl.concat(read_text(Source(path), COLUMNS, account))
    assert frame[ROW].to_list() == [7_001, 7_003]
    assert account.rejected == {RAGGED: 7_001}


def test_without_a_sink_rejects_wait_until_they_are_drained(monkeypatch):
    monkeypatch.setattr(format_module, "MOST_REJECTS", 2)
    account = Account()
    for row in range(5):
        account.reject(row, "faulty", "text")
    assert [reject.row for reject in account.drain()] == list(range(5))


@pytest.mark.parametrize("line", [RAGGED_LINE, GARBLED])
def test_what_stops_a_sink_stops_the_reading(tmp_path, monkeypatch, line):
    monkeypatch.setattr(format_module, "MOST_REJECTS", 10)

    def full(_rejects) -> None:
        raise InputError("no room for the quarantine")

    path = tmp_path / "BTC.csv"
    path.write_text("ts,price\n" + line * 50)
    with pytest.raises(InputError, match="no room for the quarantine"):
        list(read_text(Source(path), COLUMNS, Account(full)))


def test_who_listens_hears_of_each_reject_though_it_was_handed_on(monkeypatch):
    monkeypatch.setattr(format_module, "MOST_REJECTS", 3)
    heard: list[int] = []
    account = Account(lambda _rejects: None)
    account.listen(lambda reject: heard.append(reject.row))
    for row in range(10):
        account.reject(row, "faulty", "text")
    assert heard == list(range(10))
    assert len(account.rejects) < 3


@pytest.mark.parametrize("name", ["", " ", ".", ".."])
def test_a_hint_that_names_nothing_is_refused(name):
    with pytest.raises(InputError, match="a venue cannot be called"):
        Hints(venue=name)
    with pytest.raises(InputError, match="a symbol cannot be called"):
        Hints(symbol=name)


def test_a_hint_of_an_unknown_table_is_refused():
    with pytest.raises(InputError, match=r"no table 'trade' \(did you mean 'trades'\?\)"):
        Hints(table="trade")
    assert Hints(table="bars").table == "bars"
    assert Hints(table="bars_1h").table == "bars_1h"


TEXT = "ts,price,size,side\n1704067200,1,1,buy\n"


@pytest.mark.parametrize(
    ("head", "what"),
    [
        (pa.Codec("gzip").compress(TEXT.encode(), asbytes=True), "compressed by gzip.*1f 8b"),
        (pa.Codec("zstd").compress(TEXT.encode(), asbytes=True), "compressed by zstd"),
        (TEXT.encode("utf-16"), "text in UTF-16.*ff fe"),
        (TEXT.encode("utf-16-le"), "text in UTF-16.*74 00 73 00"),
        (TEXT.encode("utf-16-be"), "text in UTF-16.*00 74 00 73"),
        (b"BTC.csv".ljust(257, b"\0") + b"ustar\x0000", "a tar archive"),
        (b"PK\x03\x04\x14\x00", "a zip archive or a spreadsheet"),
    ],
)
def test_the_refusal_of_what_no_format_reads_says_what_it_is(tmp_path, head, what):
    with pytest.raises(InputError, match=rf"BTC\.csv is {what}"):
        Sample(Source(tmp_path / "BTC.csv"), head)
