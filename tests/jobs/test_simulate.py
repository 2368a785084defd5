"""``margincast data simulate`` writes what it says, and jobs can read it."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from margincast.core.errors import InputError
from margincast.data.simulated.market import TABLES, simulate_market
from margincast.data.simulated.oracle import true_quantile
from margincast.data.simulated.parameters import MarketParameters, select_contracts
from margincast.jobs import simulate

START = datetime(2025, 1, 1, tzinfo=UTC)
NAMES = ("SIM-BTC", "SIM-ALT")


def written(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_the_tables_are_those_of_the_market(tmp_path: Path, capsys) -> None:
    folder = simulate.run(tmp_path / "market", contracts=NAMES, days=1, seed=3, start=START)
    assert written(folder) == {f"{table}/{name}.parquet" for table in TABLES for name in NAMES}
    parameters = MarketParameters(contracts=select_contracts(NAMES))
    market = simulate_market(parameters, days=1, seed=3, start=START)
    for table, frame in market.tables.items():
        for name in NAMES:
            found = pl.read_parquet(folder / table / f"{name}.parquet")
            assert_frame_equal(found, frame.filter(pl.col("symbol") == name))
    told = capsys.readouterr().err
    assert "SIM-BTC: 1,440 bars" in told
    assert f"written to {folder}" in told


def test_faults_are_listed_and_truth_answers_the_oracle(tmp_path: Path) -> None:
    folder = simulate.run(
        tmp_path,
        contracts=["SIM-ALT"],
        days=1,
        seed=3,
        start=START,
        faults=3,
        truth=True,
        listed_at={"SIM-ALT": START + timedelta(hours=2)},
        delisted_at={"SIM-ALT": START + timedelta(hours=22)},
    )
    faults = pl.read_parquet(folder / "_truth" / "faults.parquet")
    assert len(faults) > 10
    assert faults.columns == [
        "table", "symbol", "kind", "first_ts", "last_ts", "row_count", "rows", "detail",
    ]  # fmt: skip
    state = pl.read_parquet(folder / "_truth" / "state" / "SIM-ALT.parquet")
    assert state["ts"].min() == START + timedelta(hours=2, minutes=1)
    assert state["ts"].max() == START + timedelta(hours=22)
    answer = true_quantile(
        MarketParameters(contracts=select_contracts(["SIM-ALT"])),
        state[[600]],
        horizons_minutes=[10],
        levels=[0.9],
        path_count=99,
        seed=1,
    )
    assert (answer["forecast"] > 0.0).all()


def test_a_listing_of_a_contract_that_is_not_simulated_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="SIM-ETH has a day of listing or delisting but is not"):
        simulate.run(
            tmp_path, contracts=NAMES, days=1, seed=3, start=START, listed_at={"SIM-ETH": START}
        )
    assert written(tmp_path) == set()


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(InputError, match="no empty folder"):
        simulate.run(tmp_path, contracts=NAMES, days=1, seed=3, start=START)
    assert written(tmp_path) == {"mine.txt"}
