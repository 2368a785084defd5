"""``margincast monitor``: what is fine with published margins, and what is not."""

from pathlib import Path
from typing import Annotated, Optional

import typer

from margincast.cli.options import CacheOption, DataOption, OutOption, SetOption, finish


def monitor(
    spec: Annotated[Path, typer.Argument(metavar="MONITOR.toml")],
    data: DataOption = None,
    out: OutOption = None,
    overrides: SetOption = None,
    *,
    at: Annotated[
        Optional[str],  # noqa: UP045  # typer reads the annotation at run time
        typer.Option("--at", help="Moment to look at (UTC); default: now.", metavar="TIME"),
    ] = None,
    cache: CacheOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    act: Annotated[
        bool, typer.Option("--act", help="Start the job that is due; without it only say so.")
    ] = False,
) -> None:
    """Coverage, drift and freshness of a policy's margins (exit 1 while an alarm is raised)."""
    if as_json and act:
        raise typer.BadParameter("--act prints what its job prints; read monitor.json instead")
    from margincast.jobs import monitor as job

    found = job.run(spec, data, out, overrides or [], at=at, cache=cache, as_json=as_json, act=act)
    finish(not found.report.raised)
