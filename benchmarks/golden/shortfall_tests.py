"""Tests of expected shortfall beside rugarch, esback, GAS, tstests and MATLAB's documentation."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
from benchmarks.golden.records import Record, Row, columns_of, records, rows_of, table_of

from margincast.backtest.es_tests.acerbi_szekely import (
    acerbi_szekely_conditional,
    acerbi_szekely_unconditional,
    minimally_biased_absolute,
    minimally_biased_relative,
)
from margincast.backtest.es_tests.bayer_dimitriadis import Version, bayer_dimitriadis
from margincast.backtest.es_tests.costanzino_curran import severity_moments
from margincast.backtest.es_tests.du_escanciano import (
    du_escanciano_conditional,
    du_escanciano_unconditional,
)
from margincast.backtest.es_tests.mcneil_frey import mcneil_frey, mcneil_frey_bootstrap
from margincast.backtest.es_tests.nolde_ziegel import nolde_ziegel
from margincast.backtest.es_tests.severity import severity_of_pit
from margincast.core.types import FloatArray
from margincast.scoring.fissler_ziegel import fz0_loss

FILE: Final = "es_backtests.json"
VERSIONS: Final[dict[str, Version]] = {"1L": "strict", "2L": "auxiliary", "3L": "intercept"}
RESAMPLES: Final = 20_000


def rows(golden: Path) -> Iterator[Row]:
    """Yield every number of the tests of expected shortfall."""
    yield from _written_out(golden)
    yield from _residuals(golden)
    yield from _calibration(golden)
    yield from _regression(golden)
    yield from _violations(golden)


def _sample(golden: Path, record: Record) -> tuple[FloatArray, FloatArray, FloatArray, float]:
    outcome, forecast, shortfall = columns_of(golden, record, "var", "es")
    return outcome, forecast, shortfall, record["data"]["level"]


def _volatility(golden: Path, record: Record) -> FloatArray:
    column = f"{record['data']['model']}_sigma"
    return table_of(golden, record)[column].to_numpy(np.float64)


def _written_out(golden: Path) -> Iterator[Row]:
    for record in records(golden, FILE, "written out (see conventions)"):
        sample, value = _sample(golden, record), record["value"]
        for test, name in (
            (acerbi_szekely_conditional, "Z1"),
            (acerbi_szekely_unconditional, "Z2"),
            (minimally_biased_absolute, "Zrel_min_bias_abs"),
            (minimally_biased_relative, "Zrel_min_bias_rel"),
        ):
            yield from rows_of(
                f"{test.__name__}, base R",
                record,
                {"statistic": (test(*sample).statistic, value[name])},
            )
    for record in records(golden, FILE, "FZLoss"):
        losses = fz0_loss(*_sample(golden, record))
        yield from rows_of(
            "fz0_loss, GAS", record, {"mean": (losses.mean(), record["value"]["mean"])}
        )


def _residuals(golden: Path) -> Iterator[Row]:
    for record in records(golden, FILE, "ESTest"):
        if record["id"].endswith("_boot"):
            continue  # a mean of resampled p-values, which is no p-value
        found, value = mcneil_frey(*_sample(golden, record)), record["value"]
        yield from rows_of(
            "mcneil_frey, rugarch",
            record,
            {
                "statistic": (found.statistic, value["t_stat"]),
                "p": (found.p_value, value["p.value"]),
            },
        )
    for record in records(golden, FILE, "er_backtest"):
        for kind in ("simple", "standardized"):
            reference = record["value"][f"pvalue_onesided_{kind}"]
            if reference is None:
                continue
            scale = _volatility(golden, record) if kind == "standardized" else None
            found = mcneil_frey_bootstrap(
                *_sample(golden, record), scale=scale, resamples=RESAMPLES
            )
            yield from rows_of(
                "mcneil_frey_bootstrap, esback",
                record,
                {f"p {kind}": (found.monte_carlo_p_value, reference)},
                simulated=True,
            )


def _calibration(golden: Path) -> Iterator[Row]:
    for record in records(golden, FILE, "cc_backtest"):
        hommel = record["args"]["hommel"] == "TRUE"
        for moments in ("simple", "general"):
            for side in ("one", "two"):
                reference = record["value"][f"pvalue_{side}sided_{moments}"]
                if reference is None:
                    continue
                found = nolde_ziegel(
                    *_sample(golden, record),
                    moments="general" if moments == "general" else "simple",
                    alternative="published" if side == "one" else "two-sided",
                    scale=_volatility(golden, record) if moments == "general" else None,
                    correction="hommel" if hommel else "bonferroni",
                )
                yield from rows_of(
                    "nolde_ziegel, esback",
                    record,
                    {f"p {side}-sided {moments}": (found.p_value, reference)},
                )


def _regression(golden: Path) -> Iterator[Row]:
    for record in records(golden, FILE, "esr_backtest"):
        version = VERSIONS[record["args"]["version"]]
        found = bayer_dimitriadis(*_sample(golden, record), version=version)
        yield from rows_of(
            f"bayer_dimitriadis {version}, esback",
            record,
            {"p": (found.p_value, record["value"]["pvalue_twosided_asymptotic"])},
            simulated=True,
        )


def _violations(golden: Path) -> Iterator[Row]:
    for record in records(golden, FILE, "shortfall_de_test"):
        level, value = record["data"]["level"], record["value"]
        pit = table_of(golden, record)[record["data"]["pit_column"]].to_numpy(np.float64)
        severity = severity_of_pit(1.0 - pit, level)
        lags = value["conditional"]["df"]
        for found, part in (
            (du_escanciano_unconditional(severity, level), "unconditional"),
            (du_escanciano_conditional(severity, level, lags=lags), "conditional"),
        ):
            yield from rows_of(
                f"du_escanciano_{part}, tstests",
                record,
                {
                    "statistic": (found.statistic, value[part]["statistic"]),
                    "p": (found.p_value, value[part]["p_value"]),
                },
            )
    printed = "unconditionalDE (large sample)"
    for record in records(golden, "matlab_docs.json", printed, key="test"):
        value = record["value"]
        mean, deviation = severity_moments(value["Observations"], value["VaRLevel"])
        yield from rows_of(
            "severity_moments, MATLAB (printed)",
            record,
            {"mean": (mean, value["MeanLS"]), "deviation": (deviation, value["StdLS"])},
        )
