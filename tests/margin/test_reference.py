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


def outcomes(days, seed=1, start=START, side="long"):
    rng = np.random.default_rng(seed)
    decided = start + HOUR * np.arange(24 * days)
    return Outcomes(side, decided, decided + 8 * HOUR, rng.exponential(0.02, decided.size))


def completed(own, rest, age, median):
    """The published rate: own history, completed by the elders', drawn to the median."""
    weight = age / (age + 1.0)
    return np.exp(weight * np.log(own * rest) + (1.0 - weight) * np.log(median))


def test_by_definition():
    one = outcomes(40)
    moment = START + 30 * DAY
    found = reference_rates([one], np.array([moment]), **CHOICE)
    known = (one.known <= moment) & (one.decided > moment - 20 * DAY)
    assert found.long_run[0, 0] == pytest.approx(np.quantile(one.values[known], 0.9), rel=1e-14)
    number = one.decided.astype(np.int64) // (5 * 86_400_000_000)
    parts = [one.values[known & (number == n)] for n in np.unique(number[known])]
    whole = [part for part in parts if len(part) >= 60]
    worst = max(np.quantile(part, 0.9) for part in whole)
    assert found.stressed[0, 0] == pytest.approx(worst, rel=1e-14)
    assert found.own_weight[0, 0] == pytest.approx(20 / 23)


@given(st.integers(0, 39 * 24), st.integers(0, 2**32 - 1))
def test_what_becomes_known_later_changes_nothing(hour, seed):
    one = outcomes(40)
    moment = START + hour * HOUR
    other = np.where(
        one.known > moment, np.random.default_rng(seed).random(one.values.size), one.values
    )
    first, second = (
        reference_rates(
            [Outcomes("long", one.decided, one.known, values)], np.array([moment]), **CHOICE
        )
        for values in (one.values, other)
    )
    np.testing.assert_array_equal(first.long_run, second.long_run)
    np.testing.assert_array_equal(first.stressed, second.stressed)


def test_a_contract_without_history_takes_the_median_of_the_others():
    young = outcomes(1, start=START + 29 * DAY)
    others = [outcomes(40, seed) for seed in (1, 2, 3)]
    found = reference_rates([*others, young], np.array([START + 30 * DAY]), **CHOICE)
    assert found.own_weight[0, 3] == 0.0
    own = [
        np.quantile(one.values[(one.known <= START + 30 * DAY)][-20 * 24 + 8 :], 0.9)
        for one in others
    ]
    assert found.long_run[0, 3] == pytest.approx(np.median(own), rel=0.01)


def test_a_short_history_is_completed_by_what_its_elders_lived_through():
    """A crash before it was listed shows in the rate of a contract that never saw it."""
    moment, listed = START + 40 * DAY, START + 33 * DAY
    elders = []
    for seed in (1, 2, 3):
        one = outcomes(60, seed)
        crash = np.where(one.decided < listed, 3.0, 1.0)
        elders.append(Outcomes("long", one.decided, one.known, one.values * crash))
    calm = outcomes(60, 4)
    there = calm.decided >= listed
    young = Outcomes("long", calm.decided[there], calm.known[there], 2.0 * calm.values[there])
    other_side = outcomes(60, 5, side="short")
    rows = [*elders, young, other_side]
    found = reference_rates(rows, np.array([moment]), **CHOICE)

    def rate(one, since):
        chosen = (one.known <= moment) & (one.decided >= since)
        return np.quantile(one.values[chosen], 0.9)

    window = moment - 20 * DAY + HOUR
    rest = np.median([rate(one, window) / rate(one, listed) for one in elders])
    assert rest > 1.5
    own = {row: rate(rows[row], window) for row in (0, 1, 2, 4)} | {3: rate(young, listed) * rest}
    median = np.median(list(own.values()))
    assert found.long_run[0, 3] == pytest.approx(
        completed(rate(young, listed), rest, 7.0 / 3.0, median), rel=1e-12
    )
    # its elders are too, of whom nobody is older
    assert found.long_run[0, 0] == pytest.approx(completed(own[0], 1.0, 20 / 3, median), rel=1e-12)


def test_a_delisted_elder_says_nothing():
    """One whose outcomes end before the young contract's begin has no ratio."""
    gone = outcomes(10, 1)
    young = outcomes(10, 2, start=START + 11 * DAY)
    found = reference_rates([gone, young], np.array([START + 20 * DAY]), **CHOICE)
    alone = reference_rates([young], np.array([START + 20 * DAY]), **CHOICE)
    assert np.isfinite(found.long_run).all()
    assert np.isfinite(alone.long_run).all()


def test_nobody_with_history_has_no_rate():
    found = reference_rates([outcomes(5)], np.array([START + 2 * DAY]), **CHOICE)
    assert np.isnan(found.long_run).all()
    assert np.isnan(found.stressed).all()


def test_outcomes_that_are_not_known_are_left_out():
    one = outcomes(40)
    holes = np.where(np.arange(one.values.size) % 3 == 0, np.nan, one.values)
    kept = np.isfinite(holes)
    with_holes = Outcomes("long", one.decided, one.known, holes)
    without = Outcomes("long", one.decided[kept], one.known[kept], one.values[kept])
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
