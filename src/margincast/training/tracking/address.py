"""Where the MLflow store is, and whether anybody is there, asked before MLflow retries for minutes.

A tracking URI names an SQLite file in the workspace, a database, or an MLflow server.
"""

import socket
from pathlib import Path
from urllib.parse import urlsplit

from margincast.core.errors import InputError

_SQLITE = "sqlite:///"
_SQLITE_MAGIC = b"SQLite format 3\x00"
_SERVERS = ("http", "https", "databricks")
_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
_DEFAULT_PORTS = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306, "mssql": 1433}
_PROBE_SECONDS = 3.0


class StoreUnreachableError(InputError):
    """The MLflow store is down, missing or not writable; the message says what to do."""


def resolve_uri(uri: str, workspace: Path) -> str:
    """Return a tracking URI whose SQLite path, if it was relative, starts at the workspace.

    Raises:
        InputError: a store MLflow does not accept any more (a plain folder) or does not know.
    """
    scheme = _scheme(uri)
    if scheme not in (*_SERVERS, *_DATABASES):
        raise InputError(
            f"tracking.uri is {uri!r}; MLflow keeps no runs in plain folders any more: write "
            "'sqlite:///mlruns/mlflow.db', or the address of a server such as 'http://host:5000'"
        )
    if scheme != "sqlite":
        return uri
    path = uri.removeprefix(_SQLITE)
    if not uri.startswith(_SQLITE) or path in {"", ":memory:"}:
        raise InputError(
            f"tracking.uri is {uri!r}; write sqlite:/// and a file's path, for example "
            "'sqlite:///mlruns/mlflow.db'"
        )
    resolved = (workspace.resolve() / path).as_posix()
    if set("?%#") & set(resolved):
        raise InputError(
            f"the MLflow store would be {resolved}; a store's path cannot hold '?', '%' or '#', "
            "which mean something else in a URI: rename the folder"
        )
    return f"{_SQLITE}{resolved}"


def is_server(uri: str) -> bool:
    """Return whether an MLflow server stands at the address, which then keeps the artifacts too."""
    return _scheme(uri) in _SERVERS


def require_reachable(uri: str, *, create: bool) -> None:
    """Look whether a resolved URI can be opened.

    Args:
        uri: as :func:`resolve_uri` returns it.
        create: an SQLite file that does not exist is no error.

    Raises:
        StoreUnreachableError: no such file, or no store.
        OSError: it cannot be written, or nobody listens there.
    """
    if uri.startswith(_SQLITE):
        _probe_file(Path(uri.removeprefix(_SQLITE)), create=create)
        return
    parts = urlsplit(uri)
    port = parts.port or _DEFAULT_PORTS.get(_scheme(uri))
    if parts.hostname and port:
        socket.create_connection((parts.hostname, port), timeout=_PROBE_SECONDS).close()


def without_password(uri: str) -> str:
    """Return a URI as it may be shown and kept."""
    parts = urlsplit(uri)
    return uri.replace(f":{parts.password}@", ":***@") if parts.password else uri


def _scheme(uri: str) -> str:
    # the part after a plus names the driver: postgresql+psycopg2
    return urlsplit(uri).scheme.partition("+")[0] or ("databricks" if uri == "databricks" else "")


def _probe_file(path: Path, *, create: bool) -> None:
    if not create and not path.exists():
        raise StoreUnreachableError(
            f"there is no MLflow store at {path}; train a model first, or check tracking.uri"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    # opened to append: fails now if the store cannot be written, and changes nothing
    with path.open("ab"):
        pass
    with path.open("rb") as stream:
        start = stream.read(len(_SQLITE_MAGIC))
    if start not in (b"", _SQLITE_MAGIC):
        raise StoreUnreachableError(
            f"{path} is not an MLflow store (not an SQLite file); move it away or check "
            "tracking.uri"
        )
