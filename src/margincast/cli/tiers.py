"""``margincast tiers``: a base schedule from what closing costs."""

from pathlib import Path
from typing import Annotated, Optional

import typer

from margincast.cli.options import DataOption, SetOption, finish


def tiers(
    spec: Annotated[Path, typer.Argument(metavar="POLICY.toml")],
    data: DataOption = None,
    overrides: SetOption = None,
    *,
    out: Annotated[
        Path, typer.Option("--out", help="Base schedule to write.", metavar="SCHEDULE.toml")
    ],
    at: Annotated[
        Optional[str],  # noqa: UP045  # typer reads the annotation at run time
        typer.Option("--at", help="Moment of use (UTC); default: the newest book.", metavar="TIME"),
    ] = None,
    previous: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            "--previous", help="Schedule whose edges stay while good.", metavar="SCHEDULE.toml"
        ),
    ] = None,
    rate: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(
            "--rate", help="Move that margin covers; default: the long-run rate of the bars."
        ),
    ] = None,
    job: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            "--job", help="Job whose \\[data] is read; default: the model's.", metavar="JOB.toml"
        ),
    ] = None,
) -> None:
    """Make a base schedule whose tiers follow the order book (exit 1 if brackets are too few)."""
    from margincast.jobs import tiers as work

    made = work.run(spec, data, out, overrides or [], job=job, at=at, previous=previous, rate=rate)
    finish(all(one.choice.within for one in made))
