"""What a sample could have shown."""

import math

import pytest
from scipy.stats import binom

from margincast.backtest.power import power_of, smallest_detectable_ratio
from margincast.backtest.verdicts import Criterion


def test_two_years_of_eight_hours_cannot_tell_one_and_a_half_times_at_099():
    found = power_of(2190, 0.99)
    assert not found.enough
    assert found.expected_exceedances == pytest.approx(21.9)
    assert "cannot tell 1.5x" in found.sentence()
    assert "1.6x" in found.sentence() or "1.7x" in found.sentence()


def test_enough_decisions_can():
    found = power_of(20_000, 0.99)
    assert found.enough
    assert "show 1.5x" in found.sentence()


@pytest.mark.parametrize(("size", "level"), [(250, 0.99), (1000, 0.95), (5000, 0.999)])
def test_the_smallest_ratio_is_where_power_reaches_what_is_asked(size, level):
    ratio = smallest_detectable_ratio(size, level)
    limit = binom.isf(0.05, size, 1 - level)
    assert binom.sf(limit, size, (1 - level) * ratio) == pytest.approx(0.8, abs=2e-3)


def test_where_nothing_could_be_seen_the_ratio_is_infinite():
    assert math.isinf(smallest_detectable_ratio(1, 0.96, Criterion(significance=0.01)))
    assert "nothing" in power_of(1, 0.96, Criterion(significance=0.01)).sentence()
