from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from margincast.margin.slices import consumed_before
from margincast.specs.liquidation import Recovery

HORIZON = timedelta(minutes=10)


def test_two_slices_by_hand():
    # five minutes apart; of the first half 0.9^5 = 59.049 % is still missing
    found = consumed_before(Recovery(slices=2, refill_per_minute=0.1), HORIZON)
    assert found == pytest.approx([0.0, 0.5 * 0.59049])


def test_without_the_section_all_is_closed_at_once():
    assert consumed_before(None, HORIZON).tolist() == [0.0]


@settings(max_examples=30)
@given(st.integers(1, 30), st.floats(0.0, 0.99))
def test_a_slice_meets_no_more_than_what_was_consumed_before_it(slices, refill_per_minute):
    found = consumed_before(Recovery(slices=slices, refill_per_minute=refill_per_minute), HORIZON)
    gone = np.arange(slices) / slices
    assert np.all((found >= 0.0) & (found <= gone + 1e-12))
    if refill_per_minute == 0.0:
        assert found == pytest.approx(gone)
