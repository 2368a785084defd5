"""Linear quantile regressions of BTC losses on HAR volatilities against R's quantreg 5.94.

Method ``br``, the exact simplex; commands and tolerances stand in the golden folder's own README:
coefficients to 1e-7, objectives to 1e-9.
"""

import json

import numpy as np
import pandas as pd
import pytest

from margincast.models.quantile_regression import quantile_regression

LEVELS = (0.05, 0.5, 0.95, 0.975, 0.99)


@pytest.fixture(scope="module")
def table(shared_data):
    return pd.read_csv(shared_data / "golden" / "inputs" / "btc_har.csv")


@pytest.fixture(scope="module")
def golden(shared_data):
    records = []
    for file in ("quantreg.json", "quantreg_py.json"):
        records += json.loads((shared_data / "golden" / file).read_text())["records"]
    return {record["id"]: record["value"] for record in records}


def losses_on_volatilities(table):
    windows = table[["vol1", "vol5", "vol22"]].to_numpy()
    return np.column_stack([np.ones(len(table)), windows]), table["loss"].to_numpy()


@pytest.mark.parametrize("level", LEVELS)
def test_losses_on_volatilities_match_the_simplex_of_quantreg(golden, table, level):
    expected = golden[f"rq/loss_on_vol/{level:g}"]
    design, loss = losses_on_volatilities(table)
    fit = quantile_regression(design, loss, [level])[0]
    np.testing.assert_allclose(fit.coefficients, list(expected["coef"].values()), rtol=1e-7)
    assert fit.objective == pytest.approx(expected["objective"], rel=1e-9)
    fitted = design @ fit.coefficients
    np.testing.assert_allclose(fitted[-3:], expected["fitted_last3"], rtol=1e-7)
    residuals = loss - fitted
    on_the_fit = np.abs(residuals) < 1e-10
    assert on_the_fit.sum() == expected["n_zero"]
    assert (residuals[~on_the_fit] < 0).sum() == expected["n_below"]


@pytest.mark.parametrize("level", LEVELS)
def test_absolute_returns_on_log_variances_match_the_simplex_of_quantreg(golden, table, level):
    expected = golden[f"rq/absret_on_logrv/{level:g}"]
    logs = np.log(table[["rv1", "rv5", "rv22"]].to_numpy())
    design = np.column_stack([np.ones(len(table)), logs])
    fit = quantile_regression(design, np.abs(table["loss"].to_numpy()), [level])[0]
    np.testing.assert_allclose(fit.coefficients, list(expected["coef"].values()), rtol=1e-7)
    assert fit.objective == pytest.approx(expected["objective"], rel=1e-9)


@pytest.mark.parametrize("level", [0.95, 0.99])
def test_the_plain_linear_programme_has_the_same_solution(golden, table, level):
    expected = golden[f"linprog/loss_on_vol/{level:g}"]
    fit = quantile_regression(*losses_on_volatilities(table), [level])[0]
    np.testing.assert_allclose(fit.coefficients, list(expected["coef"].values()), rtol=1e-7)
    assert fit.objective == pytest.approx(expected["objective"], rel=1e-9)


@pytest.mark.parametrize("level", LEVELS)
def test_no_other_package_found_a_lower_objective(golden, table, level):
    fit = quantile_regression(*losses_on_volatilities(table), [level])[0]
    iterated = golden[f"QuantReg/loss_on_vol/{level:g}"]["objective"]
    assert fit.objective <= iterated
    assert fit.objective == pytest.approx(iterated, rel=1e-6)
