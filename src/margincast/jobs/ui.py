"""``margincast ui``: the MLflow UI on the workspace's store, where people compare models."""

import os
import sys
from pathlib import Path
from typing import NoReturn

from margincast.core.errors import InputError
from margincast.jobs.console import say
from margincast.training.tracking import resolve_uri


def run(workspace: Path, uri: str, host: str, port: int) -> NoReturn:
    """Become the MLflow UI; does not return.

    Raises:
        InputError: there is no store yet.
    """
    resolved = resolve_uri(uri, workspace)
    store = resolved.removeprefix("sqlite:///")
    if resolved.startswith("sqlite:///") and not Path(store).exists():
        raise InputError(f"no MLflow store at {store} yet; run `margincast demo` or a training job")
    say(f"MLflow UI on http://{host}:{port} (Ctrl-C ends it)")
    command = [
        sys.executable, "-m", "mlflow", "server", "--backend-store-uri", resolved,
        "--host", host, "--port", str(port), "--workers", "1",
    ]  # fmt: skip
    artifacts = workspace / "mlruns" / "artifacts"
    if resolved.startswith("sqlite:///"):
        command += ["--default-artifact-root", artifacts.resolve().as_uri()]
    # The server takes this process's place, so that whoever stops it stops the server. The command
    # is made of this interpreter and checked arguments; no shell reads it.
    os.execv(sys.executable, command)  # noqa: S606
