"""``margincast live``: margins that follow a feed."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Optional

import typer

from margincast.cli.options import DataOption, OutOption, SetOption, finish


class ClockName(StrEnum):
    """Whose time it is."""

    SYSTEM = "system"
    FEED = "feed"


def live(
    spec: Annotated[Path, typer.Argument(metavar="LIVE.toml")],
    data: DataOption = None,
    out: OutOption = None,
    overrides: SetOption = None,
    *,
    clock: Annotated[
        ClockName, typer.Option(help="'feed' replays a recorded feed in its own time.")
    ] = ClockName.SYSTEM,
    listen: Annotated[
        bool, typer.Option("--listen", help="Take rows over OUT/events.sock too, until stopped.")
    ] = False,
    publish: Annotated[
        bool, typer.Option("--publish", help="Make every decision a numbered publication.")
    ] = False,
    by: Annotated[
        Optional[str],  # noqa: UP045  # typer reads the annotation at run time
        typer.Option("--by", help="Who publishes; default: the user.", metavar="NAME"),
    ] = None,
) -> None:
    """Follow a feed (NDJSON on standard input): new margins at every decision, or a fallback."""
    from margincast.jobs import live as job

    finish(
        job.run(
            spec,
            data,
            out,
            overrides or [],
            clock=clock.value,
            publish=publish,
            by=by,
            listen=listen,
        )
    )
