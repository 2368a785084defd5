"""``margincast explain``: why a margin is what it is, and what moved it."""

from pathlib import Path
from typing import Annotated, Optional

import typer

from margincast.cli.options import CacheOption, DataOption, SetOption


def explain(
    symbol: Annotated[str, typer.Argument(metavar="SYMBOL")],
    spec: Annotated[
        Optional[Path],  # noqa: UP045  # typer reads the annotation at run time
        typer.Argument(metavar="[POLICY.toml]", help="Not needed with --levels."),
    ] = None,
    *,
    at: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--at", help="Moment (UTC), or 'now'; default: newest in the data."),
    ] = None,
    since: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--since", help="Earlier moment; the change from it is split."),
    ] = None,
    side: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="long or short; default: both."),
    ] = None,
    tier: Annotated[int, typer.Option(help="Number of the notional tier.", min=1)] = 1,
    policy_since: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Policy that was in force at --since.", metavar="POLICY.toml"),
    ] = None,
    version_since: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Model version of --since; default: the ledger's champion then."),
    ] = None,
    levels: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Explain a written table instead.", metavar="PARQUET"),
    ] = None,
    against: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Earlier table; the change from it is split.", metavar="PARQUET"),
    ] = None,
    data: DataOption = None,
    overrides: SetOption = None,
    cache: CacheOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show the chain of steps behind a margin, and what moved it since another time."""
    of_model = (at, since, policy_since, version_since, data, overrides, cache)
    if levels is None and (spec is None or against is not None):
        raise typer.BadParameter("give POLICY.toml, or --levels PARQUET with or without --against")
    if levels is not None and any(option is not None for option in of_model):
        raise typer.BadParameter("--levels takes --against, --side, --tier and --json only")
    from margincast.jobs import explain as job

    wanted = job.Wanted(symbol, side, tier)
    if levels is not None:
        job.run_on_tables(wanted, levels, against, spec, as_json=as_json)
        return
    assert spec is not None
    job.run(
        wanted,
        spec,
        data,
        overrides or [],
        at=at,
        since=since,
        policy_since=policy_since,
        version_since=version_since,
        cache=cache,
        as_json=as_json,
    )
