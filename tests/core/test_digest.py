"""Equal values have equal digests, whatever their order in memory; a changed one does not."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from margincast.core.digest import canonical_json, digest_of, digest_of_file

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), VALUES, max_size=5))
def test_the_digest_hangs_on_content_not_on_order(value):
    backwards = dict(reversed(value.items()))
    assert digest_of(backwards) == digest_of(value)


@given(VALUES, VALUES)
def test_digests_are_equal_exactly_where_canonical_texts_are(left, right):
    assert (digest_of(left) == digest_of(right)) == (canonical_json(left) == canonical_json(right))


def test_canonical_text_is_the_documented_one():
    assert canonical_json({"b": [1, 2.5], "a": "é"}) == '{"a":"\\u00e9","b":[1,2.5]}'
    # sha256sum of the two bytes "{}"
    assert digest_of({}) == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"


@pytest.mark.parametrize("size", [0, 1, 1 << 20, (1 << 20) + 7])
def test_a_file_read_in_pieces_has_the_digest_of_its_bytes(tmp_path, size):
    content = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    path = tmp_path / "data"
    path.write_bytes(content)
    assert digest_of_file(path) == hashlib.sha256(content).hexdigest()
    path.write_bytes(content + b"\0")
    assert digest_of_file(path) != hashlib.sha256(content).hexdigest()
