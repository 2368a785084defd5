"""Judging a book batch by batch: the same counts, and nothing wrong that is not seen."""

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from margincast.data import book_judgement
from margincast.data.book import mended_book
from margincast.data.book_judgement import count_batches, count_faults, faults_of, judged_rows
from margincast.data.schemas import book_columns

START = datetime(2026, 1, 5, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
GOOD = (99.0, 1.0, 101.0, 2.0, 98.0, 3.0, 102.0, 4.0)

prices = st.sampled_from([None, float("nan"), -1.0, 0.0, 99.0, 100.0, 101.0, float("inf")])
sizes = st.sampled_from([None, float("nan"), 0.0, 1.0, 2.0, float("inf")])
snapshots = st.one_of(
    st.just(GOOD), st.tuples(prices, sizes, prices, sizes, prices, sizes, prices, sizes)
)


def book_of(rows, seconds, **extra):
    frame = pl.DataFrame(
        rows, schema=dict.fromkeys(book_columns(2), pl.Float64), orient="row"
    ).with_columns(pl.Series("ts", [START + second * SECOND for second in seconds]))
    return frame.with_columns(pl.Series(name, values) for name, values in extra.items())


@pytest.mark.parametrize("valid", [True, False])
@pytest.mark.parametrize("place", range(8))
@pytest.mark.parametrize("value", [None, float("nan"), -1.0, 0.0, float("inf")])
def test_whatever_is_wrong_in_one_place_is_seen(place, value, valid):
    bad = [*GOOD[:place], value, *GOOD[place + 1 :]]
    book = book_of([GOOD, bad, GOOD], range(3), is_valid=[True, valid, True])
    counts = {
        finding.what: finding.count
        for finding in mended_book(book.lazy(), "X", "x", SECOND)[2]
        if finding.count
    }
    assert sum(counts.values()) == 1


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(snapshots, min_size=1, max_size=12), batch_rows=st.integers(1, 5))
def test_counts_by_batch_are_those_of_the_whole(monkeypatch, rows, batch_rows):
    monkeypatch.setattr(book_judgement, "JUDGED_ROWS", batch_rows)
    frame = book_of(rows, range(len(rows))).lazy()
    faults = faults_of(2, has_validity=False)
    judged = judged_rows(frame, 2, faults, has_repeats=False)
    assert count_batches(frame, faults, 2) == count_faults(judged, faults, 2)


def test_a_fault_late_in_a_book_is_counted_at_its_time(monkeypatch):
    monkeypatch.setattr(book_judgement, "JUDGED_ROWS", 2)
    book = book_of([GOOD] * 5 + [(99.0, 1.0, 98.5, 2.0, *GOOD[4:]), GOOD], range(7))
    frame, _, findings = mended_book(book.lazy(), "X", "x", SECOND)
    assert frame.collect().select(book.columns).equals(book[[0, 1, 2, 3, 4, 6]])
    crossed = next(finding for finding in findings if finding.what.startswith("crossed"))
    assert (crossed.count, crossed.first) == (1, START + 5 * SECOND)
