"""What several commands take alike, and how they end; it loads nothing heavy."""

from pathlib import Path
from typing import Annotated, NoReturn, Optional

import typer

DataOption = Annotated[
    Optional[Path],  # noqa: UP045  # typer reads the annotation at run time
    typer.Option("--data", help="Folder that data paths start at.", metavar="DIR"),
]
OutOption = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option("--out", help="Folder that results are written to.", metavar="DIR"),
]
SetOption = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Option("--set", help="Override a value of the spec.", metavar="SECTION.KEY=VALUE"),
]
CacheOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--cache", help="Folder of built features, or 'none'.", metavar="DIR"),
]
ClusterOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option(
        "--cluster", help="Dask scheduler whose workers help; default: none.", metavar="ADDRESS"
    ),
]
WorkspaceOption = Annotated[
    Path, typer.Option("--workspace", help="Folder with the specs and mlruns/.", metavar="DIR")
]
UriOption = Annotated[str, typer.Option("--uri", help="MLflow tracking URI.")]
LOCAL_STORE = "sqlite:///mlruns/mlflow.db"


def listed(text: str) -> list[str]:
    """Read names between commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def finish(passed: bool) -> NoReturn:
    """End a command with the exit code of its answer."""
    raise typer.Exit(0 if passed else 1)
