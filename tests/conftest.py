"""Shared fixtures: real market data, a PostgreSQL server, and how hypothesis runs."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from tests.postgres import PostgresServer, postgres_server

# no deadlines and no complaint about slow generation: a busy machine is not a defect of the code
calm = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("default", calm, derandomize=True, max_examples=50)
settings.register_profile("thorough", calm, derandomize=False, max_examples=300)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder with ``data/`` and ``golden/``; tests that need it skip where it is absent."""
    checkout = Path(__file__).resolve().parents[1]
    folder = Path(os.environ.get("MARGINCAST_SHARED", checkout.parent / "shared"))
    if not (folder / "golden").is_dir():
        pytest.skip(f"real market data not found at {folder} (set MARGINCAST_SHARED)")
    return folder


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server for the session; tests that need it skip where it is not installed."""
    with postgres_server() as server:
        yield server


@pytest.fixture(scope="session")
def migrated_store(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Path]:
    """Put an SQLite store of MLflow into a workspace: its tables are made once and copied."""
    # imported here: most tests never need MLflow, and it is slow to import
    from margincast.training.tracking import connect  # noqa: PLC0415

    template = tmp_path_factory.mktemp("store") / "mlflow.db"
    connect(f"sqlite:///{template}", template.parent, create=True)

    def put(workspace: Path) -> Path:
        path = workspace / "mlruns" / "mlflow.db"
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(template, path)
        return path

    return put
