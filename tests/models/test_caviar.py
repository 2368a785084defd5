"""CAViaR recovers a known recursion, remembers where it stood and bridges what it missed."""

import json
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from margincast.core.errors import InputError, InsufficientHistoryError
from margincast.models.caviar import Caviar, estimate_caviar, exponential_means, magnitudes
from margincast.models.caviar_forecaster import SHAPE_LEVEL, CaviarForecaster
from margincast.models.protocol import Panel
from margincast.models.scale import SMALLEST
from margincast.scoring.pinball import mean_pinball

SIDES = ("long", "short")
LEVELS = (0.9, 0.975, 0.99, 0.999)
PARETO = 4.0
"""Tail index of simulated outcomes: the mean beyond any quantile is 4/3 of it."""
HOUR = np.timedelta64(1, "h")


def recursion(parameters, returns, first, *, asymmetric):
    """The published recursion, one step after the other: the slow twin."""
    quantile, path = first, []
    for move in returns:
        intercept, persistence, *slopes = parameters
        sizes = [max(move, 0.0), max(-move, 0.0)] if asymmetric else [abs(move)]
        pushed = sum(slope * size for slope, size in zip(slopes, sizes, strict=True))
        quantile = intercept + persistence * quantile + pushed
        path.append(quantile)
    return np.array(path)


def simulate(parameters, hours, rng, *, asymmetric):
    """Returns whose volatility follows the quantile, and the quantile at each of them."""
    intercept, persistence, *slopes = parameters
    push = [*slopes] if asymmetric else [slopes[0], slopes[0]]
    shocks = rng.normal(0, 1 / 3, hours)
    # the mean rise and the mean fall are 0.4 standard deviations each
    quantile = intercept / (1 - persistence - 0.4 / 3 * sum(push))
    returns, path = np.empty(hours), np.empty(hours)
    for hour, shock in enumerate(shocks):
        move = quantile * shock
        pushed = push[0] * max(move, 0.0) + push[1] * max(-move, 0.0)
        quantile = intercept + persistence * quantile + pushed
        returns[hour], path[hour] = move, quantile
    return returns, path


def pareto(rng, level, size):
    """Outcomes in units of their quantile at a level, Pareto throughout."""
    return ((1 - level) / rng.uniform(size=size)) ** (1 / PARETO)


def make_panel(closes, outcomes, start="2021-01-01"):
    """A panel of hourly decisions; closes (contract -> prices), outcomes (contract -> array)."""
    parts = []
    for symbol, prices in closes.items():
        ts = pd.date_range(start, periods=len(prices), freq="h", tz="UTC", unit="us")
        parts.append(
            pd.DataFrame({"symbol": symbol, "ts": ts, "close": prices, "y": outcomes[symbol]})
        )
    frame = pd.concat(parts).sort_values(["ts", "symbol"], ignore_index=True)
    values = frame.pop("y").to_numpy()
    decided = frame["ts"].dt.tz_localize(None).to_numpy("datetime64[us]")
    return Panel(frame, {}, {"long": values, "short": 2 * values}, values, decided + HOUR)


def simulated_panel(seed=0, hours=3000, wildness=(("BTC", 1.0), ("ETH", 2.0), ("SOL", 4.0))):
    """Contracts that follow one recursion, each in a unit of its own; 0.9 is its level."""
    rng = np.random.default_rng(seed)
    closes, outcomes = {}, {}
    for symbol, unit in wildness:
        returns, path = simulate((2e-4, 0.9, 0.3), hours, rng, asymmetric=False)
        closes[symbol] = 100 * np.exp(unit * np.cumsum(returns))
        outcomes[symbol] = unit * path * pareto(rng, 0.9, hours)
    return make_panel(closes, outcomes)


def unfitted(name="caviar_as"):
    return CaviarForecaster(name, name == "caviar_as", SIDES, LEVELS, overlap=1.0)


def contract(panel, symbol):
    return (panel.frame["symbol"] == symbol).to_numpy()


@pytest.fixture(scope="module")
def panel():
    return simulated_panel()


@pytest.fixture(scope="module", params=["caviar_sav", "caviar_as"])
def fitted(request, panel):
    return unfitted(request.param).fit(panel.rows(np.arange(6000)))


@settings(deadline=None)
@given(
    persistence=st.floats(0.0, 0.99),
    constant=st.floats(0.0, 1.0),
    slopes=st.lists(st.floats(0.0, 5.0), min_size=1, max_size=2),
    returns=st.lists(st.floats(-1.0, 1.0), min_size=1, max_size=60),
    first=st.floats(0.0, 2.0),
)
def test_the_unrolled_filter_is_the_published_recursion(
    persistence, constant, slopes, returns, first
):
    asymmetric = len(slopes) == 2
    model = Caviar(persistence, constant, tuple(slopes))
    sizes = magnitudes(np.array(returns), asymmetric=asymmetric)
    start = np.full(len(slopes), first)
    found = model.quantile(exponential_means(sizes, persistence, start))
    expected = recursion(
        model.recursion,
        returns,
        float(model.quantile(start[None, :])[0]),
        asymmetric=asymmetric,
    )
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("parameters", "level"),
    [((2e-4, 0.9, 0.3), 0.9), ((2e-4, 0.9, 0.1, 0.5), 0.9), ((5e-5, 0.95, 0.1, 0.25), 0.975)],
)
def test_a_known_recursion_is_recovered(parameters, level):
    rng = np.random.default_rng(3)
    asymmetric = len(parameters) == 4
    returns, truth = simulate(parameters, 60_000, rng, asymmetric=asymmetric)
    outcomes = truth * pareto(rng, level, len(truth))
    unit = np.abs(returns).mean()
    sizes = magnitudes(returns / unit, asymmetric=asymmetric)
    start = np.full(sizes.shape[1], 1.0 / sizes.shape[1])

    def means_at(persistence):
        return exponential_means(sizes, persistence, start)

    model = estimate_caviar(means_at, outcomes, np.ones(len(outcomes)), level)
    intercept, persistence, *slopes = model.recursion
    assert persistence == pytest.approx(parameters[1], abs=0.015)
    assert slopes == pytest.approx([unit * slope for slope in parameters[2:]], rel=0.15)
    assert intercept == pytest.approx(parameters[0], rel=0.3)

    forecast = model.quantile(means_at(model.persistence))
    loss, loss_of_truth = (mean_pinball(outcomes, one, level) for one in (forecast, truth))
    # the estimate fits the sample at least as well as the truth does, the constant far worse
    assert loss <= loss_of_truth * (1 + 1e-6)
    constant = np.full(len(outcomes), np.quantile(outcomes, level))
    assert loss < 0.97 * mean_pinball(outcomes, constant, level)
    np.testing.assert_allclose(forecast, truth, rtol=0.12)


def test_no_parameter_change_lowers_the_loss():
    rng = np.random.default_rng(5)
    returns, truth = simulate((2e-4, 0.9, 0.1, 0.5), 5000, rng, asymmetric=True)
    outcomes = truth * pareto(rng, 0.95, len(truth))
    sizes = magnitudes(returns / np.abs(returns).mean(), asymmetric=True)
    weights = rng.uniform(0.5, 2.0, len(outcomes))

    def loss(model):
        means = exponential_means(sizes, model.persistence, np.full(2, 0.5))
        return mean_pinball(outcomes, model.quantile(means), 0.95, weights)

    model = estimate_caviar(
        lambda persistence: exponential_means(sizes, persistence, np.full(2, 0.5)),
        outcomes,
        weights,
        0.95,
    )
    least = loss(model)
    for _ in range(300):
        step = 10 ** rng.uniform(-3, -0.5)
        rise = model.slopes[0] * math.exp(step * rng.normal())
        fall = model.slopes[1] * math.exp(step * rng.normal())
        constant = model.constant * math.exp(step * rng.normal())
        half_life = math.log(0.5) / math.log(model.persistence) * math.exp(step * rng.normal())
        # as near to the least loss as the rounded kink allows
        assert loss(Caviar(0.5 ** (1 / half_life), constant, (rise, fall))) > least * (1 - 1e-4)


@settings(max_examples=10, deadline=None)
@given(unit=st.sampled_from([1e-4, 1.0, 1e3]), seed=st.integers(0, 1000))
def test_the_estimate_scales_with_the_outcomes(unit, seed):
    rng = np.random.default_rng(seed)
    sizes = rng.exponential(1.0, (400, 1))
    outcomes = rng.exponential(1.0, 400)

    def estimate(values):
        return estimate_caviar(
            lambda persistence: exponential_means(sizes, persistence, np.ones(1)),
            values,
            np.ones(400),
            0.9,
        )

    plain, scaled = estimate(outcomes), estimate(outcomes * unit)
    means = exponential_means(sizes, plain.persistence, np.ones(1))
    other = exponential_means(sizes, scaled.persistence, np.ones(1))
    np.testing.assert_allclose(scaled.quantile(other), unit * plain.quantile(means), rtol=1e-2)


def test_the_stated_share_of_later_outcomes_is_covered(fitted, panel):
    later = panel.rows(np.arange(6000, len(panel)))
    forecast = fitted.predict(later)
    for side in SIDES:
        for level in LEVELS[:3]:
            exceeded = np.mean(later.outcomes[side] > forecast.at(side, level))
            error = math.sqrt(level * (1 - level) / len(later))
            assert exceeded == pytest.approx(1 - level, abs=4 * error)


def test_every_contract_is_forecast_in_its_own_unit(fitted, panel):
    later = panel.rows(np.arange(6000, len(panel)))
    forecast = fitted.predict(later).at("long", 0.9)
    means = [forecast[contract(later, symbol)].mean() for symbol in ("BTC", "ETH", "SOL")]
    assert means[1] / means[0] == pytest.approx(2, rel=0.2)
    assert means[2] / means[0] == pytest.approx(4, rel=0.2)


def test_expected_shortfall_is_the_mean_beyond_the_quantile(fitted, panel):
    forecast = fitted.predict(panel)
    assert forecast.expected_shortfall is not None
    ratio = forecast.expected_shortfall / forecast.quantiles
    np.testing.assert_allclose(ratio[..., :2], PARETO / (PARETO - 1), rtol=0.1)
    assert (ratio >= 1).all()
    assert (np.diff(forecast.expected_shortfall, axis=2) >= 0).all()
    assert (np.diff(forecast.quantiles, axis=2) >= 0).all()


def test_higher_levels_share_one_recursion(fitted):
    assert fitted.parameters()["shape_levels"] == [0.9, SHAPE_LEVEL]


def test_a_wilder_ratio_to_volatility_becomes_a_factor_pooled_with_the_others(panel):
    wild = np.where(contract(panel, "SOL"), 3.0, 1.0)
    outcomes = {side: values * wild for side, values in panel.outcomes.items()}
    factors = unfitted().fit(replace(panel, outcomes=outcomes)).parameters()["factors"]
    common = np.array(factors["ETH"]) / np.array(factors["BTC"])
    apart = np.array(factors["SOL"]) / np.array(factors["BTC"])
    np.testing.assert_allclose(common[:, 0], 1.0, atol=0.15)
    # 300 exceedances speak for themselves, 3 hardly
    np.testing.assert_allclose(apart[:, 0], 3.0, rtol=0.15)
    assert (apart[:, 3] < 2.6).all()
    assert (apart[:, 3] > 1.0).all()


def test_a_fitted_filter_goes_on_where_training_ended(fitted, panel):
    # decisions up to the end of training and on are one pass of the same filter
    later = np.arange(6000, len(panel))
    whole, onward = fitted.predict(panel).rows(later), fitted.predict(panel.rows(later))
    np.testing.assert_allclose(onward.quantiles, whole.quantiles, rtol=1e-12)
    np.testing.assert_allclose(onward.expected_shortfall, whole.expected_shortfall, rtol=1e-12)


@pytest.mark.parametrize("first", [0, 6000])
def test_a_forecast_does_not_know_what_follows(fitted, panel, first):
    whole = fitted.predict(panel.rows(np.arange(first, len(panel))))
    for count in (1, 2, 3, 100, 1001):
        part = fitted.predict(panel.rows(np.arange(first, first + count)))
        np.testing.assert_array_equal(part.quantiles, whole.quantiles[:count])
        np.testing.assert_array_equal(part.expected_shortfall, whole.expected_shortfall[:count])


def test_a_missing_stretch_is_bridged_by_expectation(fitted, panel):
    name, missing = "ETH", 5
    rows = np.flatnonzero(contract(panel, name))
    rows = rows[rows >= 6000][: missing + 3]
    kept = panel.rows(rows[missing:])
    found = fitted.predict(kept).at("long", 0.9)

    record = fitted.parameters()
    memory, shape = record["memory"][name], record["shapes"][0][0]
    unit = record["volatility"][name]
    decay = shape["persistence"]
    means = np.array(memory["means"][0][0])
    moves = np.diff(np.log([memory["close"], *kept.frame["close"]])) / unit
    for _ in range(missing):
        means = decay * means + (1 - decay) / len(means)
    for row, move in enumerate(moves):
        # the first return spans the gap: as large as one step's after division by its root
        size = move / math.sqrt(missing + 1) if row == 0 else move
        sizes = [max(size, 0), max(-size, 0)] if len(means) == 2 else [abs(size)]
        means = decay * means + (1 - decay) * np.array(sizes)
        quantile = shape["constant"] + np.dot(shape["slopes"], means)
        expected = unit * quantile * record["factors"][name][0][0]
        assert found[row] == pytest.approx(expected, rel=1e-12)


def test_an_unknown_close_is_an_unknown_forecast_and_a_missing_decision(fitted, panel):
    for unknown in (np.nan, 0.0):
        later = panel.rows(np.arange(6000, len(panel)))
        later.frame.loc[30, "close"] = unknown
        forecast = fitted.predict(later)
        assert np.isnan(forecast.quantiles[30]).all()
        rest = np.arange(len(later)) != 30
        without = fitted.predict(later.rows(rest))
        np.testing.assert_array_equal(forecast.quantiles[rest], without.quantiles)
        assert np.isfinite(without.quantiles).all()


def test_a_contract_never_seen_starts_from_the_steady_state_and_learns(fitted, panel):
    stranger = panel.rows(contract(panel, "SOL"))
    stranger.frame["symbol"] = "NEW"
    forecast = fitted.predict(stranger)
    assert np.isfinite(forecast.quantiles).all()
    assert (forecast.quantiles > 0).all()
    record = fitted.parameters()
    shape = record["shapes"][0][0]
    steady = shape["constant"] + sum(shape["slopes"]) / len(shape["slopes"])
    expected = steady * record["volatility"]["(pooled)"] * record["factors"]["(pooled)"][0][0]
    assert forecast.at("long", 0.9)[0] == pytest.approx(expected, rel=1e-12)
    # SOL is twice as wild as the median contract
    assert forecast.at("long", 0.9)[500:].mean() > 1.3 * expected


def test_a_saved_model_is_text_and_forecasts_the_same_bits(fitted, panel, tmp_path):
    fitted.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["model.json"]
    loaded = CaviarForecaster.load(tmp_path)
    assert loaded.name == fitted.name
    assert json.dumps(loaded.parameters()) == json.dumps(fitted.parameters())
    for rows in (np.arange(len(panel)), np.arange(6000, len(panel))):
        ours, theirs = fitted.predict(panel.rows(rows)), loaded.predict(panel.rows(rows))
        np.testing.assert_array_equal(theirs.quantiles, ours.quantiles)
        np.testing.assert_array_equal(theirs.expected_shortfall, ours.expected_shortfall)


def test_a_pinned_price_has_the_smallest_forecast():
    closes = {"PINNED": np.ones(1200)}
    still = make_panel(closes, {"PINNED": np.zeros(1200)})
    forecast = unfitted().fit(still).predict(still)
    np.testing.assert_array_equal(forecast.quantiles, SMALLEST)
    np.testing.assert_array_equal(forecast.expected_shortfall, SMALLEST)


def test_one_pinned_contract_leaves_the_others_covered():
    rng = np.random.default_rng(0)
    closes, outcomes = {"PINNED": np.ones(2000)}, {"PINNED": np.zeros(2000)}
    for name in ("A", "B", "C"):
        returns, path = simulate((2e-4, 0.9, 0.3), 2000, rng, asymmetric=False)
        closes[name] = np.exp(np.cumsum(returns))
        outcomes[name] = path * pareto(rng, 0.9, 2000)
    mixed = make_panel(closes, outcomes)
    forecast = unfitted().fit(mixed).predict(mixed)
    for name in ("A", "B", "C"):
        rows = contract(mixed, name)
        exceeded = np.mean(mixed.outcomes["long"][rows] > forecast.at("long", 0.9)[rows])
        assert exceeded == pytest.approx(0.1, abs=0.03)


def test_recursions_that_cross_are_rearranged():
    few = simulated_panel(1, hours=400)
    levels = (0.93, 0.94, 0.95, 0.96)
    model = CaviarForecaster("caviar_as", asymmetric=True, sides=SIDES, levels=levels, overlap=1.0)
    forecast = model.fit(few).predict(few)
    rows = np.flatnonzero(contract(few, "BTC"))
    closes = model._closes(few.rows(rows))["BTC"]
    raw = model._base("BTC", model._grid("BTC", closes), None) * model._factors["BTC"]
    assert (np.diff(raw, axis=2) < 0).any()
    np.testing.assert_array_equal(forecast.quantiles[rows], np.sort(raw, axis=2))
    assert (forecast.expected_shortfall >= forecast.quantiles).all()
    assert (np.diff(forecast.expected_shortfall, axis=2) >= 0).all()


def test_a_missing_close_column_is_named(fitted, panel):
    bare = replace(panel, frame=panel.frame.drop(columns="close"))
    with pytest.raises(InputError, match=r"needs the feature\(s\) close"):
        fitted.predict(bare)
    with pytest.raises(InputError, match=r"needs the feature\(s\) close"):
        unfitted().fit(bare)


def test_too_little_history_says_how_much_is_needed_and_found(panel):
    with pytest.raises(InsufficientHistoryError, match=r"0\.999 needs at least 1,000.*found 900"):
        unfitted().fit(panel.rows(np.arange(900)))


def test_decisions_without_returns_are_refused():
    once = {f"C{number:02d}": np.ones(1) for number in range(20)}
    model = CaviarForecaster(
        "caviar_sav", asymmetric=False, sides=SIDES, levels=(0.9,), overlap=1.0
    )
    with pytest.raises(InsufficientHistoryError, match="two decisions of one contract"):
        model.fit(make_panel(once, once))
