"""The scale reproduces a published regression, doubles with the market and extrapolates."""

import hashlib
import json
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.model_selection import TimeSeriesSplit, cross_val_score

from margincast.core.errors import InputError, InsufficientHistoryError
from margincast.models.protocol import Panel, require_features
from margincast.models.scale import (
    SMALLEST,
    SMALLEST_SHARE,
    HarScale,
    hour_of_week,
    known_volatilities,
)

COLUMNS = ("fast", "middle", "slow")


def decisions(seed: int, count: int = 600) -> pd.DataFrame:
    """Hourly decisions with three volatilities of a wandering market."""
    rng = np.random.default_rng(seed)
    wander = np.cumsum(rng.normal(0, 0.1, count))
    wander -= np.linspace(0, wander[-1], count)
    return pd.DataFrame(
        {
            "ts": pd.date_range("2024-01-01", periods=count, freq="h", tz="UTC", unit="us"),
            "fast": 0.01 * np.exp(wander + rng.normal(0, 0.3, count)),
            "middle": 0.01 * np.exp(wander + rng.normal(0, 0.1, count)),
            "slow": 0.01 * np.exp(0.5 * wander),
        }
    )


def noise(seed: int, frame: pd.DataFrame) -> np.ndarray:
    rng = np.random.default_rng(seed + 1)
    return np.asarray(frame["middle"] * np.exp(rng.normal(0.5, 0.4, len(frame))), dtype=float)


def test_without_ridge_and_rhythm_it_is_the_published_log_regression_restricted(shared_data):
    # R's lm(log(y) ~ log(rv1) + log(rv5) + log(rv22)); with volatilities in place of variances
    # the slopes are the same and the intercept is half
    records = json.loads((shared_data / "golden" / "volatility.json").read_text())["records"]
    expected = next(r["value"]["coef"] for r in records if r["id"] == "HAR/lm_logRV")
    table = pd.read_csv(shared_data / "golden" / "inputs" / "btc_har.csv", parse_dates=["ts"])
    table["ts"] = table["ts"].dt.tz_localize("UTC")
    fitted = HarScale(("vol1", "vol5", "vol22"), (), 0.0).fit(table, np.sqrt(table["y"].to_numpy()))
    free = np.array([expected["(Intercept)"] / 2, *(expected[f"log(rv{d})"] for d in (1, 5, 22))])
    # least squares under slopes that sum to 1, from the free estimate (Greene 2018, section 5.5)
    logs = np.log(table[["vol1", "vol5", "vol22"]].to_numpy())
    design = np.column_stack([np.ones(len(table)), logs])
    restriction = np.array([0.0, 1.0, 1.0, 1.0])
    direction = np.linalg.solve(design.T @ design, restriction)
    restricted = free - direction * (restriction @ free - 1) / (restriction @ direction)
    assert fitted.coefficients == pytest.approx(restricted, rel=1e-7)


@given(st.integers(0, 2**32), st.floats(0.1, 10.0))
def test_a_lasting_change_of_volatility_changes_the_scale_by_as_much(seed, factor):
    frame = decisions(seed)
    fitted = HarScale(COLUMNS, (1, 7), 1e-6).fit(frame, noise(seed, frame))
    wild = frame.assign(**{column: frame[column] * factor for column in COLUMNS})
    np.testing.assert_allclose(fitted.predict(wild) / fitted.predict(frame), factor, rtol=1e-6)


@given(
    st.integers(0, 2**32),
    st.lists(st.floats(-1, 1), min_size=2, max_size=2),
    st.floats(-1, 1),
)
def test_a_market_that_obeys_the_regression_is_recovered(seed, first, intercept):
    slopes = [*first, 1 - sum(first)]
    frame = decisions(seed)
    wave = 0.3 * np.sin(2 * np.pi * 7 * hour_of_week(frame["ts"]) / 168)
    truth = np.exp(
        intercept + wave + sum(b * np.log(frame[c]) for b, c in zip(slopes, COLUMNS, strict=True))
    ).to_numpy()
    fitted = HarScale(COLUMNS, (1, 7), 0.0).fit(frame, np.maximum(truth, SMALLEST))
    kept = truth > SMALLEST
    if kept.all():
        assert fitted.coefficients[:4] == pytest.approx([intercept, *slopes], abs=1e-6)
        np.testing.assert_allclose(fitted.predict(frame), truth, rtol=1e-6)


@given(st.integers(0, 2**32), st.sampled_from([0.1, 2.0, 7.3]), st.sampled_from([0.0, 1e-6, 1e-2]))
def test_a_market_twice_as_wild_has_twice_the_scale_whatever_the_ridge(seed, factor, ridge):
    frame, outcome = decisions(seed), noise(seed, decisions(seed))
    wild = frame.assign(**{column: frame[column] * factor for column in COLUMNS})
    here = HarScale(COLUMNS, (1, 7), ridge).fit(frame, outcome).predict(frame)
    there = HarScale(COLUMNS, (1, 7), ridge).fit(wild, outcome * factor).predict(wild)
    np.testing.assert_allclose(there, factor * here, rtol=1e-7)


def test_it_extrapolates_to_a_volatility_never_seen():
    frame = decisions(1)
    fitted = HarScale(COLUMNS, (), 1e-6).fit(frame, noise(1, frame))
    calm = fitted.predict(frame)
    crash = fitted.predict(frame.assign(**{column: frame[column] * 50 for column in COLUMNS}))
    elasticity = fitted.coefficients[1:].sum()
    assert elasticity > 0.5
    np.testing.assert_allclose(crash / calm, 50**elasticity, rtol=1e-9)


@given(st.integers(0, 2**32), st.integers(2, 200))
def test_a_row_has_the_same_bits_alone_and_among_others(seed, count):
    frame = decisions(seed, 200)
    fitted = HarScale(COLUMNS, (1, 7, 14), 1e-6).fit(frame, noise(seed, frame))
    whole = fitted.predict(frame)
    np.testing.assert_array_equal(fitted.predict(frame.iloc[:count]), whole[:count])
    np.testing.assert_array_equal(fitted.predict(frame.iloc[[count - 1]]), whole[[count - 1]])


FIT_AND_HASH = """
import hashlib, numpy as np, pandas as pd
from margincast.models.scale import HarScale
rng = np.random.default_rng(0)
count = 40_000
columns = tuple(f"v{i}" for i in range(13))
frame = pd.DataFrame(rng.lognormal(-5, 1, (count, 13)), columns=columns)
frame["ts"] = pd.date_range("2020-01-01", periods=count, freq="h", tz="UTC", unit="us")
fitted = HarScale(columns, (1, 2, 7, 14, 21, 28), 1e-6).fit(frame, rng.lognormal(-4, 1, count))
print(hashlib.sha256(fitted.coefficients.tobytes()).hexdigest())
"""


def test_coefficients_are_the_same_bits_for_any_number_of_threads():
    found = set()
    for threads in ("1", "2"):
        environment = os.environ | {"OPENBLAS_NUM_THREADS": threads, "OMP_NUM_THREADS": threads}
        run = subprocess.run(  # noqa: S603  # our own interpreter on the text above
            [sys.executable, "-c", FIT_AND_HASH],
            env=environment, capture_output=True, text=True, check=True,
        )  # fmt: skip
        found.add(run.stdout.strip())
    assert len(found) == 1
    assert len(found.pop()) == len(hashlib.sha256().hexdigest())


def test_an_unknown_long_volatility_is_replaced_by_its_shorter_neighbour():
    frame = decisions(2)
    fitted = HarScale(COLUMNS, (), 1e-6).fit(frame, noise(2, frame))
    young = frame.copy()
    young.loc[:9, "slow"] = np.nan
    young.loc[:4, "middle"] = np.nan
    filled = frame.copy()
    filled.loc[:4, "middle"] = frame.loc[:4, "fast"]
    filled.loc[:9, "slow"] = filled.loc[:9, "middle"]
    np.testing.assert_array_equal(fitted.predict(young), fitted.predict(filled))
    without = frame.copy()
    without.loc[3, "fast"] = np.nan
    predicted = fitted.predict(without)
    assert np.isnan(predicted[3])
    assert np.isfinite(np.delete(predicted, 3)).all()


@pytest.mark.parametrize(
    ("row", "mended"),
    [
        ([0.01, 0.02, 0.03, 0.04], [0.01, 0.02, 0.03, 0.04]),
        ([0.01, np.nan, 0.03, np.nan], [0.01, 0.01, 0.03, 0.03]),
        # another feature's volatility is no stand-in
        ([0.01, 0.02, np.nan, 0.04], [0.01, 0.02, np.nan, 0.04]),
        ([np.nan, 0.02, 0.03, 0.04], [np.nan, 0.02, 0.03, 0.04]),
        # one still bar in a moving market says little
        ([0.0, 0.02, 0.03, 0.04], [SMALLEST_SHARE * 0.02, 0.02, 0.03, 0.04]),
        ([0.01, 0.02, 0.0, 0.0], [0.01, 0.02, SMALLEST, SMALLEST]),
    ],
)
def test_windows_of_one_feature_mend_each_other(row, mended):
    columns = ("own_1h", "own_1d", "leader_own_1h", "leader_own_1d")
    np.testing.assert_allclose(known_volatilities(np.array([row]), columns)[0], mended, rtol=1e-12)


def test_a_volatility_that_is_hardly_ever_known_is_left_out_and_costs_no_forecast():
    frame, outcome = decisions(8), noise(8, decisions(8))
    columns = ("own_1h", "own_1d", "leader_1h")
    named = frame.rename(columns=dict(zip(COLUMNS, columns, strict=True)))
    without = HarScale(columns[:2], (1,), 1e-6).fit(named, outcome)
    absent = named.assign(leader_1h=np.nan)
    fitted = HarScale(columns, (1,), 1e-6).fit(absent, outcome)
    assert fitted.unused == ("leader_1h",)
    np.testing.assert_allclose(fitted.predict(absent), without.predict(named), rtol=1e-9)
    # a leader that appears later is not yet part of the model
    np.testing.assert_array_equal(fitted.predict(named), fitted.predict(absent))
    rebuilt = HarScale.from_parameters(json.loads(json.dumps(fitted.parameters())))
    np.testing.assert_array_equal(rebuilt.predict(absent), fitted.predict(absent))


def test_rows_without_the_first_volatility_do_not_enter_the_fit():
    frame, outcome = decisions(3), noise(3, decisions(3))
    holed = frame.copy()
    holed.loc[::2, "fast"] = np.nan
    left = HarScale(COLUMNS, (1,), 1e-6).fit(holed, outcome)
    right = HarScale(COLUMNS, (1,), 1e-6).fit(frame.iloc[1::2], outcome[1::2])
    np.testing.assert_allclose(left.coefficients, right.coefficients, rtol=1e-9)


def test_a_pinned_price_keeps_the_scale_finite():
    frame = decisions(4)
    still = frame.assign(**dict.fromkeys(COLUMNS, 0.0))
    fitted = HarScale(COLUMNS, (), 1e-6).fit(frame, np.zeros(len(frame)))
    assert np.exp(np.log(fitted.predict(frame)).mean()) == pytest.approx(SMALLEST, rel=1e-6)
    assert (HarScale(COLUMNS, (), 1e-6).fit(frame, noise(4, frame)).predict(still) > 0).all()


def test_no_known_volatility_is_too_little_history():
    frame = decisions(5).assign(fast=np.nan)
    with pytest.raises(InsufficientHistoryError, match=r"needs at least.*known fast, found 0"):
        HarScale(COLUMNS, (1,), 1e-6).fit(frame, noise(5, frame))


def test_a_missing_column_is_named():
    frame = decisions(6)
    with pytest.raises(InputError, match=r"HAR scale needs the feature\(s\) middle"):
        HarScale(COLUMNS, (), 1e-6).fit(frame.drop(columns="middle"), noise(6, frame))


def test_a_scale_rebuilt_from_its_parameters_is_the_same():
    frame = decisions(7)
    fitted = HarScale(COLUMNS, (1, 7), 1e-6).fit(frame, noise(7, frame))
    text = json.dumps(fitted.parameters())
    rebuilt = HarScale.from_parameters(json.loads(text))
    np.testing.assert_array_equal(rebuilt.predict(frame), fitted.predict(frame))
    assert rebuilt.parameters() == fitted.parameters()


def test_the_hour_of_the_week_starts_on_monday():
    ts = pd.Series(pd.to_datetime(["2024-01-01T00:00Z", "2024-01-07T23:30Z", "2024-01-08T00:00Z"]))
    for same in (ts, ts.dt.tz_convert("Asia/Kolkata"), ts.to_numpy("datetime64[us]")):
        assert hour_of_week(same).tolist() == [0.0, 167.5, 0.0]


def test_columns_read_off_a_panel_once_give_the_bits_of_its_frame():
    frame = decisions(9).assign(whole=7)
    fitted = HarScale(COLUMNS, (1, 7), 1e-6).fit(frame, noise(9, frame))
    units = dict.fromkeys((*COLUMNS, "whole", "absent"), "number")
    panel = Panel.of_decisions(frame.assign(symbol="A"), units, ("long",))
    assert {name: values.dtype.str for name, values in panel.columns.items()} == {
        "ts": "<M8[us]", **dict.fromkeys((*COLUMNS, "whole"), "<f8")
    }  # fmt: skip
    np.testing.assert_array_equal(fitted.predict(panel.columns), fitted.predict(panel.frame))
    with pytest.raises(InputError, match="absent"):
        require_features(panel.columns, tuple(units), "test")


def test_it_is_a_regressor_of_scikit_learn():
    frame, outcome = decisions(8), noise(8, decisions(8))
    scale = HarScale(COLUMNS, (1, 7), 1e-6)
    assert scale.get_params() == {
        "columns": COLUMNS, "seasonal_harmonics": (1, 7), "ridge": 1e-6,
    }  # fmt: skip
    fitted = clone(scale).set_params(ridge=1e-3).fit(frame, outcome)
    assert fitted.ridge == 1e-3
    assert len(scale.coefficients) == 0
    folds = cross_val_score(scale, frame, outcome, cv=TimeSeriesSplit(3))
    assert np.isfinite(folds).all()
