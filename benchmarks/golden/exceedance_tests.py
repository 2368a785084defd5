"""Tests of quantile forecasts beside rugarch, GAS, vartests, scipy and MATLAB's documentation."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from benchmarks.golden.records import Record, Row, columns_of, records, rows_of, table_of
from scipy import special

from margincast.backtest.var_tests.berkowitz import berkowitz, berkowitz_tail
from margincast.backtest.var_tests.duration import fit_weibull, weibull_duration
from margincast.backtest.var_tests.dynamic_quantile import dynamic_quantile
from margincast.backtest.var_tests.independence import (
    christoffersen_conditional_coverage,
    transitions,
)
from margincast.backtest.var_tests.loss_counts import pearson_q
from margincast.backtest.var_tests.proportion import (
    exact_binomial,
    exceedance_probability_interval,
    kupiec,
    mid_p_binomial,
    normal_binomial,
)
from margincast.backtest.var_tests.time_between import tbf, tbfi, tuff
from margincast.backtest.var_tests.traffic_light import traffic_light
from margincast.core.types import BoolArray, FloatArray
from margincast.scoring.coverage import exceedance_ratio, mean_shortfall


def rows(golden: Path) -> Iterator[Row]:
    """Yield every number of the tests of quantile forecasts."""
    yield from _counts(golden)
    yield from _coverage(golden)
    yield from _binomial(golden)
    yield from _durations(golden)
    yield from _times_between(golden)
    yield from _forecast_tests(golden)
    yield from _traffic_light(golden)


def _hits(golden: Path, record: Record) -> tuple[BoolArray, float]:
    outcome, forecast = columns_of(golden, record, "var")
    return outcome > forecast, record["data"]["level"]


def _counts(golden: Path) -> Iterator[Row]:
    for record in records(golden, "var_backtests.json", "base R counts"):
        value, (hits, _) = record["value"], _hits(golden, record)
        pairs = transitions(hits)
        yield from rows_of(
            "transitions, base R",
            record,
            {
                "hits": (int(hits.sum()), value["hits"]),
                "n00": (pairs.quiet_quiet, value["n00"]),
                "n01": (pairs.quiet_hit, value["n01"]),
                "n10": (pairs.hit_quiet, value["n10"]),
                "n11": (pairs.hit_hit, value["n11"]),
            },
        )


def _coverage(golden: Path) -> Iterator[Row]:
    for record in records(golden, "var_backtests.json", "VaRTest"):
        value, (hits, level) = record["value"], _hits(golden, record)
        for test, name, part in (
            (kupiec, "kupiec", "uc"),
            (christoffersen_conditional_coverage, "christoffersen_conditional_coverage", "cc"),
        ):
            found = test(hits, level)
            yield from rows_of(
                f"{name}, rugarch",
                record,
                {
                    "statistic": (found.statistic, value[f"{part}.LRstat"]),
                    "p": (found.p_value, value[f"{part}.LRp"]),
                },
            )
    for record in records(golden, "coverage_py.json", "kupiec_test"):
        value, (hits, level) = record["value"], _hits(golden, record)
        found = kupiec(hits, level)
        yield from rows_of(
            "kupiec, vartests",
            record,
            {
                "statistic": (found.statistic, value["statistic"]),
                "p": (found.p_value, value["p-value"]),
            },
        )
    for record in records(golden, "var_backtests.json", "BacktestVaR"):
        yield from _gas(golden, record)


def _gas(golden: Path, record: Record) -> Iterator[Row]:
    outcome, forecast = columns_of(golden, record, "var")
    level, value = record["data"]["level"], record["value"]
    hits = outcome > forecast
    for test, name, part in (
        (kupiec, "kupiec", "LRuc"),
        (christoffersen_conditional_coverage, "christoffersen_conditional_coverage", "LRcc"),
    ):
        if part in value:
            found = test(hits, level)
            yield from rows_of(
                f"{name}, GAS",
                record,
                {
                    "statistic": (found.statistic, value[part]["Test"]),
                    "p": (found.p_value, value[part]["Pvalue"]),
                },
            )
    if "AE" in value:
        yield from rows_of(
            "exceedance_ratio and mean_shortfall, GAS",
            record,
            {
                "ratio": (exceedance_ratio(outcome, forecast, level), value["AE"]),
                "mean shortfall": (mean_shortfall(outcome, forecast), value["AD"]["ADmean"]),
            },
        )
    if "DQ" in value:
        lags = int(record["args"]["Lags"].removesuffix("L"))
        found = dynamic_quantile(outcome, forecast, level, lags=lags, regressors="squared outcome")
        yield from rows_of(
            "dynamic_quantile, GAS",
            record,
            {
                "statistic": (found.statistic, value["DQ"]["stat"]),
                "p": (found.p_value, value["DQ"]["pvalue"]),
            },
        )


def _binomial(golden: Path) -> Iterator[Row]:
    file = "coverage_py.json"
    for record in records(golden, file, "binomial_test", "scipy.stats.binomtest"):
        hits, level = _hits(golden, record)
        own = record["function"] == "binomial_test"
        reference = record["value"]["p-value"] if own else record["value"]
        alternative = record["value"]["alternative"] if own else record["id"].rsplit("_", 1)[1]
        found = exact_binomial(hits, level, alternative=alternative)
        package = "vartests" if own else "scipy"
        yield from rows_of(f"exact_binomial, {package}", record, {"p": (found.p_value, reference)})
    for record in records(golden, file, "mid_p_test"):
        found = mid_p_binomial(*_hits(golden, record))
        yield from rows_of(
            "mid_p_binomial, vartests", record, {"p": (found.p_value, record["value"]["p-value"])}
        )
    for record in records(golden, file, "closed form"):
        found, value = normal_binomial(*_hits(golden, record)), record["value"]
        yield from rows_of(
            "normal_binomial, closed form",
            record,
            {
                "statistic": (found.statistic, value["z"]),
                "p": (found.p_value, value["p_two_sided"]),
            },
        )
    for record in records(golden, file, "upper_confidence_limit"):
        value = record["value"]
        lower, upper = exceedance_probability_interval(
            value["violations"], value["observations"], value["conf level"]
        )
        yield from rows_of(
            "exceedance_probability_interval, vartests",
            record,
            {
                "lower": (lower, value["two-sided interval"][0]),
                "upper": (upper, value["two-sided interval"][1]),
            },
        )


def _durations(golden: Path) -> Iterator[Row]:
    for package, file, function, names in (
        ("rugarch", "var_backtests.json", "VaRDurTest", ("b", "LR", "LRp")),
        (
            "vartests",
            "coverage_py.json",
            "duration_test",
            ("weibull shape (b)", "statistic", "p-value"),
        ),
    ):
        for record in records(golden, file, function):
            hits, level = _hits(golden, record)
            found, value = weibull_duration(hits, level), record["value"]
            yield from rows_of(
                f"weibull_duration, {package}",
                record,
                {
                    "shape": (fit_weibull(hits[np.newaxis]).shape[0], value[names[0]]),
                    "statistic": (found.statistic, value[names[1]]),
                    "p": (found.p_value, value[names[2]]),
                },
            )


def _times_between(golden: Path) -> Iterator[Row]:
    function = "closed form (MATLAB documentation formulas)"
    for record in records(golden, "coverage_py.json", function):
        hits, level = _hits(golden, record)
        for test, name in ((tuff, "tuff"), (tbfi, "tbfi"), (tbf, "tbf")):
            found = test(hits, level)
            yield from rows_of(
                f"{name}, closed form",
                record,
                {
                    "statistic": (found.statistic, record["value"][name]),
                    "p": (found.p_value, record["value"][f"{name}_p"]),
                },
            )


def _scores(golden: Path, record: Record) -> FloatArray:
    pit = table_of(golden, record)[record["data"]["pit_column"]].to_numpy(np.float64)
    return np.asarray(special.ndtri(pit))


def _forecast_tests(golden: Path) -> Iterator[Row]:
    file = "density_backtests.json"
    for record in records(golden, file, "BerkowitzTest"):
        args, value = record["args"], record["value"]
        if "lags" in args:
            name, found = "berkowitz", berkowitz(_scores(golden, record), lags=int(args["lags"]))
        else:
            level = 1.0 - float(args["alpha"])
            name, found = "berkowitz_tail", berkowitz_tail(-_scores(golden, record), level)
        yield from rows_of(
            f"{name}, rugarch",
            record,
            {
                "statistic": (found.statistic, value["LR"]),
                "p": (found.p_value, value["LRp"]),
            },
        )
    for record in records(golden, "coverage_py.json", "berkowitz_tail_test"):
        level = int(record["id"].split("/")[2]) / 1000
        table, value = table_of(golden, record), record["value"]
        scores = special.ndtri(level) * table["loss"] / table[f"ewma_var_{round(level * 1000)}"]
        found = berkowitz_tail(scores.to_numpy(), level)
        yield from rows_of(
            "berkowitz_tail, vartests",
            record,
            {
                "statistic": (found.statistic, value["statistic"]),
                "p": (found.p_value, value["p-value"]),
            },
        )
    for record in records(golden, file, "PIT_test"):
        pit = table_of(golden, record)[record["data"]["pit_column"]].to_numpy(np.float64)
        found = pearson_q(pit, record["value"]["hist_breaks"][1:-1])
        golden_test = record["value"]["Hist"]
        yield from rows_of(
            "pearson_q, GAS",
            record,
            {
                "statistic": (found.statistic, golden_test["test"]),
                "p": (found.p_value, golden_test["pvalue"]),
            },
        )


def _traffic_light(golden: Path) -> Iterator[Row]:
    for record in records(golden, "traffic_light.json", "scipy.stats.binom.cdf"):
        size, level, value = record["args"]["T"], 1.0 - record["args"]["p"], record["value"]
        for place, count in enumerate(value["k"]):
            light = traffic_light(count, size, level)
            yield from rows_of(
                "traffic_light, scipy",
                record,
                {
                    f"P(X <= {count})": (light.cumulative_probability, value["cumulative"][place]),
                    f"P(X >= {count})": (light.tail_probability, value["prob_k_or_more"][place]),
                },
            )
