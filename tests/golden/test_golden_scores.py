"""Scores and their comparison against published implementations.

Pinball: GAS, rugarch, scoringrules, model-diagnostics. FZ0: GAS. Diebold-Mariano with Bartlett
weights: statsmodels and R's sandwich (``forecast::dm.test`` has another convention: rectangular
window, small-sample factor, t distribution). Every record covered is one test.
"""

import functools
import json
import os
import re
from pathlib import Path

import pandas as pd
import pytest

from margincast.backtest.comparison import diebold_mariano
from margincast.scoring.fissler_ziegel import fz0_loss
from margincast.scoring.pinball import mean_pinball, pinball_loss

CHECKOUT = Path(__file__).resolve().parents[2]
GOLDEN = Path(os.environ.get("MARGINCAST_SHARED", CHECKOUT.parent / "shared")) / "golden"


def records_of(file, *functions):
    """One parameter a record; a single empty one, which ``shared_data`` skips, without the data."""
    if not (GOLDEN / file).is_file():
        return [pytest.param({}, id="no shared data")]
    records = json.loads((GOLDEN / file).read_text())["records"]
    chosen = [r for r in records if r["function"] in functions]
    assert chosen, f"{file} has no record of {functions}"
    return [pytest.param(r, id=r["id"]) for r in chosen]


@functools.cache
def read_table(path):
    return pd.read_csv(path)


def columns_of(record, shared, model, *kinds):
    """The outcome (a loss) and a model's forecasts of the record's level, positive losses."""
    data = record["data"]
    assert data.get("rows", "all") == "all"
    table = read_table(shared / "golden" / data["file"])
    level = round(data["level"] * 1000)
    names = ["loss", *(f"{model}_{kind}_{level}" for kind in kinds)]
    return [table[name].to_numpy() for name in names]


def exactly(value):
    """Closed forms: 1e-9, and 1e-7 for p-values below 1e-6."""
    return pytest.approx(value, rel=1e-9 if abs(value) >= 1e-6 else 1e-7, abs=0.0)


def assert_mean_sum_and_first(losses, value, scale=1.0, relative=1e-9):
    for ours, golden in (
        (losses.mean(), value["mean"]),
        (losses.sum(), value["sum"]),
        (losses[:5], value["first5"]),
    ):
        assert ours * scale == pytest.approx(golden, rel=relative, abs=0.0)


@pytest.mark.parametrize("record", records_of("scores_r.json", "BacktestVaR()$Loss"))
def test_pinball_of_gas(shared_data, record):
    outcome, forecast = columns_of(record, shared_data, record["data"]["model"], "var")
    losses = pinball_loss(outcome, forecast, record["data"]["level"])
    assert_mean_sum_and_first(losses, record["value"])


@pytest.mark.parametrize("record", records_of("scores_r.json", "VaRloss"))
def test_pinball_of_rugarch(shared_data, record):
    # In per cent, and with a logistic for the indicator: agrees to 1e-6 on the mean only.
    outcome, forecast = columns_of(record, shared_data, record["data"]["model"], "var")
    ours = mean_pinball(outcome, forecast, record["data"]["level"])
    assert 100.0 * ours == pytest.approx(record["value"]["mean"], rel=1e-6, abs=0.0)


@pytest.mark.parametrize("record", records_of("scores_py.json", "quantile_score", "PinballLoss"))
def test_pinball_of_scoringrules_and_model_diagnostics(shared_data, record):
    outcome, forecast = columns_of(record, shared_data, record["data"]["model"], "var")
    ours = mean_pinball(outcome, forecast, record["data"]["level"])
    assert ours == exactly(record["value"])


@pytest.mark.parametrize("record", records_of("es_backtests.json", "FZLoss"))
def test_fz0_of_gas(shared_data, record):
    columns = columns_of(record, shared_data, record["data"]["model"], "var", "es")
    losses = fz0_loss(*columns, record["data"]["level"])
    assert_mean_sum_and_first(losses, record["value"])


def loss_of(record, shared, model, score):
    level = record["data"]["level"]
    if score == "fz":
        return fz0_loss(*columns_of(record, shared, model, "var", "es"), level)
    return pinball_loss(*columns_of(record, shared, model, "var"), level)


def comparison_of(record, shared, score, lag):
    first, second = re.search(r"/(\w+)_vs_(\w+)/", record["id"]).groups()
    losses = [loss_of(record, shared, model, score) for model in (first, second)]
    return diebold_mariano(*losses, lag=lag)


@pytest.mark.parametrize("record", records_of("comparison_py.json", "OLS HAC"))
def test_diebold_mariano_of_statsmodels(shared_data, record):
    lag = int(re.search(r"maxlags=(\d+)", record["command"])[1])
    ours = comparison_of(record, shared_data, "pinball", lag)
    value = record["value"]
    # The records use 100 times the pinball loss.
    assert 100.0 * ours.mean_difference == exactly(value["mean"])
    assert 100.0 * ours.standard_error == exactly(value["se"])
    assert ours.statistic == exactly(value["t"])
    assert ours.p_value == exactly(value["p"])


@pytest.mark.parametrize("record", records_of("scores_r.json", "NeweyWest"))
def test_diebold_mariano_of_sandwich(shared_data, record):
    score = "fz" if "_fz_" in record["id"] else "pinball"
    ours = comparison_of(record, shared_data, score, int(record["args"]["lag"]))
    value = record["value"]
    assert ours.mean_difference == exactly(value["mean_diff"])
    assert ours.standard_error == exactly(value["se"])
    assert ours.statistic == exactly(value["t"])
    assert ours.p_value == exactly(value["p_normal"])
