"""Procyclicality against base R on a real EWMA margin: every record of procyclicality.json."""

import functools
import json

import numpy as np
import pandas as pd
import pytest

from margincast.backtest import procyclicality as ours


@functools.cache
def read_golden(folder):
    records = json.loads((folder / "procyclicality.json").read_text())["records"]
    margin = pd.read_csv(folder / "outputs" / "btc_ewma_margin.csv", index_col="ts")["margin"]
    return {record["id"]: record["value"] for record in records}, margin


@pytest.fixture
def golden(shared_data):
    return read_golden(shared_data / "golden")


def closed(value):
    return pytest.approx(value, rel=1e-9, abs=0.0)


def test_every_record_is_covered(golden):
    covered = {"peak_to_trough/full", "volatility_of_margin"}
    covered |= {f"peak_to_trough/rolling{window}" for window in (30, 90, 365)}
    covered |= {f"{kind}/{days}" for kind in ("n_day", "n_day_from_min") for days in (1, 5, 20, 30)}
    assert set(golden[0]) == covered


def test_peak_to_trough(golden):
    records, margin = golden
    value, found = records["peak_to_trough/full"], ours.measure(margin.to_numpy())
    assert found.peak_to_trough == closed(value["ratio"])
    assert margin[value["peak_date"]] / margin[value["trough_date"]] == closed(value["ratio"])


@pytest.mark.parametrize("window", [30, 90, 365])
def test_rolling_peak_to_trough(golden, window):
    records, margin = golden
    value = records[f"peak_to_trough/rolling{window}"]
    found = ours.rolling_peak_to_trough(margin.to_numpy(), window)
    assert np.isnan(found[: window - 1]).all()
    found = found[window - 1 :]
    assert found.max() == closed(value["max"])
    assert margin.index[window - 1 + found.argmax()] == value["date"]
    assert found.mean() == closed(value["mean"])
    assert found[-1] == closed(value["last"])


@pytest.mark.parametrize("days", [1, 5, 20, 30])
def test_n_day_calls(golden, days):
    records, margin = golden
    value, calls = records[f"n_day/{days}"], ours.margin_calls(margin.to_numpy(), days)
    place = int(np.nanargmax(calls))
    assert calls[place] == closed(value["max_increase"])
    assert (margin.index[place - days], margin.index[place]) == (value["from"], value["to"])
    assert np.nanquantile(calls, 0.99) == closed(value["q99"])
    assert np.nanmean(calls) == closed(value["mean"])
    assert ours.measure(margin.to_numpy()).largest_rises[days] == closed(value["max_increase"])


@pytest.mark.parametrize("days", [1, 5, 20, 30])
def test_rises_from_low(golden, days):
    records, margin = golden
    value, rises = records[f"n_day_from_min/{days}"], ours.rises_from_low(margin.to_numpy(), days)
    assert rises[int(np.nanargmax(rises))] == closed(value["max_increase"])
    assert margin.index[int(np.nanargmax(rises))] == value["to"]
    assert ours.measure(margin.to_numpy()).rises_from_low[days] == closed(value["max_increase"])


def test_volatility_of_margin(golden):
    records, margin = golden
    value, found = records["volatility_of_margin"], ours.measure(margin.to_numpy())
    assert found.volatility == closed(value["sd_log_change"])
    assert found.mean_margin == closed(value["mean"])
    assert found.days_of_rises == {
        0.1: value["days_up_over_10pct"],
        0.25: value["days_up_over_25pct"],
    }
