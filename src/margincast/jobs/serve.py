"""``margincast serve`` and ``margincast keys``: the service of a workspace, and who may ask it."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from rich.table import Table

from margincast.core.digest import digest_of
from margincast.core.errors import CheckFailedError, InputError, MargincastError
from margincast.core.time import add_step
from margincast.jobs.console import output, say
from margincast.jobs.person import acting_person
from margincast.serving.api.keys import Key, KeyFile
from margincast.serving.ledger import Ledger
from margincast.serving.ledger_line import Kind
from margincast.specs.loading import find_workspace, load_spec
from margincast.specs.service import Service

CONFIGURATION = Path("serving") / "service.toml"


def run(where: Path, overrides: Sequence[str]) -> None:
    """Serve the margins of a workspace until told to end.

    Args:
        where: a workspace, or the configuration of a service.
        overrides: ``section.key=value`` texts.

    Raises:
        CheckFailedError: the workers could not start.
    """
    # a web server is nothing that keys need
    from margincast.serving.api.server import listen  # noqa: PLC0415
    from margincast.serving.api.server import run as serve  # noqa: PLC0415

    service, workspace = service_of(where, overrides)
    listener = listen(service.address)
    host, port = listener.getsockname()[:2]
    audit_of(service, workspace).append(
        kind="service start",
        who=acting_person(),
        what=f"service {service.name} on {host}:{port}",
        why="margincast serve",
        evidence_digest=service.digest(),
        details={"configuration": service.model_dump(mode="json")},
    )
    say(f"margincast serves {service.publications.folder} on http://{host}:{port}")
    if not serve(service, workspace, listener):
        raise CheckFailedError("the service could not start; see the lines above")


def service_of(where: Path, overrides: Sequence[str] = ()) -> tuple[Service, Path]:
    """Return the configuration of a service and the workspace it belongs to.

    Args:
        where: a workspace, or a configuration.
        overrides: ``section.key=value`` texts.
    """
    path = where / CONFIGURATION if where.is_dir() else where
    return load_spec(path, Service, overrides), find_workspace(path)


def audit_of(service: Service, workspace: Path) -> Ledger:
    """Return the audit log of a service."""
    return Ledger(workspace / service.access.audit_file)


def create_key(
    where: Path, holder: str, scopes: Sequence[str], *, expires: str | None, who: str | None
) -> str:
    """Make an API key, write it into the audit log, and return it; it is shown this once.

    Args:
        where: a workspace, or the configuration of a service.
        holder: who it is for.
        scopes: what it allows.
        expires: how long it is valid, such as ``90d`` or ``1y``; None: until it is revoked.
        who: who makes it.

    Raises:
        InputError: see :meth:`~margincast.serving.api.keys.KeyFile.create`; or no duration.
    """
    service, workspace = service_of(where)
    now = datetime.now(UTC)
    until = None if expires is None else _after(now, expires)
    file = KeyFile(workspace / service.access.keys_file)
    key, shown = file.create(holder, scopes, expires=until, now=now)
    what = f"key {key.identifier} for {holder}: {', '.join(key.scopes)}"
    try:
        _write_down(audit_of(service, workspace), "key", key, what=what, who=who)
    except (OSError, MargincastError):
        # no log says that it was made, and nobody was shown it
        file.revoke(key.identifier, now=now)
        raise
    return shown


def revoke_key(where: Path, identifier: str, *, reason: str, who: str | None) -> Key:
    """Revoke an API key, and write it into the audit log.

    Raises:
        InputError: there is no such key, or it is revoked already.
    """
    service, workspace = service_of(where)
    file = KeyFile(workspace / service.access.keys_file)
    key = file.revoke(identifier, now=datetime.now(UTC))
    what = f"key {key.identifier} of {key.holder} revoked"
    _write_down(audit_of(service, workspace), "key end", key, what=what, who=who, why=reason)
    return key


def list_keys(where: Path) -> None:
    """Print all keys ever made, without their secrets."""
    service, workspace = service_of(where)
    now = datetime.now(UTC)
    columns = ("key", "holder", "scopes", "created", "expires", "state")
    table = Table(*columns, title="API keys")
    for key in KeyFile(workspace / service.access.keys_file).read():
        scopes = ", ".join(key.scopes)
        texts = (key.identifier, key.holder, scopes, key.created, key.expires or "never")
        table.add_row(*texts, key.state(now))
    output.print(table)


def _after(now: datetime, duration: str) -> datetime:
    try:
        return add_step(now, duration)
    except ValueError as error:
        raise InputError(f"--expires: {error}") from None


def _write_down(
    audit: Ledger,
    kind: Kind,
    key: Key,
    *,
    what: str,
    who: str | None,
    why: str = "margincast keys create",
) -> None:
    details = {"key": key.identifier, "holder": key.holder, "scopes": key.scopes}
    audit.append(
        kind=kind,
        who=acting_person(who),
        what=what,
        why=why,
        evidence_digest=digest_of(details),
        details={**details, "expires": key.expires},
    )
