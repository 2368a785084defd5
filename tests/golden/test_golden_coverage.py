"""Coverage tests against published implementations: rugarch, GAS, vartests, scipy, MATLAB.

Values and tolerances are those of the shared golden records; every record covered is one test.
"""

import functools
import json
import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from margincast.backtest.var_tests.independence import (
    Transitions,
    christoffersen_conditional_coverage,
    christoffersen_independence,
    independence_statistic,
    transitions,
)
from margincast.backtest.var_tests.proportion import exact_binomial, kupiec, kupiec_statistic
from margincast.backtest.var_tests.traffic_light import (
    basel_multiplier,
    basel_plus_factor,
    traffic_light,
)
from margincast.scoring.coverage import coverage, exceedance_ratio, exceedances, mean_shortfall
from margincast.scoring.pinball import mean_pinball

CHECKOUT = Path(__file__).resolve().parents[2]
GOLDEN = Path(os.environ.get("MARGINCAST_SHARED", CHECKOUT.parent / "shared")) / "golden"


def records_of(file, key, *wanted):
    """One parameter a record; a single empty one, which ``shared_data`` skips, without the data."""
    if not (GOLDEN / file).is_file():
        return [pytest.param({}, id="no shared data")]
    records = json.loads((GOLDEN / file).read_text())["records"]
    chosen = [r for r in records if r[key] in wanted and not r.get("degenerate")]
    assert chosen, f"{file} has no record with {key} in {wanted}"
    return [pytest.param(r, id=r["id"]) for r in chosen]


@functools.cache
def read_table(path):
    return pd.read_csv(path)


def pairs_of(record, shared):
    """Outcome and forecast (positive losses) of a record, with its selection of rows."""
    data = record["data"]
    table = read_table(shared / "golden" / data["file"])
    rows = data["rows"]
    if rows != "all":
        last = re.fullmatch(r"last (\d+)", rows)
        first = re.match(r"from row (\d+)", rows)
        table = table.iloc[-int(last[1]) :] if last else table.iloc[int(first[1]) - 1 :]
    column = f"{data['model']}_var_{round(data['level'] * 1000)}"
    return table["loss"].to_numpy(), table[column].to_numpy(), data["level"]


def hits_of(record, shared):
    outcome, forecast, level = pairs_of(record, shared)
    return exceedances(outcome, forecast), level


def exactly(value):
    """Closed forms: 1e-9, and 1e-7 for p-values below 1e-6."""
    return pytest.approx(value, rel=1e-9 if abs(value) >= 1e-6 else 1e-7, abs=0.0)


def as_printed(value):
    """MATLAB prints five significant digits."""
    return pytest.approx(value, rel=1e-4, abs=0.0)


@pytest.mark.parametrize("record", records_of("var_backtests.json", "function", "base R counts"))
def test_counts_of_base_r(shared_data, record):
    hits, _ = hits_of(record, shared_data)
    value = record["value"]
    assert (hits.size, int(hits.sum())) == (value["T"], value["hits"])
    assert (np.flatnonzero(hits) + 1).tolist() == value["hit_index_1based"]
    expected = Transitions(
        quiet_quiet=value["n00"],
        quiet_hit=value["n01"],
        hit_quiet=value["n10"],
        hit_hit=value["n11"],
    )
    assert transitions(hits) == expected


@pytest.mark.parametrize("record", records_of("var_backtests.json", "function", "VaRTest"))
def test_var_test_of_rugarch(shared_data, record):
    hits, level = hits_of(record, shared_data)
    value = record["value"]
    proportion = kupiec(hits, level)
    both = christoffersen_conditional_coverage(hits, level)
    assert proportion.exceedances == value["actual.exceed"]
    assert proportion.statistic == exactly(value["uc.LRstat"])
    assert proportion.p_value == exactly(value["uc.LRp"])
    assert both.statistic == exactly(value["cc.LRstat"])
    assert both.p_value == exactly(value["cc.LRp"])
    for result, decision in ((proportion, "uc.Decision"), (both, "cc.Decision")):
        assert (result.verdict == "fail") == (value[decision] == "Reject H0")
    # The independence part is not printed alone; absolute, because it is a difference.
    independence = christoffersen_independence(hits, level)
    difference = value["cc.LRstat"] - value["uc.LRstat"]
    assert independence.statistic == pytest.approx(difference, rel=1e-9, abs=1e-10)


@pytest.mark.parametrize(
    "record",
    [p for p in records_of("var_backtests.json", "function", "BacktestVaR") if "Lags1" not in p.id],
)
def test_backtest_var_of_gas(shared_data, record):
    outcome, forecast, level = pairs_of(record, shared_data)
    hits = exceedances(outcome, forecast)
    value = record["value"]
    for result, golden in (
        (kupiec(hits, level), value["LRuc"]),
        (christoffersen_conditional_coverage(hits, level), value["LRcc"]),
    ):
        assert result.statistic == exactly(golden["Test"])
        assert result.p_value == exactly(golden["Pvalue"])
    if record["id"].startswith("daily_from_first_hit"):
        return  # these records hold the likelihood ratios only
    assert exceedance_ratio(outcome, forecast, level) == exactly(value["AE"])
    assert mean_pinball(outcome, forecast, level) == exactly(value["Loss"]["Loss"])
    if value["AD"]["ADmean"] is None:
        assert np.isnan(mean_shortfall(outcome, forecast))
    else:
        assert mean_shortfall(outcome, forecast) == exactly(value["AD"]["ADmean"])


@pytest.mark.parametrize("record", records_of("coverage_py.json", "function", "kupiec_test"))
def test_kupiec_of_vartests(shared_data, record):
    hits, level = hits_of(record, shared_data)
    result = kupiec(hits, level)
    assert result.exceedances == record["value"]["violations"]
    assert result.statistic == exactly(record["value"]["statistic"])
    assert result.p_value == exactly(record["value"]["p-value"])
    assert (result.verdict == "fail") == (record["value"]["decision"] == "Reject H0")


@pytest.mark.parametrize("record", records_of("coverage_py.json", "function", "binomial_test"))
def test_exact_binomial_of_vartests(shared_data, record):
    hits, level = hits_of(record, shared_data)
    result = exact_binomial(hits, level, alternative=record["value"]["alternative"])
    assert result.statistic == record["value"]["statistic"]
    assert result.p_value == exactly(record["value"]["p-value"])


@pytest.mark.parametrize(
    "record", records_of("coverage_py.json", "function", "scipy.stats.binomtest")
)
def test_exact_binomial_of_scipy(shared_data, record):
    hits, level = hits_of(record, shared_data)
    alternative = record["id"].rsplit("_", maxsplit=1)[1]
    result = exact_binomial(hits, level, alternative=alternative)
    assert result.p_value == exactly(record["value"])


@pytest.mark.parametrize(
    "record", records_of("traffic_light.json", "function", "scipy.stats.binom.cdf")
)
def test_traffic_light_tables(shared_data, record):
    sample_size, value = record["args"]["T"], record["value"]
    for position, count in enumerate(value["k"]):
        light = traffic_light(count, sample_size, 1.0 - record["args"]["p"])
        assert light.cumulative_probability == exactly(value["cumulative"][position])
        assert light.tail_probability == exactly(value["prob_k_or_more"][position])
        assert (light.yellow_from, light.red_from) == (value["first_yellow"], value["first_red"])


@pytest.mark.parametrize("record", records_of("traffic_light.json", "function", "published table"))
def test_traffic_light_of_basel(shared_data, record):
    value = record["value"]
    for count in range(21):
        zone = traffic_light(count, 250, 0.99).zone
        green = value["green"][0] <= count <= value["green"][1]
        yellow = value["yellow"][0] <= count <= value["yellow"][1]
        assert zone == ("green" if green else "yellow" if yellow else "red")
        assert (zone == "red") == (count >= value["red_from"])
        plus = value["plus_factor_1996"].get(str(min(count, 10)), 0.0)
        assert basel_plus_factor(count) == plus
        key = "0-4" if green else str(count) if yellow else "10+"
        assert basel_multiplier(count) == value["multiplier_mar99"][key]


@pytest.mark.parametrize("record", records_of("matlab_docs.json", "test", "pof"))
def test_proportion_of_failures_of_matlab(shared_data, record):
    value = record["value"]
    hits = np.arange(value["Observations"]) < value["Failures"]
    result = kupiec(hits, record["var_level"])
    assert result.statistic == as_printed(value["LRatioPOF"])
    assert result.p_value == as_printed(value["PValuePOF"])


@pytest.mark.parametrize(
    "record",
    records_of("matlab_docs.json", "test", "risk.validation.proportionOfFailuresTest"),
)
def test_proportion_of_failures_of_matlab_validation(shared_data, record):
    args, value = record["args"], record["value"]
    hits = np.arange(args["NumTrials"]) < args["NumEvents"]
    result = kupiec(hits, 1.0 - args["Probability"])
    assert result.statistic == as_printed(value["LogRatio"])
    assert result.p_value == as_printed(value["PValue"])
    assert (result.verdict == "fail") == bool(value["RejectPOFTest"])


@pytest.mark.parametrize("record", records_of("matlab_docs.json", "test", "cci", "cc"))
def test_independence_and_conditional_coverage_of_matlab(shared_data, record):
    value = record["value"]
    # The order that MATLAB's counts imply: runs of failures, the first ones two long.
    runs = [[True] * (2 if run < value["N11"] else 1) + [False] for run in range(value["N01"])]
    tail = [True for run in runs for hit in run[:-1] if hit]
    assert len(tail) == value["Failures"]
    quiet = [False] * (value["Observations"] - sum(len(run) for run in runs))
    hits = np.array(quiet + [hit for run in runs for hit in run])
    counts = transitions(hits)
    assert counts == Transitions(value["N00"], value["N01"], value["N10"], value["N11"])
    independence = christoffersen_independence(hits, record["var_level"])
    assert independence.statistic == independence_statistic(counts)
    assert independence.statistic == as_printed(value["LRatioCCI"])
    assert independence.p_value == as_printed(value["PValueCCI"])
    if record["test"] == "cc":
        both = christoffersen_conditional_coverage(hits, record["var_level"])
        assert both.statistic == as_printed(value["LRatioCC"])
        assert both.p_value == as_printed(value["PValueCC"])
        assert kupiec(hits, record["var_level"]).statistic == as_printed(value["LRatioPOF"])


@pytest.mark.parametrize("record", records_of("matlab_docs.json", "test", "tl"))
def test_traffic_light_of_matlab(shared_data, record):
    value = record["value"]
    light = traffic_light(value["Failures"], value["Observations"], record["var_level"])
    assert light.zone == value["TL"]
    assert light.cumulative_probability == as_printed(value["Probability"])
    assert light.tail_probability == as_printed(value["TypeI"])


@pytest.mark.parametrize("record", records_of("matlab_docs.json", "test", "pof, bin, tl, tuff"))
def test_values_derived_from_matlab_counts(shared_data, record):
    args, value = record["args"], record["value"]
    level = record["var_level"]
    result = kupiec(np.arange(args["N"]) < args["x"], level)
    assert result.statistic == exactly(value["LRatioPOF"])
    assert result.p_value == exactly(value["PValuePOF"])
    assert kupiec_statistic(args["x"], args["N"], level) == result.statistic
    light = traffic_light(args["x"], args["N"], level)
    assert light.zone == value["TL"]
    assert light.cumulative_probability == exactly(value["Probability"])
    assert light.tail_probability == exactly(value["TypeI"])


@pytest.mark.parametrize("record", records_of("matlab_docs.json", "test", "summary"))
def test_coverage_and_ratio_of_matlab(shared_data, record):
    value = record["value"]
    level = record.get("var_level") or value["VaRLevel"]
    outcome = np.where(np.arange(value["Observations"]) < value["Failures"], 0.02, 0.005)
    forecast = np.full(value["Observations"], 0.01)
    assert coverage(outcome, forecast) == as_printed(value["ObservedLevel"])
    assert exceedance_ratio(outcome, forecast, level) == as_printed(value["Ratio"])


@pytest.mark.parametrize(
    "record", records_of("matlab_docs.json", "test", "conditional (simulation)")
)
def test_proportion_of_failures_in_conditional_test_of_matlab(shared_data, record):
    # This record prints the p-value, the failures stand in the summary of the same model.
    records = json.loads((GOLDEN / "matlab_docs.json").read_text())["records"]
    summary_id = record["id"].replace("/conditional/", "/summary/")
    failures = next(r["value"]["Failures"] for r in records if r["id"] == summary_id)
    value = record["value"]
    result = kupiec(np.arange(value["Observations"]) < failures, value["VaRLevel"])
    assert result.p_value == as_printed(value["VaRTestPValue"])
    assert (result.verdict == "fail") == (value["VaRTestResult"] == "reject")
