"""``margincast publications``: margins that were put in force, and going back to earlier ones."""

from pathlib import Path
from typing import Annotated, Optional

import typer

from margincast.cli.governance import ReasonOption
from margincast.cli.options import WorkspaceOption, finish

publications_app = typer.Typer(
    help="Margins that were put in force: list, compare, verify, revert, replay.",
    no_args_is_help=True,
)
NumberArgument = Annotated[int, typer.Argument(metavar="N", help="Number of a publication.", min=1)]
PolicyOption = Annotated[
    Optional[str],  # noqa: UP045  # typer reads the annotation at run time
    typer.Option(help="Name of the policy; not needed where only one was published."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="As JSON.")]
ByOption = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--by", help="Who publishes; default: the user.", metavar="NAME"),
]


@publications_app.command("list")
def publications_list(
    *,
    policy: PolicyOption = None,
    as_json: JsonOption = False,
    workspace: WorkspaceOption = Path(),
) -> None:
    """Show every publication, and check that none is missing: their records are one chain."""
    from margincast.jobs import publications as job

    job.show_all(workspace, policy, as_json=as_json)


@publications_app.command("verify")
def publications_verify(
    *, policy: PolicyOption = None, workspace: WorkspaceOption = Path()
) -> None:
    """Read every file ever published, and check that none was changed (exit 1 if one was)."""
    from margincast.jobs import publications as job

    finish(job.verify(workspace, policy))


@publications_app.command("show")
def publications_show(
    number: NumberArgument,
    *,
    policy: PolicyOption = None,
    as_json: JsonOption = False,
    workspace: WorkspaceOption = Path(),
) -> None:
    """Show one: who, when, why, from what, and its margin levels."""
    from margincast.jobs import publications as job

    job.show(workspace, policy, number, as_json=as_json)


@publications_app.command("diff")
def publications_diff(
    first: NumberArgument,
    second: NumberArgument,
    *,
    policy: PolicyOption = None,
    as_json: JsonOption = False,
    workspace: WorkspaceOption = Path(),
) -> None:
    """Say what changed from one publication to another, and which step it came from."""
    from margincast.jobs import publications as job

    job.diff(workspace, policy, first, second, as_json=as_json)


@publications_app.command("revert")
def publications_revert(
    number: NumberArgument,
    reason: ReasonOption,
    *,
    by: ByOption = None,
    at: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            "--at",
            help="From when it is in force (UTC), or 'now'; default: since the last publication.",
            metavar="TIME",
        ),
    ] = None,
    policy: PolicyOption = None,
    workspace: WorkspaceOption = Path(),
) -> None:
    """Put an earlier publication in force again, under a new number."""
    from margincast.jobs import publications as job

    job.revert(workspace, policy, number, reason=reason, by=by, at=at)


@publications_app.command("replay")
def publications_replay(
    number: NumberArgument,
    symbol: Annotated[
        Optional[str],  # noqa: UP045
        typer.Argument(metavar="[SYMBOL]", help="Show the steps of this contract's margins."),
    ] = None,
    *,
    policy: PolicyOption = None,
    workspace: WorkspaceOption = Path(),
) -> None:
    """Compute a publication again from its recorded inputs (exit 1 on any difference)."""
    from margincast.jobs import publications as job

    finish(job.replay(workspace, policy, number, symbol))
