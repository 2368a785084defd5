"""``margincast promote``, ``rollback`` and ``ledger``: who sets margins, and who said so."""

from pathlib import Path
from typing import Annotated, Optional

import typer

from margincast.cli.options import LOCAL_STORE, UriOption, WorkspaceOption

ledger_app = typer.Typer(help="Read and check the promotion ledger.", no_args_is_help=True)

ReasonOption = Annotated[str, typer.Option("--reason", help="Why, for the ledger.")]
WhoOption = Annotated[
    Optional[str],  # noqa: UP045  # typer reads the annotation at run time
    typer.Option("--who", help="Who acts; default: the user."),
]


def promote(
    version: Annotated[str, typer.Argument(metavar="MODEL/VERSION")],
    reason: ReasonOption,
    alias: Annotated[
        str, typer.Option("--as", help="champion, challenger or shadow.", metavar="ALIAS")
    ] = "champion",
    *,
    override: Annotated[
        bool, typer.Option("--override", help="Although its gate failed, for a time.")
    ] = False,
    approver: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Who approves the override; another person than who acts."),
    ] = None,
    expires: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="When the override ends: a time (UTC), or such as 7d.", metavar="TIME"),
    ] = None,
    who: WhoOption = None,
    workspace: WorkspaceOption = Path(),
    uri: UriOption = LOCAL_STORE,
) -> None:
    """Let a version set margins (exit 1 if its gate says no); the ledger keeps who and why."""
    from margincast.jobs import promote as job

    job.run(
        version,
        alias,
        reason,
        workspace=workspace,
        uri=uri,
        who=who,
        override=override,
        approver=approver,
        expires=expires,
    )


def rollback(
    model: Annotated[str, typer.Argument(metavar="MODEL")],
    reason: ReasonOption,
    *,
    who: WhoOption = None,
    workspace: WorkspaceOption = Path(),
    uri: UriOption = LOCAL_STORE,
) -> None:
    """Put the champion before the present one back (exit 1 if there is none that may be)."""
    from margincast.jobs import promote as job

    job.run_back(model, reason, workspace=workspace, uri=uri, who=who)


@ledger_app.command("show")
def ledger_show(
    *,
    model: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Of one registered model only."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
    workspace: WorkspaceOption = Path(),
) -> None:
    """Show who promoted what, when and why, and who holds which alias."""
    from margincast.jobs import ledger

    ledger.show(workspace, model=model, as_json=as_json)


@ledger_app.command("verify")
def ledger_verify(
    *,
    head: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Hash of a last line, kept elsewhere: it must still be there."),
    ] = None,
    workspace: WorkspaceOption = Path(),
    uri: UriOption = LOCAL_STORE,
) -> None:
    """Check that no line was changed, and MLflow's aliases against them (exit 1 if not)."""
    from margincast.jobs import ledger

    ledger.verify(workspace, uri, head=head)
