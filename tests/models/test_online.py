"""Tracking finds a drifted quantile again, from outcomes known by then and from no others."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from margincast.models.online import QuantileTracking

HOUR = np.timedelta64(3_600_000_000, "us")
START = np.datetime64("2024-01-01", "us")
LEVELS = (0.9, 0.99)
QUICK = QuantileTracking(everybody_rate=400.0, contract_rate=0.0, lowest=0.1)


def market(
    seed: int, hours: int, contracts: int = 5, horizon: int = 1
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Scores outcome / forecast of exponential outcomes whose forecasts are exact, two sides."""
    rng = np.random.default_rng(seed)
    decided = np.repeat(START + np.arange(hours) * HOUR, contracts)
    contract = np.tile(np.array([f"C{i}" for i in range(contracts)], dtype=object), hours)
    quantiles = -np.log(1 - np.array(LEVELS))
    scores = rng.exponential(1, (len(decided), 2, 1)) / quantiles
    return scores, contract, decided, decided + horizon * HOUR


def run(tracking: QuantileTracking, case, overlap: float = 1.0) -> np.ndarray:
    scores, contract, decided, label_end = case
    return tracking.corrections(
        scores, contract, decided, label_end, levels=LEVELS, overlap=overlap
    )


def test_exact_forecasts_stay_about_as_they_are():
    case = market(0, 5000)
    corrections = run(QuantileTracking(90.0, 90.0, 0.1), case)
    # a year's rate of 90 moves the log of a forecast by 0.01 a hit
    assert np.abs(np.median(corrections[-5000:], axis=(0, 1))).max() < 0.1
    exceeded = (np.log(case[0]) > corrections).mean(axis=(0, 1))
    np.testing.assert_allclose(exceeded, [0.1, 0.01], rtol=0.1)


@pytest.mark.parametrize("drift", [0.6, 1.5])
def test_after_a_drift_coverage_comes_back_on_every_side_and_level(drift):
    scores, *rest = market(1, 9000)
    corrections = run(QUICK, (scores * drift, *rest))
    late = np.log(scores[-20_000:] * drift) > corrections[-20_000:]
    np.testing.assert_allclose(late.mean(axis=0) / (1 - np.array(LEVELS)), 1.0, atol=0.25)
    np.testing.assert_allclose(np.exp(corrections[-20_000:].mean(axis=(0, 1))), drift, rtol=0.15)


def test_a_contract_that_drifts_alone_is_corrected_alone():
    scores, contract, decided, label_end = market(2, 9000)
    wild = contract == "C3"
    drifted = scores * np.where(wild, 1.8, 1.0)[:, None, None]
    tracking = QuantileTracking(0.0, 400.0, 0.1)
    last = run(tracking, (drifted, contract, decided, label_end))[-5000:]
    assert np.exp(last[wild[-5000:]].mean()) == pytest.approx(1.8, rel=0.15)
    assert np.exp(last[~wild[-5000:]].mean()) == pytest.approx(1.0, rel=0.1)


@settings(max_examples=40)
@given(st.integers(0, 2**32), st.integers(1, 12), st.integers(1, 60))
def test_an_outcome_counts_from_the_moment_it_is_known_and_not_before(seed, horizon, hour):
    case = market(seed, 80, contracts=2, horizon=horizon)
    scores, contract, decided, label_end = case
    changed = scores.copy()
    changed[decided >= START + hour * HOUR] *= 1000
    before, after = run(QUICK, case), run(QUICK, (changed, contract, decided, label_end))
    known = START + (hour + horizon) * HOUR
    np.testing.assert_array_equal(before[decided < known], after[decided < known])
    at_once = decided == known
    if at_once.any():
        assert (after[at_once] >= before[at_once]).all()
        assert (after[at_once] > before[at_once]).any()


@given(st.integers(0, 2**32), st.integers(1, 159))
def test_later_rows_change_no_bit_of_earlier_ones(seed, rows):
    case = market(seed, 80, contracts=2, horizon=3)
    part = tuple(values[:rows] for values in case)
    np.testing.assert_array_equal(run(QUICK, part), run(QUICK, case)[:rows])


def test_without_outcomes_nothing_moves():
    scores, contract, decided, _ = market(3, 50)
    never = np.full(len(decided), np.datetime64("NaT", "us"))
    assert (run(QUICK, (np.full_like(scores, np.nan), contract, decided, never)) == 0).all()


def test_calm_lowers_a_forecast_to_its_floor_and_no_further():
    scores, *rest = market(4, 9000)
    floor = QuantileTracking(4000.0, 0.0, 0.8)
    corrections = run(floor, (scores * 0, *rest))
    assert corrections.min() == np.log(0.8)


def test_outcomes_that_share_a_horizon_count_for_what_they_are_worth():
    # the same exceedance seen by eight overlapping decisions moves as much as one seen once
    once = market(5, 400, contracts=1)
    eight = tuple(np.repeat(values, 8, axis=0) for values in once[:2])
    decided = START + np.arange(3200) * (HOUR // 8)
    slow, fast = run(QUICK, once), run(QUICK, (*eight, decided, decided + HOUR), overlap=8.0)
    assert fast[-1, 0, 0] == pytest.approx(slow[-1, 0, 0], abs=0.25)
