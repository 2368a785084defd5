"""Historical windows: which outcomes they hold, and margins compared at one cost."""

from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from margincast.backtest.stress.windows import (
    KNOWN_WINDOWS,
    StressWindow,
    scales_to_one_mean,
    window_figures,
)
from margincast.core.errors import InputError

HORIZON = timedelta(hours=8)
CRASH = StressWindow(
    "crash",
    datetime(2020, 3, 12, tzinfo=UTC),
    datetime(2020, 3, 13, tzinfo=UTC),
    lead=timedelta(days=1),
)


def hours(first, count):
    return np.datetime64(first, "us") + np.arange(count) * np.timedelta64(1, "h")


def test_an_outcome_that_reaches_into_the_window_is_in_it():
    decided = hours("2020-03-11", 72)
    during = CRASH.holds(decided, HORIZON)
    # (t, t + 8h] meets [03-12, 03-13) from 03-11 17:00, whose outcome ends at 01:00
    assert decided[during][0] == np.datetime64("2020-03-11T17:00")
    assert decided[during][-1] == np.datetime64("2020-03-12T23:00")
    before = CRASH.precedes(decided, HORIZON)
    assert decided[before][0] == np.datetime64("2020-03-11T00:00")
    assert decided[before][-1] == np.datetime64("2020-03-11T16:00")
    assert not (during & before).any()


def test_a_window_in_another_zone_is_the_same_instant():
    zone = timezone(timedelta(hours=9))
    moved = StressWindow("x", CRASH.start.astimezone(zone), CRASH.end.astimezone(zone), CRASH.lead)
    decided = hours("2020-03-11", 72)
    np.testing.assert_array_equal(moved.holds(decided, HORIZON), CRASH.holds(decided, HORIZON))


def test_figures_by_hand():
    decided = np.array(
        ["2020-03-11T02", "2020-03-12T02", "2020-03-12T12", "2020-03-20T00"], dtype="datetime64[us]"
    )
    outcome = np.array([0.01, 0.30, 0.02, 0.90])
    margins = {"a": np.array([0.04, 0.10, 0.20, 0.10]), "b": np.full(4, 0.25)}
    first, second = window_figures([CRASH], decided, HORIZON, outcome, margins)
    assert (first.window, first.model, first.decisions, first.exceedances) == ("crash", "a", 2, 1)
    assert first.worst_shortfall == pytest.approx(0.20)
    assert first.mean_shortfall == pytest.approx(0.10)
    assert first.mean_margin_before == pytest.approx(0.04)
    assert first.mean_margin_during == pytest.approx(0.15)
    assert first.largest_margin_during == pytest.approx(0.20)
    assert second.worst_shortfall == pytest.approx(0.05)


def test_a_window_that_the_data_does_not_hold_says_so():
    outcome = np.full(24, 0.01)
    found = window_figures(
        KNOWN_WINDOWS, hours("2019-01-01", 24), HORIZON, outcome, {"a": np.full(24, 0.02)}
    )
    assert len(found) == len(KNOWN_WINDOWS)
    assert all(each.decisions == 0 and "no decision" in each.reason for each in found)
    assert all(np.isnan(each.worst_shortfall) for each in found)


def test_the_known_windows_are_in_order_and_hold_their_days():
    starts = [window.start for window in KNOWN_WINDOWS]
    assert starts == sorted(starts)
    for day in ("2020-03-12", "2021-05-19", "2022-05-11", "2022-11-08", "2024-08-05", "2025-10-10"):
        noon = np.array([f"{day}T12:00"], dtype="datetime64[us]")
        assert sum(window.holds(noon, HORIZON)[0] for window in KNOWN_WINDOWS) == 1


@given(st.integers(0, 10**6), st.floats(0.1, 10.0), st.booleans())
def test_at_one_mean_the_unit_of_a_margin_is_nothing(seed, factor, weighted):
    generator = np.random.default_rng(seed)
    count = 96
    outcome = 0.03 * generator.exponential(size=count)
    own = generator.uniform(0.01, 0.05, count)
    weights = generator.random(count) if weighted else None
    margins = {"own": own, "same": factor * own, "flat": np.full(count, 0.03)}
    scales = scales_to_one_mean(margins, "flat", weights)
    for name, margin in margins.items():
        assert np.average(scales[name] * margin, weights=weights) == pytest.approx(0.03)
    found = window_figures(
        [CRASH], hours("2020-03-10", count), HORIZON, outcome, margins, scales=scales
    )
    by_model = {each.model: each for each in found}
    assert by_model["own"].worst_shortfall == pytest.approx(by_model["same"].worst_shortfall)
    assert by_model["own"].exceedances == by_model["same"].exceedances


def test_at_equal_cost_the_margin_that_knows_loses_less():
    """A margin that follows the known scale of outcomes against a static one of the same mean."""
    generator = np.random.default_rng(5)
    scale = np.exp(generator.standard_normal(24 * 40).cumsum() * 0.1 - 4.0).clip(0.002, 0.05)
    decided = hours("2020-02-20", scale.size)
    outcome = scale * generator.exponential(size=scale.size)
    margins = {"static": np.full(scale.size, 0.02), "knows": 4.6 * scale}
    whole = StressWindow("all", datetime(2020, 1, 1, tzinfo=UTC), datetime(2021, 1, 1, tzinfo=UTC))
    scales = scales_to_one_mean(margins, "static")
    static, knows = window_figures([whole], decided, HORIZON, outcome, margins, scales=scales)
    assert knows.mean_margin_during == pytest.approx(static.mean_margin_during)
    assert knows.mean_shortfall < static.mean_shortfall


def test_real_black_thursday(shared_data):
    """BTC over one hour against a static margin of 5 %."""
    bars = pd.read_csv(shared_data / "golden" / "inputs" / "btc_hourly_ohlc.csv")
    close, low = bars["close"].to_numpy(), bars["low"].to_numpy()
    outcome = np.maximum(0.0, 1.0 - low[1:] / close[:-1])
    decided = pd.to_datetime(bars["ts"], utc=True).dt.tz_localize(None).to_numpy("datetime64[us]")
    hour = timedelta(hours=1)
    static = np.full(outcome.size, 0.05)
    found = window_figures(KNOWN_WINDOWS, decided[1:], hour, outcome, {"static": static})
    by_name = {each.window[:10]: each for each in found}
    assert by_name["2020-03-12"].worst_shortfall > 0.05
    assert by_name["2021-05-19"].exceedances > 0
    assert by_name["2025-10-10"].decisions == 0


def test_what_does_not_fit_is_refused():
    start = datetime(2020, 3, 12, tzinfo=UTC)
    with pytest.raises(InputError, match="time zone"):
        StressWindow("x", start.replace(tzinfo=None), start)
    with pytest.raises(InputError, match="end after its start"):
        StressWindow("x", start, start)
    margins = {"own": np.array([0.1, 0.2])}
    with pytest.raises(InputError, match="did you mean 'own'"):
        scales_to_one_mean(margins, "ow")
    with pytest.raises(InputError, match="must be positive"):
        scales_to_one_mean({"own": np.array([0.1, 0.0])}, "own")
    with pytest.raises(InputError, match="not all zero"):
        scales_to_one_mean(margins, "own", np.zeros(2))
    decided = hours("2020-03-12", 2)
    with pytest.raises(InputError, match="pair one to one"):
        window_figures([CRASH], decided[:1], HORIZON, np.array([0.1, 0.2]), margins)
    with pytest.raises(InputError, match="no scale is given for own"):
        window_figures([CRASH], decided, HORIZON, np.array([0.1, 0.2]), margins, scales={})
    with pytest.raises(InputError, match="NaN or infinite"):
        window_figures([CRASH], decided, HORIZON, np.array([0.1, np.nan]), margins)
