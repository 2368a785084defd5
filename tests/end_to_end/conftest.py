"""One small simulated market, one workspace and one trained model for all end-to-end tests."""

import contextlib
import io
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from margincast.cli import main
from margincast.data.simulated.market import simulate_market, write_market
from margincast.data.simulated.parameters import MarketParameters, select_contracts
from margincast.specs.loading import load_spec
from margincast.specs.training import TrainingJob
from margincast.training.workload import Workload, build_workload

SMALL = (
    "target.horizons=[10m, 30m]",
    "target.levels=[0.9, 0.95, 0.99]",
    "model.window=30d",
    "model.head.rounds=8",
    "model.head.min_data_factor=10.0",
    "model.tail.threshold_level=0.95",
    "model.tail.from_level=0.99",
    "model.calibration.folds=3",
    "tuning.trials=1",
    "tracking.explained_decisions=60",
    "backtest.start=2026-01-06",
    "backtest.end=2026-01-09",
    "backtest.refit_every=2d",
    'backtest.peers=["static", "ewma_fhs"]',
    "gate.pinball_ratio_max=10.0",
    (
        "gate.coverage=[{level=0.9, exceedance_ratio_min=0.0, exceedance_ratio_max=100.0, "
        "expected_exceedances_min=0.0}]"
    ),
    "gate.battery.levels=[0.9]",
    "gate.battery.not_failed_min=0.0",
    "gate.procyclicality.largest_one_day_rise_max=1e6",
    "gate.procyclicality.peak_to_trough_max=1e6",
)
"""Overrides of training/demo.toml for ten days: what is proved here is the road, not the model."""


@dataclass(frozen=True)
class Ending:
    """How a command ended."""

    code: int
    output: str
    errors: str


Command = Callable[..., Ending]


def run_in_process(*arguments: object) -> Ending:
    """Run the command line as a shell would, without the price of a new process."""
    output, errors = io.StringIO(), io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(errors),
    ):
        patch.setattr(sys, "argv", ["margincast", *map(str, arguments)])
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.delenv("MARGINCAST_DATA", raising=False)
        with pytest.raises(SystemExit) as ended:
            main()
    code = ended.value.code
    assert isinstance(code, int)
    return Ending(code, output.getvalue(), errors.getvalue())


@pytest.fixture(scope="session")
def command() -> Command:
    return run_in_process


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace as ``margincast init`` writes it."""
    folder = tmp_path_factory.mktemp("workspace")
    assert run_in_process("init", folder).code == 0
    return folder


@pytest.fixture(scope="session")
def market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten days of minutes of two contracts: bars, books and trades."""
    folder = tmp_path_factory.mktemp("market")
    parameters = MarketParameters(contracts=select_contracts(["SIM-BTC", "SIM-ETH"]))
    start = datetime(2026, 1, 1, tzinfo=UTC)
    write_market(simulate_market(parameters, days=10, seed=1, start=start), folder)
    return folder


@pytest.fixture(scope="session")
def small(market: Path) -> list[str]:
    """Options that make training/demo.toml a job of seconds on the small market."""
    return ["--data", str(market), *(part for text in SMALL for part in ("--set", text))]


@pytest.fixture(scope="session")
def small_job(workspace: Path) -> TrainingJob:
    """The same job as a spec."""
    return load_spec(workspace / "training" / "demo.toml", TrainingJob, SMALL)


@pytest.fixture(scope="session")
def small_workload(small_job: TrainingJob, workspace: Path, market: Path) -> Workload:
    """The small job's data, features and outcomes."""
    return build_workload(small_job, workspace, market)


@dataclass(frozen=True)
class Trained:
    """The first training run of the session."""

    ending: Ending
    out: Path


@pytest.fixture(scope="session")
def trained(workspace: Path, small: list[str], tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A model trained, registered and made champion."""
    out = tmp_path_factory.mktemp("trained") / "out"
    ending = run_in_process("train", workspace / "training" / "demo.toml", "--out", out, *small)
    return Trained(ending, out)
