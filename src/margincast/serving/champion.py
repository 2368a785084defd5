"""The champion: the one version whose forecast sets margins now, or the reason why there is none.

The ledger and MLflow must agree on it, and its gate must have passed or been overridden for a time
that is not over. Two records that contradict each other cannot say which of them is right, so
neither is served. While MLflow is down the last good champion is, under the same conditions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from margincast.core.errors import CheckFailedError, InputError
from margincast.serving.last_good import LastGood
from margincast.serving.ledger_line import LedgerEntry
from margincast.serving.registry import RegisteredVersion, Registry
from margincast.serving.standing import Holder, Override, Standing, differences, standing_of
from margincast.training.tracking import StoreUnreachableError


class FailedGateError(CheckFailedError):
    """A version may not set margins: its gate did not pass, and nobody answers for it now."""


@dataclass(frozen=True)
class Champion:
    """The model that sets the margin.

    Attributes:
        version: which one it is.
        bundle_directory: its verified bundle on this disk.
        override: the leave it has although its gate failed, if so.
        from_last_good: MLflow could not be asked; this is the champion as last known.
        reason: why, if so; otherwise empty.
    """

    version: RegisteredVersion
    bundle_directory: Path
    override: Override | None
    from_last_good: bool
    reason: str


def resolve_champion(registry: Registry, name: str, *, now: datetime | None = None) -> Champion:
    """Return the champion and the local folder of its verified bundle.

    While MLflow or its artifacts cannot be reached it is the last good one, with the reason.

    Args:
        registry: MLflow's versions and the workspace's ledger.
        name: the registered model.
        now: moment of use; the clock's if not given.

    Raises:
        CheckFailedError: ledger and MLflow name different champions, its gate did not pass and was
            not overridden, or the override ended.
        LedgerError: the ledger does not verify.
        BundleError: the bundle is not the one that was registered.
        InputError: there is no champion, or MLflow cannot be reached and nothing was kept.
    """
    entries = registry.ledger.read()
    standing = standing_of(entries, name)
    moment = moment_of_use(entries, now)
    kept = LastGood(registry, name)
    try:
        found = _agreed(registry, name, standing)
        holder = standing.champion
        assert holder is not None
        require_leave(found, standing, holder, moment)
        directory = kept.fetch(found)
    except StoreUnreachableError as error:
        return _last_good(kept, name, standing, moment, error)
    return Champion(found, directory, holder.override, from_last_good=False, reason="")


def moment_of_use(entries: Sequence[LedgerEntry], now: datetime | None = None) -> datetime:
    """Return the time, not before the ledger's last line: a clock set back revives no override."""
    moment = now or datetime.now(UTC)
    return max([moment, *(entry.instant for entry in entries)])


def require_leave(
    found: RegisteredVersion, standing: Standing, holder: Holder, moment: datetime
) -> None:
    """Check that a version may set margins at a moment.

    Raises:
        FailedGateError: its gate did not pass, and there is no override or it ended.
        CheckFailedError: its record in MLflow is not the one that was registered.
    """
    require_record(found, standing)
    override = holder.override
    if found.gate_passed:
        return
    which = f"version {found.version} of {found.name!r}"
    if override is None:
        raise FailedGateError(
            f"{which} is champion without a passed gate; it is not served: promote a version that "
            "passed"
        )
    if moment >= override.expires:
        raise FailedGateError(
            f"the gate of {which} did not pass; {override.approver} allowed it until "
            f"{override.expires:%F %H:%M} UTC, which is over: promote a version that passed, roll "
            "back, or have it overridden anew"
        )


def require_record(found: RegisteredVersion, standing: Standing) -> None:
    """Check that MLflow says of a version what the ledger said when it was registered.

    A version older than such lines has none, and is taken at MLflow's word.

    Raises:
        CheckFailedError: gate or bundle are not the registered ones.
    """
    line = standing.registrations.get(found.version)
    if line is None:
        return
    stated = (line.details["gate_passed"], line.evidence_digest, line.details["bundle_digest"])
    if stated != (found.gate_passed, found.gate_digest, found.bundle_digest):
        raise CheckFailedError(
            f"MLflow's record of version {found.version} of {found.name!r} (gate, verdict or "
            f"bundle) is not what line {line.number} of the ledger says it was registered with; "
            "it was changed since and is not used: train again, or restore MLflow's store"
        )


def _agreed(registry: Registry, name: str, standing: Standing) -> RegisteredVersion:
    """Return the champion on which ledger and MLflow agree."""
    found = registry.at_alias(name, "champion")
    if found is None and standing.champion is None:
        raise InputError(
            f"no version of {name!r} is champion; train a model that passes its gate, or "
            "promote a version"
        )
    aliases = {} if found is None else {"champion": found.version}
    problem = differences(standing, aliases).get("champion")
    if problem or found is None:
        raise CheckFailedError(
            f"who is champion of {name!r} is in doubt: {problem}. Nothing is served until a "
            f"version is promoted again: margincast promote {name}/VERSION --reason ..."
        )
    return found


def _last_good(
    kept: LastGood, name: str, standing: Standing, moment: datetime, error: StoreUnreachableError
) -> Champion:
    last = kept.read()
    if last is None:
        raise StoreUnreachableError(f"{error}. No earlier champion of {name!r} is on disk")
    found, directory = last
    if found.version == standing.rolled_back:
        raise CheckFailedError(
            f"{error}. The champion on this disk, version {found.version} of {name!r}, was rolled "
            "back since; it is not served"
        )
    # the present champion, or the one before it that this disk still has
    holders = [one for one in standing.champions if one.version == found.version]
    if not holders:
        raise CheckFailedError(
            f"{error}. The champion on this disk, version {found.version} of {name!r}, is none by "
            "the ledger; it is not served"
        )
    require_leave(found, standing, holders[-1], moment)
    return Champion(found, directory, holders[-1].override, from_last_good=True, reason=str(error))
