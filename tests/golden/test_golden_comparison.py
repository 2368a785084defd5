"""Comparison of models against published implementations: arch, R's rugarch and MCS, statsmodels.

P-values of a bootstrap hang on its draws: 0.03 at 2000 of them. Implementations differ in statistic
and elimination rule (golden README, 14), so with R only the sets are compared.
"""

import functools
import json
import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from margincast.backtest.comparison import panel_diebold_mariano
from margincast.backtest.confidence_set import model_confidence_set
from margincast.scoring.pinball import pinball_loss

CHECKOUT = Path(__file__).resolve().parents[2]
GOLDEN = Path(os.environ.get("MARGINCAST_SHARED", CHECKOUT.parent / "shared")) / "golden"
DRAWS = 2000


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


def losses_of(record, shared):
    """Pinball losses of the record's models (named in its data), one column each."""
    data = record["data"]
    table = read_table(shared / "golden" / data["file"])
    level = data["level"]
    stems = [name.removesuffix(f"_var_{round(level * 1000)}") for name in table.columns]
    models = [s for s, name in zip(stems, table.columns, strict=True) if s != name]
    outcome = table["loss"].to_numpy()
    return pd.DataFrame(
        {
            model: pinball_loss(outcome, table[f"{model}_var_{round(level * 1000)}"], level)
            for model in models
        }
    )


@pytest.mark.parametrize("record", records_of("comparison_py.json", "arch.bootstrap.MCS"))
def test_confidence_set_of_arch(shared_data, record):
    statistic, block, seed = re.search(
        r'block_size=(\d+), method="(\w+)".*seed=(\d+)', record["command"]
    ).group(2, 1, 3)
    # their losses are 100 times ours, which must not matter
    found = model_confidence_set(
        losses_of(record, shared_data),
        block_length=int(block),
        statistic=statistic,
        replications=DRAWS,
        seed=int(seed),
    )
    assert found.p_values == pytest.approx(record["value"]["pvalues"], abs=0.03)
    assert sorted(found.members) == record["value"]["included"]


@pytest.mark.parametrize("record", records_of("scores_r.json", "mcsTest"))
def test_confidence_set_of_rugarch(shared_data, record):
    losses = losses_of(record, shared_data)
    assert list(losses.columns) == record["data"]["columns"]
    found = model_confidence_set(losses, block_length=10, replications=DRAWS, seed=123)
    numbers = np.atleast_1d(record["value"]["includedR"])
    assert set(found.members) == set(losses.columns[numbers - 1])


@pytest.mark.parametrize("record", records_of("comparison_py.json", "OLS HAC"))
def test_panel_diebold_mariano_of_contracts_that_move_together(shared_data, record):
    """Two contracts with the same losses are the evidence of one: statsmodels' HAC on either."""
    losses = losses_of(record, shared_data)
    first, second = re.search(r"/(\w+)_vs_(\w+)/", record["id"]).groups()
    lag = int(re.search(r"maxlags=(\d+)", record["command"])[1])
    times = np.repeat(np.arange(len(losses)), 2)
    one, other = (np.repeat(losses[name].to_numpy(), 2) for name in (first, second))
    found = panel_diebold_mariano(one, other, times, lag=lag)
    golden = record["value"]
    assert 100 * found.mean_difference == pytest.approx(golden["mean"], rel=1e-9)
    assert 100 * found.standard_error == pytest.approx(golden["se"], rel=1e-9)
    assert found.statistic == pytest.approx(golden["t"], rel=1e-9)
    assert found.p_value == pytest.approx(golden["p"], rel=1e-9)
