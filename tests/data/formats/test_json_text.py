"""JSON is read in bounded memory, and a file that ends in the middle is an error."""

import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from margincast.core.errors import InputError
from margincast.data.formats import json_text
from margincast.data.formats.json_text import elements_of, lines_of
from margincast.data.formats.source import Source

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=5,
)


def written(tmp_path, content):
    path = tmp_path / "messages.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return Source(path)


@given(
    values=st.lists(VALUES, max_size=4),
    block=st.integers(1, 40),
    indent=st.sampled_from([None, 2]),
    ascii_only=st.booleans(),
)
def test_elements_are_those_of_the_whole_array_wherever_blocks_end(
    tmp_path_factory, values, block, indent, ascii_only
):
    path = tmp_path_factory.mktemp("json") / "array.json"
    path.write_text(json.dumps(values, indent=indent, ensure_ascii=ascii_only), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_text, "_BLOCK_BYTES", block)
        read = list(elements_of(Source(path)))
    assert read == list(enumerate(values, 1))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"a": 1}', "does not begin with"),
        ('[{"a": 1}, {"a": 2', "element 2 of the array is no JSON"),
        ('[{"a": 1}, {"a": "2', "element 2 of the array is no JSON"),
        ('[{"a": 1}', "element 1 of the array is followed by ''"),
        ('[{"a": 1} {"a": 2}]', "element 1 of the array is followed by '{'"),
        ('[{"a": 1}, {a: 2}, {"a": 3}]', "element 2 of the array is no JSON"),
        ("[1] [2]", "follows the end of the array after element 1"),
        (b'["\xff"]', "is not UTF-8 text"),
    ],
)
def test_a_damaged_array_is_refused_with_the_place(tmp_path, content, message):
    with pytest.raises(InputError, match=message):
        list(elements_of(written(tmp_path, content)))


def test_a_fault_is_found_where_it_is_and_not_at_the_end_of_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(json_text, "_BLOCK_BYTES", 64)
    source = written(tmp_path, "[1, {a: 2}, " + "3, " * 100_000 + "4]")
    reads = []
    extend = json_text._Text._extend

    def counted(text):
        reads.append(1)
        extend(text)

    monkeypatch.setattr(json_text._Text, "_extend", counted)
    with pytest.raises(InputError, match="element 2"):
        list(elements_of(source))
    assert len(reads) < 4


def test_an_endless_element_is_refused_before_it_fills_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(json_text, "MOST_CHARACTERS", 1_000)
    monkeypatch.setattr(json_text, "_BLOCK_BYTES", 100)
    with pytest.raises(InputError, match="element 1 of the array is longer than 1,000"):
        list(elements_of(written(tmp_path, '["' + "x" * 5_000 + '"]')))


def test_a_byte_order_mark_is_no_element(tmp_path):
    assert list(elements_of(written(tmp_path, b"\xef\xbb\xbf[1]"))) == [(1, 1)]


def test_lines_are_numbered_and_lose_their_ends(tmp_path):
    source = written(tmp_path, b"one\r\n\ntwo\nthree")
    assert list(lines_of(source)) == [(1, b"one"), (2, b""), (3, b"two"), (4, b"three")]


def test_an_endless_line_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(json_text, "MOST_CHARACTERS", 1_000)
    with pytest.raises(InputError, match="line 2 is longer than 1,000 bytes"):
        list(lines_of(written(tmp_path, "one\n" + "x" * 5_000)))


@pytest.mark.parametrize("read", [elements_of, lines_of])
def test_a_truncated_archive_is_an_error(tmp_path, read):
    path = tmp_path / "messages.json.gz"
    content = gzip.compress(json.dumps(list(range(10_000))).encode())
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="damaged or incomplete after byte"):
        list(read(Source(path)))
