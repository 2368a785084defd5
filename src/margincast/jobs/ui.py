"""``margincast ui``: the MLflow UI on the workspace's store, where people compare models."""

import os
import subprocess
import sys
from pathlib import Path

from margincast.core.errors import InputError
from margincast.jobs.console import say
from margincast.training.tracking import resolve_uri

DEFAULT_STORE = "sqlite:///mlruns/mlflow.db"


def run(workspace: Path, uri: str, host: str, port: int) -> int:
    """Start the MLflow UI and wait for it; returns its exit code.

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
    try:
        # the command is made of this interpreter and checked arguments; no shell reads it
        return subprocess.run(command, check=False, env=dict(os.environ)).returncode  # noqa: S603
    except KeyboardInterrupt:
        return 0
