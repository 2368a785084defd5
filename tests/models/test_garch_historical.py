"""GARCH peers forecast what a simulated GARCH market has in store, and keep their filter's memory.

The market is simulated with known parameters, so the true quantile of every decision is known.
"""

import json
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t as student

from margincast.core.errors import InputError, InsufficientHistoryError
from margincast.models.garch import GarchParameters
from margincast.models.garch_historical import GarchHistorical, ParetoTail
from margincast.models.protocol import Panel

SIDES = ("long", "short")
LEVELS = (0.95, 0.99, 0.995)
TRUTH = GarchParameters(0.0, 1e-6, 0.06, 0.06, 0.9, 5.0)
SIZES = {"BTC": 1.0, "ETH": 1.5, "SOL": 3.0}
"""Returns of the second and third contract are wider by this factor."""


def rhythm_of(hours: np.ndarray) -> np.ndarray:
    factors = 1 + 0.5 * np.sin(2 * np.pi * np.arange(24) / 24)
    return (factors / np.sqrt((factors**2).mean()))[hours % 24]


def simulated(
    hours: int = 6000, seed: int = 0, *, rhythmic: bool = False
) -> tuple[Panel, np.ndarray]:
    """Hourly decisions with a horizon of one hour, and the true volatility of that hour."""
    rng = np.random.default_rng(seed)
    contracts = len(SIZES)
    dof = TRUTH.degrees_of_freedom
    shocks = rng.standard_t(dof, (hours + 1, contracts)) * np.sqrt((dof - 2) / dof)
    residuals, variances = np.empty_like(shocks), np.empty_like(shocks)
    variance = np.full(contracts, TRUTH.omega / (1 - TRUTH.persistence))
    for hour, shock in enumerate(shocks):
        variances[hour] = variance
        residuals[hour] = np.sqrt(variance) * shock
        weight = TRUTH.alpha + TRUTH.gamma * (residuals[hour] < 0)
        variance = TRUTH.omega + weight * residuals[hour] ** 2 + TRUTH.beta * variance
    # the decision at hour h stands between the returns of rows h and h + 1
    sizes = np.array(list(SIZES.values()))
    beat = rhythm_of(np.arange(-1, hours))[:, None] if rhythmic else 1.0
    returns, volatility = residuals * sizes * beat, np.sqrt(variances) * sizes * beat
    close = 100 * np.exp(np.cumsum(returns[:-1], axis=0))
    start = pd.Timestamp("2023-01-01", tz="UTC")
    frame = pd.DataFrame(
        {
            "symbol": np.tile(list(SIZES), hours),
            "ts": np.repeat(pd.date_range(start, periods=hours, freq="h", unit="us"), contracts),
            "close": close.ravel(),
        }
    )
    move = np.expm1(returns[1:]).ravel()
    decided = frame["ts"].dt.tz_localize(None).to_numpy("datetime64[us]")
    panel = Panel(
        frame=frame,
        units={},
        outcomes={"long": np.maximum(0.0, -move), "short": np.maximum(0.0, move)},
        log_range=np.abs(move),
        label_end=decided + np.timedelta64(1, "h"),
    )
    return panel, volatility[1:].ravel()


def unfitted(name: str = "garch_t_fhs", **changes) -> GarchHistorical:
    model = GarchHistorical(
        name=name,
        asymmetric=name == "gjr_t_fhs",
        tail="generalised_pareto" if name == "garch_evt" else "empirical",
        history=timedelta(days=365),
        minimum_exceedances=10.0,
        sides=SIDES,
        levels=LEVELS,
        overlap=1.0,
    )
    return replace(model, **changes)


def split(panel: Panel, hours: int) -> tuple[Panel, Panel]:
    before = np.arange(len(panel)) < hours * len(SIZES)
    return panel.rows(before), panel.rows(~before)


NAMES = ("garch_t_fhs", "gjr_t_fhs", "garch_evt")


@pytest.fixture(scope="module")
def market() -> tuple[Panel, np.ndarray]:
    return simulated()


@pytest.fixture(scope="module", params=NAMES)
def fitted(request, market) -> GarchHistorical:
    training, _ = split(market[0], 4800)
    return unfitted(request.param).fit(training)


def test_forecasts_are_close_to_the_true_quantiles(fitted, market):
    panel, volatility = market
    _, test = split(panel, 4800)
    forecast = fitted.predict(test)
    dof = TRUTH.degrees_of_freedom
    for level, error in zip(LEVELS, (0.06, 0.1, 0.15), strict=True):
        shock = student.ppf(level, dof) * np.sqrt((dof - 2) / dof)
        truth = -np.expm1(-shock * volatility[-len(test) :])
        ratio = forecast.at("long", level) / truth
        assert np.median(ratio) == pytest.approx(1.0, abs=error)
        # symmetric GARCH cannot know that falls weigh more than rises
        assert np.std(np.log(ratio)) < (0.06 if fitted.asymmetric else 0.15)


def test_gjr_tracks_an_asymmetric_market_better(market):
    panel, volatility = market
    training, test = split(panel, 4800)
    truth = volatility[-len(test) :]
    spread = {}
    for name in ("garch_t_fhs", "gjr_t_fhs"):
        ratio = unfitted(name).fit(training).predict(test).at("long", 0.99) / truth
        spread[name] = np.std(np.log(ratio))
    assert spread["gjr_t_fhs"] < 0.75 * spread["garch_t_fhs"]


def test_a_horizon_of_many_steps_has_their_variances_summed(market):
    training, test = split(market[0], 4800)
    one, eight, part = (
        unfitted(overlap=overlap).fit(training)._filter.volatility(test.frame)
        for overlap in (1.0, 8.0, 7.2)
    )
    np.testing.assert_array_equal(eight, part)
    ratio = eight / one
    assert np.median(ratio) == pytest.approx(np.sqrt(8), rel=0.1)
    # volatility above its mean is expected to fall, below to rise
    bitcoin = (test.frame["symbol"] == "BTC").to_numpy()
    low, high = np.quantile(one[bitcoin], (0.1, 0.9))
    calm, wild = ratio[bitcoin & (one < low)].mean(), ratio[bitcoin & (one > high)].mean()
    assert wild < np.sqrt(8) < calm


def test_the_filter_goes_on_where_training_ended(fitted, market):
    panel, _ = market
    training, test = split(panel, 4800)
    # a state of which training held everything: what the whole panel gives from the start
    whole = fitted.predict(panel).quantiles[-len(test) :]
    np.testing.assert_array_equal(fitted.predict(test).quantiles, whole)
    assert len(training) + len(test) == len(panel)


def test_a_later_start_is_bridged_and_forgotten(fitted, market):
    _, test = split(market[0], 4800)
    late = np.arange(len(test)) >= 30 * len(SIZES)
    bridged = fitted.predict(test.rows(late)).quantiles
    whole = fitted.predict(test).quantiles[late]
    assert not np.array_equal(bridged[:3], whole[:3])
    np.testing.assert_allclose(bridged[:3], whole[:3], rtol=0.5)
    np.testing.assert_allclose(bridged[-3:], whole[-3:], rtol=1e-9)


def test_nothing_at_a_decision_hangs_on_what_follows(fitted, market):
    _, test = split(market[0], 4800)
    whole = fitted.predict(test)
    for rows in (1, 2, 7, 500, 2001):
        part = fitted.predict(test.rows(np.arange(rows)))
        np.testing.assert_array_equal(part.quantiles, whole.quantiles[:rows])
        np.testing.assert_array_equal(part.expected_shortfall, whole.expected_shortfall[:rows])


def test_an_unknown_price_gives_an_unknown_forecast_and_is_bridged(fitted, market):
    _, test = split(market[0], 4800)
    for unknown in (np.nan, 0.0, -1.0, np.inf):
        holed = test.frame.copy()
        holed.loc[300, "close"] = unknown
        quantiles = fitted.predict(replace(test, frame=holed)).quantiles
        whole = fitted.predict(test).quantiles
        assert np.isnan(quantiles[300]).all()
        assert np.isfinite(np.delete(quantiles, 300, axis=0)).all()
        others = (test.frame["symbol"] != test.frame["symbol"][300]).to_numpy()
        np.testing.assert_array_equal(quantiles[others], whole[others])
        np.testing.assert_array_equal(quantiles[:300], whole[:300])
        np.testing.assert_allclose(quantiles[303], whole[303], rtol=0.5)
        np.testing.assert_allclose(quantiles[-3:], whole[-3:], rtol=1e-9)


def test_a_saved_model_is_plain_json_and_forecasts_the_same_bits(fitted, market, tmp_path):
    _, test = split(market[0], 4800)
    fitted.save(tmp_path)

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    json.loads((tmp_path / "model.json").read_text(encoding="utf-8"), parse_constant=refuse)
    loaded = GarchHistorical.load(tmp_path)
    assert loaded.parameters() == fitted.parameters()
    before, after = fitted.predict(test), loaded.predict(test)
    np.testing.assert_array_equal(after.quantiles, before.quantiles)
    np.testing.assert_array_equal(after.expected_shortfall, before.expected_shortfall)


def test_a_young_contract_borrows_parameters_but_not_the_size_of_its_moves(market):
    training, test = split(market[0], 4800)
    young = (training.frame["symbol"] == "SOL").to_numpy()
    recent = (training.frame["ts"] >= training.frame["ts"].max() - pd.Timedelta(hours=200)).array
    model = unfitted().fit(training.rows(~young | np.asarray(recent)))
    record = model.parameters()["filter"]
    assert record["without_own_parameters"] == ["SOL"]
    assert record["contracts"]["BTC"]["own"]
    assert not record["contracts"]["SOL"]["own"]
    grown = unfitted().fit(training)
    sol = (test.frame["symbol"] == "SOL").to_numpy()
    ratio = model.predict(test).quantiles[sol] / grown.predict(test).quantiles[sol]
    assert np.abs(np.log(ratio[200:])).max() < 0.3


def test_a_contract_never_seen_is_forecast_and_soon_known(fitted, market):
    _, test = split(market[0], 4800)
    stranger = replace(test, frame=test.frame.replace({"symbol": {"SOL": "NEW"}}))
    new = (stranger.frame["symbol"] == "NEW").to_numpy()
    unknown = fitted.predict(stranger).at("long", 0.99)[new]
    known = fitted.predict(test).at("long", 0.99)[new]
    assert (unknown > 0).all()
    assert abs(np.log(unknown[200:] / known[200:]).mean()) < 0.25


def test_a_price_that_never_moves_is_counted_and_does_not_stop_the_others(market):
    training, test = split(market[0], 1000)
    frame = training.frame.copy()
    frame.loc[frame["symbol"] == "SOL", "close"] = 5.0
    model = unfitted(levels=(0.9, 0.95)).fit(replace(training, frame=frame))
    record = model.parameters()["filter"]
    assert record["not_converged"] == ["SOL"]
    assert record["without_own_parameters"] == ["SOL"]
    assert np.isfinite(model.predict(test).quantiles).all()


def test_too_few_returns_say_how_many_are_needed():
    panel, _ = simulated(hours=200)
    with pytest.raises(InsufficientHistoryError, match=r"at least 250 returns .* found 199"):
        unfitted(levels=(0.95,)).fit(panel)
    with pytest.raises(InsufficientHistoryError, match=r"level 0\.9999 needs at least 10,000"):
        unfitted(levels=(0.9999,)).fit(panel)


def test_prices_are_needed(market):
    training, _ = split(market[0], 1000)
    without = replace(training, frame=training.frame.drop(columns="close"))
    with pytest.raises(InputError, match=r"needs the feature\(s\) close"):
        unfitted().fit(without)


def test_the_rhythm_of_the_day_is_measured_and_foreseen():
    panel, volatility = simulated(hours=4800, seed=3, rhythmic=True)
    training, test = split(panel, 4200)
    model = unfitted("gjr_t_fhs").fit(training)
    hours = np.arange(24)
    # thirty days of a flat rhythm are mixed in
    np.testing.assert_allclose(model._filter.rhythm, rhythm_of(hours), atol=0.12)
    ratio = model.predict(test).at("long", 0.99) / volatility[-len(test) :]
    hour = test.frame["ts"].dt.hour
    by_hour = pd.Series(np.log(ratio)).groupby(hour).mean()
    flat = pd.Series(np.log(volatility[-len(test) :])).groupby(hour).mean()
    assert by_hour.std() < 0.3 * flat.std()


def test_a_horizon_of_a_day_leaves_the_rhythm_alone():
    panel, _ = simulated(hours=2400, seed=3, rhythmic=True)
    model = unfitted(overlap=24.0).fit(panel)
    np.testing.assert_array_equal(model._filter.rhythm, np.ones(24))


def test_the_pareto_tail_is_nearer_to_the_truth_than_the_empirical_one():
    dof, level, errors = 4.0, 0.999, {"empirical": [], "pareto": []}
    truth = student.ppf(level, dof)
    for seed in range(60):
        sample = np.maximum(0.0, np.random.default_rng(seed).standard_t(dof, 4000))
        quantiles, beyond = ParetoTail(0.95, 50.0, 1.0).estimate(sample, (0.9, 0.99, level))
        assert (np.diff(quantiles) > 0).all()
        assert (beyond > quantiles).all()
        assert quantiles[0] == np.quantile(sample, 0.9)
        errors["pareto"].append(quantiles[2] / truth - 1)
        errors["empirical"].append(np.quantile(sample, level) / truth - 1)
    assert abs(np.mean(errors["pareto"])) < 0.06
    assert np.std(errors["pareto"]) < 0.9 * np.std(errors["empirical"])


def test_overlapping_outcomes_count_once_for_a_tail_of_ones_own():
    assert ParetoTail(0.95, 200.0, 1.0).suffices(8760, 0.99)
    assert not ParetoTail(0.95, 200.0, 8.0).suffices(8760, 0.99)
