"""What training, backtest and serving may rely on, held against every forecaster by name."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from margincast.core.errors import InputError, InsufficientHistoryError
from margincast.models import forest
from margincast.models.catalogue import LOADERS, make_forecaster
from margincast.models.following import Followed, Following
from margincast.models.horizons import HorizonForecaster
from margincast.models.protocol import Forecaster, Panel, TailForecast, Unit
from margincast.specs.loading import validate_spec
from margincast.specs.training import Model

START = pd.Timestamp("2024-01-01", tz="UTC")
SIDES = ("long", "short")
LEVELS = (0.9, 0.95, 0.99)
UNITS: Mapping[str, Unit] = {  # not in alphabetical order, as in real feature sets
    "volatility_fast": "fraction",
    "volatility_slow": "fraction",
    "activity": "number",
    "drawdown": "fraction",
}
SCALE = ("volatility_fast", "volatility_slow")
NEEDS: Mapping[str, tuple[str, ...]] = {
    "margincast": tuple(UNITS),
    "static": (),
    "rolling_hs": (),
    "ewma_fhs": ("volatility_slow",),
    "parkinson_fhs": ("volatility_fast",),
    "har_fhs": SCALE,
    "garch_t_fhs": ("close",),
    "gjr_t_fhs": ("close",),
    "garch_evt": ("close",),
    "caviar_sav": ("close",),
    "caviar_as": ("close",),
    "har_qr": SCALE,
    "har_qr_seasonal": SCALE,
    "har_qr_log": SCALE,
    "har_qr_log_seasonal": SCALE,
    "quantile_forest": tuple(UNITS),
    "sklearn_gbq": tuple(UNITS),
    "lightgbm_raw": tuple(UNITS),
    "lightgbm_raw_tuned": tuple(UNITS),
}
REMEMBERING = {name for name, columns in NEEDS.items() if columns == ("close",)}
"""Models whose forecast hangs on rows before it as well."""
RAW_LIGHTGBM = {"lightgbm_raw", "lightgbm_raw_tuned"}
WITHOUT_SHORTFALL = {*RAW_LIGHTGBM, "sklearn_gbq"}
MODEL = validate_spec(
    {
        "window": "6y",
        "stride": 1,
        "minimum_rows": 1,
        "scale": {
            "columns": ["volatility_fast", "volatility_slow"],
            "seasonal_harmonics": [1, 7],
            "ridge": 1e-6,
        },
        "head": {
            "rounds": 15,
            "num_leaves": 4,
            "learning_rate": 0.1,
            "min_data_factor": 10.0,
            "feature_fraction": 0.7,
            "bagging_fraction": 0.7,
            "max_bin": 63,
            "seed": 1,
        },
        "tail": {"threshold_level": 0.95, "from_level": 0.99},
        "calibration": {
            "folds": 3,
            "prior": "10d",
            "contract_prior": 5.0,
            "online": {"everybody_rate": 90.0, "contract_rate": 90.0, "lowest": 0.8},
        },
        "peers": {
            "ewma_column": "volatility_slow",
            "parkinson_column": "volatility_fast",
            "history": "20d",
            "minimum_exceedances": 6.0,
        },
    },
    Model,
    "test",
)
NAMES = sorted(LOADERS)


def simulated_panel(
    seed: int = 0, hours: int = 800, contracts: tuple[str, ...] = ("SOL", "BTC", "ETH")
) -> Panel:
    """Hourly decisions; outcomes are Student-t times a volatility that wanders."""
    rng = np.random.default_rng(seed)
    parts = []
    for symbol in contracts:
        shocks = rng.normal(0, 0.1, hours)
        log_volatility = np.empty(hours)
        level = 0.0
        for hour in range(hours):
            level = 0.98 * level + shocks[hour]
            log_volatility[hour] = level
        volatility = 0.01 * np.exp(log_volatility)
        move = volatility * rng.standard_t(4, hours)
        parts.append(
            pd.DataFrame(
                {
                    "symbol": symbol,
                    "ts": pd.date_range("2024-01-01", periods=hours, freq="h", tz="UTC", unit="us"),
                    "volatility_fast": volatility * np.exp(rng.normal(0, 0.2, hours)),
                    "volatility_slow": 0.01 * np.exp(0.7 * log_volatility),
                    "activity": rng.normal(0, 1, hours),
                    "drawdown": -volatility * rng.exponential(1, hours),
                    "close": 100 * np.exp(np.cumsum(0.5 * move)),
                    "move": move,
                    "log_range": volatility * np.exp(rng.normal(0, 0.3, hours)),
                }
            )
        )
    frame = pd.concat(parts).sort_values(["ts", "symbol"], ignore_index=True)
    move = frame.pop("move").to_numpy()
    log_range = frame.pop("log_range").to_numpy()
    decided = frame["ts"].dt.tz_localize(None).to_numpy("datetime64[us]")
    return Panel(
        frame=frame,
        units=UNITS,
        outcomes={"long": np.maximum(0.0, -move), "short": np.maximum(0.0, move)},
        log_range=log_range,
        label_end=decided + np.timedelta64(1, "h"),
    )


def unfitted(name: str, threads: int = 1) -> Forecaster:
    return make_forecaster(name, MODEL, SIDES, LEVELS, overlap=1.0, threads=threads)


@pytest.fixture(scope="module", autouse=True)
def _a_small_forest():
    """What is promised here does not hang on the number of trees; the time does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forest, "TREES", 10)
        yield


@pytest.fixture(scope="module")
def panel() -> Panel:
    return simulated_panel()


@pytest.fixture(scope="module", params=NAMES)
def fitted(request, panel) -> tuple[str, Forecaster]:
    return request.param, unfitted(request.param).fit(panel)


def same(left: TailForecast, right: TailForecast) -> bool:
    """Whether two forecasts are equal to the last bit."""
    if (left.expected_shortfall is None) != (right.expected_shortfall is None):
        return False
    shortfalls = (
        left.expected_shortfall is None
        or right.expected_shortfall is None
        or np.array_equal(left.expected_shortfall, right.expected_shortfall, equal_nan=True)
    )
    return shortfalls and np.array_equal(left.quantiles, right.quantiles, equal_nan=True)


def written(forecaster: Forecaster, directory: Path) -> dict[str, bytes]:
    directory.mkdir()
    forecaster.save(directory)
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


def test_every_forecaster_is_in_this_suite():
    assert set(NEEDS) == set(LOADERS)


def test_forecasts_have_one_quantile_a_row_side_and_level(fitted, panel):
    _, forecaster = fitted
    forecast = forecaster.predict(panel)
    assert forecast.sides == SIDES
    assert forecast.levels == LEVELS
    assert forecast.quantiles.shape == (len(panel), 2, 3)
    assert forecast.quantiles.dtype == np.float64
    np.testing.assert_array_equal(forecast.at("short", 0.95), forecast.quantiles[:, 1, 1])


def test_quantiles_are_not_negative_and_never_cross(fitted, panel):
    _, forecaster = fitted
    quantiles = forecaster.predict(panel).quantiles
    assert np.isfinite(quantiles).all()
    assert (quantiles >= 0).all()
    assert (np.diff(quantiles, axis=2) >= 0).all()


def test_expected_shortfall_is_beyond_the_quantile_and_rises_with_the_level(fitted, panel):
    name, forecaster = fitted
    forecast = forecaster.predict(panel)
    if name in WITHOUT_SHORTFALL:
        assert forecast.expected_shortfall is None
        return
    assert forecast.expected_shortfall is not None
    assert forecast.expected_shortfall.shape == forecast.quantiles.shape
    assert (forecast.expected_shortfall >= forecast.quantiles).all()
    assert (np.diff(forecast.expected_shortfall, axis=2) >= -1e-12).all()


@pytest.mark.parametrize("name", [name for name in NAMES if name not in WITHOUT_SHORTFALL])
def test_a_wild_new_contract_keeps_its_shortfall_beyond_its_quantile(name):
    # a twentieth of the pool, so that its own 0.95 quantile lies above the mean of the pool's worst
    # hundredth, which it falls back on at 0.99
    pool = simulated_panel(1, hours=480, contracts=("A", "B", "C", "D", "E", "F", "NEW"))
    new = (pool.frame["symbol"] == "NEW").to_numpy()
    listed = pool.frame["ts"] >= pool.frame["ts"].max() - pd.Timedelta(hours=135)
    outcomes = {side: np.where(new, 50, 1) * values for side, values in pool.outcomes.items()}
    mixed = replace(pool, outcomes=outcomes).rows(~new | listed.to_numpy())
    forecast = unfitted(name).fit(mixed).predict(mixed)
    assert (np.diff(forecast.quantiles, axis=2) >= 0).all()
    assert forecast.expected_shortfall is not None
    assert (forecast.expected_shortfall >= forecast.quantiles).all()


def test_about_the_stated_share_of_the_training_outcomes_is_covered(fitted, panel):
    _, forecaster = fitted
    forecast = forecaster.predict(panel)
    for side in SIDES:
        for level in (0.9, 0.95):
            exceeded = np.mean(panel.outcomes[side] > forecast.at(side, level))
            assert exceeded == pytest.approx(1 - level, abs=0.025)


def test_a_saved_model_is_text_and_forecasts_the_same_bits(fitted, panel, tmp_path):
    name, forecaster = fitted
    files = written(forecaster, tmp_path / "first")
    for content in files.values():
        content.decode("utf-8")
    loaded = LOADERS[name].load(tmp_path / "first")
    assert loaded.name == name
    assert same(loaded.predict(panel), forecaster.predict(panel))
    assert written(loaded, tmp_path / "second") == files


def test_followed_decision_by_decision_it_forecasts_the_same_bits(fitted, panel):
    """With outcomes that overlap, an hour that nobody decided in, and one without an outcome."""
    _, forecaster = fitted
    horizon = np.timedelta64(3, "h")
    later = simulated_panel(2, hours=16)
    frame = later.frame.assign(ts=later.frame["ts"] + (panel.frame["ts"].max() - START))
    hour = np.repeat(np.arange(16), 3)
    outcomes = {
        side: np.where(hour == 5, np.nan, values) for side, values in later.outcomes.items()
    }
    later = replace(later, frame=frame, outcomes=outcomes, label_end=later.label_end)
    later = replace(later, label_end=later.decided + horizon).rows((hour > 0) & (hour != 9))
    whole = forecaster.predict(later)
    following = Following(HorizonForecaster("one", {180: forecaster}, monotone=True))
    times, made = np.unique(later.decided), []
    past = later.rows(later.decided < times[6])
    following.replay({180: past})
    for time in times[6:]:
        for decided in times[(times + horizon <= time) & (times + 2 * horizon > time)]:
            rows = later.rows(later.decided == decided)
            following.learn(180, decided, Followed.of(rows))
        now = later.rows(later.decided == time)
        unknown = Panel.of_decisions(now.frame, UNITS, SIDES)
        made.append(following.predict(unknown)[180].quantiles)
    np.testing.assert_array_equal(np.concatenate(made), whole.quantiles[len(past) :])
    uncorrected = forecaster.predict(replace(later, label_end=later.label_end + 100 * horizon))
    assert same(uncorrected, whole) == (forecaster.name != "margincast")


def test_model_files_are_the_same_bytes_for_one_thread_and_two(fitted, panel, tmp_path):
    name, forecaster = fitted
    again = unfitted(name, threads=2).fit(panel)
    assert written(again, tmp_path / "two") == written(forecaster, tmp_path / "one")


@pytest.mark.parametrize("name", [name for name in NAMES if name not in REMEMBERING])
def test_a_forecast_hangs_on_its_own_row_alone(name, panel):
    forecaster = unfitted(name).fit(panel)
    whole = forecaster.predict(panel)
    for rows in (slice(0, 1), slice(5, 12), slice(100, 1001)):
        part = forecaster.predict(panel.rows(np.arange(len(panel))[rows]))
        np.testing.assert_array_equal(part.quantiles, whole.quantiles[rows])
    order = np.random.default_rng(0).permutation(len(panel))
    shuffled = forecaster.predict(panel.rows(order))
    np.testing.assert_array_equal(shuffled.quantiles, whole.quantiles[order])


@pytest.fixture(scope="module", params=NAMES)
def continued(request, panel) -> tuple[Forecaster, Panel]:
    """A model of the first two thirds, and the rows that follow."""
    early = panel.label_end <= np.quantile(panel.label_end.astype(np.int64), 0.67).astype(
        "datetime64[us]"
    )
    forecaster = unfitted(request.param).fit(panel.rows(early))
    return forecaster, panel.rows(panel.decided > panel.decided[early].max())


def test_what_comes_later_changes_no_bit_of_a_forecast(continued):
    forecaster, later = continued
    whole = forecaster.predict(later).quantiles
    for count in (1, 7, 200):
        part = forecaster.predict(later.rows(np.arange(count))).quantiles
        np.testing.assert_array_equal(part, whole[:count])
    cut = 300
    changed = later.frame.copy()
    numbers = changed.select_dtypes("number").columns
    changed.loc[cut:, numbers] = changed.loc[cut:, numbers].abs() * 3
    unknown = later.label_end > later.decided[cut - 1]
    outcomes = {
        side: np.where(unknown, 50 * values, values) for side, values in later.outcomes.items()
    }
    other = replace(later, frame=changed, outcomes=outcomes)
    np.testing.assert_array_equal(forecaster.predict(other).quantiles[:cut], whole[:cut])


def test_extra_columns_and_their_order_change_nothing(fitted, panel):
    _, forecaster = fitted
    other = panel.frame.assign(extra=1.0)[["extra", *reversed(panel.frame.columns)]]
    assert same(forecaster.predict(replace(panel, frame=other)), forecaster.predict(panel))


def test_fitting_and_forecasting_leave_the_panel_as_it_was(fitted, panel):
    name, forecaster = fitted
    before = panel.frame.copy(deep=True)
    outcomes = {side: values.copy() for side, values in panel.outcomes.items()}
    unfitted(name).fit(panel)
    forecaster.predict(panel)
    pd.testing.assert_frame_equal(panel.frame, before)
    for side, values in outcomes.items():
        np.testing.assert_array_equal(panel.outcomes[side], values)


def test_a_contract_never_seen_is_forecast(fitted, panel):
    _, forecaster = fitted
    stranger = replace(panel, frame=panel.frame.assign(symbol="NEW"))
    quantiles = forecaster.predict(stranger).quantiles
    assert np.isfinite(quantiles).all()
    assert (quantiles > 0).all()
    assert (np.diff(quantiles, axis=2) >= 0).all()


@pytest.mark.parametrize("name", [name for name in NAMES if NEEDS[name]])
def test_a_missing_feature_is_named(name, panel):
    forecaster = unfitted(name).fit(panel)
    for column in NEEDS[name]:
        with pytest.raises(InputError, match=f"needs the feature.*{column}"):
            forecaster.predict(replace(panel, frame=panel.frame.drop(columns=column)))
        with pytest.raises(InputError, match=f"needs the feature.*{column}"):
            unfitted(name).fit(replace(panel, frame=panel.frame.drop(columns=column)))


@pytest.mark.parametrize("name", ["margincast", "har_fhs", "ewma_fhs"])
def test_an_unknown_volatility_gives_an_unknown_forecast_and_no_other(name, panel):
    forecaster = unfitted(name).fit(panel)
    holed = panel.frame.copy()
    holed.loc[7, ["volatility_fast", "volatility_slow"]] = np.nan
    quantiles = forecaster.predict(replace(panel, frame=holed)).quantiles
    assert np.isnan(quantiles[7]).all()
    whole = forecaster.predict(panel).quantiles
    np.testing.assert_array_equal(np.delete(quantiles, 7, axis=0), np.delete(whole, 7, axis=0))


@pytest.mark.parametrize("name", [name for name in NAMES if name not in RAW_LIGHTGBM])
def test_too_little_history_says_how_much_is_needed_and_found(name):
    short = simulated_panel(hours=40, contracts=("BTC",))
    with pytest.raises(InsufficientHistoryError, match=r"level 0\.9\d* needs .*[\d,]+ .*found 40"):
        unfitted(name).fit(short)


@pytest.mark.parametrize("name", ["static", "ewma_fhs", "har_fhs", "margincast"])
def test_a_market_twice_as_wild_has_forecasts_twice_as_wide(name, panel):
    # doubled: floating point doubles exactly, so what is left is rounding in logs and sums
    wild_frame = panel.frame.copy()
    for column, unit in UNITS.items():
        if unit == "fraction":
            wild_frame[column] *= 2
    wild = replace(
        panel,
        frame=wild_frame,
        outcomes={side: values * 2 for side, values in panel.outcomes.items()},
        log_range=panel.log_range * 2,
    )
    calm = unfitted(name).fit(panel).predict(panel).quantiles
    ratio = unfitted(name).fit(wild).predict(wild).quantiles / (2 * calm)
    if name == "margincast":
        # a row at the very edge of a bin may fall on its other side
        assert np.mean(np.abs(ratio - 1) < 1e-6) > 0.99
        assert np.abs(ratio - 1).max() < 0.05
    else:
        np.testing.assert_allclose(ratio, 1.0, rtol=1e-9)


def test_an_unknown_forecaster_is_answered_with_the_nearest_or_all():
    with pytest.raises(InputError, match=r"no forecaster 'har_fsh' \(did you mean 'har_fhs'\?\)"):
        unfitted("har_fsh")
    with pytest.raises(InputError, match="there are caviar_as, caviar_sav, ewma_fhs"):
        unfitted("zzz")
