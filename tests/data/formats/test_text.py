import json
import math
from datetime import UTC, datetime

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from margincast.core.errors import InputError
from margincast.data.formats import text as text_module
from margincast.data.formats.format import ROW, Account, Sample
from margincast.data.formats.source import Source
from margincast.data.formats.text import (
    HEADER_IN_THE_MIDDLE,
    RAGGED,
    SPANS_LINES,
    Column,
    parse_cells,
    read_text,
)
from margincast.data.schemas import TIMESTAMP

COLUMNS = {
    "time": Column("ts", "time"),
    "px": Column("price", "number"),
    "n": Column("count", "integer"),
    "maker": Column("is_maker", "boolean"),
    "symbol": Column("symbol", "text"),
}
HEADER = "time,px,n,maker,symbol"
ROWS = (
    "1690848000000,4.255,1,true,FILUSDT",
    "1690848060000,4.251,2,false,FILUSDT",
    "1690848120000,4.250,3,true,FILUSDT",
)


def read(folder, content, *, header=None, columns=COLUMNS, delimiter=","):
    """Read a text; return all rows and the account."""
    path = folder / "sample.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    account = Account()
    frames = list(read_text(Source(path), columns, account, header=header, delimiter=delimiter))
    return (pl.concat(frames) if frames else pl.DataFrame()), account


def rejects_of(account):
    return [(reject.row, reject.reason) for reject in account.rejects]


def lines(*rows):
    return "\n".join([HEADER, *rows]) + "\n"


def test_cells_become_what_their_columns_say(tmp_path):
    frame, account = read(tmp_path, lines(*ROWS))
    assert dict(frame.schema) == {
        "ts": TIMESTAMP,
        "price": pl.Float64,
        "count": pl.Int64,
        "is_maker": pl.Boolean,
        "symbol": pl.String,
        ROW: pl.Int64,
    }
    assert frame.row(0) == (datetime(2023, 8, 1, tzinfo=UTC), 4.255, 1, True, "FILUSDT", 1)
    assert frame[ROW].to_list() == [1, 2, 3]
    assert account.records == 0  # what became of sound rows is for the caller to say


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("has_header", [True, False])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_line_ends_byte_order_marks_and_delimiters_change_nothing(
    tmp_path, ending, mark, has_header, delimiter
):
    expected, _ = read(tmp_path, lines(*ROWS))
    shown = [HEADER, *ROWS] if has_header else list(ROWS)
    content = ending.join(shown).replace(",", delimiter)
    frame, account = read(
        tmp_path,
        mark + content.encode(),
        header=None if has_header else HEADER.split(","),
        delimiter=delimiter,
    )
    assert frame.equals(expected)
    assert account.records == 0
    sample = Sample(Source(tmp_path / "sample.csv"), mark + content.encode())
    assert sample.delimiter == delimiter
    assert sample.lines[0].replace(delimiter, ",") == shown[0]
    assert len(sample.lines) == len(shown)


KINDS = st.sampled_from(["sound", "ragged short", "ragged long", "garbled", "header", "blank"])


def line_of(kind, number):
    return {
        "sound": f"{1_690_848_000_000 + number},{number}.5,{number},true,S{number}",
        "ragged short": f"{1_690_848_000_000 + number},1",
        "ragged long": f"{1_690_848_000_000 + number},1,1,true,S,more",
        "garbled": f"{1_690_848_000_000 + number},1.x,{number},true,S",
        "header": HEADER,
        "blank": "",
    }[kind]


def slow_twin(kinds):
    """Say in which row each line must end: obvious, line by line, without blocks."""
    fate = {
        "ragged short": RAGGED,
        "ragged long": RAGGED,
        "garbled": "column 'px' is not a number",
        "header": HEADER_IN_THE_MIDDLE,
    }
    records = [kind for kind in kinds if kind != "blank"]
    sound = [row for row, kind in enumerate(records, start=1) if kind == "sound"]
    rejected = [(row, fate[kind]) for row, kind in enumerate(records, start=1) if kind in fate]
    return sound, rejected


@settings(max_examples=100)
@given(
    kinds=st.lists(KINDS, min_size=1, max_size=60),
    block=st.integers(80, 400),
    ending=st.sampled_from(["\n", "\r\n"]),
    has_header=st.booleans(),
)
def test_each_line_has_one_fate_and_its_number_wherever_blocks_end(
    tmp_path_factory, kinds, block, ending, has_header
):
    folder = tmp_path_factory.getbasetemp()
    numbered = [line_of(kind, number) for number, kind in enumerate(kinds)]
    content = "".join(line + ending for line in ([HEADER] if has_header else []) + numbered)
    sound, rejected = slow_twin(kinds)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_module, "_BLOCK_BYTES", block)
        frame, account = read(folder, content, header=None if has_header else HEADER.split(","))
    assert (frame[ROW].to_list() if len(frame) else []) == sound
    assert sorted(rejects_of(account)) == rejected
    if len(frame):
        records = [number for number, kind in enumerate(kinds) if kind != "blank"]
        assert frame["price"].to_list() == [records[row - 1] + 0.5 for row in frame[ROW]]


def test_a_rejected_row_is_kept_whole_with_its_reason(tmp_path):
    frame, account = read(tmp_path, lines(ROWS[0], "1690848060000,4.2.51,2,false,FILUSDT", "a,b"))
    assert frame[ROW].to_list() == [1]
    garbled, ragged = sorted(account.rejects, key=lambda reject: reject.row)
    assert (garbled.row, garbled.reason) == (2, "column 'px' is not a number")
    assert json.loads(garbled.text) == {
        "time": "1690848060000",
        "px": "4.2.51",
        "n": "2",
        "maker": "false",
        "symbol": "FILUSDT",
    }
    assert (ragged.row, ragged.reason, ragged.text) == (3, RAGGED, "a,b")
    assert account.rejected.total() == 2


@pytest.mark.parametrize(
    ("column", "cell", "reason"),
    [
        ("time", "yesterday", "column 'time' is not a time"),
        ("time", "1.69085E+12", "column 'time' is not a time"),
        ("px", "4,255", RAGGED),
        ("px", '"4,255"', "column 'px' is not a number"),
        ("px", "1_000", "column 'px' is not a number"),
        ("px", "0x10", "column 'px' is not a number"),
        ("px", "4.2\x00", "column 'px' is not a number"),
        ("px", "- 4", "column 'px' is not a number"),
        ("n", "2.5", "column 'n' is not a whole number"),
        ("n", "99999999999999999999", "column 'n' is not a whole number"),
        ("maker", "maybe", "column 'maker' is not true or false"),
    ],
)
def test_a_cell_of_the_wrong_kind_is_rejected_with_its_row(tmp_path, column, cell, reason):
    names = HEADER.split(",")
    cells = ROWS[1].split(",")
    cells[names.index(column)] = cell
    frame, account = read(tmp_path, lines(ROWS[0], ",".join(cells), ROWS[2]))
    assert frame[ROW].to_list() == [1, 3]
    assert rejects_of(account) == [(2, reason)]


@given(st.floats(allow_nan=False, allow_infinity=False), st.sampled_from(["r", "e", "f", "E"]))
def test_numbers_are_read_as_python_reads_them(number, style):
    cell = repr(number) if style == "r" else format(number, f".17{style}")
    cells = pl.DataFrame({"px": [cell, f" {cell} "], ROW: [1, 2]})
    account = Account()
    frame = parse_cells(cells, COLUMNS, account)
    assert frame["price"].to_list() == [float(cell)] * 2
    assert not account.rejects


def test_scientific_notation_of_prices_and_sizes_is_exact(tmp_path):
    rows = [f"1690848000000,{cell},1,true,A" for cell in ("1e-8", "1.5E-05", "2.5e+3", "1E5")]
    frame, _ = read(tmp_path, lines(*rows))
    assert frame["price"].to_list() == [1e-8, 1.5e-5, 2500.0, 100000.0]


def test_empty_cells_are_unknown_and_never_filled(tmp_path):
    frame, account = read(tmp_path, lines(",,,,", '"","","","",""', "NaN,NaN,,,"))
    assert frame.drop(ROW).null_count().row(0) == (2, 2, 2, 2, 2)
    assert rejects_of(account) == [(3, "column 'time' is not a time")]
    frame, _ = read(tmp_path, lines("1690848000000,NaN,,,"))
    assert math.isnan(frame["price"].item())  # the feed's own word for unknown stands


def test_whole_numbers_keep_all_their_digits(tmp_path):
    frame, _ = read(tmp_path, lines(f"1690848000000,1,{2**63 - 1},true,A"))
    assert frame["count"].item() == 2**63 - 1


@pytest.mark.parametrize(("true", "false"), [("true", "false"), ("True", "False"), ("1", "0")])
def test_booleans_of_each_dialect(tmp_path, true, false):
    frame, _ = read(tmp_path, lines(f"1690848000000,1,1,{true},A", f"1690848000000,1,1,{false},A"))
    assert frame["is_maker"].to_list() == [True, False]


def test_a_quoted_field_may_hold_the_delimiter_and_quotes(tmp_path):
    frame, account = read(tmp_path, lines('1690848000000,"4.5",1,true,"a,b ""c"""'))
    assert frame["symbol"].item() == 'a,b "c"'
    assert not account.rejects


def test_a_text_that_spans_lines_is_kept_aside(tmp_path):
    content = lines(ROWS[0], '1690848060000,1,2,true,"FIL\nUSDT"', ROWS[2])
    frame, account = read(tmp_path, content)
    assert frame[ROW].to_list() == [1, 3]
    assert rejects_of(account) == [(2, SPANS_LINES)]


@pytest.mark.parametrize("opened", ['1690848060000,1,2,true,"FILUSDT', '1690848060000,"1,2,true,A'])
def test_an_open_quote_swallows_no_lines_unseen(tmp_path, monkeypatch, opened):
    many = [ROWS[0]] * 50
    frame, account = read(tmp_path, lines(ROWS[0], opened, *many))
    assert frame[ROW].to_list() == [1]
    assert account.rejects[0].text.count("FILUSDT") >= len(many)
    monkeypatch.setattr(text_module, "_BLOCK_BYTES", 200)
    with pytest.raises(InputError, match="a quote is opened that is not closed on its line"):
        read(tmp_path, lines(ROWS[0], opened, *many))


def test_symbols_with_odd_characters_are_kept_as_they_are(tmp_path):
    symbols = ["币安人生USDT", "1000%", "a'b;c", "BTC/USD:BTC-240329", "q\x00r", "é"]
    frame, account = read(tmp_path, lines(*(f"1690848000000,1,1,true,{name}" for name in symbols)))
    assert frame["symbol"].to_list() == symbols
    assert not account.rejects


@pytest.mark.parametrize(
    ("content", "where"),
    [
        (f"{HEADER}\n{ROWS[0]}\n1690848060000,1,1,true,caf\xe9\n".encode("latin-1"), "line 3"),
        (f"caf\xe9,{HEADER}\n".encode("latin-1"), "line 1"),
        (lines(*ROWS).encode("utf-16"), "line 1"),
    ],
)
def test_text_of_another_encoding_is_refused_with_its_line(tmp_path, content, where):
    with pytest.raises(InputError, match=rf"sample\.csv .* {where} is no UTF-8 .* to UTF-8"):
        read(tmp_path, content)


@pytest.mark.parametrize("content", ["", "\n\n", "\ufeff"])
def test_an_empty_file_is_refused(tmp_path, content):
    with pytest.raises(InputError, match="holds no line of data"):
        read(tmp_path, content)


def test_a_file_of_a_header_alone_has_no_rows(tmp_path):
    frame, account = read(tmp_path, lines())
    assert frame.is_empty()
    assert account.records == 0


@pytest.mark.parametrize("header", ["time,px,px", "time, px ,px"])
def test_two_columns_of_one_name_are_refused(tmp_path, header):
    with pytest.raises(InputError, match="more than one column 'px'"):
        read(tmp_path, f"{header}\n1,2,3\n")


def test_a_line_longer_than_a_block_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(text_module, "_BLOCK_BYTES", 100)
    with pytest.raises(InputError, match="a line is longer than"):
        read(tmp_path, lines(*ROWS, f"1690848000000,1,1,true,{'x' * 500}"))


def test_columns_that_are_not_translated_are_kept_as_text(tmp_path):
    frame, _ = read(tmp_path, " px ,note,price\n1,a,0010\n")
    assert frame.columns == ["price", "note", "source_price", ROW]
    assert frame.row(0) == (1.0, "a", "0010", 1)


def test_the_sample_of_a_short_file_has_its_last_line_even_without_an_end(tmp_path):
    path = tmp_path / "short.csv"
    path.write_text(lines(ROWS[0]).rstrip("\n"))
    assert Sample(Source(path), Source(path).head()).lines == [HEADER, ROWS[0]]
    path.write_text(lines(*ROWS * 2000))
    head = Source(path).head()
    sample = Sample(Source(path), head)
    assert len(head) < path.stat().st_size
    assert set(sample.lines) == {HEADER, *ROWS}  # no line is cut in two
