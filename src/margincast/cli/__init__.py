"""The command line, thin: arguments in, one job called, exit code out.

Exit codes: 0 ok, 1 a gate or check failed, 2 bad usage or input. Heavy libraries are imported
inside the commands that need them, so that ``--help`` answers at once.
"""

import sys
from pathlib import Path
from typing import Annotated, Optional

import typer

from margincast import __version__
from margincast.cli.account import account, haircuts
from margincast.cli.data import data_app
from margincast.cli.explain import explain
from margincast.cli.governance import ledger_app, promote, rollback
from margincast.cli.live import live
from margincast.cli.monitor import monitor
from margincast.cli.options import (
    LOCAL_STORE,
    CacheOption,
    ClusterOption,
    DataOption,
    OutOption,
    SetOption,
    UriOption,
    WorkspaceOption,
    finish,
)
from margincast.cli.override import override_app
from margincast.cli.publications import ByOption, publications_app
from margincast.cli.schedule import schedule_app
from margincast.cli.service import keys_app, serve
from margincast.cli.tiers import tiers
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
app.add_typer(data_app, name="data")
app.add_typer(ledger_app, name="ledger")
app.add_typer(schedule_app, name="schedule")
app.add_typer(override_app, name="override")
app.add_typer(publications_app, name="publications")
app.add_typer(keys_app, name="keys")

INTERRUPTED = 130
CONTINUED = {"demo", "train", "backtest", "sync", "data ingest", "data fetch"}
"""Commands that keep what they finished; ``features build`` does unless told to keep nothing."""


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

    finish(job.run(workspace, out))


@features_app.command("build")
def features_build(
    spec: Annotated[Path, typer.Argument(metavar="FEATURES.toml")],
    data: DataOption = None,
    out: OutOption = None,
    overrides: SetOption = None,
    cache: CacheOption = None,
    *,
    cluster: ClusterOption = None,
) -> None:
    """Build a feature set on market data: features.parquet and features.json."""
    from margincast.jobs import features

    typer.echo(features.build(spec, data, out, overrides or [], cache, cluster=cluster))


@features_app.command("cache")
def features_cache(
    directory: Annotated[Path, typer.Argument(metavar="DIR")],
    *,
    clear: Annotated[bool, typer.Option("--clear", help="Remove all entries.")] = False,
    older_than: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            "--older-than",
            help="Remove entries that no build wrote or read for so long, such as 30d.",
            metavar="AGE",
        ),
    ] = None,
) -> None:
    """Say what a folder of built features holds, or remove it."""
    from margincast.jobs import feature_cache

    typer.echo(feature_cache.run(directory, clear=clear, older_than=older_than))


@app.command()
def train(
    spec: Annotated[Path, typer.Argument(metavar="JOB.toml")],
    data: DataOption = None,
    out: OutOption = None,
    overrides: SetOption = None,
    cache: CacheOption = None,
    *,
    cluster: ClusterOption = None,
) -> None:
    """Train, backtest, track in MLflow, register, and pass the gate (exit 1 if it fails)."""
    from margincast.jobs import train as job

    result = job.run(spec, data, out, overrides or [], cache, cluster=cluster)
    finish(result.backtest.verdict.passed)


@app.command()
def backtest(
    spec: Annotated[Path, typer.Argument(metavar="JOB.toml")],
    data: DataOption = None,
    out: OutOption = None,
    overrides: SetOption = None,
    cache: CacheOption = None,
    *,
    policy: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--policy", help="Margin policy to replay behind it.", metavar="POLICY.toml"),
    ] = None,
    cluster: ClusterOption = None,
    fail_on_gate: Annotated[
        bool, typer.Option("--fail-on-gate", help="Exit 1 if the gate says no.")
    ] = False,
) -> None:
    """Walk forward over the test period: forecasts.parquet, summary.json, report.html."""
    from margincast.jobs import backtest as job

    result = job.backtest(spec, data, out, overrides or [], cache, policy=policy, cluster=cluster)
    finish(result.verdict.passed or not fail_on_gate)


@app.command()
def report(
    forecasts: Annotated[Path, typer.Argument(metavar="FORECASTS.parquet")],
    bars: Annotated[
        list[str],
        typer.Option("--bars", help="Folder or file of bars; may be given again.", metavar="DIR"),
    ],
    subject: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--model", help="Model on trial; default: the first of the table."),
    ] = None,
    against: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--against", help="Models to compare with; the first is the reference."),
    ] = None,
    out: OutOption = None,
    *,
    terminal: Annotated[
        bool, typer.Option("--terminal", help="Outcomes are end points, not extremes of the path.")
    ] = False,
) -> None:
    """Validate forecasts that any model made: report.html, validation.json and tables."""
    from margincast.jobs import report as job

    job.run(forecasts, bars, out, subject=subject, against=against or [], terminal=terminal)


@app.command()
def frontier(
    policy: Annotated[Path, typer.Argument(metavar="POLICY.toml")],
    forecasts: Annotated[Path, typer.Argument(metavar="FORECASTS.parquet")],
    bars: Annotated[
        list[str],
        typer.Option("--bars", help="Folder or file of bars; may be given again.", metavar="DIR"),
    ],
    vary: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            "--vary", help="Values to try; given again, all combinations.", metavar="KEY=V,V,..."
        ),
    ] = None,
    *,
    start: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--from", help="First moment that is judged.", metavar="TIME"),
    ] = None,
    end: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--until", help="Nothing is judged from here on.", metavar="TIME"),
    ] = None,
    subject: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--model", help="Model to margin; default: the first of the table."),
    ] = None,
    against: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--against", help="Model to stand beside it."),
    ] = None,
    out: OutOption = None,
) -> None:
    """Cost, coverage and steadiness of a policy's settings: frontier.html, frontier.parquet."""
    from margincast.jobs import frontier as job

    job.run(
        policy, forecasts, bars, vary or [], out,
        start=start, end=end, subject=subject, against=against,
    )  # fmt: skip


@app.command()
def score(
    spec: Annotated[Path, typer.Argument(metavar="POLICY.toml")],
    data: DataOption = None,
    out: OutOption = None,
    overrides: SetOption = None,
    *,
    at: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            "--at",
            help="Moment of use (UTC), or 'now'; default: the newest time in the data.",
            metavar="TIME",
        ),
    ] = None,
    cache: CacheOption = None,
    publish: Annotated[
        bool, typer.Option("--publish", help="Put the levels in force; needs --reason.")
    ] = False,
    reason: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Why they are published, for the record."),
    ] = None,
    by: ByOption = None,
) -> None:
    """Turn the champion's latest forecasts into margin_levels.parquet; publish them if asked."""
    if publish != (reason is not None):
        raise typer.BadParameter("--publish and --reason TEXT go together")
    from margincast.jobs import score as job

    result = job.run(spec, data, out, overrides or [], at=at, cache=cache, reason=reason, by=by)
    if result.problem:
        typer.echo(f"no champion: {result.problem}", err=True)
    finish(not result.problem)


app.command()(haircuts)
app.command()(account)
app.command()(tiers)
app.command()(explain)
app.command()(monitor)
app.command()(serve)
app.command()(live)
app.command()(promote)
app.command()(rollback)


@app.command()
def sync(
    workspace: WorkspaceOption = Path(),
    uri: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="MLflow tracking URI, if not the one the jobs used."),
    ] = None,
) -> None:
    """Bring to MLflow what jobs kept while it was down (exit 1 if jobs still run)."""
    from margincast.jobs import sync as job

    finish(not job.run(workspace, uri).running)


@app.command()
def compare(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...")],
    *,
    against: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Compare with this one; default: the first.", metavar="RUN"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    fail_if_worse: Annotated[
        bool, typer.Option("--fail-if-worse", help="Exit 1 if a run loses more, beyond chance.")
    ] = False,
    workspace: WorkspaceOption = Path(),
    uri: UriOption = LOCAL_STORE,
) -> None:
    """Compare runs (id, name, model/3, model@champion) on the decisions they share."""
    from margincast.jobs import compare as job

    found = job.run(runs, workspace, uri, against=against, as_json=as_json)
    finish(not (fail_if_worse and any(one.worse for one in found.others)))


@app.command()
def ui(
    workspace: WorkspaceOption = Path(),
    uri: UriOption = LOCAL_STORE,
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
            typer.echo(_interrupted(sys.argv[1:]), err=True)
        raise


def _interrupted(arguments: list[str]) -> str:
    """Say what an interrupted command leaves behind."""
    command = " ".join(arguments[: 2 if arguments[0] in {"data", "features"} else 1])
    keeps_features = command == "features build" and "none" not in map(str.casefold, arguments)
    if command in CONTINUED or keeps_features:
        return "interrupted; what was finished is kept, the same command continues from there"
    return "interrupted; the same command starts anew"
