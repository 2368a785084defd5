"""``margincast ui``: the MLflow UI on the workspace's store, where people compare models."""

from pathlib import Path

from margincast.jobs.console import say
from margincast.training.tracking.server import Pages


def run(workspace: Path, uri: str, host: str, port: int) -> None:
    """Serve the MLflow UI until it is interrupted.

    Raises:
        InputError: there is no store yet, or the port is taken.
    """
    pages = Pages(uri, workspace, host, port)
    say(f"MLflow UI on {pages.address} (Ctrl-C ends it)")
    pages.serve()
