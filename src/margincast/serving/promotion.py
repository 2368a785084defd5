"""Promotion and rollback: every change of who may set margins, allowed or refused, on the record.

The ledger's line comes first, then MLflow's alias: no change can be missing from the ledger, and
what a crash in between leaves is seen (:func:`margincast.serving.standing.differences`) and mended
by promoting again. Two changes at the same time cannot both win: whoever comes second finds that
the ledger has moved on, and is told.
"""

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn

from margincast.core.errors import BundleError, CheckFailedError, InputError
from margincast.core.time import format_duration, parse_duration
from margincast.serving.champion import moment_of_use, require_leave, require_record
from margincast.serving.ledger import LedgerWriter
from margincast.serving.ledger_line import Kind, LedgerEntry
from margincast.serving.registry import RegisteredVersion, Registry
from margincast.serving.standing import (
    ALIASES,
    Alias,
    Override,
    Standing,
    differences,
    standing_of,
)


class OvertakenError(CheckFailedError):
    """Somebody else changed the champion or another alias while this change was prepared."""


@dataclass(frozen=True)
class _Change:
    """A change of aliases that was found allowed."""

    kind: Kind
    target: RegisteredVersion
    alias: Alias
    standing: Standing
    what: str
    details: Mapping[str, Any]


def promote(
    registry: Registry,
    name: str,
    alias: Alias,
    version: int,
    *,
    who: str,
    why: str,
    override: Override | None = None,
    now: datetime | None = None,
) -> LedgerEntry:
    """Give a version an alias, and write down who did it and why.

    Promoting the version that holds the alias already puts MLflow's alias back where it is not what
    the ledger says.

    Args:
        registry: MLflow's versions and the workspace's ledger.
        name: the registered model.
        alias: see :mod:`margincast.serving.standing` for who may hold which.
        version: of the model.
        who: the person or service that acts.
        why: the reason.
        override: leave to become champion although the gate failed.
        now: the time; the clock's if not given.

    Raises:
        CheckFailedError: the gate did not pass and is not overridden (the refusal is in the
            ledger), or the record in MLflow is not the registered one.
        OvertakenError: another change came first.
        BundleError: the bundle in MLflow's artifacts is not the registered one.
        InputError: no such alias or version, an override that cannot be given, nothing to change,
            or MLflow or the ledger cannot be used.
        LedgerError: the ledger does not verify.
    """
    if alias not in ALIASES:
        raise InputError(f"{alias!r} is no alias; aliases are {', '.join(ALIASES)}")
    entries = registry.ledger.read()
    standing = standing_of(entries, name)
    target = registry.version(name, version)
    require_record(target, standing)
    holder = standing.holders.get(alias)
    moment = moment_of_use(entries, now)
    if holder is not None and holder.version == version and override is None:
        if holder.override is not None:
            # what ended is not mended by saying it again
            require_leave(target, standing, holder, moment)
        return _repaired(registry, target, alias, standing, who=who, why=why)
    champion = standing.champion
    if alias != "champion" and champion is not None and champion.version == version:
        raise InputError(
            f"version {version} of {name!r} is champion; promote another version to champion "
            "first, or roll back"
        )
    specs = _verified_specs(registry, target)
    details: dict[str, Any] = {}
    if alias != "shadow" and not target.gate_passed:
        if override is None or alias != "champion":
            _refuse(registry, target, alias, specs, who=who, why=why)
        _require_override(override, specs, who, moment)
        details = {"approver": override.approver, "expires": override.expires.isoformat()}
    elif override is not None:
        raise InputError(
            f"version {version} of {name!r} needs no override to become {alias}; leave it out"
        )
    before = None if holder is None else holder.version
    what = f"{alias} of {name}: version {before or 'none'} -> {version}"
    if override is not None:
        what += f", gate overridden until {override.expires:%F %H:%M} UTC"
    return _carry_out(
        registry,
        _Change(
            "promotion" if override is None else "override",
            target,
            alias,
            standing,
            what,
            {"before": before, **details},
        ),
        who=who,
        why=why,
    )


def promote_after_training(registry: Registry, target: RegisteredVersion, *, who: str) -> str:
    """Make a version that passed its gate champion where there is none, else challenger.

    Returns:
        The alias; empty for a version that did not pass, which gets none.

    Raises:
        See :func:`promote`.
    """
    if not target.gate_passed:
        return ""
    while True:
        standing = standing_of(registry.ledger.read(), target.name)
        for alias, holder in standing.holders.items():
            if holder.version == target.version:
                # done again after an answer was lost
                return alias
        # an alias that only MLflow knows is a person's doing: not for a job to take
        taken = standing.champion or registry.at_alias(target.name, "champion")
        wanted: Alias = "challenger" if taken else "champion"
        why = "gate passed" + ("" if taken else "; there was no champion")
        try:
            promote(registry, target.name, wanted, target.version, who=who, why=why)
        except OvertakenError:
            continue
        return wanted


def rollback(
    registry: Registry, name: str, *, who: str, why: str, now: datetime | None = None
) -> LedgerEntry:
    """Make the champion before the present one champion again.

    Raises:
        CheckFailedError: there was none, or it may not set margins any more (its gate failed and
            its override ended, or its record in MLflow was changed).
        OvertakenError: another change came first.
        BundleError: its bundle in MLflow's artifacts is not the registered one.
        InputError: MLflow or the ledger cannot be used.
        LedgerError: the ledger does not verify.
    """
    entries = registry.ledger.read()
    standing = standing_of(entries, name)
    if len(standing.champions) < 2:
        present = standing.champion
        held = "none" if present is None else f"version {present.version}, the first"
        raise CheckFailedError(
            f"there is no champion of {name!r} to go back to (the present one is {held}); promote "
            "another version"
        )
    before, present = standing.champions[-2:]
    target = registry.version(name, before.version)
    require_leave(target, standing, before, moment_of_use(entries, now))
    _verified_specs(registry, target)
    return _carry_out(
        registry,
        _Change(
            "rollback",
            target,
            "champion",
            standing,
            f"champion of {name} rolled back: version {present.version} -> {before.version}",
            {"before": present.version},
        ),
        who=who,
        why=why,
    )


def _carry_out(registry: Registry, change: _Change, *, who: str, why: str) -> LedgerEntry:
    """Write the line and move the alias, unless the ledger has moved on."""
    target = change.target
    with registry.ledger.writing() as writer:
        present = standing_of(writer.entries, target.name)
        if (present.holders, present.champions) != (
            change.standing.holders,
            change.standing.champions,
        ):
            last = next(e for e in reversed(writer.entries) if "alias" in e.details)
            raise OvertakenError(
                f"{change.what}: not done, {last.who} was faster ({last.what}, line {last.number} "
                "of the ledger); look again, and repeat the command if it still holds"
            )
        entry = writer.append(
            kind=change.kind,
            who=who,
            what=change.what,
            why=why,
            evidence_digest=target.gate_digest,
            details={
                "model": target.name,
                "alias": change.alias,
                "version": target.version,
                **change.details,
            },
        )
        _move_aliases(registry, writer, entry, target, who=who)
    return entry


def _move_aliases(
    registry: Registry,
    writer: LedgerWriter,
    entry: LedgerEntry,
    target: RegisteredVersion,
    *,
    who: str,
) -> None:
    """Make MLflow's aliases of a version what the ledger says; an outage withdraws the line."""
    name, alias = target.name, entry.details["alias"]
    try:
        registry.point(name, alias, target.version)
        for other, version in registry.aliases(name).items():
            if other in ALIASES and other != alias and version == target.version:
                registry.clear(name, other)
    except InputError as error:
        if entry.kind != "repair":
            writer.append(
                kind="withdrawal",
                who=who,
                what=f"withdrawn: {entry.what}",
                why=f"not done: {str(error).splitlines()[0]}",
                evidence_digest=entry.evidence_digest,
                details={"model": name, "alias": alias, "line": entry.number},
            )
        raise


def _repaired(
    registry: Registry,
    target: RegisteredVersion,
    alias: Alias,
    standing: Standing,
    *,
    who: str,
    why: str,
) -> LedgerEntry:
    """Put MLflow's alias back to what the ledger says."""
    found = registry.aliases(target.name)
    problems = [
        f"{other}: {problem}"
        for other, problem in differences(standing, found).items()
        if other == alias or found.get(other) == target.version
    ]
    if not problems:
        raise InputError(
            f"version {target.version} of {target.name!r} is {alias} already; there is nothing to "
            "change"
        )
    what = f"{alias} of {target.name}: MLflow put back to version {target.version}"
    details = {"before": found.get(alias)}
    change = _Change("repair", target, alias, standing, what, details)
    return _carry_out(registry, change, who=who, why=f"{why} ({'; '.join(problems)})")


def _refuse(
    registry: Registry,
    target: RegisteredVersion,
    alias: Alias,
    specs: Mapping[str, Any],
    *,
    who: str,
    why: str,
) -> NoReturn:
    """Write down that a version was not allowed, and say so.

    Raises:
        CheckFailedError: always.
    """
    failed = [check["reason"] for check in specs["gate"]["checks"] if not check["passed"]]
    entry = registry.ledger.append(
        kind="refusal",
        who=who,
        what=f"refused: {alias} of {target.name}: version {target.version}, its gate failed",
        why=why,
        evidence_digest=target.gate_digest,
        details={
            "model": target.name,
            "alias": alias,
            "version": target.version,
            "reasons": failed,
        },
    )
    where = " or challenger" if alias == "challenger" else ""
    raise CheckFailedError(
        f"version {target.version} of {target.name!r} did not pass its gate and cannot become "
        f"champion{where}: {'; '.join(failed)}. The refusal is line {entry.number} of the ledger. "
        "A version that failed may be shadow; to make it champion for a time somebody else must "
        "approve: --override --approver NAME --expires TIME"
    )


def _require_override(
    override: Override, specs: Mapping[str, Any], who: str, moment: datetime
) -> None:
    """Check that an override may be given: by another person, for a time that is not too long."""
    if not override.approver.strip():
        raise InputError("an override needs the name of who approves it (--approver)")
    if override.approver.strip().casefold() == who.strip().casefold():
        raise InputError(
            f"an override is approved by another person than who asks for it; both are {who!r}"
        )
    longest = _longest_override(specs)
    if longest == timedelta(0):
        raise InputError(
            "the job that trained this version allows no override (gate.longest_override); train a "
            "version that passes"
        )
    length = override.expires - moment
    if length <= timedelta(0):
        raise InputError(
            f"an override must end in the future, found {override.expires:%F %H:%M} UTC; it is "
            f"{moment:%F %H:%M} UTC now"
        )
    if length > longest:
        raise InputError(
            f"an override may last {format_duration(longest)} at most (gate.longest_override of "
            f"the job that trained it), found an end at {override.expires:%F %H:%M} UTC; the "
            f"latest is {moment + longest:%F %H:%M} UTC"
        )


def _longest_override(specs: Mapping[str, Any]) -> timedelta:
    stated = specs["training"].get("gate", {}).get("longest_override", "0s")
    return timedelta(0) if stated == "0s" else parse_duration(stated)


def _verified_specs(registry: Registry, target: RegisteredVersion) -> dict[str, Any]:
    """Fetch a version's bundle, check it, and return its specs: what never was whole never serves.

    Raises:
        BundleError: it does not verify, or its gate's verdict is not the registered one.
    """
    with tempfile.TemporaryDirectory() as folder:
        bundle = registry.fetch(target, Path(folder))
        specs = {
            path.stem: json.loads(path.read_bytes()) for path in (bundle / "specs").glob("*.json")
        }
    if specs.get("gate", {}).get("passed") is not target.gate_passed:
        raise BundleError(
            f"the bundle of version {target.version} of {target.name!r} holds another verdict of "
            "its gate than MLflow's record of the version; it is not used: train again"
        )
    return specs
