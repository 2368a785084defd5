"""``margincast override``: margins set by hand, for a time and on the record."""

from pathlib import Path
from typing import Annotated, Optional

import typer

from margincast.cli.governance import ReasonOption, WhoOption
from margincast.cli.options import WorkspaceOption

override_app = typer.Typer(help="Set margins by hand, for a time.", no_args_is_help=True)


@override_app.command("set")
def override_set(
    spec: Annotated[Path, typer.Argument(metavar="POLICY.toml")],
    symbol: Annotated[str, typer.Argument(metavar="SYMBOL", help="A contract, or 'all'.")],
    reason: ReasonOption,
    approver: Annotated[str, typer.Option(help="Who approves it; not who acts.")],
    expires: Annotated[
        str, typer.Option(help="When it ends: a time (UTC), or such as 8h.", metavar="TIME")
    ],
    *,
    at_least: Annotated[
        Optional[float],  # noqa: UP045  # typer reads the annotation at run time
        typer.Option("--raise", help="At least this MMR, a fraction.", metavar="MMR"),
    ] = None,
    fixed: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option("--fix", help="This MMR, a fraction.", metavar="MMR"),
    ] = None,
    lift: Annotated[
        bool, typer.Option("--lift-speed-limit", help="No speed limit on rises.")
    ] = False,
    side: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="long or short; default: both."),
    ] = None,
    tier: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Number of a notional tier; default: all."),
    ] = None,
    who: WhoOption = None,
) -> None:
    """Raise or fix an MMR, or lift the speed limit; the ledger keeps who, why and how long."""
    wishes = (("raise", at_least, at_least is not None), ("fix", fixed, fixed is not None))
    given = [(name, mmr) for name, mmr, wanted in (*wishes, ("lift", None, lift)) if wanted]
    if len(given) != 1:
        raise typer.BadParameter("give one of --raise MMR, --fix MMR and --lift-speed-limit")
    from margincast.jobs import override as job

    ((action, mmr),) = given
    job.set_margin(
        spec,
        symbol,
        action,
        mmr,
        side=side,
        tier=tier,
        reason=reason,
        approver=approver,
        expires=expires,
        who=who,
    )


@override_app.command("list")
def override_list(
    *,
    policy: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Of one policy only, by its name."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
    workspace: WorkspaceOption = Path(),
) -> None:
    """Show every margin set by hand, and whether it holds."""
    from margincast.jobs import override as job

    job.show(workspace, policy=policy, as_json=as_json)


@override_app.command("end")
def override_end(
    line: Annotated[int, typer.Argument(metavar="LINE", help="Of the ledger that set it.")],
    reason: ReasonOption,
    *,
    who: WhoOption = None,
    workspace: WorkspaceOption = Path(),
) -> None:
    """End an override before its time."""
    from margincast.jobs import override as job

    job.end(line, reason, workspace=workspace, who=who)
