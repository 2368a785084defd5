"""On a market whose truth is known the forecast covers what it says, and beats a static margin."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t as student_t

from margincast.core.errors import InsufficientHistoryError
from margincast.models.catalogue import make_forecaster
from margincast.models.margincast import MargincastForecaster
from margincast.models.protocol import Panel
from margincast.models.tail import GeneralisedPareto
from margincast.scoring.pinball import mean_pinball
from margincast.specs.loading import validate_spec
from margincast.specs.training import Model

DEGREES = 4
SIDES = ("long", "short")
LEVELS = (0.9, 0.95, 0.98, 0.99)
MODEL = validate_spec(
    {
        "window": "6y",
        "stride": 1,
        "minimum_rows": 1,
        "scale": {"columns": ["fast", "slow"], "seasonal_harmonics": [], "ridge": 1e-6},
        "head": {
            "rounds": 30,
            "num_leaves": 3,
            "learning_rate": 0.05,
            "min_data_factor": 20.0,
            "feature_fraction": 1.0,
            "bagging_fraction": 0.7,
            "max_bin": 63,
            "seed": 1,
        },
        "tail": {"threshold_level": 0.95, "from_level": 0.99},
        "calibration": {
            "folds": 4,
            "prior": "30d",
            "contract_prior": 5.0,
            "online": {"everybody_rate": 90.0, "contract_rate": 90.0, "lowest": 0.8},
        },
        "peers": {
            "ewma_column": "slow",
            "parkinson_column": "fast",
            "history": "365d",
            "minimum_exceedances": 10.0,
        },
    },
    Model,
    "test",
)


def market(seed: int, hours: int = 6000) -> tuple[Panel, np.ndarray]:
    """Outcomes |Student-t| times a volatility path that the features show but for some noise.

    Returns:
        The panel and the true scale of each row, in units of which outcomes are Student-t.
    """
    rng = np.random.default_rng(seed)
    parts = []
    for number, symbol in enumerate(("BTC", "ETH", "SOL")):
        log_volatility = np.zeros(hours)
        shocks = rng.normal(0, 0.08, hours)
        for hour in range(1, hours):
            log_volatility[hour] = 0.99 * log_volatility[hour - 1] + shocks[hour]
        truth = 0.005 * (1 + number) * np.exp(log_volatility)
        parts.append(
            pd.DataFrame(
                {
                    "symbol": symbol,
                    "ts": pd.date_range("2022-01-01", periods=hours, freq="h", tz="UTC", unit="us"),
                    "fast": truth * np.exp(rng.normal(0, 0.05, hours)),
                    "slow": truth * np.exp(rng.normal(0, 0.1, hours)),
                    "noise": rng.normal(0, 1, hours),
                    "truth": truth,
                    "long": truth * np.abs(rng.standard_t(DEGREES, hours)),
                    "short": truth * np.abs(rng.standard_t(DEGREES, hours)),
                    "log_range": truth * np.exp(rng.normal(0.3, 0.3, hours)),
                }
            )
        )
    frame = pd.concat(parts).sort_values(["ts", "symbol"], ignore_index=True)
    decided = frame["ts"].dt.tz_localize(None).to_numpy("datetime64[us]")
    panel = Panel(
        frame=frame[["symbol", "ts", "fast", "slow", "noise"]],
        units={"slow": "fraction", "noise": "number", "fast": "fraction"},
        outcomes={side: frame[side].to_numpy() for side in SIDES},
        log_range=frame["log_range"].to_numpy(),
        label_end=decided + np.timedelta64(1, "h"),
    )
    return panel, frame["truth"].to_numpy()


def ours(threads: int = 1, levels: tuple[float, ...] = LEVELS) -> MargincastForecaster:
    return MargincastForecaster(MODEL, SIDES, levels, overlap=1.0, threads=threads)


@pytest.fixture(scope="module")
def history() -> Panel:
    return market(0)[0]


@pytest.fixture(scope="module")
def future() -> tuple[Panel, np.ndarray]:
    return market(1)


@pytest.fixture(scope="module")
def fitted(history) -> MargincastForecaster:
    return ours().fit(history)


@pytest.mark.parametrize("level", LEVELS)
def test_out_of_sample_coverage_is_nominal(fitted, future, level):
    panel, _ = future
    forecast = fitted.predict(panel)
    for side in SIDES:
        exceeded = panel.outcomes[side] > forecast.at(side, level)
        # 18,000 outcomes: two standard errors are 15 % of the nominal share at 0.99, and the
        # fit's own error is as large again
        tolerance = 0.05 + 0.025 / (1 - level) ** 0.5
        assert exceeded.mean() / (1 - level) == pytest.approx(1, abs=tolerance)
        for symbol in ("BTC", "ETH", "SOL"):
            rows = (panel.frame["symbol"] == symbol).to_numpy()
            assert exceeded[rows].mean() / (1 - level) == pytest.approx(1, abs=0.5)


@pytest.mark.parametrize("level", LEVELS)
def test_forecasts_are_close_to_the_true_conditional_quantile(fitted, future, level):
    panel, truth = future
    # |t| exceeds q with probability 1 - level where t exceeds it with half of that
    true_quantile = truth * student_t.isf((1 - level) / 2, DEGREES)
    forecast = fitted.predict(panel)
    for side in SIDES:
        ratio = np.log(forecast.at(side, level) / true_quantile)
        assert abs(np.median(ratio)) < 0.1
        assert np.quantile(np.abs(ratio), 0.9) < 0.25


def test_expected_shortfall_is_close_to_the_truth_and_beyond_every_quantile(fitted, future):
    panel, truth = future
    forecast = fitted.predict(panel)
    assert forecast.expected_shortfall is not None
    assert (forecast.expected_shortfall > forecast.quantiles).all()
    for j, level in enumerate(LEVELS):
        q = student_t.isf((1 - level) / 2, DEGREES)
        # expected shortfall of t, McNeil, Frey and Embrechts (2015), equation 2.25
        true = student_t.pdf(q, DEGREES) / ((1 - level) / 2) * (DEGREES + q * q) / (DEGREES - 1)
        ratio = forecast.expected_shortfall[:, :, j] / (truth * true)[:, None]
        assert np.median(ratio) == pytest.approx(1.0, abs=0.15)


def test_it_beats_a_static_margin_and_comes_near_the_truth(fitted, history, future):
    panel, truth = future
    static = make_forecaster("static", MODEL, SIDES, LEVELS, overlap=1.0, threads=1).fit(history)
    flat, own = static.predict(panel), fitted.predict(panel)
    for side in SIDES:
        for level in LEVELS:
            outcome = panel.outcomes[side]
            loss = mean_pinball(outcome, own.at(side, level), level)
            assert loss < 0.85 * mean_pinball(outcome, flat.at(side, level), level)
            best = truth * student_t.isf((1 - level) / 2, DEGREES)
            assert loss < 1.1 * mean_pinball(outcome, best, level)


def test_levels_never_cross_whatever_the_row(fitted, future):
    panel, _ = future
    rng = np.random.default_rng(3)
    wild = panel.frame.head(2000).copy()
    for column in ("fast", "slow"):
        wild[column] *= rng.lognormal(0, 3, len(wild))
    forecast = fitted.predict(replace(panel.rows(np.arange(2000)), frame=wild))
    assert (np.diff(forecast.quantiles, axis=2) >= 0).all()
    assert forecast.expected_shortfall is not None
    assert (np.diff(forecast.expected_shortfall, axis=2) >= -1e-12).all()


def test_rows_after_a_decision_change_nothing_of_its_forecast(fitted, future):
    panel, _ = future
    cut = 5000
    before = fitted.predict(panel).quantiles[:cut]
    other = panel.frame.copy()
    other.loc[cut:, ["fast", "slow", "noise"]] *= 1000
    other.loc[cut:, "symbol"] = "NEW"
    changed = fitted.predict(replace(panel, frame=other)).quantiles[:cut]
    np.testing.assert_array_equal(changed, before)
    alone = fitted.predict(panel.rows(np.arange(cut))).quantiles
    np.testing.assert_array_equal(alone, before)


def test_a_tail_that_ends_early_keeps_the_shortfall_beyond_the_quantile(fitted, future):
    # a negative shape ends the tail 0.1 % above the threshold
    short = ours()
    assert fitted._fitted is not None
    short._fitted = replace(fitted._fitted, tail=GeneralisedPareto(-0.9, 0.001, 100))
    forecast = short.predict(future[0])
    assert forecast.expected_shortfall is not None
    assert (forecast.expected_shortfall >= forecast.quantiles).all()
    assert (np.diff(forecast.quantiles, axis=2) >= 0).all()


def test_a_contract_wilder_than_its_volatility_shows_is_mended_by_its_own_factor():
    panel, _ = market(2, 3000)
    sol = panel.frame["symbol"] == "SOL"
    stretch = np.where(sol, 1.6, 1.0)
    first, second = np.arange(len(panel)) < 4500, np.arange(len(panel)) >= 4500
    wilder = replace(panel, outcomes={s: values * stretch for s, values in panel.outcomes.items()})
    held_out = wilder.rows(second)
    forecast = ours().fit(wilder.rows(first)).predict(held_out)
    for side in SIDES:
        exceeded = held_out.outcomes[side] > forecast.at(side, 0.95)
        for symbol in ("BTC", "SOL"):
            rows = (held_out.frame["symbol"] == symbol).to_numpy()
            # 1500 outcomes: 75 expected, 8.4 their standard deviation; without the factor SOL has
            # about twice as many as BTC
            assert 50 < exceeded[rows].sum() < 105


def test_tail_levels_alone_are_forecast_from_the_threshold(history, future):
    panel, _ = future
    only_tail = ours(levels=(0.99, 0.999)).fit(history)
    assert only_tail.head_levels == (0.95,)
    forecast = only_tail.predict(panel)
    for side in SIDES:
        exceeded = (panel.outcomes[side] > forecast.at(side, 0.999)).mean()
        assert 0.4e-3 < exceeded < 2.2e-3  # 18 expected in 18,000


def test_a_tail_with_too_few_exceedances_says_so():
    panel, _ = market(5, 270)
    with pytest.raises(InsufficientHistoryError, match="generalised Pareto tail needs at least 50"):
        ours(levels=(0.9, 0.99)).fit(panel)


def test_an_unfitted_forecaster_says_what_to_call(history):
    with pytest.raises(RuntimeError, match="call fit or load first"):
        ours().predict(history)
