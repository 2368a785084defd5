"""The command line, thin: arguments in, one job called, exit code out.

Exit codes: 0 ok, 1 a gate or check failed, 2 bad usage or input. Heavy libraries are imported
inside the commands that need them, so that ``--help`` answers at once.
"""

import sys
from pathlib import Path
from typing import Annotated, Optional

import typer

from margincast import __version__
from margincast.core.errors import MargincastError

app = typer.Typer(
    name="margincast",
    help="Tail forecasts from order books and volatility, turned into maintenance margin.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
features_app = typer.Typer(help="Build feature sets.", no_args_is_help=True)
app.add_typer(features_app, name="features")

INTERRUPTED = 130

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
WorkspaceOption = Annotated[
    Path, typer.Option("--workspace", help="Folder with the specs and mlruns/.", metavar="DIR")
]


def _version(wanted: bool) -> None:  # typer calls it positionally
    if wanted:
        typer.echo(f"margincast {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    _version_wanted: Annotated[  # noqa: FBT002  # a flag of the command line
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,  # a flag of the command line
) -> None:
    """Hold the options of the program itself."""


@app.command()
def demo(workspace: WorkspaceOption = Path(), out: OutOption = None) -> None:
    """Run the main job on the embedded simulated market: train, backtest, gate, score."""
    from margincast.jobs import demo as job

    _end(job.run(workspace, out))


@features_app.command("build")
def features_build(
    spec: Annotated[Path, typer.Argument(metavar="FEATURES.toml")],
    data: DataOption = None,
    out: OutOption = None,
    overrides: SetOption = None,
) -> None:
    """Build a feature set on market data: features.parquet and features.json."""
    from margincast.jobs import features

    typer.echo(features.build(spec, data, out, overrides or []))


@app.command()
def train(
    spec: Annotated[Path, typer.Argument(metavar="JOB.toml")],
    data: DataOption = None,
    out: OutOption = None,
    overrides: SetOption = None,
) -> None:
    """Train, backtest, track in MLflow, register, and pass the gate (exit 1 if it fails)."""
    from margincast.jobs import train as job

    _end(job.run(spec, data, out, overrides or []).backtest.verdict.passed)


@app.command()
def backtest(
    spec: Annotated[Path, typer.Argument(metavar="JOB.toml")],
    data: DataOption = None,
    out: OutOption = None,
    overrides: SetOption = None,
) -> None:
    """Walk forward over the test period: forecasts.parquet, summary.json, report.html."""
    from margincast.jobs import backtest as job

    job.backtest(spec, data, out, overrides or [])


@app.command()
def score(
    spec: Annotated[Path, typer.Argument(metavar="POLICY.toml")],
    data: DataOption = None,
    out: OutOption = None,
    overrides: SetOption = None,
    at: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            "--at",
            help="Moment of use (UTC), or 'now'; default: the newest time in the data.",
            metavar="TIME",
        ),
    ] = None,
) -> None:
    """Turn the champion's latest forecasts into margin_levels.parquet."""
    from margincast.jobs import score as job

    result = job.run(spec, data, out, overrides or [], at)
    if result.problem:
        typer.echo(f"no champion: {result.problem}", err=True)
    _end(not result.problem)


@app.command()
def ui(
    workspace: WorkspaceOption = Path(),
    uri: Annotated[str, typer.Option(help="MLflow tracking URI.")] = "sqlite:///mlruns/mlflow.db",
    host: Annotated[str, typer.Option()] = "127.0.0.1",
    port: Annotated[int, typer.Option()] = 5000,
) -> None:
    """Open the MLflow UI on the workspace's runs."""
    from margincast.jobs import ui as job

    job.run(workspace, uri, host, port)


@app.command()
def init(directory: Annotated[Path, typer.Argument(metavar="DIR")]) -> None:
    """Write a workspace (features/, training/, serving/, mlruns/) into DIR."""
    from margincast.jobs import workspace

    written = workspace.run(directory)
    typer.echo(f"{len(written)} files written to {directory}; edit them, then run training jobs")


def main() -> None:
    """Run the command line, with errors as one message each."""
    try:
        app()
    except MargincastError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except OSError as error:
        typer.echo(f"error: cannot read or write a file: {error}", err=True)
        sys.exit(2)
    except SystemExit as ending:
        # typer turns an interrupt into this exit code
        if ending.code == INTERRUPTED:
            typer.echo(
                "interrupted; finished folds are kept, the same command continues from them",
                err=True,
            )
        raise


def _end(passed: bool) -> None:
    raise typer.Exit(0 if passed else 1)
