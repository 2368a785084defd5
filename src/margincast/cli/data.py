"""``margincast data``: the commands that bring market data in and look at its quality."""

from pathlib import Path
from typing import Annotated, Optional

import typer

from margincast.cli.options import OutOption, finish, listed

data_app = typer.Typer(help="Bring market data in, and look at its quality.", no_args_is_help=True)


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
    finish(not summary.refused)


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

    finish(check.run(store, out, fail_on).passed)


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
        listed(symbols),
        listed(tables),
        start,
        end,
        out,
        market=market,
        interval=interval,
        base_url=base_url,
        connections=connections,
    )
    finish(summary.passed)


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
        contracts=listed(contracts),
        days=days,
        seed=seed,
        start=first,
        faults=faults,
        truth=truth,
    )
