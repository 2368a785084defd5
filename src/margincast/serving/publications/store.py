"""The store of publications: numbered folders that appear whole, one after another, or not at all.

Responsible for which margins are in force. A publication is written beside its place, brought to
the disk, and renamed: whoever reads sees it whole or does not see it. Its number is the next one;
who publishes says which number the table follows, and is refused when somebody was faster.

Layout of a folder (one margin policy): ``000001/``, ``000002/``, ...; ``head.json`` with the number
and digest of the last one, so that publications cut off the end are noticed; ``.lock``.
"""

import fcntl
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import pandas as pd

from margincast.core.digest import canonical_json
from margincast.core.errors import InputError, PublicationError, PublishedMeanwhileError
from margincast.margin.override import Override
from margincast.serving.manifest import json_bytes, library_versions
from margincast.serving.publications.moments import require_its_time
from margincast.serving.publications.publication import (
    DECISIONS,
    OVERRIDES,
    POLICY,
    SCHEDULE,
    Publication,
    folder_name,
    overrides_json,
)
from margincast.serving.publications.record import (
    FIRST_PREVIOUS,
    RECORD,
    Kind,
    Record,
    parse_record,
)
from margincast.serving.publications.tables import (
    AFTER,
    inputs_files,
    levels_files,
    remembered_bytes,
)
from margincast.serving.scored import Scored
from margincast.specs.schedule import BaseSchedule
from margincast.specs.serving import MarginPolicy

PUBLICATIONS = Path("publications")
"""Where a workspace keeps them, a folder a policy."""
_HEAD = "head.json"
_LOCK = ".lock"
_NEW = ".new-"
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_KEPT_IN_MEMORY = 8


def store_of(workspace: Path, policy: str) -> "PublicationStore":
    """Return the store of a policy's publications.

    Raises:
        InputError: the policy's name is no name of a folder.
    """
    if not _PLAIN.fullmatch(policy):
        raise InputError(
            f"policy {policy!r} cannot be published: its name becomes a folder and may hold "
            "letters, digits, '.', '-' and '_' only"
        )
    return PublicationStore(workspace / PUBLICATIONS / policy)


class PublicationStore:
    """Publications of one margin policy, which several processes may read and write at a time.

    What was read and verified once is kept in memory: it cannot change.

    Args:
        folder: where they lie; made with the first one.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._known: dict[int, Publication] = {}

    @property
    def last_number(self) -> int:
        """Number of the last publication; 0 where there is none. Cheap enough to be polled.

        Raises:
            PublicationError: publications were cut off the end, or the head is damaged.
        """
        number, _ = self._head()
        if number and not self._place(number).is_dir():
            raise self._missing(number)
        # the head may lag: its writer died between folder and head
        while self._place(number + 1).is_dir():
            number += 1
        return number

    def latest(self) -> Publication | None:
        """Return the publication in force, verified; None where there is none.

        Raises:
            PublicationError: it does not verify.
        """
        number = self.last_number
        return self.read(number) if number else None

    def read(self, number: int) -> Publication:
        """Return a publication, every file of it verified.

        Raises:
            InputError: there is none of this number.
            PublicationError: it was changed, or is not the one the store was told of.
        """
        if number in self._known:
            return self._known[number]
        last = self.last_number
        if not 1 <= number <= last:
            there = f"there are 1 to {last}" if last else "nothing was published yet"
            raise InputError(f"no publication {number} in {self.folder}; {there}")
        found = Publication(self._place(number), self._record(number))
        head, digest = self._head()
        told = digest if number == head else None
        if number < last:
            told = self._record(number + 1).previous_digest
        if told not in {None, found.record.digest}:
            raise PublicationError(
                f"publication {found.name} of {found.record.policy}: it is not the one that was "
                "published; restore the folder from a backup"
            )
        found.verify()
        if len(self._known) >= _KEPT_IN_MEMORY:
            del self._known[min(self._known)]
        self._known[number] = found
        return found

    def before(self, at: datetime) -> Publication | None:
        """Return the last publication of an earlier moment; None where there is none.

        Raises:
            PublicationError: one that is looked at does not verify.
        """
        for number in range(self.last_number, 0, -1):
            if self._record(number).at < at:
                return self.read(number)
        return None

    def records(self) -> tuple[Record, ...]:
        """Return what all publications say of themselves, oldest first, as one unbroken chain.

        Their files are not looked at (:meth:`read` does).

        Raises:
            PublicationError: names the first one that is missing or was changed.
        """
        found: list[Record] = []
        last = self.last_number
        for number in range(1, last + 1):
            if not self._place(number).is_dir():
                raise self._missing(number)
            record = self._record(number)
            previous = found[-1].digest if found else FIRST_PREVIOUS
            if record.previous_digest != previous:
                raise PublicationError(
                    f"publication {folder_name(number)} in {self.folder} does not follow the one "
                    "before it: one of them was written anew; restore the folder from a backup"
                )
            found.append(record)
        head, digest = self._head()
        if head and found[head - 1].digest != digest:
            raise PublicationError(
                f"publication {folder_name(head)} in {self.folder} is not the one that {_HEAD} "
                "names; restore the folder from a backup"
            )
        return tuple(found)

    def publish(
        self,
        scored: Scored,
        *,
        policy: MarginPolicy,
        schedule: BaseSchedule,
        overrides: Sequence[Override],
        by: str,
        reason: str,
        follows: int,
        kind: Kind = "publish",
        reverts_to: int | None = None,
        bundle_digest: str = "",
        decisions: Mapping[str, Any] | None = None,
        now: datetime | None = None,
    ) -> Publication:
        """Put margins in force, under the next number; on the disk when this returns.

        Args:
            scored: the levels, and all that they were made of.
            policy: that made them.
            schedule: its base schedule.
            overrides: margins set by hand that were applied, oldest first.
            by: the person or service that publishes.
            reason: why.
            follows: number of the publication that the levels were compared with; 0 for the first.
            kind: of act.
            reverts_to: number of the publication that is in force again.
            bundle_digest: identity of the model's bundle; empty where there was no model.
            decisions: names what the model was asked about, as
                :func:`~margincast.serving.publications.decisions.keep_decisions` does.
            now: the time; the clock's if not given.

        Raises:
            PublishedMeanwhileError: ``follows`` is not the last number; nothing is published.
            InputError: no reason or name is given, the moment has not come yet or lies before that
                of the last publication, or the folder cannot be written; nothing is published.
            PublicationError: the last publication does not verify.
        """
        empty = [name for name, text in (("by", by), ("reason", reason)) if not text.strip()]
        if empty:
            raise InputError(f"a publication must say {', '.join(empty)}; found an empty text")
        with self._locked():
            last = self.latest()
            if last is not None and self._head()[0] < last.number:
                # its publisher was killed before it could: the head lags by one at most
                self._write_head(last.record)
            self._require_follows(follows, last)
            at = _utc(scored)
            clock = (now or datetime.now(UTC)).astimezone(UTC)
            require_its_time(at, clock, kind, None if last is None else last.record)
            files = files_of(scored, policy, schedule, overrides)
            if decisions is not None:
                files[DECISIONS] = json_bytes(dict(decisions), DECISIONS)
            as_of = scored.levels["data_as_of"].max()
            record = Record(
                number=follows + 1,
                kind=kind,
                policy=policy.name,
                at=at,
                published_at=clock,
                by=by,
                reason=reason,
                origin=scored.origin,
                bundle_digest=bundle_digest,
                data_as_of=None if pd.isna(as_of) else as_of.to_pydatetime(),
                reverts_to=reverts_to,
                contracts=len(scored.inputs.symbols),
                levels=len(scored.levels),
                previous_digest=last.record.digest if last is not None else FIRST_PREVIOUS,
                libraries=library_versions(("numpy", "pandas", "pyarrow", "lightgbm")),
                files={path: sha256(content).hexdigest() for path, content in files.items()},
            )
            self._write(record, files)
        return self.read(record.number)

    def _write(self, record: Record, files: Mapping[str, bytes]) -> None:
        for left in self.folder.glob(f"{_NEW}*"):
            # of a publisher that was killed: nobody else writes while the lock is held
            shutil.rmtree(left, ignore_errors=True)
        number = folder_name(record.number)
        new = self.folder / f"{_NEW}{number}-{os.getpid()}-{secrets.token_hex(4)}"
        contents = {**files, RECORD: record.content}
        try:
            for path, content in contents.items():
                _write_file(new / path, content)
            for folder in {new, *((new / path).parent for path in contents)}:
                _sync_folder(folder)
            new.rename(self._place(record.number))
            _sync_folder(self.folder)
        except OSError as error:
            shutil.rmtree(new, ignore_errors=True)
            raise InputError(
                f"publication {number} could not be written to {self.folder} "
                f"({error.strerror or error}); nothing was published, the publication before stays "
                "in force: make room or mend what is named, then run the same command again"
            ) from error
        self._write_head(parse_record(record.content, number))

    def _require_follows(self, follows: int, last: Publication | None) -> None:
        number = last.number if last is not None else 0
        if follows == number:
            return
        if last is None or follows > number:
            raise InputError(
                f"the table follows publication {follows}, but {number} is the last one in "
                f"{self.folder}; nothing was published"
            )
        raise PublishedMeanwhileError(
            f"number {last.name} was taken by {last.by} at {last.published_at:%F %H:%M:%S} UTC "
            f"({last.reason}); nothing was published: score again, so that the table follows it"
        )

    def _record(self, number: int) -> Record:
        if number in self._known:
            return self._known[number].record
        name = folder_name(number)
        try:
            content = (self._place(number) / RECORD).read_bytes()
        except OSError as error:
            raise PublicationError(
                f"publication {name} in {self.folder}: {RECORD} cannot be read ({error.strerror}); "
                "restore the folder from a backup"
            ) from error
        record = parse_record(content, name)
        if record.number != number:
            raise PublicationError(
                f"publication {name} in {self.folder} says it is {folder_name(record.number)}: "
                "folders were renamed; restore them from a backup"
            )
        return record

    def _place(self, number: int) -> Path:
        return self.folder / folder_name(number)

    def _missing(self, number: int) -> PublicationError:
        return PublicationError(
            f"publication {folder_name(number)} is missing from {self.folder}, it was there once; "
            "restore it from a backup"
        )

    def _head(self) -> tuple[int, str]:
        path = self.folder / _HEAD
        try:
            head = json.loads(path.read_bytes())
            return int(head["number"]), str(head["digest"])
        except FileNotFoundError:
            if self._place(2).is_dir():
                raise PublicationError(f"{path} is missing; restore it from a backup") from None
            return 0, ""
        except (ValueError, TypeError, KeyError) as error:
            raise PublicationError(f"{path} is damaged; restore it from a backup") from error

    def _write_head(self, record: Record) -> None:
        temporary = self.folder / f"{_HEAD}.new"
        content = canonical_json({"number": record.number, "digest": record.digest}).encode()
        temporary.unlink(missing_ok=True)
        _write_file(temporary, content)
        temporary.replace(self.folder / _HEAD)
        _sync_folder(self.folder)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            stream = (self.folder / _LOCK).open("ab")
        except OSError as error:
            raise InputError(
                f"publications cannot be written to {self.folder} ({error.strerror or error}); "
                "nothing was published"
            ) from error
        with stream:
            # released when the file is closed, also by the end of a killed process
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield


def files_of(
    scored: Scored, policy: MarginPolicy, schedule: BaseSchedule, overrides: Sequence[Override]
) -> dict[str, bytes]:
    """Return the files of a publication by path, its record left out."""
    return {
        **levels_files(scored.levels),
        **inputs_files(scored.inputs),
        AFTER: remembered_bytes(scored.after),
        POLICY: json_bytes(policy.model_dump(mode="json"), POLICY),
        SCHEDULE: json_bytes(schedule.model_dump(mode="json"), SCHEDULE),
        OVERRIDES: json_bytes(overrides_json(tuple(overrides)), OVERRIDES),
    }


def is_published(
    publication: Publication,
    scored: Scored,
    policy: MarginPolicy,
    schedule: BaseSchedule,
    overrides: Sequence[Override],
) -> bool:
    """Whether a publication is of these very levels, specs and overrides, byte by byte."""
    files = files_of(scored, policy, schedule, overrides)
    told = publication.record
    # what the model was asked about shows in its forecasts
    expected = {path: digest for path, digest in told.files.items() if path != DECISIONS}
    return {path: sha256(content).hexdigest() for path, content in files.items()} == expected


def _utc(scored: Scored) -> datetime:
    at: datetime = scored.inputs.background.at.astype("datetime64[us]").item()
    return at.replace(tzinfo=UTC)


def _write_file(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    path.chmod(0o444)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
