"""What MLflow could not be told, kept in the workspace until ``margincast sync`` tells it.

One folder a job that tracks, ``mlruns/spool/<time>-<random>/``:

- ``session.json``: the store and experiment it was meant for.
- ``lock``: held (``flock``) while its process lives; its time of change is the last sign of life.
- ``open/``: one empty file a run that has not ended, so that runs of a killed process can be.
- ``journal.jsonl``: the operations that MLflow could not be told, in order; ``files/<number>/``
  holds the file or folder that belongs to one.
- ``done``: number of the last operation that was synchronised.

The folder of a job that told MLflow everything is removed when the job ends.
"""

import contextlib
import errno
import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Self

from pydantic import ValidationError

from margincast.core.errors import InputError
from margincast.training.tracking.clock import NANOSECONDS_A_MILLISECOND
from margincast.training.tracking.operations import OPERATION, Operation

SPOOL = Path("mlruns") / "spool"
"""Where sessions are kept, below the workspace."""


@dataclass(frozen=True)
class Target:
    """The store and experiment a session speaks to; the URI without its password."""

    uri: str
    experiment: str


@dataclass(frozen=True)
class Entry:
    """One line of a journal: an operation, and the file or folder that belongs to it."""

    number: int
    operation: Operation
    path: Path | None


class Session:
    """The folder of one job. Made by :meth:`begin`, or found by :func:`waiting_sessions`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._journal = folder / "journal.jsonl"
        self._done = folder / "done"
        self._open = folder / "open"
        self._held: IO[bytes] | None = None
        self._last = 0

    @classmethod
    def begin(cls, workspace: Path, target: Target) -> Self:
        """Make a session's folder and hold its lock.

        Raises:
            OSError: the folder cannot be written.
        """
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%f")
        session = cls(workspace.resolve() / SPOOL / f"{stamp}-{secrets.token_hex(4)}")
        session.folder.mkdir(parents=True, mode=0o700)
        session._open.mkdir()
        (session.folder / "lock").touch()
        assert session.hold(), "nobody else knows this folder yet"
        _write(session.folder / "session.json", json.dumps(asdict(target)).encode())
        return session

    @property
    def target(self) -> Target:
        """The store and experiment it was meant for.

        Raises:
            InputError: ``session.json`` is damaged.
        """
        path = self.folder / "session.json"
        try:
            return Target(**json.loads(path.read_bytes()))
        except (ValueError, TypeError) as error:
            raise InputError(
                f"{path} is damaged ({error}); restore it, or move the folder away"
            ) from error

    def hold(self) -> bool:
        """Take the lock; False if its process lives, or another one synchronises it."""
        try:
            stream = (self.folder / "lock").open("rb")
        except FileNotFoundError:
            # removed since it was listed: its job ended
            return False
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stream.close()
            return False
        self._held = stream
        return True

    def release(self) -> None:
        """Let the lock go, and remove the folder where nothing waits in it."""
        if not self.waits:
            self.remove()
        if self._held is not None:
            self._held.close()
            self._held = None

    def remove(self) -> None:
        """Delete the folder, its lock last."""
        for name in ("files", "open"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def waits(self) -> bool:
        """Whether something is left to tell MLflow."""
        return self._journal.exists() or bool(self.open_runs())

    @property
    def has_journal(self) -> bool:
        """Whether operations were kept."""
        return self._journal.exists()

    def opened(self, run: str) -> None:
        """Note that a run was opened."""
        (self._open / run).touch()

    def closed(self, run: str) -> None:
        """Note that a run was closed."""
        (self._open / run).unlink(missing_ok=True)

    def open_runs(self) -> list[str]:
        """Return the runs that were not closed."""
        return sorted(path.name for path in self._open.glob("*"))

    def alive(self) -> None:
        """Leave a sign of life."""
        os.utime(self.folder / "lock")

    def last_alive(self) -> int:
        """Return the time of the last sign of life, milliseconds."""
        return (self.folder / "lock").stat().st_mtime_ns // NANOSECONDS_A_MILLISECOND

    def keep(self, operation: Operation, path: Path | None = None) -> None:
        """Add an operation to the journal; it is on disk when this returns.

        Args:
            operation: what to tell MLflow later.
            path: the file or folder that belongs to it; copied.

        Raises:
            OSError: the disk cannot take it; the journal is as it was before.
        """
        number = self._last + 1
        kept = None
        if path is not None:
            folder = self.folder / "files" / str(number)
            kept = f"files/{number}/{path.name}"
            try:
                folder.mkdir(parents=True)
                copy = shutil.copytree if path.is_dir() else shutil.copyfile
                copy(path, folder / path.name)
            except OSError:
                shutil.rmtree(folder, ignore_errors=True)
                raise
        record = {"number": number, "path": kept, "operation": operation.model_dump(mode="json")}
        _append(self._journal, json.dumps(record).encode() + b"\n")
        self._last = number

    def entries(self) -> Iterator[Entry]:
        """Yield the operations that were not synchronised yet, in order.

        A last line without an end was being written when its process died: it was never answered
        for, and is left out.

        Raises:
            InputError: a line is damaged.
        """
        done = int(self._done.read_text()) if self._done.exists() else 0
        if not self._journal.exists():
            return
        for line_number, line in enumerate(
            self._journal.read_bytes().splitlines(keepends=True), start=1
        ):
            if not line.endswith(b"\n"):
                return
            try:
                record = json.loads(line)
                operation = OPERATION.validate_python(record["operation"])
                number, path = int(record["number"]), record["path"]
            except (ValueError, TypeError, KeyError, ValidationError) as error:
                raise InputError(
                    f"{self._journal}, line {line_number}, is damaged ({error}); restore it, or "
                    "remove the line to give up what it held"
                ) from error
            if number > done:
                yield Entry(number, operation, None if path is None else self.folder / path)

    def synchronised(self, number: int) -> None:
        """Note that all operations up to this one were synchronised."""
        _write(self._done, str(number).encode())


def waiting_sessions(workspace: Path) -> list[Session]:
    """Return the sessions of a workspace, oldest first, also those whose process lives."""
    folder = workspace.resolve() / SPOOL
    if not folder.is_dir():
        return []
    return [Session(path) for path in sorted(folder.iterdir()) if (path / "session.json").is_file()]


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_name(f"{path.name}.new")
    temporary.write_bytes(content)
    temporary.replace(path)


def _append(path: Path, line: bytes) -> None:
    """Append a line, whole or not at all."""
    # without a buffer: what a full disk refused must not be tried again when the file is closed
    with path.open("ab", buffering=0) as stream:
        before = stream.tell()
        try:
            written = stream.write(line)
            os.fsync(stream.fileno())
            _require_all(written, line, path)
        except OSError:
            with contextlib.suppress(OSError):
                stream.truncate(before)
            raise


def _require_all(written: int | None, line: bytes, path: Path) -> None:
    if written != len(line):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
