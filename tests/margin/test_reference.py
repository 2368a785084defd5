"""Long-run and stressed rates: by definition, and from nothing that was not known."""

from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from margincast.core.errors import InputError
from margincast.margin.reference import Outcomes, reference_rates

START = np.datetime64("2024-01-01T00:00", "us")
HOUR = np.timedelta64(1, "h")
DAY = np.timedelta64(1, "D")
CHOICE = {
    "level": 0.9,
    "window": timedelta(days=20),
    "period": timedelta(days=5),
    "minimum_history": timedelta(days=3),
}


def outcomes(days, seed=1, start=START):
    rng = np.random.default_rng(seed)
    decided = start + HOUR * np.arange(24 * days)
    return Outcomes(decided, decided + 8 * HOUR, rng.exponential(0.02, decided.size))


def test_by_definition():
    one = outcomes(40)
    moment = START + 30 * DAY
    found = reference_rates([one], np.array([moment]), **CHOICE)
    known = (one.known <= moment) & (one.decided > moment - 20 * DAY)
    assert found.long_run[0, 0] == np.quantile(one.values[known], 0.9)
    number = one.decided.astype(np.int64) // (5 * 86_400_000_000)
    parts = [one.values[known & (number == n)] for n in np.unique(number[known])]
    whole = [part for part in parts if len(part) >= 60]
    assert found.stressed[0, 0] == max(np.quantile(part, 0.9) for part in whole)
    assert not found.borrowed.any()


@given(st.integers(0, 39 * 24), st.integers(0, 2**32 - 1))
def test_what_becomes_known_later_changes_nothing(hour, seed):
    one = outcomes(40)
    moment = START + hour * HOUR
    other = np.where(
        one.known > moment, np.random.default_rng(seed).random(one.values.size), one.values
    )
    first, second = (
        reference_rates([Outcomes(one.decided, one.known, values)], np.array([moment]), **CHOICE)
        for values in (one.values, other)
    )
    np.testing.assert_array_equal(first.long_run, second.long_run)
    np.testing.assert_array_equal(first.stressed, second.stressed)


def test_a_new_contract_takes_the_median_of_the_others():
    young = outcomes(5, start=START + 29 * DAY)
    others = [outcomes(40, seed) for seed in (1, 2, 3)]
    found = reference_rates([*others, young], np.array([START + 30 * DAY]), **CHOICE)
    assert found.borrowed.tolist() == [[False, False, False, True]]
    assert found.long_run[0, 3] == np.median(found.long_run[0, :3])
    assert found.stressed[0, 3] == np.median(found.stressed[0, :3])


def test_nobody_with_history_has_no_rate():
    found = reference_rates([outcomes(5)], np.array([START + 2 * DAY]), **CHOICE)
    assert np.isnan(found.long_run).all()
    assert found.borrowed.all()


def test_outcomes_that_are_not_known_are_left_out():
    one = outcomes(40)
    holes = np.where(np.arange(one.values.size) % 3 == 0, np.nan, one.values)
    kept = np.isfinite(holes)
    with_holes = Outcomes(one.decided, one.known, holes)
    without = Outcomes(one.decided[kept], one.known[kept], one.values[kept])
    moments = START + DAY * np.array([10, 30])
    first, second = (reference_rates([each], moments, **CHOICE) for each in (with_holes, without))
    np.testing.assert_array_equal(first.long_run, second.long_run)
    np.testing.assert_array_equal(first.stressed, second.stressed)


def test_rates_hold_from_their_moment_to_the_next():
    moments = START + DAY * np.array([10, 20])
    found = reference_rates([outcomes(40)], moments, **CHOICE)
    asked = START + DAY * np.array([5, 10, 15, 20, 25])
    assert found.at(asked).tolist() == [0, 0, 0, 1, 1]


def test_a_level_that_is_none_is_refused():
    with pytest.raises(InputError, match="level"):
        reference_rates([outcomes(4)], np.array([START]), **(CHOICE | {"level": 99.0}))
