"""``margincast schedule``: tier tables of venues, in and out."""

from pathlib import Path
from typing import Annotated, Optional

import typer

from margincast.cli.options import listed

schedule_app = typer.Typer(
    help="Base schedules from venues' tier tables, and margin levels as such tables.",
    no_args_is_help=True,
)

VENUES_READ = "binance, bybit, hyperliquid, dydx, okx, csv, json."
VENUES_WRITTEN = "binance, hyperliquid, dydx, drift, csv, json, toml."


@schedule_app.command("import")
def schedule_import(
    venue: Annotated[str, typer.Argument(help=VENUES_READ)],
    file: Annotated[Path, typer.Argument(help="Saved response of the venue.", metavar="FILE")],
    *,
    out: Annotated[
        Path, typer.Option("--out", help="Base schedule to write.", metavar="SCHEDULE.toml")
    ],
    beside: Annotated[
        Optional[list[Path]],  # noqa: UP045  # typer reads the annotation at run time
        typer.Option(
            "--with", help="Further response the table needs; may be given again.", metavar="FILE"
        ),
    ] = None,
    symbols: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Contracts to read, comma-separated; default: all."),
    ] = None,
    last_cap: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="Largest position where the last tier has no end.", metavar="USD"),
    ] = None,
    usd: Annotated[
        bool, typer.Option("--usd", help="Amounts are USD, whatever the contracts' names say.")
    ] = False,
) -> None:
    """Write a base schedule from a venue's tier table, its arithmetic checked."""
    from margincast.jobs import schedule

    schedule.run_import(
        venue,
        file,
        out,
        beside=beside or [],
        symbols=listed(symbols or ""),
        last_cap_usd=last_cap,
        all_usd=usd,
    )


@schedule_app.command("export")
def schedule_export(
    venue: Annotated[str, typer.Argument(help=VENUES_WRITTEN)],
    levels: Annotated[
        Path, typer.Argument(help="Table that score writes.", metavar="LEVELS.parquet")
    ],
    *,
    out: Annotated[Path, typer.Option("--out", help="File to write.", metavar="FILE")],
    side: Annotated[
        str, typer.Option(help="Whose levels: long, short, or the larger of both.")
    ] = "larger",
    up_to: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="Largest position; default: where the tiers end.", metavar="USD"),
    ] = None,
    price: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help="Price of a coin, for drift; given again.", metavar="SYMBOL=USD"),
    ] = None,
) -> None:
    """Write margin levels as a venue's tier table (exit 1 if it would ask too little)."""
    from margincast.jobs import schedule

    schedule.run_export(venue, levels, out, side=side, up_to_usd=up_to, prices=price or [])


@schedule_app.command("show")
def schedule_show(file: Annotated[Path, typer.Argument(metavar="SCHEDULE.toml")]) -> None:
    """Print a base schedule with maintenance amounts and largest leverages."""
    from margincast.jobs import schedule

    schedule.show(file)
