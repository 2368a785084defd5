"""``margincast serve`` and ``margincast keys``: margins over HTTP, and who may ask for them."""

from pathlib import Path
from typing import Annotated, Optional

import typer

from margincast.cli.options import SetOption

keys_app = typer.Typer(help="API keys of the service.", no_args_is_help=True)
WhereArgument = Annotated[
    Path, typer.Argument(help="Workspace, or a service.toml.", metavar="WORKSPACE|CONFIG")
]
WhereOption = Annotated[
    Path,
    typer.Option("--service", help="Workspace, or a service.toml.", metavar="WORKSPACE|CONFIG"),
]
ByOption = Annotated[
    Optional[str],  # noqa: UP045  # typer reads the annotation at run time
    typer.Option("--by", help="Who acts; default: the user.", metavar="NAME"),
]


def serve(where: WhereArgument = Path(), overrides: SetOption = None) -> None:
    """Serve published margins over HTTP, with a page to look at, until told to end."""
    from margincast.jobs import serve as job

    job.run(where, overrides or [])


@keys_app.command("create")
def keys_create(
    name: Annotated[str, typer.Option("--name", help="Who it is for.", metavar="HOLDER")],
    scopes: Annotated[
        str, typer.Option("--scopes", help="Of read, score, publish, admin.", metavar="A,B,...")
    ],
    *,
    expires: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--expires", help="How long it is valid, such as 90d.", metavar="TIME"),
    ] = None,
    by: ByOption = None,
    where: WhereOption = Path(),
) -> None:
    """Make a key; it is printed this once and kept as a digest only."""
    from margincast.jobs import serve as job

    wanted = [part.strip() for part in scopes.split(",") if part.strip()]
    typer.echo(job.create_key(where, name, wanted, expires=expires, who=by))


@keys_app.command("list")
def keys_list(where: WhereOption = Path()) -> None:
    """List all keys ever made, without their secrets."""
    from margincast.jobs import serve as job

    job.list_keys(where)


@keys_app.command("revoke")
def keys_revoke(
    identifier: Annotated[str, typer.Argument(metavar="KEY")],
    reason: Annotated[str, typer.Option("--reason", help="Why.", metavar="TEXT")],
    *,
    by: ByOption = None,
    where: WhereOption = Path(),
) -> None:
    """Refuse a key from now on; running services know within a look."""
    from margincast.jobs import serve as job

    job.revoke_key(where, identifier, reason=reason, who=by)
    typer.echo(f"key {identifier} revoked")
