"""Volatility features against R: TTR 0.24.3 (ranges) and highfrequency 1.0.1 (realised measures).

Packages, versions, commands and tolerances stand in the golden folder's own README: closed forms to
1e-9. TTR annualises with N = 365 and ours are per square root of one bar; realised measures are of
a day of 24 hourly returns, and ours are means.
"""

import functools
import json
import math
from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from margincast.features import volatility
from margincast.features.library import Window
from margincast.features.volatility.large_moves import mean_log_excess

HOUR = timedelta(hours=1)
DAY = 24


def window(rows):
    return Window.over(rows * HOUR, HOUR, 1.0)


def evaluate(frame, expression):
    return frame.select(expression.alias("value"))["value"].fill_null(math.nan).to_numpy()


@functools.cache
def records(folder, file):
    listed = json.loads((folder / "golden" / file).read_text())["records"]
    return {record["id"]: record["value"] for record in listed}


@pytest.fixture(scope="module")
def golden(shared_data):
    return records(shared_data, "volatility.json")


@pytest.fixture(scope="module")
def daily(shared_data):
    return pl.read_csv(shared_data / "golden" / "inputs" / "btc_daily.csv")


@pytest.fixture(scope="module")
def hourly(shared_data):
    return pl.read_csv(shared_data / "golden" / "inputs" / "btc_hourly_ohlc.csv")


@pytest.fixture(scope="module")
def measures(shared_data):
    path = shared_data / "golden" / "outputs" / "btc_realised_measures.csv"
    return pl.read_csv(path).with_columns(pl.exclude("ts").cast(pl.Float64))


def at_dates(frame, values, dates):
    """Values by date; the last bar of a date wins."""
    by_date = {ts[:10]: row for row, ts in enumerate(frame["ts"].to_list())}
    return np.array([values[by_date[date]] for date in dates])


@pytest.mark.parametrize("days", [10, 20])
@pytest.mark.parametrize(
    "package_name", ["parkinson", "garman.klass", "rogers.satchell", "yang.zhang"]
)
def test_range_estimators_equal_ttr_on_every_day(shared_data, golden, daily, package_name, days):
    name = f"{package_name.replace('.', '_')}_volatility"
    ours = evaluate(daily, getattr(volatility, name)(window(days))) * math.sqrt(365)
    series = pl.read_csv(
        shared_data / "golden" / "outputs" / "btc_ttr_volatility.csv", infer_schema_length=None
    )
    assert series["ts"].to_list() == daily["ts"].to_list()
    column = series[f"{package_name}_n{days}"].cast(pl.Float64).fill_null(math.nan).to_numpy()
    np.testing.assert_allclose(ours, column, rtol=1e-9, atol=0)
    expected = golden[f"TTR/{package_name}/n{days}"]
    known = ~np.isnan(ours)
    assert known.sum() == expected["n_valid"]
    assert daily["ts"][int(np.flatnonzero(known)[0])] == expected["first_valid"]
    assert ours[known].sum() == pytest.approx(expected["sum"], rel=1e-9)
    np.testing.assert_allclose(
        at_dates(daily, ours, expected["at"]), list(expected["at"].values()), rtol=1e-9
    )


def test_close_to_close_equals_ttr_without_its_mean(golden, daily):
    # TTR, n = 20: the 19 returns inside the window, divided by 18
    expected = golden["TTR/close_mean0/n20"]["at"]
    ours = evaluate(daily, volatility.realised_volatility(window(19))) * math.sqrt(365 * 19 / 18)
    np.testing.assert_allclose(
        at_dates(daily, ours, expected), list(expected.values()), rtol=1e-9, atol=0
    )


def test_the_exponential_volatility_equals_riskmetrics_once_its_start_has_died_out(golden, daily):
    # the reference starts at the mean of 250 days, ours at the first return: 0.94^600 is 1e-16
    expected = golden["EWMA/0.94/seed250"]
    forecast = evaluate(daily, volatility.ewma_volatility(0.94))
    position = {date: row for row, date in enumerate(daily["ts"].to_list())}
    compared = 0
    for date, value in expected["sigma_for_date"].items():
        # forecast FOR a date is known at the close of the day before
        if position[date] > 850:
            compared += 1
            assert forecast[position[date] - 1] == pytest.approx(value, rel=1e-9), date
    assert compared >= 3
    assert forecast[-1] == pytest.approx(expected["sigma_for_day_after_last"], rel=1e-9)
    last = golden["EWMA/TTR_EMA_ratio0.06"]["last"]
    assert forecast[-1] ** 2 == pytest.approx(last, rel=1e-9)


def _squared(name):
    return getattr(volatility, name)(window(DAY)).pow(2)


REALISED = {
    # highfrequency sums where ours are means, and has no factor n / (n - 1) on bipower variation
    "rRVar": DAY * _squared("realised_volatility"),
    "rBPCov": (DAY - 1) * _squared("bipower_volatility"),
    "rMedRVar": DAY * _squared("median_volatility"),
    "rSVar_down": DAY * _squared("downside_volatility"),
    "rSVar_up": DAY * _squared("upside_volatility"),
    "rSkew": volatility.realised_skewness(window(DAY)),
    "rKurt": volatility.realised_kurtosis(window(DAY)),
}


@pytest.mark.parametrize("name", list(REALISED))
def test_a_day_of_hours_equals_highfrequency_on_every_day(hourly, measures, name):
    ours = at_dates(hourly, evaluate(hourly, REALISED[name]), measures["ts"].to_list())
    theirs = measures[name].to_numpy()
    assert len(theirs) == 1826
    # a variance of rising hours only may be zero; a skewness passes through zero
    scale = {"rSkew": 1e-9, "rSVar_down": 1e-18, "rSVar_up": 1e-18}.get(name, 0.0)
    np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=scale)


def test_shares_of_a_day_follow_from_the_published_variances(hourly, measures):
    days = measures["ts"].to_list()
    down, up, variance, bipower = (
        measures[name].to_numpy() for name in ("rSVar_down", "rSVar_up", "rRVar", "rBPCov")
    )
    share = at_dates(hourly, evaluate(hourly, volatility.downside_share(window(DAY))), days)
    np.testing.assert_allclose(share, down / (down + up), rtol=1e-9, atol=1e-12)
    jumps = at_dates(hourly, evaluate(hourly, volatility.jump_share(window(DAY))), days)
    mean_bipower, mean_variance = bipower / (DAY - 1), variance / DAY
    expected = np.clip(1 - mean_bipower / mean_variance, 0, 1)
    np.testing.assert_allclose(jumps, expected, rtol=1e-9, atol=1e-12)
    jump = at_dates(hourly, evaluate(hourly, volatility.jump_volatility(window(DAY))), days)
    np.testing.assert_allclose(
        jump**2, np.clip(mean_variance - mean_bipower, 0, None), rtol=1e-9, atol=1e-18
    )


@pytest.mark.parametrize("periods", [1, 5, 22])
def test_har_components_are_the_logs_of_the_published_ones(shared_data, hourly, periods):
    har = pl.read_csv(shared_data / "golden" / "inputs" / "btc_har.csv")
    expression = volatility.log_realised_volatility(window(periods * DAY))
    ours = at_dates(hourly, evaluate(hourly, expression), har["ts"].to_list())
    # the file's row of a day holds what was known the evening before, as roots of daily variances
    published = np.log(har[f"vol{periods}"].to_numpy()[1:] / math.sqrt(DAY))
    np.testing.assert_allclose(ours[:-1], published, rtol=1e-9)


@pytest.mark.parametrize("count", [25, 50, 91, 100, 150])
def test_the_hill_estimator_equals_that_of_base_r(shared_data, daily, count):
    expected = records(shared_data, "evt.json")[f"hill/formula_k{count}"]["xi_ref_k_plus_1"]
    losses = daily["loss"].drop_nulls().sort(descending=True)
    threshold = losses[count]
    whole = Window(len(losses), len(losses), "all")
    frame = pl.DataFrame({"multiple": losses.sample(fraction=1, shuffle=True, seed=1) / threshold})
    # gains are no moves of this side
    expression = mean_log_excess(pl.col("multiple").clip(0), whole)
    assert evaluate(frame, expression)[-1] == pytest.approx(expected, rel=1e-9)
