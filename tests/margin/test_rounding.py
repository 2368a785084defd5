import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from margincast.core.errors import InputError
from margincast.margin.rounding import exact, round_up

STEPS = st.sampled_from([0.01, 0.005, 0.001, 0.0005, 0.00025, 0.0001, 1e-6])
RATES = st.floats(0.0, 10.0, allow_subnormal=True)


@given(RATES, STEPS)
def test_rounding_is_up_by_less_than_a_step_and_idempotent(value, step):
    rounded = round_up(value, step)
    assert rounded >= value
    assert exact(rounded) - exact(value) < exact(step)
    assert (exact(rounded) / exact(step)).denominator == 1
    assert round_up(rounded, step) == rounded


@given(st.integers(0, 100_000), STEPS)
def test_a_value_on_the_grid_stays_there_however_it_was_computed(count, step):
    on_grid = float(count * exact(step))
    assert round_up(on_grid, step) == on_grid


@given(RATES, RATES, STEPS)
def test_rounding_is_monotone(first, second, step):
    low, high = sorted((first, second))
    assert round_up(low, step) <= round_up(high, step)


def test_decimals_that_floats_cannot_hold():
    # In binary floating point ceil(0.0045 / 0.0005) x 0.0005 = 0.0045000000000000005, which would
    # be rounded up a step further the next time.
    assert round_up(0.3, 0.1) == 0.3
    assert round_up(0.0045, 0.0005) == 0.0045
    assert round_up(math.nextafter(0.0045, 1.0), 0.0005) == 0.005
    assert round_up(5e-324, 0.0005) == 0.0005


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_is_refused(value):
    with pytest.raises(InputError, match="must be finite"):
        round_up(value, 0.001)


def test_a_step_of_zero_is_refused():
    with pytest.raises(InputError, match="must be positive"):
        round_up(0.1, 0.0)
