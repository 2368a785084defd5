"""The promotion ledger: who made which model set margins, when, why and on which evidence.

An append-only file of JSON lines. Each line carries the hash of the line before it, so that an
edited, removed, inserted or reordered line breaks the chain; a small head file beside it holds
the number and hash of the last line, so that lines cut off the end are noticed too. Somebody who
can rewrite both files can rewrite history: keep the head's hash elsewhere where that matters, and
have :meth:`Ledger.verify` look for it.
"""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from margincast.core.digest import canonical_json
from margincast.core.errors import InputError, LedgerError
from margincast.serving.ledger_line import Kind, LedgerEntry, new_entry, parse_line

LEDGER = Path("mlruns") / "ledger.jsonl"
"""Where a workspace keeps its ledger."""
FIRST_PREVIOUS_HASH = "0" * 64
"""What the first line names as the line before it."""


class Ledger:
    """A ledger file; it comes into being with its first line.

    Args:
        path: the JSON lines file. ``<path>.head`` and ``<path>.lock`` lie beside it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._head_path = path.with_name(f"{path.name}.head")
        self._lock_path = path.with_name(f"{path.name}.lock")

    def append(
        self,
        *,
        kind: Kind,
        who: str,
        what: str,
        why: str,
        evidence_digest: str,
        details: Mapping[str, Any],
        when: datetime | None = None,
    ) -> LedgerEntry:
        """Add a line; it is on disk when this returns. Processes wait for one another.

        Args:
            kind: of the act.
            who: the person or service that acts.
            what: the act.
            why: the reason.
            evidence_digest: SHA-256 (hex) of the evidence.
            details: the act as JSON-like values.
            when: timezone-aware time of the act; now if not given.

        Raises:
            InputError: a text is empty, the digest is none, the time has no timezone, or the
                folder cannot be written.
            LedgerError: the ledger as it stands does not verify; nothing is added to it.
        """
        with self.writing() as writer:
            return writer.append(
                kind=kind,
                who=who,
                what=what,
                why=why,
                evidence_digest=evidence_digest,
                details=details,
                when=when,
            )

    @contextmanager
    def writing(self) -> Iterator["LedgerWriter"]:
        """Keep other writers waiting while lines are added and acted on.

        Raises:
            InputError: the folder cannot be written.
            LedgerError: the ledger as it stands does not verify.
        """
        with self._locked():
            yield LedgerWriter(self, self.read())

    def read(self) -> tuple[LedgerEntry, ...]:
        """Return all lines, oldest first, verified; none if there is no ledger yet.

        Raises:
            LedgerError: names the first line that is wrong, and how.
        """
        # the head first: a line appended by another process meanwhile puts the lines ahead of it
        head = self._read_head()
        lines = self.path.read_bytes().splitlines(keepends=True) if self.path.exists() else []
        entries: list[LedgerEntry] = []
        previous = FIRST_PREVIOUS_HASH
        for number, line in enumerate(lines, start=1):
            entries.append(self._verified(line, number, previous))
            previous = entries[-1].hash
        if head is None and entries:
            # the first line ever may have been written between the two looks
            head = self._read_head()
        self._compare_with_head(entries, head)
        return tuple(entries)

    def verify(self, head: str = "") -> tuple[LedgerEntry, ...]:
        """Return the lines, all of them verified.

        Args:
            head: hash of what once was the last line, kept elsewhere: one of the lines must have
                it, or the whole file was written anew.

        Raises:
            LedgerError: names the first line that is wrong, and how.
        """
        entries = self.read()
        if head and all(entry.hash != head for entry in entries):
            raise self._error(
                1,
                f"none of the {len(entries)} line(s) has the hash {head} that was kept elsewhere: "
                "history before it was rewritten, or the hash is of another ledger",
            )
        return entries

    def _verified(self, line: bytes, number: int, previous: str) -> LedgerEntry:
        if not line.endswith(b"\n"):
            raise self._error(
                number,
                "it has no end: writing it was interrupted; if it was never acted on, remove it "
                "and append again",
            )
        try:
            entry = parse_line(line)
        except (ValueError, TypeError, KeyError):
            raise self._error(number, "it is not a ledger entry") from None
        if entry.line != line or entry.true_hash != entry.hash:
            raise self._error(number, "it was changed after it was written")
        if entry.number != number or entry.previous_hash != previous:
            raise self._error(
                number,
                f"it is entry {entry.number} and does not follow the line before it: lines were "
                "removed, inserted or reordered",
            )
        return entry

    def _read_head(self) -> tuple[int, str] | None:
        if not self._head_path.exists():
            return None
        try:
            head = json.loads(self._head_path.read_bytes())
            return int(head["number"]), str(head["hash"])
        except (ValueError, TypeError, KeyError):
            raise self._error(1, f"{self._head_path.name} is damaged") from None

    def _compare_with_head(self, entries: list[LedgerEntry], head: tuple[int, str] | None) -> None:
        """The head may lag by lines whose writer died between line and head, never lead."""
        if head is None:
            if entries:
                raise self._error(1, f"the head file {self._head_path.name} is missing")
            return
        number, stated = head
        if number > len(entries):
            raise self._error(
                len(entries) + 1, f"it is missing: the ledger once had {number} line(s)"
            )
        expected = entries[number - 1].hash if number > 0 else FIRST_PREVIOUS_HASH
        if number < 0 or expected != stated:
            raise self._error(max(number, 1), f"{self._head_path.name} names another hash for it")

    def _write_head(self, number: int, line_hash: str) -> None:
        temporary = self._head_path.with_name(f"{self._head_path.name}.new")
        with temporary.open("wb") as stream:
            stream.write(canonical_json({"number": number, "hash": line_hash}).encode())
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(self._head_path)
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            stream = self._lock_path.open("ab")
        except OSError as error:
            raise InputError(
                f"the ledger {self.path} cannot be written ({error}); check the folder's "
                "permissions: without its line in the ledger nothing is promoted"
            ) from error
        with stream:
            # released when the file is closed, also by the end of a killed process
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield

    def _error(self, number: int, what: str) -> LedgerError:
        return LedgerError(
            f"ledger {self.path}, line {number}: {what}. Restore the file from a backup before "
            "anything else is promoted"
        )


class LedgerWriter:
    """Adds lines to a ledger that nobody else can write meanwhile; see :meth:`Ledger.writing`.

    Attributes:
        entries: the lines there are, those added included.
    """

    def __init__(self, ledger: Ledger, entries: tuple[LedgerEntry, ...]) -> None:
        self._ledger = ledger
        self.entries = entries

    def append(
        self,
        *,
        kind: Kind,
        who: str,
        what: str,
        why: str,
        evidence_digest: str,
        details: Mapping[str, Any],
        when: datetime | None = None,
    ) -> LedgerEntry:
        """Add a line; see :meth:`Ledger.append`."""
        ledger = self._ledger
        entry = new_entry(
            len(self.entries) + 1,
            self.entries[-1].hash if self.entries else FIRST_PREVIOUS_HASH,
            kind=kind,
            who=who,
            what=what,
            why=why,
            evidence_digest=evidence_digest,
            details=details,
            when=when or datetime.now(UTC),
        )
        if not self.entries:
            # from here on a ledger without a head file has lost it
            ledger._write_head(0, FIRST_PREVIOUS_HASH)  # noqa: SLF001 - two halves of one thing
        with ledger.path.open("ab") as stream:
            stream.write(entry.line)
            stream.flush()
            os.fsync(stream.fileno())
        ledger._write_head(entry.number, entry.hash)  # noqa: SLF001 - two halves of one thing
        self.entries = (*self.entries, entry)
        return entry
