"""``margincast ledger show`` and ``verify``: who set margins when, and whether that holds."""

import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Table

from margincast.core.errors import CheckFailedError, InputError, LedgerError, did_you_mean
from margincast.jobs.console import output
from margincast.serving.champion import moment_of_use
from margincast.serving.ledger import LEDGER, Ledger
from margincast.serving.ledger_line import LedgerEntry
from margincast.serving.registry import Registry
from margincast.serving.standing import (
    ALIASES,
    Holder,
    Standing,
    differences,
    models_of,
    standing_of,
)
from margincast.training.tracking import StoreUnreachableError

_UNUSUAL = {"refusal", "override", "withdrawal", "margin override", "job start"}


def show(workspace: Path, *, model: str | None, as_json: bool) -> None:
    """Print the ledger and who holds which alias by it.

    Raises:
        InputError: there is no ledger, or it does not speak of the model.
        CheckFailedError: it does not verify.
    """
    entries = _verified(workspace)
    chosen = _of_model(entries, model)
    models = models_of(chosen)
    moment = moment_of_use(entries)
    if as_json:
        record = {
            "entries": [entry.record for entry in chosen],
            "standing": {name: _record(standing_of(entries, name), moment) for name in models},
        }
        output.print(json.dumps(record, indent=1), markup=False, soft_wrap=True)
        return
    table = Table(box=SIMPLE_HEAD, padding=0)
    for heading in ("line", "when (UTC)", "who", "what", "why"):
        table.add_column(heading, overflow="fold")
    for entry in chosen:
        table.add_row(
            str(entry.number),
            f"{entry.instant:%F %H:%M:%S}",
            entry.who,
            entry.what,
            entry.why + _approval(entry),
            style="yellow" if entry.kind in _UNUSUAL else None,
        )
    output.print(table)
    for name in models:
        output.print(_sentence(name, standing_of(entries, name), moment), soft_wrap=True)


def verify(workspace: Path, uri: str, *, head: str | None) -> None:
    """Check the chain of lines, and MLflow's aliases against it.

    Raises:
        CheckFailedError: a line was changed (it is named), the head kept elsewhere is not among
            them, or an alias is not what the ledger says.
        InputError: there is no ledger, or MLflow cannot be reached.
    """
    entries = _verified(workspace, head or "")
    output.print(f"{len(entries)} line(s) verified, head {entries[-1].hash}", soft_wrap=True)
    registry = Registry(uri, workspace)
    try:
        problems = [
            f"{alias} of {name}: {problem}"
            for name in models_of(entries)
            for alias, problem in differences(
                standing_of(entries, name), registry.aliases(name)
            ).items()
        ]
    except StoreUnreachableError as error:
        raise StoreUnreachableError(
            f"the ledger holds, but MLflow's aliases could not be compared with it: {error}"
        ) from error
    if problems:
        raise CheckFailedError(
            "; ".join(problems) + ". Promote the version that is meant (margincast promote "
            "MODEL/VERSION --as ALIAS --reason ...): that puts both in order"
        )
    output.print("MLflow's aliases are what the ledger says")


def _verified(workspace: Path, head: str = "") -> tuple[LedgerEntry, ...]:
    ledger = Ledger(workspace / LEDGER)
    try:
        entries = ledger.verify(head)
    except LedgerError as error:
        # the command worked, and its answer is no
        raise CheckFailedError(str(error)) from None
    if not entries:
        raise InputError(
            f"there is no ledger at {ledger.path} yet; it begins with the first model that "
            "`margincast train` registers. Is --workspace right?"
        )
    return entries


def _of_model(entries: Sequence[LedgerEntry], model: str | None) -> list[LedgerEntry]:
    if model is None:
        return list(entries)
    known = models_of(entries)
    if model not in known:
        raise InputError(
            f"the ledger does not speak of {model!r}{did_you_mean(model, known)}; it knows "
            f"{', '.join(known) or 'no model'}"
        )
    return [entry for entry in entries if entry.details.get("model") == model]


def _record(standing: Standing, moment: datetime) -> dict[str, object]:
    return {
        alias: {
            "version": holder.version,
            "line": holder.line,
            "override_until": holder.override.expires.isoformat() if holder.override else None,
            "override_ended": bool(holder.override and moment >= holder.override.expires),
        }
        for alias, holder in standing.holders.items()
    }


def _sentence(name: str, standing: Standing, moment: datetime) -> str:
    held = [
        f"{alias} is version {standing.holders[alias].version}"
        + _leave(standing.holders[alias], moment)
        for alias in ALIASES
        if alias in standing.holders
    ]
    return f"{name}: {', '.join(held) or 'no version holds an alias'}"


def _leave(holder: Holder, moment: datetime) -> str:
    if holder.override is None:
        return ""
    until = f"{holder.override.expires:%F %H:%M} UTC"
    if moment >= holder.override.expires:
        return f" (its override ENDED at {until}; it is not served)"
    return f" (gate overridden by {holder.override.approver} until {until})"


def _approval(entry: LedgerEntry) -> str:
    approver = entry.details.get("approver")
    return f" (approved by {approver})" if approver else ""
