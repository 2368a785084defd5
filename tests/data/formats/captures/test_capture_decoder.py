"""The helpers of all decoders: numbers are strict, rows and books complete."""

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from margincast.data.formats.captures import decoder as capture_decoder
from margincast.data.formats.captures.decoder import (
    FAULTS,
    Rows,
    Updates,
    fault_of,
    levels_of,
    microseconds_of,
    number,
    whole,
)
from margincast.data.formats.format import Options
from margincast.data.schemas import TIMESTAMP

EVERY_STATE = Options(book_every=timedelta(0), book_levels=3)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_is_read_from_text_as_from_json(value):
    assert number(value) == number(repr(value)) == value


@pytest.mark.parametrize(
    "value", ["", "abc", "1_000", "nan", "inf", "1e400", True, None, [1], float("nan"), 10**400]
)
def test_what_is_no_number_is_refused(value):
    with pytest.raises(ValueError, match="no number"):
        number(value)


@given(st.integers(-(2**63) + 1, 2**63 - 1))
def test_a_whole_number_is_read_from_text_as_from_json(value):
    assert whole(value) == whole(str(value)) == value


@pytest.mark.parametrize("value", ["", "1.0", 1.0, "1_0", "--1", True, None, 2**63, "9" * 30])
def test_what_is_no_whole_number_is_refused(value):
    with pytest.raises(ValueError, match="no whole number"):
        whole(value)


def test_milliseconds_become_microseconds():
    assert microseconds_of(1_723_161_255_208) == 1_723_161_255_208_000
    assert microseconds_of("1723161255208") == 1_723_161_255_208_000
    for impossible in (-1, 1_723_161_255_208_000_000):
        with pytest.raises(ValueError, match="no time"):
            microseconds_of(impossible)


def test_levels_may_say_more_than_price_and_size():
    assert levels_of([["100.5", "2", "0", "4"], [99, 0]]) == [(100.5, 2.0), (99.0, 0.0)]


@pytest.mark.parametrize("pairs", [[["100.5"]], [[None, "1"]], None, ["1"], [{}]])
def test_levels_of_another_shape_raise_a_known_fault(pairs):
    with pytest.raises(FAULTS):
        levels_of(pairs)


def test_faults_have_kinds_not_values():
    def kind(read):
        try:
            read()
        except FAULTS as error:
            return fault_of(error)
        raise AssertionError

    content = {"a": "x"}
    assert kind(lambda: content["price"]) == "a message without 'price'"
    assert kind(lambda: number("x")) == kind(lambda: number("y")) == "a value that is no number"
    assert kind(lambda: content["a"]["b"]) == "a message of another shape than documented"
    assert kind(lambda: int("z")) == "a message of another shape than documented"


def test_rows_become_one_batch_of_columns():
    rows = Rows("trades", "somewhere", {"symbol": pl.String, "ts": TIMESTAMP, "price": pl.Float64})
    assert rows.take() == []
    rows.add(3, "X", 1_500_000, 2.5)
    rows.add(7, "Y", 1_500_001, None)
    assert len(rows) == 2
    (batch,) = rows.take()
    assert (batch.table, batch.venue, len(rows)) == ("trades", "somewhere", 0)
    start = datetime(1970, 1, 1, 0, 0, 1, 500_000, tzinfo=UTC)
    assert_frame_equal(
        batch.frame,
        pl.DataFrame(
            {
                "symbol": ["X", "Y"],
                "ts": [start, start + timedelta(microseconds=1)],
                "price": [2.5, None],
                "_row": [3, 7],
            },
            schema_overrides={"ts": TIMESTAMP},
        ),
    )


def books_of(updates):
    return pl.concat([batch.frame for batch in updates.take(last=True)])


def filled(**options):
    updates = Updates("X", "somewhere", EVERY_STATE, **options)
    updates.add(1, 10, [(99.0, 1.0), (98.0, 2.0)], [(101.0, 3.0)], is_snapshot=True, sequence=5)
    updates.add(2, 20, [(99.0, 0.0)], [], is_snapshot=False, received_us=25, sequence=6)
    updates.add(3, 30, [], [], is_snapshot=False, sequence=7)
    updates.add(4, 40, [], [(100.0, 1.0)], is_snapshot=False, sequence=8)
    return updates


def test_updates_become_books():
    books = books_of(filled())
    assert books["_row"].to_list() == [1, 2, 4]  # an empty message leaves the book as it was
    assert books["sequence"].to_list() == [5, 6, 8]
    assert books["bid_price_0"].to_list() == [99.0, 98.0, 98.0]
    assert books["ask_price_0"].to_list() == [101.0, 101.0, 100.0]
    assert books["received_at"].dt.epoch("us").to_list() == [None, 25, None]


def test_columns_that_a_source_lacks_are_absent():
    books = books_of(filled(received=False, sequence=False))
    assert not {"received_at", "sequence"} & set(books.columns)


def test_an_empty_snapshot_empties_the_book():
    updates = filled()
    updates.add(5, 50, [], [], is_snapshot=True, sequence=9)
    updates.add(6, 60, [(97.0, 1.0)], [], is_snapshot=False, sequence=10)
    last = books_of(updates)[-1].row(0, named=True)
    assert (last["bid_price_0"], last["bid_price_1"], last["ask_price_0"]) == (97.0, None, None)


def test_nothing_is_applied_after_a_hole():
    updates = filled()
    updates.invalidate()
    updates.add(5, 50, [(97.0, 1.0)], [], is_snapshot=False, sequence=11)
    assert books_of(updates)["_row"].to_list() == [1, 2, 4]
    assert updates.builder.updates_without_book == 1


def test_books_do_not_depend_on_when_they_are_taken_or_fed(monkeypatch):
    at_once = books_of(filled())
    monkeypatch.setattr(capture_decoder, "_MOST_LEVELS", 1)
    assert_frame_equal(books_of(filled()), at_once)
