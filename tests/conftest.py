"""Shared fixtures: real market data, a PostgreSQL server, and how hypothesis runs."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from tests.postgres import PostgresServer, postgres_server

# no deadlines and no complaint about slow generation: a busy machine is not a defect of the code
settings.register_profile(
    "default",
    deadline=None,
    derandomize=True,
    max_examples=50,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("default")


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
