from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from margincast.core.errors import InputError
from margincast.margin.liquidation_cost import LiquidationCost
from margincast.margin.policy import apply_limits, margin_for_tier
from margincast.margin.rounding import exact
from margincast.specs.loading import validate_spec
from margincast.specs.serving import Limits, MarginPolicy, Tier

TIER = Tier(floor_usd=0, cap_usd=50_000, mmr=0.004, imr=0.008)
COST = LiquidationCost(trading_rate=0.0002, fee_rate=0.0015, reason="half spread, and fees")
FORECASTS = st.floats(1e-6, 2.0)
RATES = st.integers(1, 900).map(lambda count: count / 1000)


def policy(**changes):
    raw = {
        "name": "test",
        "description": "policy of the tests",
        "tracking": {"uri": "sqlite:///mlflow.db"},
        "model": {"registered_model": "test", "level": 0.99, "horizon": "8h"},
        "staleness": {"max_data_age": "2h"},
        "schedule": {"file": "serving/schedules/test.toml"},
        "forecast": {"sides": "each", "largest_plausible": 2.0},
        "liquidation": {
            "taker_fee_rate": 0.0005,
            "liquidation_fee_rate": 0.001,
            "half_spread_bps": 2.0,
        },
        "buffer": {"rate": 0.1},
        "limits": {
            "mmr_floor": 0.005,
            "mmr_cap": 0.5,
            "multiplier_floor": 1.0,
            "multiplier_cap": 50.0,
        },
        "rounding": {"mmr_step": 0.0005, "imr_step": 0.001},
        "initial": {"imr_over_mmr": 1.5},
    }
    for section, values in changes.items():
        raw[section] = {**raw[section], **values}
    return validate_spec(raw, MarginPolicy, "test.toml")


@st.composite
def cases(draw):
    """A policy without contradictions, a tier it fits, and a cost it can margin."""
    floor, cap = sorted((draw(RATES), draw(RATES)))
    multiplier_floor = draw(st.floats(0.0, 3.0))
    multiplier_cap = draw(st.floats(1.0, 200.0))
    mmr = draw(st.floats(0.001, 0.5))
    assume(multiplier_floor <= multiplier_cap)
    assume(multiplier_floor * mmr <= cap)
    assume(multiplier_cap * mmr >= floor)
    tier = Tier(floor_usd=0, cap_usd=1e6, mmr=mmr, imr=draw(st.floats(mmr + 1e-6, 1.0)))
    cost = LiquidationCost(draw(st.floats(0.0, 0.9 * cap)), draw(st.floats(0.0, 0.1 * cap)), "cost")
    assume(cost.rate <= cap)
    drawn = policy(
        buffer={"rate": draw(st.floats(0.0, 1.0))},
        limits={
            "mmr_floor": floor,
            "mmr_cap": cap,
            "multiplier_floor": multiplier_floor,
            "multiplier_cap": multiplier_cap,
        },
        rounding={
            "mmr_step": draw(st.sampled_from([0.001, 0.0005, 0.0001])),
            "imr_step": draw(st.sampled_from([0.01, 0.001, 0.0001])),
        },
        initial={"imr_over_mmr": draw(st.floats(1.001, 4.0))},
    )
    return drawn, tier, cost


def test_the_chain_by_hand():
    # (4 % + 0.17 %) x 1.1 = 4.587 %, up to a multiple of 0.05 %: 4.6 %; 4.6 / 0.4 = 11.5;
    # 1.5 x 4.6 % = 6.9 %.
    margin = margin_for_tier(0.04, TIER, COST, policy())
    assert [step.name for step in margin.steps] == [
        "forecast",
        "liquidation cost",
        "buffer",
        "floor",
        "base schedule",
        "multiplier cap",
        "cap",
        "rounding",
    ]
    values = [step.value_after for step in margin.steps]
    assert values == pytest.approx([0.04, 0.0417, *[0.04587] * 5, 0.046])
    assert (margin.mmr, margin.imr) == (0.046, 0.069)
    assert margin.multiplier == pytest.approx(11.5)
    assert margin.binding_rule == "forecast"
    assert margin.imr_reason == "1.5 x MMR 4.6 %"


@pytest.mark.parametrize(
    ("forecast", "changes", "rule", "mmr", "said"),
    [
        (0.001, {}, "floor", 0.005, "raised to floor of 0.5 %"),
        (
            0.001,
            {"limits": {"multiplier_floor": 2.0}},
            "base schedule",
            0.008,
            "raised to 2 x base MMR 0.4 % = 0.8 %",
        ),
        (
            0.9,
            {},
            "multiplier cap",
            0.2,
            "lowered to 50 x base MMR 0.4 % = 20 %",
        ),
        (0.9, {"limits": {"mmr_cap": 0.15}}, "cap", 0.15, "lowered to cap of 15 %"),
    ],
)
def test_the_binding_rule_is_named_with_its_reason(forecast, changes, rule, mmr, said):
    margin = margin_for_tier(forecast, TIER, COST, policy(**changes))
    assert (margin.binding_rule, margin.mmr) == (rule, mmr)
    assert said in margin.reason


def test_a_multiplier_cap_never_goes_below_the_cost_of_liquidation():
    dear = LiquidationCost(trading_rate=0.03, fee_rate=0.002, reason="thin book")
    margin = margin_for_tier(0.04, TIER, dear, policy(limits={"multiplier_cap": 2.0}))
    assert margin.mmr == 0.032
    assert margin.binding_rule == "multiplier cap"
    assert "lifted to the cost of liquidation 3.2 %" in margin.reason


def test_initial_margin_is_never_below_the_base_schedule():
    margin = margin_for_tier(0.001, TIER, COST, policy())
    assert (margin.mmr, margin.imr, margin.imr_reason) == (0.005, 0.008, "base IMR 0.8 %")


@given(cases(), FORECASTS)
def test_invariants_of_a_margin(case, forecast):
    drawn, tier, cost = case
    margin = margin_for_tier(forecast, tier, cost, drawn)
    assert margin.mmr >= cost.rate
    assert margin.mmr >= drawn.limits.mmr_floor
    assert margin.mmr >= drawn.limits.multiplier_floor * tier.mmr
    assert margin.mmr <= drawn.limits.mmr_cap
    assert margin.mmr < margin.imr <= 1.0
    assert margin.imr >= tier.imr
    for rate, step in (
        (margin.mmr, drawn.rounding.mmr_step),
        (margin.imr, drawn.rounding.imr_step),
    ):
        assert (exact(rate) / exact(step)).denominator == 1


@given(cases(), FORECASTS, FORECASTS)
def test_a_larger_forecast_never_gives_a_smaller_margin(case, first, second):
    drawn, tier, cost = case
    low, high = (margin_for_tier(value, tier, cost, drawn) for value in sorted((first, second)))
    assert low.mmr <= high.mmr
    assert low.imr <= high.imr


@given(cases(), FORECASTS)
def test_the_chain_has_no_gap_and_ends_at_the_published_rate(case, forecast):
    drawn, tier, cost = case
    margin = margin_for_tier(forecast, tier, cost, drawn)
    assert margin.steps[0].value_before == 0.0
    for earlier, later in pairwise(margin.steps):
        assert earlier.value_after == later.value_before
    assert margin.steps[-1].value_after == margin.mmr
    assert all(step.reason for step in margin.steps)


@given(cases(), FORECASTS)
def test_without_a_binding_limit_the_margin_covers_forecast_and_cost(case, forecast):
    drawn, tier, cost = case
    margin = margin_for_tier(forecast, tier, cost, drawn)
    if margin.binding_rule not in {"cap", "multiplier cap"}:
        assert margin.mmr >= forecast + cost.rate


@given(cases(), FORECASTS)
def test_the_order_of_floors_and_caps_does_not_matter(case, forecast):
    drawn, tier, cost = case
    limits: Limits = drawn.limits
    lowest = max(limits.mmr_floor, limits.multiplier_floor * tier.mmr)
    highest = min(limits.mmr_cap, max(limits.multiplier_cap * tier.mmr, cost.rate))
    value = (forecast + cost.rate) * (1.0 + drawn.buffer.rate)
    after = apply_limits(value, tier, cost, limits)[-1].value_after
    assert after == max(lowest, min(value, highest)) == min(highest, max(value, lowest))


@pytest.mark.parametrize("forecast", [float("nan"), float("inf"), 0.0, -0.01, 2.01])
def test_a_forecast_that_cannot_be_is_refused(forecast):
    with pytest.raises(InputError, match="publish the base schedule instead"):
        margin_for_tier(forecast, TIER, COST, policy())


def test_a_cost_above_the_cap_is_refused():
    dear = LiquidationCost(trading_rate=0.6, fee_rate=0.0, reason="no depth")
    with pytest.raises(InputError, match=r"liquidation cost 0.6 is not between 0 and .* = 0.5"):
        margin_for_tier(0.01, TIER, dear, policy())
