"""``margincast override``: a person sets a margin by hand, for a time and on the record."""

import json
from datetime import UTC, datetime
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Table

from margincast.core.errors import CheckFailedError, LedgerError, MargincastError
from margincast.jobs.console import output, say
from margincast.jobs.person import acting_person
from margincast.jobs.promote import parse_end
from margincast.margin.schedule import require_policy_fits
from margincast.models.catalogue import LOADERS
from margincast.serving.bundle import read_bundle
from margincast.serving.champion import moment_of_use, resolve_champion
from margincast.serving.ledger import LEDGER, Ledger
from margincast.serving.ledger_line import LedgerEntry
from margincast.serving.margin_overrides import (
    RecordedOverride,
    Wish,
    end_override,
    recorded_overrides,
    set_override,
)
from margincast.serving.registry import Registry
from margincast.specs.loading import find_workspace, load_spec
from margincast.specs.schedule import BaseSchedule
from margincast.specs.serving import MarginPolicy

ALL = "all"
"""Stands for every contract."""


def set_margin(
    spec: Path,
    symbol: str,
    action: str,
    mmr: float | None,
    *,
    side: str | None,
    tier: int | None,
    reason: str,
    approver: str,
    expires: str,
    who: str | None,
) -> LedgerEntry:
    """Set a margin by hand.

    Args:
        spec: the margin policy.
        symbol: the contract, or ``all``.
        action: raise, fix or lift.
        mmr: the rate, a fraction.
        side: of the position; None for both.
        tier: number of the tier; None for all.
        reason: for the ledger.
        approver: another person than who acts.
        expires: its end, an ISO 8601 time (UTC) or a duration from now.
        who: acts; the user if not given.

    Raises:
        InputError: see :func:`margincast.serving.margin_overrides.set_override`.
    """
    policy = load_spec(spec, MarginPolicy)
    workspace = find_workspace(spec)
    schedule = load_spec(workspace / policy.schedule.file, BaseSchedule)
    require_policy_fits(policy, schedule)
    everyone = symbol == ALL
    wish = Wish(action, mmr, None if everyone else symbol, side, tier, approver, parse_end(expires))
    entry = set_override(
        Ledger(workspace / LEDGER),
        policy,
        schedule,
        wish,
        contracts=() if everyone else _known(policy, schedule, workspace),
        who=acting_person(who),
        why=reason,
    )
    _say(entry)
    return entry


def end(line: int, reason: str, *, workspace: Path, who: str | None) -> LedgerEntry:
    """End an override before its time.

    Raises:
        InputError: see :func:`margincast.serving.margin_overrides.end_override`.
    """
    entry = end_override(Ledger(workspace / LEDGER), line, who=acting_person(who), why=reason)
    _say(entry)
    return entry


def show(workspace: Path, *, policy: str | None, as_json: bool) -> None:
    """Print every override and whether it holds.

    Raises:
        CheckFailedError: the ledger does not verify.
    """
    try:
        entries = Ledger(workspace / LEDGER).read()
    except LedgerError as error:
        raise CheckFailedError(str(error)) from None
    moment = moment_of_use(entries)
    found = recorded_overrides(entries, policy)
    if as_json:
        records = [_record(one, moment) for one in found]
        output.print(json.dumps(records, indent=1), markup=False, soft_wrap=True)
        return
    if not found:
        output.print("no margin was ever set by hand")
        return
    table = Table(box=SIMPLE_HEAD, padding=0)
    headings = ("line", "policy", "for", "override", "until (UTC)", "state", "by", "why")
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for one in found:
        override = one.override
        table.add_row(
            str(override.line),
            one.policy,
            override.subject,
            override.text,
            f"{override.expires:%F %H:%M}",
            one.state(moment),
            f"{one.who} (approved by {override.approver})",
            override.reason,
            style="yellow" if one.in_force(moment) else "dim",
        )
    output.print(table)


def _record(one: RecordedOverride, moment: datetime) -> dict[str, object]:
    override = one.override
    return {
        "line": override.line,
        "policy": one.policy,
        "symbol": override.symbol,
        "side": override.side,
        "tier": override.tier,
        "action": override.action,
        "mmr": None if override.action == "lift" else override.mmr,
        "reason": override.reason,
        "who": one.who,
        "approver": override.approver,
        "begins": override.begins.astimezone(UTC).isoformat(),
        "expires": override.expires.astimezone(UTC).isoformat(),
        "in_force": one.in_force(moment),
        "state": one.state(moment),
    }


def _known(policy: MarginPolicy, schedule: BaseSchedule, workspace: Path) -> set[str]:
    """Contracts that the base schedule names, and those the champion was trained on."""
    named = set(schedule.named)
    model = policy.model.registered_model
    try:
        champion = resolve_champion(Registry(policy.tracking.uri, workspace), model)
        bundle = read_bundle(champion.bundle_directory, LOADERS, champion.version.bundle_digest)
    except MargincastError as error:
        say(f"no champion says which contracts there are besides the schedule's: {error}")
        return named
    return named | set(bundle.specs.get("contracts", ()))


def _say(entry: LedgerEntry) -> None:
    output.print(entry.what, soft_wrap=True, markup=False)
    output.print(f"ledger: line {entry.number}, head {entry.hash}", soft_wrap=True)
