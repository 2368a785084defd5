"""Token buckets: never more than the burst and what came back, over all who share them."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from margincast.serving.api.rate import RateLimit, waiting_time

gaps = st.lists(st.integers(0, 40), min_size=1, max_size=60)


@given(gaps, st.integers(1, 8))
@settings(max_examples=40)
def test_the_formula_is_a_bucket_of_tokens(gaps, burst):
    # tenths of a second as whole numbers: the slow twin counts without rounding
    every, now, full_at = 10, 1_000, 0.0
    tokens = burst * every
    for gap in gaps:
        now += gap
        tokens = min(burst * every, tokens + gap)
        wait, full_at = waiting_time(full_at, float(now), float(every), burst)
        assert (wait == 0.0) == (tokens >= every)
        if tokens >= every:
            tokens -= every
        else:
            assert wait == every - tokens


@pytest.fixture
def two(tmp_path):
    """Two workers' limits on the same buckets."""
    both = [RateLimit(tmp_path / "rate", per_second=1.0, burst=3) for _ in range(2)]
    yield both
    for one in both:
        one.close()


def test_workers_share_a_callers_bucket_and_callers_do_not(two):
    passed = [two[number % 2].take("desk", 100.0) == 0.0 for number in range(5)]
    assert passed == [True, True, True, False, False]
    assert two[0].take("another", 100.0) == 0.0
    assert two[1].take("desk", 100.0) == pytest.approx(1.0)
    assert two[1].take("desk", 101.0) == 0.0


def test_a_bucket_from_before_the_machine_started_again_holds_nobody_up(two):
    for _ in range(3):
        two[0].take("desk", 1e6)
    assert two[0].take("desk", 5.0) == 0.0
