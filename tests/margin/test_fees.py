import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from margincast.margin.fees import fee_multipliers, fee_need
from margincast.margin.rounding import round_up
from margincast.specs.beside_maintenance import Fees

FEES = Fees(exponent=1.0, floor=1.0, cap=2.5, step=0.05, hold=0.1)


@pytest.mark.parametrize(
    ("need", "published", "multiplier"),
    [
        (1.52, np.nan, 1.55),
        (0.3, np.nan, 1.0),
        (9.0, np.nan, 2.5),
        (1.6, 1.5, 1.5),  # within a tenth of what is in force
        (1.66, 1.5, 1.7),
        (1.3, 1.5, 1.3),
        (2.6, 2.4, 2.5),  # the cap is reached at once
        (np.nan, 1.5, 1.5),
        (np.nan, np.nan, 1.0),
        (0.0, 1.5, 1.5),
    ],
)
def test_multipliers_by_hand(need, published, multiplier):
    assert fee_multipliers(np.array([need]), np.array([published]), FEES).tolist() == [multiplier]


def slow_path(needs, fees):
    """One contract through time, a step after another."""
    published, path = None, []
    for need in needs:
        if need > 0:
            wanted = min(max(need**fees.exponent, fees.floor), fees.cap)
            rounded = min(round_up(wanted, fees.step), fees.cap)
            waits = published is not None and abs(rounded - published) <= fees.hold * published
            if not waits or rounded == fees.cap:
                published = rounded
        path.append(1.0 if published is None else published)
    return path


@settings(max_examples=40)
@given(
    st.lists(st.floats(0.01, 20.0) | st.just(np.nan), min_size=1, max_size=30),
    st.sampled_from([0.5, 1.0, 2.0]),
)
def test_a_path_is_that_of_the_slow_twin_within_its_limits(needs, exponent):
    fees = FEES.model_copy(update={"exponent": exponent})
    published, path = np.array([np.nan]), []
    for need in needs:
        published = fee_multipliers(np.array([need]), published, fees)
        path.append(published[0])
    # the twin counts from the first known need, the function publishes 1 before it
    first = next((i for i, need in enumerate(needs) if need > 0), len(needs))
    if first == 0:
        assert path == slow_path(needs, fees)
    assert min(path) >= fees.floor
    assert max(path) <= fees.cap


@given(st.floats(0.01, 20.0), st.floats(0.01, 20.0))
def test_a_larger_need_never_lowers_a_first_multiplier(first, second):
    low, high = fee_multipliers(np.sort([first, second]), np.full(2, np.nan), FEES)
    assert low <= high


def test_the_need_is_that_of_the_worse_side():
    need = fee_need(np.array([[0.1, np.nan], [0.3, 0.2]]), np.array([[0.05, 0.1], [0.1, np.nan]]))
    np.testing.assert_allclose(need, [3.0, np.nan])
