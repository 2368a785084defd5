"""The traffic light: zones in order, at any sample size and level."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from margincast.backtest.var_tests.traffic_light import basel_multiplier, traffic_light
from margincast.core.errors import InputError

LEVELS = st.floats(0.51, 0.9995)


@given(st.integers(1, 5000), LEVELS)
def test_traffic_light_zones_are_ordered(size, level):
    limits = traffic_light(0, size, level)
    assert limits.zone == "green"
    assert 1 <= limits.yellow_from <= limits.red_from
    order = ["green", "yellow", "red"]
    counts = np.unique(np.linspace(0, size, 20).astype(int))
    zones = [order.index(traffic_light(int(k), size, level).zone) for k in counts]
    assert zones == sorted(zones)


def test_traffic_light_never_holds_no_exceedance_against_a_margin():
    # P(X <= 0) = 0.951 here, which the bare rule would call yellow.
    light = traffic_light(0, 50, 0.999)
    assert light.cumulative_probability > 0.95
    assert (light.zone, light.yellow_from) == ("green", 1)


@pytest.mark.parametrize("call", [lambda: traffic_light(0, 0, 0.99), lambda: basel_multiplier(251)])
def test_impossible_counts_are_refused(call):
    with pytest.raises(InputError, match="found"):
        call()
