"""Stores of every kind, made once: an SQLite file, an MLflow server behind a gate, PostgreSQL."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator

import pytest
from tests.training.tracking.gate import Gate

PATIENCE_SECONDS = 60.0


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory, migrated_store) -> Iterator[int]:
    """The port of an MLflow server that keeps the artifacts too."""
    folder = tmp_path_factory.mktemp("server")
    store = migrated_store(folder)
    port = free_port()
    command = [
        sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{store}",
        "--artifacts-destination", str(folder / "artifacts"), "--host", "127.0.0.1",
        "--port", str(port), "--workers", "1",
    ]  # fmt: skip
    # its queue of background jobs costs processes and is of no use here
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(  # noqa: S603 - the tests' own interpreter
            command, stdout=log, stderr=log, cwd=folder, start_new_session=True, env=environment
        )
    try:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not _answers(port):
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"the MLflow server did not start: {(folder / 'log').read_text()}")
            time.sleep(0.1)
        yield port
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


@pytest.fixture
def gate(mlflow_server, monkeypatch) -> Iterator[Gate]:
    """A door before the server; a client that finds it shut does not wait."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    gate = Gate(mlflow_server)
    yield gate
    if gate._listener is not None:
        gate.shut()


@pytest.fixture(scope="session")
def store_of(request, migrated_store, tmp_path_factory):
    """From the kind of a store to its URI."""
    made: dict[str, str] = {}

    def make(kind: str) -> str:
        if kind == "sqlite":
            return f"sqlite:///{migrated_store(tmp_path_factory.mktemp('sqlite'))}"
        if kind == "server":
            return f"http://127.0.0.1:{request.getfixturevalue('mlflow_server')}"
        return request.getfixturevalue("postgres").database("tracking")

    def uri(kind: str) -> str:
        if kind not in made:
            made[kind] = make(kind)
        return made[kind]

    return uri


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1.0):
            return True
    except OSError:
        return False
