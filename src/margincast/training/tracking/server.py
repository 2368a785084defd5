"""The MLflow pages of a store, served from this machine: where people compare runs."""

import os
import socket
from pathlib import Path

from margincast.core.errors import InputError
from margincast.training.tracking.address import is_server, require_reachable, resolve_uri
from margincast.training.tracking.pages import pages_of_models
from margincast.training.tracking.store import store_errors

_QUIET = {
    # eight processes for language-model jobs, which a store of margin models has none of
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    # who looks at which margin model is nobody else's business
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
"""Settings of MLflow's server, unless the environment has its own."""


class Pages:
    """MLflow's pages, not served yet.

    Args:
        uri: of the store; a relative SQLite path starts at ``workspace``.
        workspace: the operator's folder.
        host: address to listen on.
        port: the same.

    Raises:
        StoreUnreachableError: there is no store, or it cannot be used.
        InputError: the store is a server with pages of its own, or nobody can listen there.
    """

    def __init__(self, uri: str, workspace: Path, host: str, port: int) -> None:
        self._uri = resolve_uri(uri, workspace)
        if is_server(self._uri):
            raise InputError(
                f"{uri} is an MLflow server, which has pages of its own: open it in a browser, "
                f"{uri.rstrip('/')}/{pages_of_models()}"
            )
        with store_errors(self._uri):
            require_reachable(self._uri, create=False)
        _require_free(host, port)
        self._host, self._port = host, port
        self._artifacts = workspace.resolve() / "mlruns" / "artifacts"

    @property
    def address(self) -> str:
        """Where they can be opened."""
        return f"http://{self._host}:{self._port}/{pages_of_models()}"

    def serve(self) -> None:
        """Serve until a signal ends the process; MLflow passes it on to its server."""
        for name, value in _QUIET.items():
            os.environ.setdefault(name, value)
        # MLflow's own command line in this process: in a new one MLflow would be imported again
        from mlflow.cli import cli  # noqa: PLC0415  # a second that other commands need not wait

        cli.main(
            [
                "server", "--backend-store-uri", self._uri,
                "--default-artifact-root", self._artifacts.as_uri(),
                "--host", self._host, "--port", str(self._port), "--workers", "1",
            ],
            standalone_mode=False,
        )  # fmt: skip


def _require_free(host: str, port: int) -> None:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            # as the server does: connections of one that ended lately do not count
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        raise InputError(
            f"nobody can listen on {host}:{port} ({error.strerror}); another program may: choose "
            f"another port, for example --port {port + 1}"
        ) from error
