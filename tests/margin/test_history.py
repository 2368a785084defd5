"""Margins of many decisions: bit for bit those of the chain that explains one."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from margincast.margin.history import maintenance_margin_rates, rounded_up
from margincast.margin.liquidation_cost import LiquidationCost
from margincast.margin.policy import margin_for_tier
from margincast.margin.rounding import round_up
from margincast.specs.loading import load_spec
from margincast.specs.serving import MarginPolicy, Tier

WORKSPACE = Path(__file__).resolve().parents[2]
POLICY = load_spec(WORKSPACE / "serving" / "perp-8h.toml", MarginPolicy)
TIER = Tier(floor_usd=0.0, cap_usd=50_000.0, mmr=0.01, imr=0.02)
COST = LiquidationCost(0.0002, 0.0015, "stated")
forecasts = st.floats(1e-6, POLICY.forecast.largest_plausible)


@given(st.lists(forecasts, min_size=1, max_size=30))
@example([0.04, 0.0283, 0.5, 1e-6])
def test_rates_are_those_of_the_chain(values):
    rates = maintenance_margin_rates(np.array(values), TIER, COST, POLICY)
    assert rates.tolist() == [margin_for_tier(v, TIER, COST, POLICY).mmr for v in values]


@given(
    st.lists(st.floats(0.0, 1.0), min_size=1, max_size=30),
    st.sampled_from([0.0001, 0.0005, 0.001, 0.01, 0.05]),
)
@example([0.3, 0.1 + 0.2, 0.29999999999999993, 0.0, 0.07, 0.00035], 0.0005)
def test_rounding_is_exact_on_and_off_the_grid(values, step):
    multiples = [step * round(v / step) for v in values]
    everything = np.array([*values, *multiples])
    assert rounded_up(everything, step).tolist() == [round_up(float(v), step) for v in everything]


@pytest.mark.parametrize("forecast", [np.nan, 0.0, -0.1, np.inf, 2 * 10.0])
def test_what_no_margin_may_be_made_of_has_no_rate(forecast):
    rates = maintenance_margin_rates(np.array([forecast, 0.05]), TIER, COST, POLICY)
    assert np.isnan(rates[0])
    assert rates[1] == margin_for_tier(0.05, TIER, COST, POLICY).mmr


def test_a_cost_above_the_cap_leaves_no_rate():
    dear = LiquidationCost(0.9, 0.0, "thin")
    assert np.isnan(maintenance_margin_rates(np.array([0.05]), TIER, dear, POLICY)).all()
