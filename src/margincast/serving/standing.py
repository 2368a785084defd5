"""Who may set margins now, as the ledger tells it: the holders of a model's aliases.

Pure reading of ledger lines. ``champion`` sets margins; ``challenger`` passed its gate and waits;
``shadow`` is scored beside the champion and never published, so its gate may have failed. A version
holds one alias at most: a new one takes the old one away.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal, get_args

from margincast.serving.ledger_line import LedgerEntry

Alias = Literal["champion", "challenger", "shadow"]
ALIASES: tuple[Alias, ...] = get_args(Alias)


@dataclass(frozen=True)
class Override:
    """Leave to set margins although the gate failed.

    Attributes:
        approver: the person who answers for it.
        expires: when it ends, UTC.
    """

    approver: str
    expires: datetime


@dataclass(frozen=True)
class Holder:
    """A version that holds an alias.

    Attributes:
        version: of the model.
        line: of the ledger, by number, that gave it the alias.
        override: of its gate, if it needed one.
    """

    version: int
    line: int
    override: Override | None = None


@dataclass(frozen=True)
class Standing:
    """The holders of one model's aliases.

    Attributes:
        holders: by alias; an alias nobody holds is missing.
        champions: who held ``champion``, oldest first, the present one last; those rolled back are
            gone from it.
        rolled_back: the version that the last change of champion took away as bad.
        registrations: by version, the line that registered it.
    """

    holders: Mapping[str, Holder] = field(default_factory=dict)
    champions: tuple[Holder, ...] = ()
    rolled_back: int | None = None
    registrations: Mapping[int, LedgerEntry] = field(default_factory=dict)

    @property
    def champion(self) -> Holder | None:
        """The present champion."""
        return self.holders.get("champion")


def standing_of(entries: Sequence[LedgerEntry], model: str) -> Standing:
    """Read the standing of a model's versions from the ledger.

    Args:
        entries: all lines, oldest first.
        model: the registered model.
    """
    own = [entry for entry in entries if entry.details.get("model") == model]
    withdrawn = set(_withdrawn(own))
    holders: dict[str, Holder] = {}
    champions: list[Holder] = []
    rolled_back: int | None = None
    registrations: dict[int, LedgerEntry] = {}
    for entry in own:
        details = entry.details
        if entry.kind == "registration":
            registrations[int(details["version"])] = entry
        if entry.kind not in {"promotion", "override", "rollback"} or entry.number in withdrawn:
            continue
        holder = Holder(int(details["version"]), entry.number, _override(details))
        holders = {a: one for a, one in holders.items() if one.version != holder.version}
        if entry.kind == "rollback":
            rolled_back = champions.pop().version if champions else None
            if champions and champions[-1].version == holder.version:
                # the leave it had, it still has, for as long as it was given
                holder = replace(champions[-1], line=entry.number)
            holders["champion"] = holder
            continue
        holders[str(details["alias"])] = holder
        if details["alias"] == "champion":
            rolled_back = None
            if champions and champions[-1].version == holder.version:
                champions.pop()
            champions.append(holder)
    return Standing(holders, tuple(champions), rolled_back, registrations)


def models_of(entries: Iterable[LedgerEntry]) -> tuple[str, ...]:
    """Return the models the ledger speaks of, sorted."""
    return tuple(
        sorted({str(entry.details["model"]) for entry in entries if "model" in entry.details})
    )


def differences(standing: Standing, aliases: Mapping[str, int]) -> dict[str, str]:
    """Say where MLflow's aliases are not what the ledger says.

    Args:
        standing: by the ledger.
        aliases: version by alias, as MLflow has them; those that are not ours do not count.

    Returns:
        A sentence by alias; empty where both agree.
    """
    found: dict[str, str] = {}
    for alias in ALIASES:
        holder, version = standing.holders.get(alias), aliases.get(alias)
        if version == (None if holder is None else holder.version):
            continue
        stated = "nobody" if version is None else f"version {version}"
        if holder is None:
            found[alias] = f"MLflow says {stated}, no line of the ledger gave it that alias"
        else:
            found[alias] = (
                f"line {holder.line} of the ledger says version {holder.version}, "
                f"MLflow says {stated}"
            )
    return found


def _withdrawn(entries: Sequence[LedgerEntry]) -> Iterable[int]:
    """Numbers of the lines that were not carried out."""
    acts: dict[str, int] = {}
    for entry in entries:
        if entry.kind != "withdrawal":
            acts[entry.what] = entry.number
        elif entry.format == 1:
            yield acts.get(entry.what.removeprefix("withdrawn: "), 0)
        else:
            yield int(entry.details["line"])


def _override(details: Mapping[str, Any]) -> Override | None:
    if "expires" not in details:
        return None
    return Override(str(details["approver"]), datetime.fromisoformat(str(details["expires"])))
