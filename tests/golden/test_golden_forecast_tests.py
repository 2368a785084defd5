"""Tests of whole forecasts, score decompositions and comparisons against published implementations.

Dynamic quantile and histogram: R's GAS. Berkowitz: rugarch and vartests. Decomposition and
elementary scores: model-diagnostics. Interval score: scoringrules. Small-sample Diebold-Mariano:
R's forecast. Superior ability and stepwise test: arch. Every record covered is one test.
"""

import functools
import json
import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import special

from margincast.backtest.comparison import harvey_leybourne_newbold
from margincast.backtest.superior_ability import superior_ability
from margincast.backtest.var_tests.berkowitz import berkowitz, berkowitz_tail
from margincast.backtest.var_tests.dynamic_quantile import dynamic_quantile
from margincast.backtest.var_tests.loss_counts import pearson_q
from margincast.scoring.decomposition import decompose_pinball
from margincast.scoring.murphy import elementary_score, murphy_diagram
from margincast.scoring.pinball import pinball_loss
from margincast.scoring.winkler import interval_score

CHECKOUT = Path(__file__).resolve().parents[2]
GOLDEN = Path(os.environ.get("MARGINCAST_SHARED", CHECKOUT.parent / "shared")) / "golden"
DRAWS = 2000


def records_of(file, function, has=""):
    """One parameter a record; a single empty one, which ``shared_data`` skips, without the data."""
    if not (GOLDEN / file).is_file():
        return [pytest.param({}, id="no shared data")]
    records = json.loads((GOLDEN / file).read_text())["records"]
    chosen = [r for r in records if r["function"] == function and has in json.dumps(r)]
    assert chosen, f"{file} has no record of {function}"
    return [pytest.param(r, id=r["id"]) for r in chosen]


@functools.cache
def read_table(path):
    return pd.read_csv(path)


def table_of(record, shared):
    """The record's input, with its selection of rows."""
    table = read_table(shared / "golden" / record["data"]["file"])
    last = re.fullmatch(r"last (\d+)", record["data"].get("rows", "all"))
    return table.iloc[-int(last[1]) :] if last else table


def exactly(value):
    """Closed forms: 1e-9; R's p-values are differences from 1, known to its rounding only."""
    return pytest.approx(value, rel=1e-9, abs=1e-15)


@pytest.mark.parametrize("record", records_of("var_backtests.json", "BacktestVaR", has='"DQ": {'))
def test_dynamic_quantile_of_gas(shared_data, record):
    data, value = record["data"], record["value"]["DQ"]
    table = table_of(record, shared_data)
    series = table["loss"].to_numpy(), table[data["var_column"]].to_numpy(), data["level"]
    lags = int(record["args"]["Lags"].removesuffix("L"))
    found = dynamic_quantile(*series, lags=lags, regressors="squared outcome")
    assert found.statistic == exactly(value["stat"])
    assert found.p_value == exactly(value["pvalue"])
    assert found.degrees_of_freedom == value["df"]


def test_dynamic_quantile_without_the_squared_outcome(shared_data):
    # golden README, "where implementations disagree", 1: the verdict flips
    table = read_table(shared_data / "golden" / "inputs/btc_daily_forecasts.csv")
    series = table["loss"].to_numpy(), table["hs250_var_990"].to_numpy(), 0.99
    found = dynamic_quantile(*series)
    assert (round(found.statistic, 2), round(found.p_value, 3)) == (1.56, 0.956)
    assert found.degrees_of_freedom == 6


def scores_of(record, shared):
    """Normal scores of returns; the lower tail is the loss."""
    return special.ndtri(table_of(record, shared)[record["data"]["pit_column"]].to_numpy())


@pytest.mark.parametrize(
    "record", records_of("density_backtests.json", "BerkowitzTest", has='"lags": ')
)
def test_berkowitz_of_rugarch(shared_data, record):
    found = berkowitz(scores_of(record, shared_data), lags=int(record["args"]["lags"]))
    assert found.statistic == exactly(record["value"]["LR"])
    assert found.p_value == exactly(record["value"]["LRp"])
    assert (found.verdict == "fail") == (record["value"]["Decision"] == "reject NULL")


@pytest.mark.parametrize(
    "record", records_of("density_backtests.json", "BerkowitzTest", has="tail.test")
)
def test_berkowitz_tail_of_rugarch(shared_data, record):
    level = 1.0 - float(record["args"]["alpha"])
    found = berkowitz_tail(-scores_of(record, shared_data), level)
    value = record["value"]
    # its optimiser stops short: ours is the larger likelihood
    assert found.statistic == pytest.approx(value["LR"], rel=1e-6)
    assert found.statistic >= value["LR"] * (1.0 - 1e-9)
    assert found.p_value == pytest.approx(value["LRp"], rel=1e-6, abs=1e-15)


@pytest.mark.parametrize("record", records_of("coverage_py.json", "berkowitz_tail_test"))
def test_berkowitz_tail_of_vartests(shared_data, record):
    # a normal law of mean zero, known from its one forecast
    table = table_of(record, shared_data)
    per_mille = re.search(r"/(\d+)/", record["id"])[1]
    level = int(per_mille) / 1000
    scores = special.ndtri(level) * table["loss"] / table[f"ewma_var_{per_mille}"]
    found = berkowitz_tail(scores.to_numpy(), level)
    value = record["value"]
    assert found.exceedances == value["tail observations"]
    assert found.statistic == exactly(value["statistic"])
    assert found.p_value == pytest.approx(value["p-value"], rel=1e-7, abs=0.0)


@pytest.mark.parametrize("record", records_of("density_backtests.json", "PIT_test"))
def test_histogram_test_of_gas(shared_data, record):
    probabilities = table_of(record, shared_data)[record["data"]["pit_column"]].to_numpy()
    edges = record["value"]["hist_breaks"][1:-1]
    found = pearson_q(probabilities, edges)
    assert found.statistic == exactly(record["value"]["Hist"]["test"])
    assert found.p_value == exactly(record["value"]["Hist"]["pvalue"])
    assert found.exceedances == record["value"]["hist_counts"][-1]


def pairs_of(record, shared):
    data = record["data"]
    table = table_of(record, shared)
    return table[data["y"]].to_numpy(), table[data["q"]].to_numpy(), data["level"]


@pytest.mark.parametrize("record", records_of("scores_py.json", "decompose"))
def test_decomposition_of_model_diagnostics(shared_data, record):
    found = decompose_pinball(*pairs_of(record, shared_data))
    for part, value in record["value"].items():
        assert getattr(found, part) == exactly(value)


@pytest.mark.parametrize("record", records_of("scores_py.json", "ElementaryScore"))
def test_elementary_scores_of_model_diagnostics(shared_data, record):
    series = pairs_of(record, shared_data)
    thresholds, golden = record["value"]["eta"], record["value"]["score"]
    assert murphy_diagram(*series, np.array(thresholds)) == exactly(golden)
    for threshold, value in zip(thresholds, golden, strict=True):
        assert elementary_score(*series, threshold).mean() == exactly(value)


@pytest.mark.parametrize("record", records_of("scores_py.json", "interval_score"))
def test_interval_score_of_scoringrules(shared_data, record):
    table = table_of(record, shared_data)
    width = 1.6448536269514722 * table["ewma_sigma"].to_numpy()
    assert "0.10)" in record["command"]  # the share outside both bounds
    found = interval_score(table["r"].to_numpy(), -width, width, 0.95)
    assert found.mean() == exactly(record["value"])


@functools.cache
def losses_of(path, level):
    table = read_table(path)
    ending = f"_var_{round(level * 1000)}"
    outcome = table["loss"].to_numpy()
    columns = [name for name in table.columns if name.endswith(ending)]
    return pd.DataFrame(
        {c.removesuffix(ending): pinball_loss(outcome, table[c], level) for c in columns}
    )


@pytest.mark.parametrize("record", records_of("scores_r.json", "dm.test"))
def test_small_sample_diebold_mariano_of_forecast(shared_data, record):
    losses = losses_of(shared_data / "golden" / record["data"]["file"], record["data"]["level"])
    first, second = re.search(r"/(\w+)_vs_(\w+)/", record["id"]).groups()
    found = harvey_leybourne_newbold(
        losses[first].to_numpy(),
        losses[second].to_numpy(),
        horizon_decisions=record["value"]["h"],
    )
    assert found.statistic == exactly(record["value"]["statistic"])
    assert found.p_value == exactly(record["value"]["p.value"])


@functools.cache
def ability_of(path, level, benchmark, seed):
    return superior_ability(
        losses_of(path, level), benchmark, block_length=10, replications=DRAWS, seed=seed
    )


def ability_of_record(record, shared):
    data = record["data"]
    command = record["command"]
    assert "block_size=10, reps=2000" in command
    benchmark, seed = re.search(r'L\["(\w+)"\].*seed=(\d+)', command).groups()
    path = shared / "golden" / data["file"]
    assert data["L"].endswith("columns " + ", ".join(losses_of(path, data["level"])))
    return ability_of(path, data["level"], benchmark, int(seed))


@pytest.mark.parametrize("record", records_of("comparison_py.json", "arch.bootstrap.SPA"))
def test_superior_ability_of_arch(shared_data, record):
    # their losses are 100 times ours, which must not matter
    found = ability_of_record(record, shared_data)
    p_values = {"lower": found.lower, "consistent": found.p_value, "upper": found.upper}
    assert p_values == pytest.approx(record["value"], abs=0.03)


@pytest.mark.parametrize("record", records_of("comparison_py.json", "arch.bootstrap.StepM"))
def test_stepwise_test_of_arch(shared_data, record):
    assert "size=0.1," in record["command"]
    found = ability_of_record(record, shared_data)
    assert found.size == 0.1
    assert sorted(found.superior) == sorted(record["value"])
