"""Duration, time-between and binomial tests against rugarch, vartests, MATLAB and closed forms.

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

from margincast.backtest.var_tests.duration import fit_weibull, weibull_duration
from margincast.backtest.var_tests.proportion import (
    exceedance_probability_interval,
    kupiec,
    mid_p_binomial,
    normal_binomial,
)
from margincast.backtest.var_tests.sequences import spells
from margincast.backtest.var_tests.time_between import tbf, tbfi, tuff
from margincast.backtest.verdicts import Criterion, chi_squared_p
from margincast.scoring.coverage import exceedances

CHECKOUT = Path(__file__).resolve().parents[2]
GOLDEN = Path(os.environ.get("MARGINCAST_SHARED", CHECKOUT.parent / "shared")) / "golden"


def records_of(file, key, *wanted, containing=""):
    """One parameter a record; a single empty one, which ``shared_data`` skips, without the data."""
    if not (GOLDEN / file).is_file():
        return [pytest.param({}, id="no shared data")]
    records = json.loads((GOLDEN / file).read_text())["records"]
    chosen = [r for r in records if r[key] in wanted and containing in r["id"]]
    assert chosen, f"{file} has no record with {key} in {wanted}"
    return [pytest.param(r, id=r["id"]) for r in chosen]


@functools.cache
def read_table(path):
    return pd.read_csv(path)


def hits_of(record, shared):
    data = record["data"]
    table = read_table(shared / "golden" / data["file"])
    rows = data["rows"]
    if rows != "all":
        last = re.fullmatch(r"last (\d+)", rows)
        first = re.match(r"from row (\d+)", rows)
        table = table.iloc[-int(last[1]) :] if last else table.iloc[int(first[1]) - 1 :]
    forecast = table[f"{data['model']}_var_{round(data['level'] * 1000)}"].to_numpy()
    return exceedances(table["loss"].to_numpy(), forecast), data["level"]


def exactly(value):
    """Closed forms: 1e-9, and 1e-7 for p-values below 1e-6."""
    return pytest.approx(value, rel=1e-9 if abs(value) >= 1e-6 else 1e-7, abs=1e-300)


def as_printed(value):
    """MATLAB prints five significant digits."""
    return pytest.approx(value, rel=1e-4, abs=0.0)


def as_estimated(value):
    """A ratio of two maximised likelihoods: 1e-6; near zero, of the likelihoods themselves."""
    return pytest.approx(value, rel=1e-6, abs=2e-8)


@pytest.mark.parametrize("record", records_of("var_backtests.json", "function", "VaRDurTest"))
def test_weibull_duration_of_rugarch(shared_data, record):
    hits, level = hits_of(record, shared_data)
    value = record["value"]
    result = weibull_duration(hits, level)
    if record.get("degenerate"):  # rugarch shows its starting value, b = 2 and p = 1
        assert value["b"] == 2
        assert np.isnan([result.statistic, result.p_value]).all()
        assert result.reason
        return
    fit = fit_weibull(hits[np.newaxis, :])
    assert fit.shape[0] == pytest.approx(value["b"], rel=1e-5)
    assert fit.log_likelihood[0] == pytest.approx(value["uLL"], rel=1e-9)
    assert fit.memoryless_log_likelihood[0] == pytest.approx(value["rLL"], rel=1e-9)
    assert result.statistic == as_estimated(value["LR"])
    assert result.p_value == as_estimated(value["LRp"])
    assert (result.verdict == "fail") == (value["Decision"] == "Reject H0")


@pytest.mark.parametrize("record", records_of("coverage_py.json", "function", "duration_test"))
def test_weibull_duration_of_vartests(shared_data, record):
    hits, level = hits_of(record, shared_data)
    value = record["value"]
    result = weibull_duration(hits, level)
    if value["statistic"] is None:
        assert np.isnan(result.statistic)
        return
    fit = fit_weibull(hits[np.newaxis, :])
    assert fit.shape[0] == pytest.approx(value["weibull shape (b)"], rel=1e-5)
    assert fit.log_likelihood[0] == pytest.approx(value["unrestricted log-likelihood"], rel=1e-6)
    memoryless = fit.memoryless_log_likelihood[0]
    assert memoryless == pytest.approx(value["restricted log-likelihood"], rel=1e-9)
    assert result.statistic == as_estimated(value["statistic"])
    assert result.p_value == as_estimated(value["p-value"])


@pytest.mark.parametrize(
    "record",
    records_of("coverage_py.json", "function", "closed form", containing="binomial_normal"),
)
def test_normal_binomial_of_closed_form(shared_data, record):
    hits, level = hits_of(record, shared_data)
    result = normal_binomial(hits, level)
    assert result.statistic == exactly(record["value"]["z"])
    assert result.p_value == exactly(record["value"]["p_two_sided"])


@pytest.mark.parametrize("record", records_of("coverage_py.json", "function", "mid_p_test"))
def test_mid_p_binomial_of_vartests(shared_data, record):
    hits, level = hits_of(record, shared_data)
    assert record["value"]["alternative"] == "greater"
    result = mid_p_binomial(hits, level)
    assert result.statistic == record["value"]["statistic"]
    assert result.p_value == exactly(record["value"]["p-value"])
    assert (result.verdict == "fail") == (record["value"]["decision"] == "Reject H0")


@pytest.mark.parametrize(
    "record", records_of("coverage_py.json", "function", "upper_confidence_limit")
)
def test_clopper_pearson_of_vartests(shared_data, record):
    value = record["value"]
    counts = (value["violations"], value["observations"])
    confidence = value["conf level"]
    lower, upper = exceedance_probability_interval(*counts, confidence)
    assert [lower, upper] == [exactly(bound) for bound in value["two-sided interval"]]
    # one-sided limits are those of the two-sided interval with twice the error
    lower, upper = exceedance_probability_interval(*counts, 2.0 * confidence - 1.0)
    assert lower == exactly(value["lower limit"])
    assert upper == exactly(value["upper limit"])


@pytest.mark.parametrize(
    "record",
    records_of("coverage_py.json", "function", "closed form (MATLAB documentation formulas)"),
)
def test_times_between_failures_of_closed_form(shared_data, record):
    hits, level = hits_of(record, shared_data)
    args, value = record["args"], record["value"]
    lengths = spells(hits[np.newaxis, :]).lengths
    assert lengths.tolist() == args["spells"]
    quartiles = np.percentile(lengths, [25, 50, 75], method="hazen")
    assert quartiles.tolist() == [value["tbf_q1"], value["tbf_q2"], value["tbf_q3"]]
    assert (lengths.min(), lengths.max()) == (value["tbf_min"], value["tbf_max"])
    for test, name in ((tuff, "tuff"), (tbfi, "tbfi"), (tbf, "tbf")):
        result = test(hits, level)
        assert result.statistic == exactly(value[name])
        assert result.p_value == exactly(value[f"{name}_p"])
    count = lengths.size
    assert tbfi(hits, level).degrees_of_freedom == count
    assert tbf(hits, level).degrees_of_freedom == count + 1


def failures(count, observations, first=1):
    """Failures in a row from the ``first`` observation, counted from 1, as MATLAB does."""
    position = np.arange(1, observations + 1)
    return (position >= first) & (position < first + count)


@pytest.mark.parametrize("record", records_of("matlab_docs.json", "test", "bin"))
def test_normal_binomial_of_matlab(shared_data, record):
    value = record["value"]
    hits = failures(value["Failures"], value["Observations"])
    result = normal_binomial(hits, record["var_level"])
    assert result.statistic == as_printed(value["ZScoreBin"])
    tails = 1 if record["id"].startswith("bin_old_release") else 2
    assert result.p_value * tails / 2 == as_printed(value["PValueBin"])
    assert (result.verdict == "fail") == (value["Bin"] == "reject")


@pytest.mark.parametrize("record", records_of("matlab_docs.json", "test", "tuff"))
def test_time_until_first_failure_of_matlab(shared_data, record):
    value = record["value"]
    hits = failures(1, value["Observations"], value["FirstFailure"])
    result = tuff(hits, record["var_level"])
    assert result.statistic == as_printed(value["LRatioTUFF"])
    assert result.p_value == as_printed(value["PValueTUFF"])
    assert (result.verdict == "fail") == (value["TUFF"] == "reject")


@pytest.mark.parametrize("record", records_of("matlab_docs.json", "test", "pof, bin, tl, tuff"))
def test_values_derived_from_matlab_counts(shared_data, record):
    args, value = record["args"], record["value"]
    hits = failures(args["x"], args["N"], args["first"])
    normal, first = (test(hits, record["var_level"]) for test in (normal_binomial, tuff))
    assert normal.statistic == exactly(value["ZScoreBin"])
    assert normal.p_value == exactly(value["PValueBin"])
    assert first.statistic == exactly(value["LRatioTUFF"])
    assert first.p_value == exactly(value["PValueTUFF"])


@pytest.mark.parametrize("record", records_of("matlab_docs.json", "test", "tbfi", "tbf"))
def test_times_between_failures_of_matlab(shared_data, record):
    # The series is not published: what is printed of it must obey our law of the statistic.
    value, count = record["value"], record["value"]["Failures"]
    hits = failures(count, value["Observations"])
    between = tbfi(hits, record["var_level"]).degrees_of_freedom
    # ratio and p-value are rounded both; d log p / d ratio is below 1/2
    assert chi_squared_p(value["LRatioTBFI"], between) == as_printed(value["PValueTBFI"])
    if record["test"] == "tbf":
        both = tbf(hits, record["var_level"])
        assert chi_squared_p(value["LRatioTBF"], both.degrees_of_freedom) == as_printed(
            value["PValueTBF"]
        )
        proportion = kupiec(hits, record["var_level"]).statistic
        assert value["LRatioTBFI"] + proportion == as_printed(value["LRatioTBF"])


@pytest.mark.parametrize("record", records_of("matlab_docs.json", "test", "runtests"))
def test_decisions_of_matlab(shared_data, record):
    value = record["value"]
    strict = Criterion(significance=1.0 - record["args"]["TestLevel"])
    hits = failures(57, 1043, first=58)  # of the same model's summary: counts and first failure
    for test, name in ((normal_binomial, "Bin"), (kupiec, "POF"), (tuff, "TUFF")):
        assert (test(hits, record["var_level"], strict).verdict == "fail") == (
            value[name] == "reject"
        )
