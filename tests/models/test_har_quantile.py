"""The quantile of a market that obeys the regression is found; scale, season and contract count."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from margincast.core.errors import InputError, InsufficientHistoryError
from margincast.models.har_quantile import (
    CONTRACT_PRIOR,
    EVIDENCE,
    LOWEST_ANCHOR,
    HarQuantile,
)
from margincast.models.protocol import Panel
from margincast.models.scale import SMALLEST_SHARE, hour_of_week

SIDES = ("long", "short")
LEVELS = (0.9, 0.99)
COLUMNS = ("own_1h", "own_1d", "market_1d")
KINDS = [(True, ()), (True, (1, 7)), (False, ()), (False, (1, 7))]


def panel_of(frame, long, short):
    decided = frame["ts"].dt.tz_localize(None).to_numpy("datetime64[us]")
    return Panel(
        frame=frame,
        units=dict.fromkeys(COLUMNS, "fraction"),
        outcomes={"long": np.asarray(long), "short": np.asarray(short)},
        log_range=np.asarray(long) + np.asarray(short),
        label_end=decided + np.timedelta64(1, "h"),
    )


def decisions(seed=0, hours=3000, contracts=("A", "B", "C"), step_hours=1):
    """Volatilities that wander apart, hour by hour."""
    rng = np.random.default_rng(seed)
    ts = pd.date_range("2021-01-01", periods=hours, freq=f"{step_hours}h", tz="UTC", unit="us")
    frame = pd.DataFrame({"ts": np.repeat(ts, len(contracts)), "symbol": contracts * hours})
    for column, spread in zip(COLUMNS, (0.5, 0.4, 0.3), strict=True):
        frame[column] = 0.01 * np.exp(rng.normal(0, spread, len(frame)))
    return frame


def season(frame):
    return np.exp(0.5 * np.sin(2 * np.pi * 7 * hour_of_week(frame["ts"]) / 168))


def truth_of(frame, *, logarithmic, seasonal):
    """A width that is (log-)linear in the volatilities, busier once a day."""
    fast, slow, market = (frame[column].to_numpy() for column in COLUMNS)
    if logarithmic:
        width = fast**0.5 * slow**0.3 * market**0.2
        return width * season(frame) if seasonal else width
    width = 0.001 + 0.5 * fast + 0.3 * slow + 0.2 * market
    if seasonal:
        wave = np.sin(2 * np.pi * 7 * hour_of_week(frame["ts"]) / 168)
        width = width + 0.4 * np.sqrt(fast * slow) * wave
    return width


def simulated(seed=0, *, logarithmic=True, seasonal=False, **kwargs):
    """Outcomes are the true width times an exponential, so its quantiles are -log(1 - level)."""
    frame = decisions(seed, **kwargs)
    rng = np.random.default_rng(seed + 1)
    width = truth_of(frame, logarithmic=logarithmic, seasonal=seasonal)
    long, short = width * rng.exponential(1, (2, len(frame)))
    return panel_of(frame, long, 2 * short), width


def unfitted(kind=KINDS[0], columns=COLUMNS, levels=LEVELS, overlap=1.0):
    logarithmic, harmonics = kind
    return HarQuantile("har_qr", logarithmic, columns, harmonics, SIDES, levels, overlap)


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: f"log={kind[0]}-{kind[1]}")
def case(request):
    logarithmic, harmonics = request.param
    panel, width = simulated(logarithmic=logarithmic, seasonal=bool(harmonics))
    return request.param, panel, width, unfitted(request.param).fit(panel)


def test_the_quantiles_of_a_market_that_obeys_the_regression_are_found(case):
    _, panel, width, fitted = case
    forecast = fitted.predict(panel)
    for level in LEVELS:
        quantile = -np.log(1 - level) * width
        for side, factor in zip(SIDES, (1, 2), strict=True):
            error = np.log(forecast.at(side, level) / (factor * quantile))
            # 90 exceedances at 0.99: the common error alone is 0.03
            assert abs(error.mean()) < (0.05 if level < 0.99 else 0.1)
            assert error.std() < (0.06 if level < 0.99 else 0.18)


def test_expected_shortfall_is_the_mean_beyond_the_quantile(case):
    _, panel, width, fitted = case
    forecast = fitted.predict(panel)
    assert (forecast.expected_shortfall >= forecast.quantiles).all()
    assert (np.diff(forecast.expected_shortfall, axis=2) >= 0).all()
    # memoryless: beyond its quantile an exponential goes one mean further
    for j, level in enumerate(LEVELS):
        ratio = forecast.expected_shortfall[:, 0, j] / width
        assert ratio.mean() == pytest.approx(1 - np.log(1 - level), rel=0.12)


def test_the_stated_share_of_the_training_outcomes_is_covered(case):
    _, panel, _, fitted = case
    forecast = fitted.predict(panel)
    for side in SIDES:
        for level in LEVELS:
            exceeded = np.mean(panel.outcomes[side] > forecast.at(side, level))
            assert exceeded == pytest.approx(1 - level, rel=0.1)


def test_a_forecast_hangs_on_its_own_row_alone(case):
    _, panel, _, fitted = case
    whole = fitted.predict(panel)
    for rows in (np.arange(0), np.arange(1), np.arange(5, 40), np.arange(8_999, -1, -1)):
        part = fitted.predict(panel.rows(rows))
        np.testing.assert_array_equal(part.quantiles, whole.quantiles[rows])
        np.testing.assert_array_equal(part.expected_shortfall, whole.expected_shortfall[rows])


def test_an_unknown_volatility_gives_an_unknown_forecast_and_no_other(case):
    kind, panel, _, fitted = case
    holed = panel.frame.copy()
    holed.loc[7, "own_1h"] = np.nan
    holed.loc[9, "market_1d"] = np.nan
    holed.loc[11, "own_1d"] = np.nan  # the shorter window stands in
    forecast = fitted.predict(replace(panel, frame=holed)).quantiles
    whole = fitted.predict(panel).quantiles
    assert np.isnan(forecast[[7, 9]]).all()
    assert np.isfinite(forecast[11]).all()
    others = np.setdiff1d(np.arange(len(panel)), [7, 9, 11])
    np.testing.assert_array_equal(forecast[others], whole[others])
    # and does not enter the fit
    left = unfitted(kind).fit(replace(panel, frame=holed.drop(columns=[])))
    kept = np.setdiff1d(np.arange(len(panel)), [7, 9])
    right = unfitted(kind).fit(replace(panel, frame=holed).rows(kept))
    assert left.parameters() == right.parameters()


def test_a_market_twice_as_wild_has_forecasts_twice_as_wide(case):
    kind, panel, _, fitted = case
    frame = panel.frame.copy()
    frame[list(COLUMNS)] *= 2
    outcomes = {side: 2 * values for side, values in panel.outcomes.items()}
    wild = replace(panel, frame=frame, outcomes=outcomes)
    ratio = unfitted(kind).fit(wild).predict(wild).quantiles / fitted.predict(panel).quantiles
    np.testing.assert_allclose(ratio, 2.0, rtol=1e-9)


def test_a_saved_model_forecasts_the_same_bits(case, tmp_path):
    _, panel, _, fitted = case
    fitted.save(tmp_path)
    loaded = HarQuantile.load(tmp_path)
    np.testing.assert_array_equal(loaded.predict(panel).quantiles, fitted.predict(panel).quantiles)
    np.testing.assert_array_equal(
        loaded.predict(panel).expected_shortfall, fitted.predict(panel).expected_shortfall
    )
    assert loaded.parameters() == fitted.parameters()
    assert json.loads((tmp_path / "model.json").read_text()) == fitted.parameters()


@pytest.mark.parametrize("logarithmic", [True, False])
def test_the_rhythm_of_the_week_is_seen_by_the_seasonal_model_only(logarithmic):
    panel, width = simulated(3, logarithmic=logarithmic, seasonal=True)
    errors = {}
    for harmonics in ((), (1, 7)):
        fitted = unfitted((logarithmic, harmonics)).fit(panel)
        errors[harmonics] = np.log(fitted.predict(panel).at("long", 0.9) / width).std()
    assert errors[1, 7] < 0.3 * errors[()]


@given(st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=5)
def test_outcomes_far_below_the_tail_count_by_their_number_alone(seed):
    panel, _ = simulated(seed, hours=600)
    small = {
        side: np.where(values < np.median(values) / 4, 0.0, values)
        for side, values in panel.outcomes.items()
    }
    fitted = unfitted().fit(panel).predict(panel).quantiles
    np.testing.assert_allclose(
        unfitted().fit(replace(panel, outcomes=small)).predict(panel).quantiles, fitted, rtol=1e-9
    )


def test_levels_with_too_few_exceedances_take_the_slopes_of_a_lower_one():
    panel, _ = simulated(4)
    levels = (0.9, 0.99, 0.995)
    rows, coefficients = len(panel), 4
    for overlap in (1.0, 2.0, 8.0):
        record = unfitted(levels=levels, overlap=overlap).fit(panel).parameters()
        highest = 1 - EVIDENCE * coefficients * overlap / rows
        assert record["anchor_levels"] == [
            min(level, max(LOWEST_ANCHOR, highest)) for level in levels
        ]
        assert record["anchor_levels"][1] == record["anchor_levels"][2]
        slopes = np.array(record["coefficients"])
        np.testing.assert_array_equal(slopes[:, 1], slopes[:, 2])
        factors = np.array(record["factors"]["(pooled)"])
        assert (factors[:, 2] > factors[:, 1]).all()


def test_levels_never_cross_where_the_slopes_of_two_levels_do():
    rng = np.random.default_rng(5)
    frame = decisions(5)
    # wide tails where volatility is low: lines of two levels meet where it is high
    shape = np.where(frame["own_1h"] < 0.01, 1.5, 0.1)
    outcome = frame["own_1h"].to_numpy() * np.exp(shape * rng.normal(0, 1, len(frame)))
    panel = panel_of(frame, outcome, outcome)
    fitted = unfitted(levels=(0.9, 0.95, 0.97)).fit(panel)
    far = frame.copy()
    far[list(COLUMNS)] *= np.geomspace(1e-3, 1e3, len(far))[:, None]
    raw = fitted._anchored(*fitted._design(far))
    forecast = fitted.predict(replace(panel, frame=far))
    assert (np.diff(raw, axis=2) < 0).any()
    assert (np.diff(forecast.quantiles, axis=2) >= 0).all()
    assert (np.diff(forecast.expected_shortfall, axis=2) >= 0).all()
    assert (forecast.expected_shortfall >= forecast.quantiles).all()


def test_a_contract_of_its_own_kind_is_pooled_by_how_much_it_has_shown():
    panel, _ = simulated(6, contracts=("A", "B", "C", "D", "E", "WILD"))
    wild = (panel.frame["symbol"] == "WILD").to_numpy()
    outcomes = {side: np.where(wild, 3, 1) * values for side, values in panel.outcomes.items()}
    panel = replace(panel, outcomes=outcomes)
    multiples = {}
    for hours in (40, 400, 3000):
        listed = panel.decided >= panel.decided.max() - np.timedelta64(hours, "h")
        fitted = unfitted().fit(panel.rows(~wild | listed))
        factors = {name: values[0, 1] for name, values in fitted._factors.items()}
        multiples[hours] = factors["WILD"] / factors["A"]
    shown = 30 / (30 + CONTRACT_PRIOR)
    assert 1 < multiples[40] < multiples[400] < multiples[3000]
    assert multiples[3000] == pytest.approx(3**shown, rel=0.2)
    # one never seen is everybody
    stranger = replace(panel, frame=panel.frame.assign(symbol="NEW"))
    pooled = fitted._anchored(*fitted._design(panel.frame)) * fitted._factors["(pooled)"]
    np.testing.assert_array_equal(fitted.predict(stranger).quantiles, np.sort(pooled, axis=2))


@pytest.mark.parametrize("logarithmic", [True, False])
def test_waves_that_the_decision_times_cannot_tell_apart_are_dropped_and_named(logarithmic):
    # every four hours: the harmonic of 6 h looks like that of 12 h, and that of 8 h is either way
    panel, _ = simulated(7, seasonal=True, logarithmic=logarithmic, step_hours=4, hours=1500)
    fitted = unfitted((logarithmic, (7, 14, 21, 28))).fit(panel)
    assert fitted.parameters()["dropped"] == ["sin 21", "sin 28", "cos 28"]
    plain = unfitted((logarithmic, (7, 14))).fit(panel)
    assert plain.parameters()["dropped"] == []
    quantiles = fitted.predict(panel).quantiles
    assert np.log(quantiles / plain.predict(panel).quantiles).std() < 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_a_volatility_that_is_hardly_ever_known_is_left_out_and_costs_no_forecast(kind):
    panel, _ = simulated(8)
    absent = replace(panel, frame=panel.frame.assign(market_1d=np.nan))
    fitted = unfitted(kind).fit(absent)
    without = unfitted(kind, columns=COLUMNS[:2]).fit(panel)
    assert fitted.parameters()["unused"] == ["market_1d"]
    np.testing.assert_array_equal(fitted.predict(panel).quantiles, fitted.predict(absent).quantiles)
    np.testing.assert_allclose(
        fitted.predict(absent).quantiles, without.predict(panel).quantiles, rtol=1e-9
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_price_that_stands_still_has_small_but_positive_forecasts(kind):
    panel, _ = simulated(9)
    still = replace(panel, frame=panel.frame.assign(**dict.fromkeys(COLUMNS, 0.0)))
    quantiles = unfitted(kind).fit(panel).predict(still).quantiles
    assert (quantiles > 0).all()
    assert (quantiles < 0.02).all()


def test_too_little_history_says_how_much_is_needed_and_found():
    panel, _ = simulated(10, hours=20, contracts=("A",))
    with pytest.raises(
        InsufficientHistoryError,
        match=r"level 0\.99 needs at least 100 training decisions, found 20",
    ):
        unfitted().fit(panel)
    with pytest.raises(
        InsufficientHistoryError,
        match=r"har_qr has 8 coefficients and needs at least 40 .*known own_1h, found 20 of 20",
    ):
        unfitted((True, (1, 7)), levels=(0.9,)).fit(panel)


def test_a_missing_column_is_named():
    panel, _ = simulated(11, hours=200)
    lacking = replace(panel, frame=panel.frame.drop(columns="own_1d"))
    with pytest.raises(InputError, match=r"model har_qr needs the feature\(s\) own_1d"):
        unfitted().fit(lacking)
    with pytest.raises(InputError, match=r"model har_qr needs the feature\(s\) own_1d"):
        unfitted().fit(panel).predict(lacking)


def test_a_line_that_falls_below_zero_is_held_at_a_share_of_the_volatility():
    panel, _ = simulated(12, logarithmic=False)
    calm_market = panel.frame["own_1h"] > panel.frame["market_1d"]
    outcomes = {side: np.where(calm_market, v, v / 4) for side, v in panel.outcomes.items()}
    fitted = unfitted((False, ())).fit(replace(panel, outcomes=outcomes))
    assert (np.array(fitted.parameters()["coefficients"])[:, :, 3] < 0).all()
    wild_market = replace(panel, frame=panel.frame.assign(market_1d=1.0))
    forecast = fitted.predict(wild_market)
    width = np.sqrt(panel.frame["own_1h"] * panel.frame["own_1d"])
    factors = fitted._factors["A"]
    first = (panel.frame["symbol"] == "A").to_numpy()
    expected = SMALLEST_SHARE * width[first].to_numpy()[:, None, None] * factors
    np.testing.assert_allclose(forecast.quantiles[first], np.sort(expected, axis=2), rtol=1e-12)
    assert (forecast.expected_shortfall >= forecast.quantiles).all()


def test_a_model_without_volatilities_is_refused():
    panel, _ = simulated(13, hours=200)
    with pytest.raises(InputError, match=r"regresses on volatilities and was given none"):
        unfitted(columns=()).fit(panel)
