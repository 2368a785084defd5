"""Procyclicality: the published measures on a real EWMA margin, and what must not matter."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from margincast.backtest.procyclicality import (
    count_of_rises,
    largest_increase,
    margin_calls,
    measure,
    peak_to_trough,
    responsiveness,
    rises_from_low,
    rolling_peak_to_trough,
    volatility_of_margin,
)
from margincast.core.errors import InputError

MARGINS = st.lists(st.floats(1e-4, 1.0), min_size=2, max_size=40).map(np.array)


@pytest.fixture(scope="module")
def golden(shared_data):
    """Records and margin of shared/golden/procyclicality.json (base R, definitions inside)."""
    folder = shared_data / "golden"
    records = json.loads((folder / "procyclicality.json").read_text())["records"]
    margin = pd.read_csv(folder / "outputs" / "btc_ewma_margin.csv")
    assert len(margin) == records[0]["data"]["n"]
    return {record["id"]: record["value"] for record in records}, margin


@pytest.mark.parametrize("days", [1, 5, 20, 30])
def test_largest_increase_is_the_published_n_day_measure(golden, days):
    records, margin = golden
    expected = records[f"n_day/{days}"]
    found = largest_increase(margin["margin"].to_numpy(), days)
    assert found == pytest.approx(expected["max_increase"], rel=1e-9)
    by_date = margin.set_index("ts")["margin"]
    assert by_date[expected["to"]] / by_date[expected["from"]] - 1 == pytest.approx(found, rel=1e-9)


def test_peak_to_trough_is_the_published_measure(golden):
    records, margin = golden
    found = peak_to_trough(margin["margin"].to_numpy())
    assert found == pytest.approx(records["peak_to_trough/full"]["ratio"], rel=1e-9)


@given(MARGINS, st.sampled_from([0.25, 2.0, 1024.0]), st.integers(1, 40))
def test_the_unit_of_the_margin_does_not_matter(margin, factor, steps):
    steps = min(steps, len(margin) - 1)
    assert peak_to_trough(factor * margin) == peak_to_trough(margin)
    assert largest_increase(factor * margin, steps) == largest_increase(margin, steps)


@given(MARGINS)
def test_no_rise_exceeds_peak_to_trough(margin):
    peak = peak_to_trough(margin)
    assert peak >= 1.0
    for steps in range(1, len(margin)):
        assert largest_increase(margin, steps) <= peak - 1.0 + 1e-12


@given(MARGINS, st.integers(1, 40))
def test_equals_the_definition_pair_by_pair(margin, steps):
    steps = min(steps, len(margin) - 1)
    pairs = [margin[t + steps] / margin[t] - 1 for t in range(len(margin) - steps)]
    assert largest_increase(margin, steps) == pytest.approx(max(pairs), abs=1e-12)


def test_unknown_margins_do_not_count():
    margin = np.array([0.02, np.nan, 0.03, 0.06])
    assert peak_to_trough(margin) == pytest.approx(3.0)
    assert largest_increase(margin, 1) == pytest.approx(1.0)
    assert largest_increase(margin, 2) == pytest.approx(0.5)
    assert np.isnan(largest_increase(np.array([0.02, np.nan, 0.03]), 1))


def test_a_falling_margin_has_a_negative_rise():
    assert largest_increase(np.array([0.04, 0.02, 0.01]), 1) == pytest.approx(-0.5)


@pytest.mark.parametrize("steps", [0, 3])
def test_steps_outside_the_series_are_refused(steps):
    with pytest.raises(InputError, match=r"steps must lie in 1\.\.2"):
        largest_increase(np.array([0.01, 0.02, 0.03]), steps)


@pytest.mark.parametrize("margin", [[np.nan, np.nan], [0.0, 0.01], [-0.01, 0.01]])
def test_margins_that_have_no_ratio_are_refused(margin):
    with pytest.raises(InputError, match="must be positive"):
        peak_to_trough(np.array(margin))


@given(MARGINS, st.integers(1, 40))
def test_series_are_their_definitions_step_by_step(margin, steps):
    steps = min(steps, len(margin) - 1)
    calls, rises = margin_calls(margin, steps), rises_from_low(margin, steps)
    assert np.isnan(calls[:steps]).all()
    for now in range(steps, len(margin)):
        assert calls[now] == pytest.approx(margin[now] / margin[now - steps] - 1.0)
        before = margin[now - steps : now]
        assert rises[now] == pytest.approx(max(margin[now] / each - 1.0 for each in before))
    ratios = rolling_peak_to_trough(margin, steps)
    for now in range(steps - 1, len(margin)):
        assert ratios[now] == pytest.approx(peak_to_trough(margin[now - steps + 1 : now + 1]))
    assert np.isnan(ratios[: steps - 1]).all()


@given(MARGINS)
def test_nothing_moves_when_the_future_does(margin):
    altered = margin.copy()
    altered[-1] *= 3.0
    steps = 1
    for series in (margin_calls, rises_from_low, rolling_peak_to_trough):
        np.testing.assert_array_equal(series(margin, steps)[:-1], series(altered, steps)[:-1])


@given(MARGINS, st.floats(0.01, 2.0))
def test_a_steady_rise_has_no_volatility_and_is_counted_each_day(margin, rise):
    steady = 0.01 * (1.0 + rise) ** np.arange(len(margin))
    assert count_of_rises(steady, 1, 0.99 * rise) == len(margin) - 1
    assert count_of_rises(steady, 1, 1.01 * rise) == 0
    if len(margin) > 2:
        assert volatility_of_margin(steady) == pytest.approx(0.0, abs=1e-12)


def test_a_margin_that_follows_volatility_has_a_responsiveness_of_one():
    generator = np.random.default_rng(1)
    volatility = np.exp(0.1 * generator.standard_normal(400).cumsum())
    found = responsiveness(0.02 * volatility, volatility, steps=20, window=365)
    assert found.ratio == pytest.approx(1.0)
    static = responsiveness(np.full(400, 0.05), volatility, steps=20, window=365)
    assert (static.margin_increase, static.ratio) == (0.0, 0.0)
    # half the margin a floor: it answers by less than half at its lows
    damped = responsiveness(0.05 + 0.02 * volatility, volatility, steps=20, window=365)
    assert 0.0 < damped.ratio < 1.0


def test_responsiveness_by_hand_looks_at_the_last_window_only():
    margin = np.array([1.0, 9.0, 2.0, 2.0, 3.0, 3.0])
    volatility = np.array([1.0, 9.0, 4.0, 8.0, 4.0, 4.0])
    found = responsiveness(margin, volatility, steps=1, window=4)
    assert found.margin_increase == pytest.approx(0.5)  # lags the volatility by a step
    assert found.volatility_increase == pytest.approx(1.0)
    assert found.ratio == pytest.approx(0.5)


def test_no_rise_of_volatility_no_ratio_and_the_reason():
    found = responsiveness(np.array([1.0, 2.0, 3.0]), np.array([3.0, 2.0, 1.0]), 1, 3)
    assert np.isnan(found.ratio)
    assert found.reason == "volatility did not rise"
    unknown = responsiveness(np.array([1.0, np.nan, 3.0]), np.array([3.0, 2.0, 1.0]), 1, 3)
    assert np.isnan(unknown.ratio)
    assert "known" in unknown.reason


def test_responsiveness_refuses_what_does_not_fit():
    with pytest.raises(InputError, match="one grid"):
        responsiveness(np.ones(5), np.ones(6), 1, 3)
    with pytest.raises(InputError, match=r"window must lie in 3\.\.5"):
        responsiveness(np.ones(5), np.ones(5), 2, 2)


def test_a_short_margin_has_no_long_rises():
    found = measure(np.array([0.02, 0.03, 0.03, 0.06]))
    assert found.largest_rises[1] == pytest.approx(1.0)
    assert all(np.isnan(found.largest_rises[days]) for days in (5, 20, 30))
    assert found.days_of_rises == {0.1: 2, 0.25: 2}
    assert np.isnan(measure(np.array([0.02, 0.03])).volatility)
    with pytest.raises(InputError, match="steps must lie"):
        measure(np.array([0.02]))
