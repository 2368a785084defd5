"""A PostgreSQL server of the tests' own: a real one, made for the session and thrown away.

Ask for the fixture ``postgres``; ``postgres.database("name")`` makes an empty database and returns
its URL. ``stop`` and ``start`` are there for tests of an outage; who stops it starts it again.
"""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

USER = "margincast"
PASSWORD = "only-for-tests"  # noqa: S105  # of a server that lives as long as the session
HOST = "127.0.0.1"
PATIENCE_SECONDS = 30.0
FAST_AND_SMALL = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "shared_buffers": "16MB",
    "max_connections": "40",
    "listen_addresses": HOST,
}


@dataclass
class PostgresServer:
    """A cluster of databases in a folder of its own, on a free port of this machine."""

    binaries: Path
    folder: Path
    port: int
    owner: dict[str, Any]
    process: subprocess.Popen[bytes] | None = None

    def database(self, name: str) -> str:
        """Make an empty database (an earlier one of that name is dropped); returns its URL."""
        with closing(self._connect("postgres")) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
                cursor.execute(f'CREATE DATABASE "{name}"')
        return f"postgresql+psycopg2://{USER}:{PASSWORD}@{HOST}:{self.port}/{name}"

    def start(self) -> None:
        """Start the server and wait until it answers."""
        from psycopg2 import OperationalError  # noqa: PLC0415  # of an extra that may be absent

        settings = [
            part for key, value in FAST_AND_SMALL.items() for part in ("-c", f"{key}={value}")
        ]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(  # noqa: S603  # PostgreSQL's own
                [
                    self.binaries / "postgres",
                    "-D",
                    self.folder / "data",
                    "-p",
                    str(self.port),
                    "-k",
                    self.folder,
                    *settings,
                ],
                stdout=log,
                stderr=log,
                cwd=self.folder,
                **self.owner,
            )
        until = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                self._connect("postgres").close()
            except OperationalError:
                if self.process.poll() is not None or time.monotonic() > until:
                    message = (self.folder / "log").read_text()
                    raise RuntimeError(f"PostgreSQL did not start:\n{message}") from None
                time.sleep(0.05)
            else:
                return

    def stop(self) -> None:
        """Stop the server at once; open connections are cut."""
        if self.process is not None:
            self.process.send_signal(signal.SIGINT)  # what PostgreSQL calls a fast shutdown
            self.process.wait(PATIENCE_SECONDS)
            self.process = None

    def _connect(self, database: str) -> Any:  # psycopg2 ships no types
        import psycopg2  # noqa: PLC0415  # of an extra that may be absent

        return psycopg2.connect(
            host=HOST, port=self.port, user=USER, password=PASSWORD, dbname=database
        )


@contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """Make a cluster, start its server, and remove both at the end; skips where there is none."""
    binaries = _binaries()
    if binaries is None:
        pytest.skip("PostgreSQL is not installed (initdb not found); see .ci/test-packages")
    pytest.importorskip("psycopg2", reason="psycopg2 is not installed (extra 'postgres')")
    owner = _owner()
    # not below pytest's folder, which nobody but its own user may enter
    with tempfile.TemporaryDirectory(prefix="margincast-postgres-") as name:
        folder = Path(name)
        password = folder / "password"
        password.write_text(PASSWORD)
        if owner:
            for path in (folder, password):
                os.chown(path, owner["user"], owner["group"])
        subprocess.run(  # noqa: S603  # PostgreSQL's own
            [
                binaries / "initdb",
                "-D",
                folder / "data",
                "-U",
                USER,
                "--pwfile",
                password,
                "-A",
                "scram-sha-256",
                "-E",
                "UTF8",
                "--locale=C",
                "--no-sync",
            ],
            check=True,
            capture_output=True,
            cwd=folder,
            **owner,
        )
        server = PostgresServer(binaries, folder, _free_port(), owner)
        try:
            server.start()
            yield server
        finally:
            server.stop()


def _binaries() -> Path | None:
    """Return the newest version's folder; Debian keeps it off the path."""
    found = shutil.which("initdb")
    if found:
        return Path(found).resolve().parent
    installed = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3])
    )
    return installed[-1].parent if installed else None


def _owner() -> dict[str, Any]:
    """PostgreSQL refuses to run as root: then its own user does, or nobody."""
    if os.getuid() != 0:
        return {}
    names = {entry.pw_name: entry for entry in pwd.getpwall()}
    entry = names.get("postgres") or names["nobody"]
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def _free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
