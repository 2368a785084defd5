import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from margincast.core.errors import InputError
from margincast.margin.maintenance import (
    maintenance_amounts,
    maintenance_amounts_of_all,
    maintenance_margin_usd,
)

EDGES = st.lists(st.integers(1, 10**9), min_size=1, max_size=12, unique=True).map(sorted)


@st.composite
def tier_rates(draw):
    caps = [float(edge) for edge in draw(EDGES)]
    counts = sorted(draw(st.lists(st.integers(1, 9_999), min_size=len(caps), max_size=len(caps))))
    return [0.0, *caps[:-1]], caps, [count / 10_000 for count in counts]


@given(tier_rates())
def test_two_tiers_give_the_same_margin_where_they_meet(tiers):
    floors, _, rates = tiers
    amounts = maintenance_amounts(floors, rates)
    for k in range(1, len(floors)):
        below = floors[k] * rates[k - 1] - amounts[k - 1]
        above = floors[k] * rates[k] - amounts[k]
        assert above == pytest.approx(below, rel=1e-9, abs=1e-6)


@given(tier_rates(), st.floats(0.0, 1.0))
def test_margin_is_the_sum_of_each_tiers_rate_over_the_notional_within_it(tiers, share):
    floors, caps, rates = tiers
    notional = share * caps[-1]
    slow = sum(
        rate * max(0.0, min(notional, cap) - floor)
        for floor, cap, rate in zip(floors, caps, rates, strict=True)
    )
    fast = maintenance_margin_usd(notional, caps, rates, maintenance_amounts(floors, rates))
    assert fast == pytest.approx(slow, rel=1e-9, abs=1e-6)


@given(st.lists(tier_rates(), min_size=1, max_size=4))
def test_many_lists_at_once_are_one_at_a_time(lists):
    first = [number == 0 for floors, _, _ in lists for number in range(len(floors))]
    fast = maintenance_amounts_of_all(
        np.concatenate([floors for floors, _, _ in lists]),
        np.concatenate([rates for _, _, rates in lists]),
        np.array(first),
    )
    slow = [amount for floors, _, rates in lists for amount in maintenance_amounts(floors, rates)]
    assert fast.tolist() == slow


def test_amounts_by_hand():
    # 50,000 x (0.5 % - 0.4 %) = 50; 50 + 600,000 x (1 % - 0.5 %) = 3,050: no floating-point dust.
    floors, caps, rates = [0.0, 5e4, 6e5], [5e4, 6e5, 3e6], [0.004, 0.005, 0.01]
    amounts = maintenance_amounts(floors, rates)
    assert amounts == (0.0, 50.0, 3050.0)
    assert maintenance_margin_usd(1_000_000.0, caps, rates, amounts) == 6_950.0
    assert maintenance_margin_usd(600_000.0, caps, rates, amounts) == 2_950.0


@pytest.mark.parametrize("notional", [-1.0, 3_000_001.0, float("nan")])
def test_a_position_outside_the_tiers_is_refused(notional):
    with pytest.raises(InputError, match="has no tier"):
        maintenance_margin_usd(notional, [3e6], [0.01], [0.0])


def test_a_rate_is_needed_for_every_tier():
    with pytest.raises(InputError, match="one MMR a tier, found 2 tiers and 1 rates"):
        maintenance_amounts([0.0, 1.0], [0.01])
