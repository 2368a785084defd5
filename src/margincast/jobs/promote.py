"""``margincast promote`` and ``margincast rollback``: a person changes who sets margins."""

from datetime import UTC, datetime
from pathlib import Path

from margincast.core.errors import InputError
from margincast.core.time import parse_duration, parse_instant
from margincast.jobs.console import output
from margincast.jobs.person import acting_person
from margincast.serving.ledger_line import LedgerEntry
from margincast.serving.promotion import promote, rollback
from margincast.serving.registry import Registry
from margincast.serving.standing import Alias, Override


def run(
    target: str,
    alias: str,
    reason: str,
    *,
    workspace: Path,
    uri: str,
    who: str | None,
    override: bool,
    approver: str | None,
    expires: str | None,
) -> LedgerEntry:
    """Give a version an alias.

    Args:
        target: ``MODEL/VERSION``.
        alias: champion, challenger or shadow.
        reason: for the ledger.
        workspace: folder with ``mlruns/``.
        uri: MLflow tracking URI.
        who: acts; the user if not given.
        override: make champion of a version whose gate failed.
        approver: of the override.
        expires: its end, an ISO 8601 time (UTC) or a duration from now.

    Raises:
        InputError: see :func:`margincast.serving.promotion.promote`.
        CheckFailedError: the version may not have the alias.
    """
    name, version = parse_version(target)
    leave = _override(override, approver, expires)
    entry = promote(
        Registry(uri, workspace),
        name,
        _alias(alias),
        version,
        who=acting_person(who),
        why=reason,
        override=leave,
    )
    _say(entry)
    return entry


def run_back(model: str, reason: str, *, workspace: Path, uri: str, who: str | None) -> LedgerEntry:
    """Make the champion before the present one champion again.

    Raises:
        CheckFailedError: there is none that may be.
        InputError: see :func:`margincast.serving.promotion.rollback`.
    """
    entry = rollback(Registry(uri, workspace), model, who=acting_person(who), why=reason)
    _say(entry)
    return entry


def parse_version(target: str) -> tuple[str, int]:
    """Read ``MODEL/VERSION``.

    Raises:
        InputError: it is not of that form.

    >>> parse_version("perp-8h/4")
    ('perp-8h', 4)
    """
    name, separator, number = target.rpartition("/")
    if not separator or not name or not number.isdecimal() or int(number) == 0:
        raise InputError(
            f"{target!r} names no version of a model; write MODEL/VERSION, for example perp-8h/4"
        )
    return name, int(number)


def _alias(alias: str) -> Alias:
    # what is no alias is refused, with those there are, by promote()
    return alias  # type: ignore[return-value]


def _override(override: bool, approver: str | None, expires: str | None) -> Override | None:
    if not override:
        if approver is not None or expires is not None:
            raise InputError("--approver and --expires belong to --override; give it too")
        return None
    missing = [
        name for name, value in (("--approver", approver), ("--expires", expires)) if value is None
    ]
    if approver is None or expires is None:
        raise InputError(
            f"an override says who approves it and when it ends; {' and '.join(missing)} missing, "
            "for example --approver 'head of risk' --expires 7d"
        )
    return Override(approver, parse_end(expires))


def parse_end(text: str) -> datetime:
    """Read when something ends: an ISO 8601 time (UTC) or a duration from now.

    Raises:
        InputError: it is neither.
    """
    try:
        return datetime.now(UTC) + parse_duration(text)
    except ValueError:
        pass
    try:
        return parse_instant(text)
    except ValueError:
        raise InputError(
            f"--expires {text!r} is neither a time nor a duration; write for example "
            "2026-12-01T08:00 (UTC) or 7d"
        ) from None


def _say(entry: LedgerEntry) -> None:
    output.print(entry.what, soft_wrap=True, markup=False)
    output.print(f"ledger: line {entry.number}, head {entry.hash}", soft_wrap=True)
