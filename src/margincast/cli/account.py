"""``margincast account`` and ``haircuts``: margin levels and forecasts, seen from one account."""

from pathlib import Path
from typing import Annotated, Optional

import typer

from margincast.cli.options import OutOption, SetOption


def account(
    positions: Annotated[Path, typer.Argument(metavar="POSITIONS")],
    levels: Annotated[
        Path, typer.Option("--levels", help="Margin levels of `score`.", metavar="PARQUET")
    ],
    *,
    collateral: Annotated[
        Optional[Path],  # noqa: UP045  # typer reads the annotation at run time
        typer.Option("--collateral", help="Assets and amounts, CSV or JSON.", metavar="FILE"),
    ] = None,
    haircuts: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--haircuts", help="Haircuts of `haircuts`, or CSV, JSON.", metavar="FILE"),
    ] = None,
    marks: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--marks", help="Mark prices, CSV or JSON.", metavar="FILE"),
    ] = None,
    scenarios: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            "--scenarios", help="Moves to add to the shocks, CSV or JSON.", metavar="FILE"
        ),
    ] = None,
    leader: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--leader", help="Leading contract of the shocks; default: the calmest."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Equity, requirements, distance to liquidation and stress of one account."""
    from margincast.jobs import account as job

    job.run(
        positions,
        levels,
        collateral=collateral,
        haircuts=haircuts,
        marks=marks,
        scenarios=scenarios,
        leader=leader,
        as_json=as_json,
    )


def haircuts(
    policy: Annotated[Path, typer.Argument(metavar="COLLATERAL.toml")],
    forecasts: Annotated[Path, typer.Argument(metavar="FORECASTS.parquet")],
    *,
    bars: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option("--bars", help="Bars of the contracts, for \\[long_run].", metavar="DIR"),
    ] = None,
    subject: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--model", help="Model to use; default: the first of the table."),
    ] = None,
    at: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            "--at",
            help="Moment of use (UTC), or 'now'; default: the newest forecast's.",
            metavar="TIME",
        ),
    ] = None,
    out: OutOption = None,
    overrides: SetOption = None,
) -> None:
    """Turn long-side forecasts into haircuts of collateral: haircuts.parquet."""
    from margincast.jobs import haircuts as job

    job.run(policy, forecasts, bars or [], out, subject=subject, at=at, overrides=overrides or [])
