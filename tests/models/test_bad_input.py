"""Bad input ends in an error that says where, or in a fallback that is counted: for every model."""

import json
import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.models.test_protocol_contract import (
    LEVELS,
    MODEL,
    NAMES,
    NEEDS,
    SIDES,
    UNITS,
    WITHOUT_SHORTFALL,
    same,
    simulated_panel,
    unfitted,
)

from margincast.backtest.replay import replay
from margincast.core.errors import InputError, InsufficientHistoryError
from margincast.core.types import FloatArray, Side
from margincast.data.quality import found
from margincast.data.simulated.market import simulate_market, write_market
from margincast.data.simulated.parameters import MarketParameters, select_contracts
from margincast.jobs import train
from margincast.models.catalogue import LOADERS, make_forecaster
from margincast.models.checks import (
    LARGEST,
    forecast_of,
    infinite_features,
    learning_findings,
    require_levels,
    require_trainable,
)
from margincast.models.protocol import Forecaster, Panel
from margincast.specs.loading import load_spec
from margincast.specs.training import TrainingJob
from margincast.training.execution.local import LocalExecution
from margincast.training.tuning.tune import tune_head
from margincast.training.workload import Workload, build_workload

WORKSPACE = Path(__file__).resolve().parents[2]
ROW = 7
BROKEN = {7: ("volatility_fast", np.inf), 11: ("activity", -np.inf), 13: ("drawdown", -1e39)}
"""Infinite where the scale reads it, where only trees do, and where float32 cannot hold it."""
LEADING = {
    "margincast": "volatility_fast",
    "ewma_fhs": "volatility_slow",
    "parkinson_fhs": "volatility_fast",
    "har_fhs": "volatility_fast",
    "har_qr": "volatility_fast",
    "har_qr_seasonal": "volatility_fast",
    "har_qr_log": "volatility_fast",
    "har_qr_log_seasonal": "volatility_fast",
}
"""The one volatility without which a model forecasts nothing."""


TINY = simulated_panel(hours=3)


@pytest.fixture(scope="module")
def panel() -> Panel:
    return simulated_panel(hours=420)


@pytest.fixture(scope="module")
def asked(panel) -> Panel:
    """Fewer decisions, to be forecast."""
    return panel.rows(np.arange(200))


@pytest.fixture(scope="module", params=NAMES)
def fitted(request, panel) -> tuple[str, Forecaster]:
    """Every model, fitted where one feature was never known."""
    unknown = replace(panel, frame=panel.frame.assign(activity=np.nan))
    require_trainable(unknown, SIDES, LEVELS)
    return request.param, unfitted(request.param).fit(unknown)


def with_outcomes(panel: Panel, side: Side, values: FloatArray) -> Panel:
    return replace(panel, outcomes={**panel.outcomes, side: values})


def with_value(panel: Panel, column: str, value: float, row: int = ROW) -> Panel:
    frame = panel.frame.copy()
    frame.loc[row, column] = value
    return replace(panel, frame=frame)


def broken(panel: Panel) -> Panel:
    for row, (column, value) in BROKEN.items():
        panel = with_value(panel, column, value, row)
    return panel


def refusal(panel: Panel, sides: tuple[Side, ...] = SIDES) -> str:
    with pytest.raises(InputError) as caught:
        require_trainable(panel, sides, LEVELS)
    return str(caught.value)


def changed(values: FloatArray, value: float, row: int = ROW) -> FloatArray:
    copy = values.copy()
    copy[row] = value
    return copy


# what every model does


def test_a_feature_no_training_row_knows_costs_no_forecast(fitted, asked):
    _, forecaster = fitted
    for frame in (asked.frame, asked.frame.assign(activity=np.nan)):
        quantiles = forecaster.predict(replace(asked, frame=frame)).quantiles
        assert np.isfinite(quantiles).all()
        assert (quantiles > 0).all()


def test_a_model_that_never_knew_a_feature_is_saved_and_read_like_any(fitted, asked, tmp_path):
    name, forecaster = fitted
    forecaster.save(tmp_path)
    for path in tmp_path.glob("*.json"):
        json.loads(path.read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert same(LOADERS[name].load(tmp_path).predict(asked), forecaster.predict(asked))


def test_rows_with_an_infinite_feature_have_no_forecast_and_all_others_theirs(fitted, asked):
    name, forecaster = fitted
    whole, made = forecaster.predict(asked), forecast_of(forecaster, broken(asked))
    rows = list(BROKEN)
    assert np.isnan(made.quantiles[rows]).all()
    np.testing.assert_array_equal(
        np.delete(made.quantiles, rows, axis=0), np.delete(whole.quantiles, rows, axis=0)
    )
    if name in WITHOUT_SHORTFALL:
        assert made.expected_shortfall is None
        return
    assert made.expected_shortfall is not None
    assert whole.expected_shortfall is not None
    assert np.isnan(made.expected_shortfall[rows]).all()
    np.testing.assert_array_equal(
        np.delete(made.expected_shortfall, rows, axis=0),
        np.delete(whole.expected_shortfall, rows, axis=0),
    )


def test_finite_features_are_forecast_as_without_the_check(fitted, asked):
    _, forecaster = fitted
    assert same(forecast_of(forecaster, asked), forecaster.predict(asked))


def test_an_infinite_close_touches_no_other_contract(fitted, asked):
    _, forecaster = fitted
    infinite = forecaster.predict(with_value(asked, "close", np.inf)).quantiles
    assert not np.isinf(infinite).any()
    others = (asked.frame["symbol"] != asked.frame["symbol"].iloc[ROW]).to_numpy()
    whole = forecaster.predict(asked).quantiles
    np.testing.assert_array_equal(infinite[others], whole[others])


def test_a_contract_never_seen_is_forecast_beside_an_infinite_one(fitted, asked):
    _, forecaster = fitted
    stranger = asked.frame["symbol"].eq("SOL")
    frame = asked.frame.assign(symbol=asked.frame["symbol"].mask(stranger, "NEW"))
    quantiles = forecast_of(forecaster, broken(replace(asked, frame=frame))).quantiles
    known = np.delete(stranger.to_numpy(), list(BROKEN))
    assert np.isfinite(np.delete(quantiles, list(BROKEN), axis=0)[known]).all()


def test_a_missing_feature_is_named_also_where_another_is_infinite(fitted, asked):
    name, forecaster = fitted
    infinite = with_value(asked, "drawdown", np.inf)
    for column in set(NEEDS[name]) - {"drawdown"}:
        without = replace(infinite, frame=infinite.frame.drop(columns=column))
        with pytest.raises(InputError, match=f"needs the feature.*{column}"):
            forecast_of(forecaster, without)


@pytest.mark.parametrize("name", NAMES)
def test_too_few_exceedances_are_refused_with_what_is_needed_and_found(name, panel):
    few = panel.rows(np.arange(40))
    with pytest.raises(InsufficientHistoryError, match=r"level 0\.9\d* needs .*[\d,]+ .*found 40"):
        unfitted(name).fit(few)


@pytest.mark.parametrize("name", sorted(LEADING))
def test_a_model_without_its_leading_volatility_is_refused(name, panel):
    unknown = replace(panel, frame=panel.frame.assign(**{LEADING[name]: np.nan}))
    require_trainable(unknown, SIDES, LEVELS)
    with pytest.raises(InsufficientHistoryError, match=r"found 0"):
        unfitted(name).fit(unknown)


# what nothing is learned from


def test_good_input_is_let_through_as_it_is(panel):
    before = panel.frame.copy(deep=True)
    require_trainable(panel, SIDES, LEVELS)
    pd.testing.assert_frame_equal(panel.frame, before)
    assert infinite_features(panel) == {}
    assert found(learning_findings(panel)) == []


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("value", [np.nan, np.inf, -0.01])
def test_an_outcome_that_is_no_excursion_is_named_with_contract_and_time(panel, side, value):
    message = refusal(with_outcomes(panel, side, changed(panel.outcomes[side], value)))
    # decisions are sorted by time, then contract: row 7 is the second contract's third hour
    assert f"the outcome of side {side} is {value:g} for ETH at 2024-01-01 02:00 UTC" in message
    assert "1 of 1,260 rows" in message


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, -0.01])
def test_a_log_range_that_is_none_is_named_with_contract_and_time(panel, value):
    message = refusal(replace(panel, log_range=changed(panel.log_range, value)))
    assert f"the log range is {value:g} for ETH at 2024-01-01 02:00 UTC" in message


def test_a_horizon_that_traded_at_one_price_may_be_learned_from(panel):
    still = replace(panel, log_range=changed(panel.log_range, 0.0))
    require_trainable(still, SIDES, LEVELS)
    forecast = unfitted("margincast").fit(still).predict(panel)
    assert np.isfinite(forecast.quantiles).all()


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("value", [0.0, 0.01])
def test_a_side_whose_outcomes_are_all_the_same_is_refused(panel, side, value):
    message = refusal(with_outcomes(panel, side, np.full(len(panel), value)))
    assert f"every outcome of side {side} is {value:g} (1,260 decisions of 3 contracts" in message
    assert "BTC at 2024-01-01 00:00 UTC" in message


def test_one_pinned_contract_is_learned_from_and_counted(panel):
    pinned = (panel.frame["symbol"] == "SOL").to_numpy()
    outcomes = {side: np.where(pinned, 0.0, values) for side, values in panel.outcomes.items()}
    mixed = replace(panel, outcomes=outcomes)
    require_trainable(mixed, SIDES, LEVELS)
    findings = found(learning_findings(mixed))
    assert [(one.table, one.symbol, one.what, one.count) for one in findings] == [
        ("targets", "SOL", "every outcome of side long is 0", 420),
        ("targets", "SOL", "every outcome of side short is 0", 420),
    ]


@pytest.mark.parametrize("value", [np.inf, -np.inf, 1e39])
def test_an_infinite_feature_in_training_is_named_with_contract_and_time(panel, value):
    infinite = with_value(panel, "activity", value, 8)
    message = refusal(with_value(infinite, "drawdown", np.inf))
    assert f"feature activity is {value:g} for SOL at 2024-01-01 02:00 UTC" in message
    assert "1 of 1,260 rows" in message
    assert "so are drawdown" in message


def test_infinite_features_and_features_never_known_are_counted(panel):
    odd = broken(replace(panel, frame=panel.frame.assign(activity=np.nan)))
    frame = odd.frame.assign(activity=np.nan)
    findings = found(learning_findings(replace(odd, frame=frame)))
    assert {(one.table, one.symbol, one.what, one.count, one.total) for one in findings} == {
        ("features", "(all)", "never known: activity", 1, len(UNITS)),
        ("decisions", "(all)", "feature volatility_fast is infinite", 1, len(panel)),
        ("decisions", "(all)", "feature drawdown is infinite", 1, len(panel)),
    }


def test_no_row_at_all_says_how_many_are_needed(panel):
    with pytest.raises(InsufficientHistoryError, match=r"level 0\.99 needs at least 100 .*found 0"):
        require_trainable(panel.rows(np.zeros(len(panel), dtype=bool)), SIDES, LEVELS)


def test_a_side_without_outcomes_is_named(panel):
    only = replace(panel, outcomes={"long": panel.outcomes["long"]})
    require_trainable(only, ("long",), LEVELS)
    assert "no outcomes of side short (it has long)" in refusal(only)


@example(LARGEST)
@example(np.nextafter(LARGEST, np.inf))
@given(st.floats(allow_nan=True, allow_infinity=True))
def test_what_is_let_through_fits_into_the_training_matrix_and_nothing_smaller_is_refused(value):
    if infinite_features(with_value(TINY, "activity", value)):
        assert abs(value) > LARGEST
    else:
        with np.errstate(over="raise"):
            assert not np.isinf(np.float32(value))


# levels


@pytest.mark.parametrize(
    ("levels", "problem"),
    [
        ((0.99, 0.95), r"strictly increasing, found \[0.99, 0.95\]"),
        ((0.99, 0.99), "strictly increasing"),
        ((0.5, 0.99), "between 0.5 and 1, found 0.5"),
        ((0.99, 1.0), "between 0.5 and 1, found 1"),
        ((99.0,), r"did you mean 0.99\?"),
        ((float("nan"),), "between 0.5 and 1, found nan"),
        ((), "at least 1"),
    ],
)
def test_levels_that_do_not_increase_between_a_half_and_one_are_refused(panel, levels, problem):
    with pytest.raises(InputError, match=problem):
        require_levels(levels)
    with pytest.raises(InputError, match=problem):
        require_trainable(panel, SIDES, levels)
    for name in NAMES:
        with pytest.raises(InputError, match=problem):
            make_forecaster(name, MODEL, SIDES, levels, overlap=1.0, threads=1)


# who asks


@pytest.fixture(scope="module")
def market(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("market")
    parameters = MarketParameters(contracts=select_contracts(["SIM-BTC"]))
    start = datetime(2026, 1, 1, tzinfo=UTC)
    write_market(simulate_market(parameters, days=4, seed=2, start=start), folder)
    return folder


def workload_of(market: Path) -> Workload:
    overrides = (
        "target.levels=[0.9, 0.95]", "target.stride=10", "backtest.start=2026-01-04",
        "backtest.end=2026-01-04", "backtest.refit_every=1d",
        "tuning.trials=1",
    )  # fmt: skip
    job = load_spec(WORKSPACE / "training" / "demo.toml", TrainingJob, overrides)
    return build_workload(job, WORKSPACE, market)


@pytest.fixture(scope="module")
def workload(market) -> Workload:
    return workload_of(market)


def test_what_models_can_learn_nothing_from_is_among_the_findings_of_a_job(market, tmp_path):
    pinned = shutil.copytree(market, tmp_path / "pinned")
    path = pinned / "bars" / "SIM-BTC.parquet"
    still = [pl.lit(5.0).alias(name) for name in ("open", "high", "low", "close")]
    pl.read_parquet(path).with_columns(*still).write_parquet(path)
    made = workload_of(pinned)
    counted = found(learning_findings(made.panels[30]))
    assert {"every outcome of side long is 0", "every outcome of side short is 0"} <= {
        one.what for one in counted
    }
    assert set(counted) <= set(made.findings)


def spoilt(workload: Workload, at: str) -> Workload:
    """The workload with one infinite feature at a decision time."""
    panel = workload.panels[30]
    row = int(np.flatnonzero(panel.frame["ts"] == pd.Timestamp(at, tz="UTC"))[0])
    column = next(iter(panel.units))
    return replace(workload, panels={30: with_value(panel, column, np.inf, row)})


def test_a_backtest_refuses_to_learn_from_an_infinite_feature(workload, tmp_path):
    """Also with a model that would not have noticed."""
    with pytest.raises(InputError, match="is inf for SIM-BTC at 2026-01-03 12:00 UTC"):
        replay(
            spoilt(workload, "2026-01-03 12:00"),
            ("static",),
            execution=LocalExecution(1),
            store=tmp_path,
        )
    assert not list(tmp_path.iterdir())


def test_a_backtest_forecasts_all_but_the_decision_with_an_infinite_feature(workload, tmp_path):
    bad, models = spoilt(workload, "2026-01-04 12:00"), ("static", "ewma_fhs")
    made = replay(bad, models, execution=LocalExecution(1), store=tmp_path)[30]
    at = (made.panel.frame["ts"] == pd.Timestamp("2026-01-04 12:00", tz="UTC")).to_numpy()
    assert at.sum() == 1
    for forecast in made.forecasts.values():
        unknown = np.isnan(forecast.quantiles).all(axis=(1, 2))
        np.testing.assert_array_equal(unknown, at)
        assert np.isfinite(forecast.quantiles[~at]).all()


def test_tuning_refuses_to_learn_from_an_infinite_feature(workload):
    bad = spoilt(workload, "2026-01-03 12:00")
    history = bad.panels[30].rows(bad.panels[30].labelled)
    with pytest.raises(InputError, match="is inf for SIM-BTC at 2026-01-03 12:00 UTC"):
        tune_head(bad.job, [history], (0.9,), threads=1)


def test_training_on_a_market_that_only_rises_is_refused_before_anything_is_written(tmp_path):
    for folder in ("training", "features", "serving"):
        shutil.copytree(WORKSPACE / folder, tmp_path / folder)
    data, start, hours = tmp_path / "data", datetime(2024, 1, 1, tzinfo=UTC), 24 * 16
    rises = np.random.default_rng(0).exponential(0.002, hours + 1)
    path = 100 * np.exp(np.cumsum(rises))
    bars = pl.DataFrame(
        {
            "ts": pl.datetime_range(
                start, start + timedelta(hours=hours - 1), "1h", time_unit="us", eager=True
            ),
            **dict.fromkeys(("open", "low"), path[:-1]),
            **dict.fromkeys(("high", "close"), path[1:]),
            "volume": np.ones(hours),
        }
    )
    (data / "bars").mkdir(parents=True)
    bars.write_parquet(data / "bars" / "BTCUSDT.parquet")
    spec, out = tmp_path / "training" / "perp-8h.toml", tmp_path / "out"
    with pytest.raises(InputError, match=r"every outcome of side long is 0 .*BTCUSDT at 2024-01-"):
        train.run(spec, data, out, ["data.bars=bars"], cache="none")
    assert not out.exists()
    assert not (tmp_path / "mlruns").exists()
