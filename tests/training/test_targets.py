"""The outcome is what followed the decision: all of the next H bars, nothing of the bar itself."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from margincast.core.errors import InputError
from margincast.core.types import FloatArray
from margincast.data.bars import BarTable
from margincast.training.targets import Excursions, adverse_excursions, bars_in, outcome_table

NAN = float("nan")
HOUR = timedelta(hours=1)
START = datetime(2024, 1, 1, tzinfo=UTC)


@st.composite
def bars(draw: st.DrawFn) -> tuple[FloatArray, FloatArray, FloatArray]:
    """High, low and close of a random walk, some bars missing."""
    count = draw(st.integers(1, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    close = 100 * np.exp(np.cumsum(rng.standard_t(3, count) * 0.02))
    high = close * np.exp(rng.exponential(0.01, count))
    low = close * np.exp(-rng.exponential(0.01, count))
    missing = rng.random(count) < draw(st.sampled_from([0.0, 0.1, 0.5]))
    for column in (high, low, close):
        column[missing] = NAN
    return high, low, close


HORIZONS = st.integers(1, 12)
TOLERATED = st.integers(0, 3)


def slow_excursions(
    high: FloatArray, low: FloatArray, close: FloatArray, horizon: int, tolerated: int, *, kind: str
) -> Excursions:
    """The definition, one decision at a time."""
    n = len(close)
    long, short, log_range = (np.full(n, NAN) for _ in range(3))
    for i in range(n - horizon):
        window = [j for j in range(i + 1, i + horizon + 1) if not np.isnan(high[j])]
        if not window or horizon - len(window) > tolerated or np.isnan(close[i]):
            continue
        top, bottom = max(high[j] for j in window), min(low[j] for j in window)
        end = close[i + horizon]
        if kind == "terminal" and np.isnan(end):
            continue
        worst, best = (bottom, top) if kind == "path" else (end, end)
        long[i] = max(0.0, 1 - worst / close[i])
        short[i] = max(0.0, best / close[i] - 1)
        log_range[i] = np.log(top / bottom)
    return Excursions({"long": long, "short": short}, log_range)


def test_a_decision_by_hand():
    high = np.array([110.0, 104.0, 108.0, 103.0])
    low = np.array([80.0, 98.0, 101.0, 95.0])
    close = np.array([100.0, 102.0, 102.0, 99.0])
    path = adverse_excursions(high, low, close, 2, 0, kind="path")
    # from 100: lows 98, 101, highs 104, 108; the decision bar's 80 and 110 do not count
    assert path.outcomes["long"][:2] == pytest.approx([0.02, 1 - 95 / 102])
    assert path.outcomes["short"][:2] == pytest.approx([0.08, 108 / 102 - 1])
    assert path.log_range[:2] == pytest.approx([np.log(108 / 98), np.log(108 / 95)])
    assert np.isnan(path.outcomes["long"][2:]).all()
    end = adverse_excursions(high, low, close, 2, 0, kind="terminal")
    assert end.outcomes["long"][:2] == pytest.approx([0.0, 1 - 99 / 102])
    assert end.outcomes["short"][:2] == pytest.approx([0.02, 0.0])


def test_a_side_that_only_gains_has_an_excursion_of_zero():
    rising = np.array([100.0, 101.0, 102.0, 103.0])
    found = adverse_excursions(rising + 0.5, rising - 0.5, rising, 1, 0, kind="path").outcomes
    assert found["long"][:3].tolist() == [0.0, 0.0, 0.0]
    assert (found["short"][:3] > 0).all()


@given(bars(), HORIZONS, TOLERATED, st.sampled_from(["path", "terminal"]))
def test_every_decision_equals_the_definition(series, horizon, tolerated, kind):
    fast = adverse_excursions(*series, horizon, tolerated, kind=kind)
    slow = slow_excursions(*series, horizon, tolerated, kind=kind)
    for side in ("long", "short"):
        np.testing.assert_allclose(fast.outcomes[side], slow.outcomes[side], rtol=1e-12, atol=0)
    np.testing.assert_allclose(fast.log_range, slow.log_range, rtol=1e-12, atol=0)


@given(bars(), HORIZONS, TOLERATED, st.data())
def test_nothing_of_the_decision_bar_but_its_close_enters(series, horizon, tolerated, data):
    high, low, close = series
    at = data.draw(st.integers(0, len(close) - 1))
    other_high, other_low = high.copy(), low.copy()
    other_high[at], other_low[at] = high[at] * 3, low[at] / 3
    before = adverse_excursions(high, low, close, horizon, tolerated, kind="path")
    after = adverse_excursions(other_high, other_low, close, horizon, tolerated, kind="path")
    for side in ("long", "short"):
        np.testing.assert_array_equal(after.outcomes[side][at:], before.outcomes[side][at:])


@given(bars(), HORIZONS, TOLERATED, st.data())
def test_nothing_beyond_the_horizon_enters(series, horizon, tolerated, data):
    at = data.draw(st.integers(0, len(series[0]) - 1))
    others = [column.copy() for column in series]
    for column in others:
        column[at + horizon + 1 :] *= 7
    for kind in ("path", "terminal"):
        before = adverse_excursions(*series, horizon, tolerated, kind=kind)
        after = adverse_excursions(*others, horizon, tolerated, kind=kind)
        for side in ("long", "short"):
            np.testing.assert_array_equal(
                after.outcomes[side][: at + 1], before.outcomes[side][: at + 1]
            )


@given(bars(), HORIZONS, TOLERATED, st.sampled_from(["path", "terminal"]))
def test_a_short_in_one_currency_is_a_long_in_the_other(series, horizon, tolerated, kind):
    # with p -> 1/p highs and lows swap, and a rise r is a fall of r / (1 + r)
    high, low, close = series
    here = adverse_excursions(high, low, close, horizon, tolerated, kind=kind)
    there = adverse_excursions(1 / low, 1 / high, 1 / close, horizon, tolerated, kind=kind)
    rise = here.outcomes["short"]
    np.testing.assert_allclose(there.outcomes["long"], rise / (1 + rise), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(there.log_range, here.log_range, rtol=1e-9, atol=1e-12)


@given(bars(), HORIZONS, TOLERATED, st.sampled_from([1e-6, 0.3, 1e5]))
def test_outcomes_do_not_hang_on_the_unit_of_the_price(series, horizon, tolerated, factor):
    here = adverse_excursions(*series, horizon, tolerated, kind="path")
    scaled = [column * factor for column in series]
    there = adverse_excursions(*scaled, horizon, tolerated, kind="path")
    for side in ("long", "short"):
        np.testing.assert_allclose(there.outcomes[side], here.outcomes[side], rtol=1e-9, atol=1e-12)


@given(bars(), HORIZONS, TOLERATED)
def test_the_path_is_at_least_as_bad_as_its_end_and_longs_lose_at_most_everything(
    series, horizon, tolerated
):
    path = adverse_excursions(*series, horizon, tolerated, kind="path").outcomes
    end = adverse_excursions(*series, horizon, tolerated, kind="terminal").outcomes
    for side in ("long", "short"):
        known = ~np.isnan(end[side])
        assert (path[side][known] >= end[side][known]).all()
        assert (path[side][~np.isnan(path[side])] >= 0).all()
    assert (path["long"][~np.isnan(path["long"])] < 1).all()


@given(bars(), HORIZONS, TOLERATED)
def test_tolerating_more_only_adds_outcomes(series, horizon, tolerated):
    strict = adverse_excursions(*series, horizon, tolerated, kind="path").outcomes["long"]
    lenient = adverse_excursions(*series, horizon, tolerated + 1, kind="path").outcomes["long"]
    known = ~np.isnan(strict)
    np.testing.assert_array_equal(lenient[known], strict[known])


def one_contract(present: list[bool]) -> BarTable:
    count = len(present)
    close = 100 + np.arange(count, dtype=float)
    frame = pl.DataFrame(
        {
            "symbol": ["X"] * count,
            "ts": [START + i * HOUR for i in range(count)],
            "high": close + 1,
            "low": close - 1,
            "close": close,
        },
        schema_overrides={"ts": pl.Datetime("us", "UTC")},
    ).with_columns(
        pl.when(pl.Series(present)).then(pl.col(name)).alias(name)
        for name in ("high", "low", "close")
    )
    return BarTable({"X": frame}, HOUR, ())


@pytest.mark.parametrize(
    ("tolerance", "known"),
    [
        (timedelta(minutes=30), [0, 5]),
        (HOUR, [0, 5]),
        (timedelta(minutes=61), [0, 1, 2, 3, 5]),
        (2 * HOUR, [0, 1, 2, 3, 5]),
    ],
)
def test_a_window_has_an_outcome_only_if_less_than_the_tolerance_is_missing(tolerance, known):
    table = one_contract([True, True, True, True, False, True, True, True, True])
    outcomes, findings = outcome_table(table, 3 * HOUR, tolerance, "path")
    # of 9 bars and horizon 3, decisions 0 to 5 have a window; 4 has no price, 1 to 3 see the gap
    assert outcomes["outcome_long"].is_not_nan().arg_true().to_list() == known
    assert sum(finding.count for finding in findings) == 5 - len(known)


def test_the_label_is_known_when_its_window_has_closed():
    outcomes, _ = outcome_table(one_contract([True] * 6), 2 * HOUR, HOUR, "path")
    assert outcomes["ts"].to_list() == [START + (i + 1) * HOUR for i in range(6)]
    assert (outcomes["label_end"] - outcomes["ts"]).unique().to_list() == [2 * HOUR]
    assert outcomes["outcome_short"][0] == pytest.approx(103 / 100 - 1)
    assert outcomes["outcome_long"].is_nan().to_list() == [False] * 4 + [True] * 2


def test_a_series_shorter_than_the_horizon_has_no_outcome():
    outcomes, findings = outcome_table(one_contract([True] * 3), 8 * HOUR, HOUR, "path")
    assert outcomes["outcome_long"].is_nan().all()
    assert sum(f.count for f in findings) == 0


def test_a_horizon_off_the_grid_is_refused():
    assert bars_in(8 * HOUR, HOUR) == 8
    with pytest.raises(InputError, match=r"target\.horizons: 90m is not a whole number of 1h bars"):
        bars_in(timedelta(minutes=90), HOUR)
