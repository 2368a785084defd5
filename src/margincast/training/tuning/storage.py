"""Where studies are kept, so that a killed job loses no finished trial.

==============================  ==================================================================
``tuning.storage``              what it is
==============================  ==================================================================
``sqlite:///FILE``              a file in the workspace; for one machine (the default)
``postgresql+psycopg2://...``   a database, for several machines; leave the password to libpq
                                (``PGPASSWORD`` or ``~/.pgpass``)
``journal:///FILE``             Optuna's journal, for a shared folder on which SQLite cannot lock
==============================  ==================================================================

Relative paths start at the workspace; an absolute one has four slashes.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from sqlalchemy import event
from sqlalchemy.exc import SQLAlchemyError

from margincast.core.errors import InputError

SQLITE = "sqlite:///"
JOURNAL = "journal:///"
LOCK_SECONDS = 60.0
"""How long to wait for a study that another process is writing to."""


class StudyStorageError(InputError):
    """Studies cannot be read or written; says where they lie and what to do."""


def open_storage(address: str, workspace: Path) -> BaseStorage:
    """Open a storage of studies; a file that is not there yet is made.

    Args:
        address: ``tuning.storage`` of the spec.
        workspace: folder that relative paths start at.

    Raises:
        StudyStorageError: the file is damaged, the folder not writable, the database down.
        InputError: an address of no known kind.
    """
    path = _path_of(address, workspace)
    with storage_errors(address if path is None else str(path)):
        if path is None:
            return RDBStorage(address, engine_kwargs={"pool_pre_ping": True})
        path.parent.mkdir(parents=True, exist_ok=True)
        return _journal(path) if address.startswith(JOURNAL) else _sqlite(path)


@contextmanager
def storage_errors(where: str) -> Iterator[None]:
    """Turn what the storage, its driver or the disk raise into an error that says what to do.

    Args:
        where: file or address, for the message.

    Raises:
        StudyStorageError: see above.
    """
    try:
        yield
    except (SQLAlchemyError, StorageInternalError, OSError, sqlite3.Error, ImportError) as error:
        cause = error.__cause__ if isinstance(error, StorageInternalError) else error
        raise StudyStorageError(
            f"the studies at {_without_password(where)} cannot be used "
            f"({str(cause or error).strip().splitlines()[0]}); check the path, its permissions and "
            "the space on the disk, or the database server; move a damaged file away to start "
            "over, or name another place in tuning.storage. Finished trials are kept where the "
            "storage took them"
        ) from error


def place_of(address: str, workspace: Path) -> str:
    """Name the place a storage lies at, for messages."""
    path = _path_of(address, workspace)
    return _without_password(address) if path is None else str(path)


def _path_of(address: str, workspace: Path) -> Path | None:
    for scheme in (SQLITE, JOURNAL):
        if address.startswith(scheme) and address != scheme:
            return workspace.resolve() / address.removeprefix(scheme)
    if urlsplit(address).scheme.partition("+")[0] == "postgresql":
        return None
    raise InputError(
        f"tuning.storage is {address!r}; write 'sqlite:///mlruns/studies.db', "
        "'journal:///mlruns/studies.journal' or 'postgresql+psycopg2://user@host/database'"
    )


def _sqlite(path: Path) -> BaseStorage:
    # SQLite waits for the disk at every one of the dozen small writes of a trial, unless it keeps
    # a log beside the file; a killed process loses nothing in either mode
    with closing(sqlite3.connect(path, timeout=LOCK_SECONDS)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        damage = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if damage != "ok":
        raise sqlite3.DatabaseError(damage)
    storage = RDBStorage(
        f"{SQLITE}{path}", engine_kwargs={"connect_args": {"timeout": LOCK_SECONDS}}
    )
    event.listen(
        storage.engine,
        "connect",
        lambda connection, _: connection.execute("PRAGMA synchronous = NORMAL"),
    )
    storage.engine.dispose()  # connections made before did not listen
    return storage


def _journal(path: Path) -> BaseStorage:
    try:
        return JournalStorage(_Journal(path))
    except (ValueError, KeyError, AssertionError) as error:
        raise StudyStorageError(
            f"the studies at {path} cannot be read: a line of this journal is damaged ({error}); "
            "move the file away to start over, or name another one in tuning.storage"
        ) from error


class _Journal(JournalFileBackend):
    """A journal whose last line goes if it was cut short, before another is written behind it.

    A full disk or a kill may leave half a line. Optuna skips it on reading and writes the next one
    right behind it, which makes a damaged line of both.
    """

    def __init__(self, path: Path) -> None:
        self._journal = path
        self._own_lock = JournalFileSymlinkLock(str(path))
        super().__init__(str(path), self._own_lock)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """See :class:`optuna.storages.journal.JournalFileBackend`."""
        if self._is_cut_short():
            self._own_lock.acquire()
            try:
                # who held the lock may have been about to finish it
                if self._is_cut_short():
                    whole = self._journal.read_bytes().rpartition(b"\n")
                    os.truncate(self._journal, len(whole[0]) + len(whole[1]))
            finally:
                self._own_lock.release()
        super().append_logs(logs)

    def _is_cut_short(self) -> bool:
        with self._journal.open("rb") as journal:
            if journal.seek(0, os.SEEK_END) == 0:
                return False
            journal.seek(-1, os.SEEK_END)
            return journal.read() != b"\n"


def _without_password(address: str) -> str:
    parts = urlsplit(address)
    return address.replace(f":{parts.password}@", ":***@") if parts.password else address
