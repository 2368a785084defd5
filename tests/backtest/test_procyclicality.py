"""Procyclicality: the published measures on a real EWMA margin, and what must not matter."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from margincast.backtest.procyclicality import largest_increase, peak_to_trough
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
