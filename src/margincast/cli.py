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
data_app = typer.Typer(help="Bring market data in, and look at its quality.", no_args_is_help=True)
app.add_typer(data_app, name="data")

INTERRUPTED = 130
CONTINUED = {"demo", "train", "backtest", "data ingest", "data fetch"}
"""Commands that keep what they finished; ``features build`` does unless told to keep nothing."""

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
    cache: CacheOption = None,
) -> None:
    """Build a feature set on market data: features.parquet and features.json."""
    from margincast.jobs import features

    typer.echo(features.build(spec, data, out, overrides or [], cache))


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


@data_app.command("ingest")
def data_ingest(
    sources: Annotated[list[Path], typer.Argument(metavar="SRC...")],
    *,
    out: Annotated[Path, typer.Option("--out", help="The store to write to.", metavar="STORE")],
    venue: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Where it was traded, for files that do not say."),
    ] = None,
    symbol: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Contract, for files that do not say."),
    ] = None,
    table: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Canonical table, for files that fit several."),
    ] = None,
    mapping: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="TOML that says what the columns of a flat file mean.", metavar="TOML"),
    ] = None,
    book_every: Annotated[
        str,
        typer.Option(
            help="Of books built from updates keep the last in each such interval; 0: all."
        ),
    ] = "100ms",
    book_levels: Annotated[int, typer.Option(help="Levels a side of books built.", min=1)] = 20,
    workers: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Processes; default: one a core.", min=1),
    ] = None,
) -> None:
    """Bring files of any known kind into a store (exit 1 if any is refused)."""
    from margincast.data.formats.format import Hints, Options
    from margincast.jobs import ingest

    summary = ingest.run(
        sources,
        out,
        hints=Hints(table=table, venue=venue, symbol=symbol),
        options=Options(book_every=ingest.parse_book_every(book_every), book_levels=book_levels),
        mapping=mapping,
        workers=workers,
    )
    _end(not summary.refused)


@data_app.command("check")
def data_check(
    store: Annotated[Path, typer.Argument(metavar="STORE")],
    out: OutOption = None,
    fail_on: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="fault or warning: exit 1 if there is one.", metavar="SEVERITY"),
    ] = None,
) -> None:
    """Report the quality of a store: check.json, check.html and a table here."""
    from margincast.jobs import check

    _end(check.run(store, out, fail_on).passed)


@data_app.command("fetch")
def data_fetch(
    origin: Annotated[str, typer.Argument(help="Public archive: binance.", metavar="binance")],
    *,
    symbols: Annotated[str, typer.Option(help="Contracts, comma-separated.")],
    tables: Annotated[str, typer.Option(help="Archive tables, comma-separated: klines, ...")],
    start: Annotated[str, typer.Option("--from", help="First day (UTC).", metavar="DATE")],
    end: Annotated[str, typer.Option("--to", help="Last day (UTC).", metavar="DATE")],
    out: Annotated[Path, typer.Option("--out", help="Folder to write to.", metavar="DIR")],
    market: Annotated[str, typer.Option(help="um, cm or spot.")] = "um",
    interval: Annotated[str, typer.Option(help="Interval of klines.")] = "1h",
    base_url: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Another address of the archive.", metavar="URL"),
    ] = None,
    connections: Annotated[int, typer.Option(help="Downloads at a time.", min=1, max=16)] = 4,
) -> None:
    """Fetch files of a public archive, verified (exit 1 if any failed)."""
    from margincast.core.errors import InputError
    from margincast.jobs import fetch

    if origin != "binance":
        raise InputError(f"there is no archive '{origin}' to fetch from; there is: binance")
    summary = fetch.run(
        _listed(symbols),
        _listed(tables),
        start,
        end,
        out,
        market=market,
        interval=interval,
        base_url=base_url,
        connections=connections,
    )
    _end(summary.passed)


@data_app.command("simulate")
def data_simulate(
    *,
    out: Annotated[Path, typer.Option("--out", help="Folder to write to.", metavar="DIR")],
    contracts: Annotated[str, typer.Option(help="Contracts, comma-separated.")] = (
        "SIM-BTC,SIM-ETH,SIM-ALT"
    ),
    days: Annotated[int, typer.Option(min=1)] = 30,
    seed: Annotated[int, typer.Option(min=0)] = 1,
    start: Annotated[str, typer.Option(help="First day (UTC).", metavar="DATE")] = "2026-01-01",
    faults: Annotated[int, typer.Option(help="Faults to inject into each feed.", min=0)] = 0,
    truth: Annotated[
        bool, typer.Option("--truth", help="Write the latent state too, for oracle studies.")
    ] = False,
) -> None:
    """Write a simulated market: bars, books, trades, funding, open interest, liquidations."""
    from margincast.core.errors import InputError
    from margincast.core.time import parse_instant
    from margincast.jobs import simulate

    try:
        first = parse_instant(start)
    except ValueError as error:
        raise InputError(f"--start: {error}") from None
    simulate.run(
        out,
        contracts=_listed(contracts),
        days=days,
        seed=seed,
        start=first,
        faults=faults,
        truth=truth,
    )


@app.command()
def train(
    spec: Annotated[Path, typer.Argument(metavar="JOB.toml")],
    data: DataOption = None,
    out: OutOption = None,
    overrides: SetOption = None,
    cache: CacheOption = None,
) -> None:
    """Train, backtest, track in MLflow, register, and pass the gate (exit 1 if it fails)."""
    from margincast.jobs import train as job

    _end(job.run(spec, data, out, overrides or [], cache).backtest.verdict.passed)


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
) -> None:
    """Walk forward over the test period: forecasts.parquet, summary.json, report.html."""
    from margincast.jobs import backtest as job

    job.backtest(spec, data, out, overrides or [], cache, policy=policy)


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
) -> None:
    """Turn the champion's latest forecasts into margin_levels.parquet."""
    from margincast.jobs import score as job

    result = job.run(spec, data, out, overrides or [], at=at, cache=cache)
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
            typer.echo(_interrupted(sys.argv[1:]), err=True)
        raise


def _interrupted(arguments: list[str]) -> str:
    """Say what an interrupted command leaves behind."""
    command = " ".join(arguments[: 2 if arguments[0] in {"data", "features"} else 1])
    keeps_features = command == "features build" and "none" not in map(str.casefold, arguments)
    if command in CONTINUED or keeps_features:
        return "interrupted; what was finished is kept, the same command continues from there"
    return "interrupted; the same command starts anew"


def _listed(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _end(passed: bool) -> None:
    raise typer.Exit(0 if passed else 1)
