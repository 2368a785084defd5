"""Nothing that happened in a test span, or an embargo before it, is in what its model learned."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from margincast.core.errors import InputError
from margincast.core.time import add_step
from margincast.training.splits import Fold, walk_forward

BEGIN = datetime(2021, 1, 31, 7, tzinfo=UTC)


def as_np(instant: datetime) -> np.datetime64:
    return np.datetime64(instant.replace(tzinfo=None), "us")


@st.composite
def cases(draw: st.DrawFn) -> dict[str, object]:
    """Decisions of several contracts with labels of varying length, and a test period over them."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    count = draw(st.integers(5, 300))
    hours = np.sort(rng.integers(0, 24 * draw(st.integers(3, 900)), count))
    decided = as_np(BEGIN) + hours.astype("timedelta64[h]").astype("timedelta64[us]")
    horizon = rng.integers(1, draw(st.integers(1, 72)) + 1, count)
    label_end = decided + horizon.astype("timedelta64[h]").astype("timedelta64[us]")
    first = draw(st.integers(0, int(hours.max())))
    start = BEGIN + timedelta(hours=first)
    return {
        "decided": decided,
        "label_end": label_end,
        "labelled": rng.random(count) < 0.9,
        "start": start,
        "end": start + timedelta(hours=draw(st.integers(1, 24 * 500))),
        "refit_every": draw(st.sampled_from(["7d", "90d", "36h", "1mo", "1q", "1y"])),
        "embargo": timedelta(minutes=draw(st.sampled_from([1, 60, 600]))),
        "window": draw(st.sampled_from(["30d", "200d", "1q", "1y", "6y"])),
    }


def split(case: dict[str, object]) -> list[Fold]:
    try:
        return walk_forward(**case)  # type: ignore[arg-type]
    except InputError:
        inside = (case["decided"] >= as_np(case["start"])) & (case["decided"] < as_np(case["end"]))
        assert not inside.any()
        return []


@given(cases())
def test_no_training_label_meets_a_test_decision_or_the_embargo_before_it(case):
    for fold in split(case):
        known = case["label_end"][fold.training]
        assert (known + np.timedelta64(case["embargo"]) <= as_np(fold.start)).all()
        assert (known < case["decided"][fold.test].min()).all()
        assert not (fold.training & fold.test).any()


@given(cases())
def test_training_rows_are_exactly_the_labelled_ones_known_in_time_within_the_window(case):
    for fold in split(case):
        oldest = as_np(add_step(fold.start, case["window"], -1))
        for row in range(len(case["decided"])):
            wanted = (
                case["labelled"][row]
                and case["decided"][row] >= oldest
                and case["label_end"][row] <= as_np(fold.start - case["embargo"])
            )
            assert fold.training[row] == wanted


@given(cases())
def test_test_spans_partition_the_decisions_of_the_test_period(case):
    folds = split(case)
    inside = (case["decided"] >= as_np(case["start"])) & (case["decided"] < as_np(case["end"]))
    times = np.sum([fold.test for fold in folds], axis=0) if folds else np.zeros(len(inside))
    np.testing.assert_array_equal(times, inside.astype(int))
    for fold in folds:
        decided = case["decided"][fold.test]
        assert len(decided) > 0
        assert (decided >= as_np(fold.start)).all()
        assert (decided < as_np(fold.end)).all()
    assert all(a.end <= b.start for a, b in pairwise(folds))


@pytest.mark.parametrize("count", [0, 10])
def test_a_test_period_without_decisions_is_refused_with_what_there_is(count):
    decided = as_np(BEGIN) + np.arange(count) * np.timedelta64(1, "h")
    with pytest.raises(InputError, match="in the test period 2023-01-01") as caught:
        walk_forward(
            decided,
            decided + np.timedelta64(8, "h"),
            np.ones(count, dtype=bool),
            start=datetime(2023, 1, 1, tzinfo=UTC),
            end=datetime(2024, 1, 1, tzinfo=UTC),
            refit_every="1q",
            embargo=timedelta(hours=1),
            window="6y",
        )
    assert ("2021-01-31T07:00" if count else "nothing") in str(caught.value)
    assert "change backtest.start and backtest.end" in str(caught.value)
