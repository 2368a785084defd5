"""Scores, comparison and procyclicality beside GAS, rugarch, scoringrules, arch, sandwich, R."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
from benchmarks.golden.records import Record, Row, columns_of, records, rows_of, table_of

from margincast.backtest.comparison import diebold_mariano, harvey_leybourne_newbold
from margincast.backtest.confidence_set import model_confidence_set
from margincast.backtest.procyclicality import measure, rises_from_low
from margincast.backtest.superior_ability import superior_ability
from margincast.core.types import FloatArray
from margincast.scoring.decomposition import decompose_pinball
from margincast.scoring.fissler_ziegel import fz0_loss
from margincast.scoring.murphy import murphy_diagram
from margincast.scoring.pinball import mean_pinball, pinball_loss
from margincast.scoring.winkler import interval_score

DRAWS: Final = 2000
TWO_SIDED_90: Final = 1.6448536269514722


def rows(golden: Path) -> Iterator[Row]:
    """Yield every number of scores, comparisons and procyclicality."""
    yield from _pinball(golden)
    yield from _other_scores(golden)
    yield from _differences(golden)
    yield from _bootstrap(golden)
    yield from _procyclicality(golden)


def _pinball(golden: Path) -> Iterator[Row]:
    for package, file, function, unit in (
        ("GAS", "scores_r.json", "BacktestVaR()$Loss", 1.0),
        ("rugarch (smoothed)", "scores_r.json", "VaRloss", 100.0),
        ("scoringrules", "scores_py.json", "quantile_score", 1.0),
        ("model-diagnostics", "scores_py.json", "PinballLoss", 1.0),
    ):
        for record in records(golden, file, function):
            outcome, forecast = columns_of(golden, record, "var")
            ours = mean_pinball(outcome, forecast, record["data"]["level"])
            value = record["value"]
            reference = value["mean"] if isinstance(value, dict) else value
            yield from rows_of(
                f"mean_pinball, {package}", record, {"mean": (unit * ours, reference)}
            )


def _other_scores(golden: Path) -> Iterator[Row]:
    file = "scores_py.json"
    for record in records(golden, file, "decompose"):
        outcome, forecast = columns_of(golden, record, "var")
        found = decompose_pinball(outcome, forecast, record["data"]["level"])
        yield from rows_of(
            "decompose_pinball, model-diagnostics",
            record,
            {part: (getattr(found, part), value) for part, value in record["value"].items()},
        )
    for record in records(golden, file, "ElementaryScore"):
        at = np.array(record["value"]["eta"])
        outcome, forecast = columns_of(golden, record, "var")
        found_scores = murphy_diagram(outcome, forecast, record["data"]["level"], at)
        yield from rows_of(
            "murphy_diagram, model-diagnostics",
            record,
            {
                f"at {threshold:.4g}": (ours, reference)
                for threshold, ours, reference in zip(
                    at, found_scores, record["value"]["score"], strict=True
                )
            },
        )
    for record in records(golden, file, "interval_score"):
        table = table_of(golden, record)
        width = TWO_SIDED_90 * table["ewma_sigma"].to_numpy(np.float64)
        ours = interval_score(table["r"].to_numpy(np.float64), -width, width, 0.95).mean()
        yield from rows_of(
            "interval_score, scoringrules", record, {"mean": (ours, record["value"])}
        )


def _loss(golden: Path, record: Record, model: str, score: str) -> FloatArray:
    level = record["data"]["level"]
    if score == "fz":
        outcome, forecast, shortfall = columns_of(golden, record, "var", "es", model=model)
        return fz0_loss(outcome, forecast, shortfall, level)
    outcome, forecast = columns_of(golden, record, "var", model=model)
    return pinball_loss(outcome, forecast, level)


def _models(record: Record) -> tuple[str, str]:
    found = re.search(r"/(\w+)_vs_(\w+)/", record["id"])
    assert found is not None
    return found[1], found[2]


def _differences(golden: Path) -> Iterator[Row]:
    for package, file, function, unit in (
        ("statsmodels", "comparison_py.json", "OLS HAC", 100.0),
        ("sandwich", "scores_r.json", "NeweyWest", 1.0),
    ):
        for record in records(golden, file, function):
            value = record["value"]
            score = "fz" if "_fz_" in record["id"] else "pinball"
            lag = int(
                record["args"].get("lag") or re.findall(r"maxlags=(\d+)", _command(record))[0]
            )
            one, other = (_loss(golden, record, model, score) for model in _models(record))
            found = diebold_mariano(one, other, lag=lag)
            yield from rows_of(
                f"diebold_mariano, {package}",
                record,
                {
                    "error": (unit * found.standard_error, value["se"]),
                    "statistic": (found.statistic, value["t"]),
                    "p": (found.p_value, value.get("p", value.get("p_normal"))),
                },
            )
    for record in records(golden, "scores_r.json", "dm.test"):
        value = record["value"]
        one, other = (_loss(golden, record, model, "pinball") for model in _models(record))
        small = harvey_leybourne_newbold(one, other, horizon_decisions=value["h"])
        yield from rows_of(
            "harvey_leybourne_newbold, forecast",
            record,
            {
                "statistic": (small.statistic, value["statistic"]),
                "p": (small.p_value, value["p.value"]),
            },
        )


def _command(record: Record) -> str:
    return str(record["command"])


def _losses(golden: Path, record: Record) -> pd.DataFrame:
    """Return pinball losses of all models of the record's input, a column each."""
    ending = f"_var_{round(record['data']['level'] * 1000)}"
    models = [
        name.removesuffix(ending)
        for name in table_of(golden, record).columns
        if name.endswith(ending)
    ]
    return pd.DataFrame({model: _loss(golden, record, model, "pinball") for model in models})


def _bootstrap(golden: Path) -> Iterator[Row]:
    file = "comparison_py.json"
    for record in records(golden, file, "arch.bootstrap.MCS"):
        parts = re.search(r'block_size=(\d+), method="(\w+)".*seed=(\d+)', _command(record))
        assert parts is not None
        found = model_confidence_set(
            _losses(golden, record),
            block_length=int(parts[1]),
            statistic="max" if parts[2] == "max" else "R",
            replications=DRAWS,
            seed=int(parts[3]),
        )
        yield from rows_of(
            "model_confidence_set, arch",
            record,
            {
                f"p of {model}": (found.p_values[model], reference)
                for model, reference in record["value"]["pvalues"].items()
            },
            simulated=True,
        )
    for record in records(golden, file, "arch.bootstrap.SPA"):
        parts = re.search(r'L\["(\w+)"\].*seed=(\d+)', _command(record))
        assert parts is not None
        ability = superior_ability(
            _losses(golden, record),
            parts[1],
            block_length=10,
            replications=DRAWS,
            seed=int(parts[2]),
        )
        value = record["value"]
        yield from rows_of(
            "superior_ability, arch",
            record,
            {
                "p lower": (ability.lower, value["lower"]),
                "p consistent": (ability.p_value, value["consistent"]),
                "p upper": (ability.upper, value["upper"]),
            },
            simulated=True,
        )


def _procyclicality(golden: Path) -> Iterator[Row]:
    file = "procyclicality.json"
    table = pd.read_csv(golden / "outputs" / "btc_ewma_margin.csv")
    margin = table["margin"].to_numpy(np.float64)
    found = measure(margin)
    for record in records(golden, file, "max(M)/min(M)"):
        yield from rows_of(
            "procyclicality, base R",
            record,
            {"peak to trough": (found.peak_to_trough, record["value"]["ratio"])},
        )
    for record in records(golden, file, "max(M[t+n]/M[t]-1)"):
        days = int(record["id"].rsplit("/", 1)[1])
        yield from rows_of(
            "procyclicality, base R",
            record,
            {"largest rise": (found.largest_rises[days], record["value"]["max_increase"])},
        )
    for record in records(golden, file, "max over t of M[t]/min(M[t-n..t-1])-1"):
        days = int(record["id"].rsplit("/", 1)[1])
        yield from rows_of(
            "procyclicality, base R",
            record,
            {
                "largest rise from low": (
                    float(np.nanmax(rises_from_low(margin, days))),
                    record["value"]["max_increase"],
                )
            },
        )
    for record in records(golden, file, "sd of daily log changes"):
        yield from rows_of(
            "procyclicality, base R",
            record,
            {"volatility": (found.volatility, record["value"]["sd_log_change"])},
        )
