"""One file of an archive, verified: under its final name lies what the archive's checksum names.

A margin rests on the bytes the venue published, all of them and no others. A file that breaks off
is continued, one whose SHA-256 is wrong is thrown away, and what is right appears at once by a
rename, so that no reader ever meets a half-written file, whatever ends the process.
"""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from random import SystemRandom
from typing import TYPE_CHECKING, Literal

from margincast.core.digest import digest_of_file
from margincast.core.errors import InputError
from margincast.data.fetch.client import Client, Patience, RefusedError, TemporaryError

if TYPE_CHECKING:
    from hashlib import _Hash

Result = Literal["fetched", "already there", "not in the archive", "failed"]

CHECKSUM_SUFFIX = ".CHECKSUM"
_MOST_CHECKSUM_BYTES = 4096
_CHECKSUM = re.compile(r"\s*([0-9a-fA-F]{64})\s+\*?(\S+)\s*")
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(?:\d+|\*)")
_PARTIAL, _NOT_FOUND, _BEYOND_THE_END = 206, 404, 416
_random = SystemRandom()


@dataclass(frozen=True)
class Outcome:
    """What became of one file."""

    path: str
    """Path below the archive's address."""
    result: Result
    bytes_received: int = 0
    """Bytes of bodies received for it, of failed attempts and checksums too."""
    reason: str = ""
    """Why it failed; empty otherwise."""


@dataclass(frozen=True)
class _Checksum:
    digest: str
    text: str


def fetch_file(client: Client, path: str, out: Path) -> Outcome:
    """Fetch a file and its checksum below a folder, or find that they are there already.

    What was received of a file is kept as ``NAME.DIGEST.part``, named by the checksum of the
    content it belongs to: the next attempt or run asks for the missing bytes only, and never
    continues a file that the venue has replaced meanwhile.

    Args:
        client: connection to the archive.
        path: path below the archive's address; the file gets the same path below ``out``.
        out: folder to write into.

    Raises:
        InputError: the folder cannot be written to.
        StoppedError: the run ended; what was received is kept.
    """
    before = client.bytes_received
    reason = ""
    for attempt in range(client.patience.attempts):
        try:
            result = _attempt(client, path, out)
            return Outcome(path, result, client.bytes_received - before)
        except RefusedError as error:
            reason = str(error)
            break
        except TemporaryError as error:
            reason = f"{error} ({attempt + 1} attempts)"
            if attempt + 1 < client.patience.attempts:
                client.pace.sleep(_wait_seconds(client.patience, attempt, error))
        except OSError as error:
            raise InputError(
                f"cannot write {out / path}: {error.strerror or error}; free space or name another "
                "folder with --out. What was fetched is kept, the same command continues"
            ) from None
    if (out / path).exists():
        reason += "; the copy that lies there was left alone, unverified"
    return Outcome(path, "failed", client.bytes_received - before, reason)


def _attempt(client: Client, path: str, out: Path) -> Result:
    checksum = _published_checksum(client, path)
    if checksum is None:
        if client.exists(path):
            raise RefusedError("the archive has no checksum for this file; it cannot be verified")
        return "not in the archive"
    target = out / path
    if target.exists() and digest_of_file(target) == checksum.digest:
        _write_checksum(target, checksum)
        return "already there"
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.{checksum.digest[:16]}.part")
    _receive(client, path, part, checksum.digest)
    # the checksum first: a file under its final name never lacks the proof of its content
    _write_checksum(target, checksum)
    part.replace(target)
    for stale in target.parent.glob(f"{target.name}.*.part"):
        stale.unlink()
    return "fetched"


def _published_checksum(client: Client, path: str) -> _Checksum | None:
    text = client.text(path + CHECKSUM_SUFFIX, _MOST_CHECKSUM_BYTES)
    if text is None:
        return None
    match = _CHECKSUM.fullmatch(text)
    name = path.rpartition("/")[2]
    if match is None or match[2] != name:
        raise TemporaryError(
            f"the archive's checksum file reads {text[:100]!r}, not a SHA-256 and {name}"
        )
    return _Checksum(match[1].lower(), text)


def _receive(client: Client, path: str, part: Path, digest: str) -> None:
    """Complete a partial file until its SHA-256 is right.

    Raises:
        TemporaryError: it is not complete yet, or was wrong and is thrown away.
        RefusedError, StoppedError: as of the client.
    """
    hasher = _hash_of(part)
    if hasher.hexdigest() != digest:
        hasher = _append(client, path, part, hasher)
    if hasher.hexdigest() != digest:
        size = part.stat().st_size
        part.unlink()
        raise TemporaryError(
            f"wrong checksum: {size:,} bytes with SHA-256 {hasher.hexdigest()[:16]}..., "
            f"the archive says {digest[:16]}...; thrown away"
        )


def _append(client: Client, path: str, part: Path, hasher: "_Hash") -> "_Hash":
    there = part.stat().st_size if part.exists() else 0
    headers = {"Range": f"bytes={there}-"} if there else {}
    with client.request("GET", path, headers) as response:
        status = response.status_code
        if status == _NOT_FOUND:
            raise TemporaryError("the archive has its checksum, but not the file")
        content_range = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if status == _BEYOND_THE_END or (
            status == _PARTIAL and (content_range is None or int(content_range[1]) != there)
        ):
            part.unlink(missing_ok=True)
            raise TemporaryError("the archive does not continue the file; it starts again", 0.0)
        if status != _PARTIAL:
            there, hasher = 0, hashlib.sha256()
        with part.open("ab" if there else "wb") as stream:
            for chunk in client.chunks(response):
                stream.write(chunk)
                stream.flush()
                hasher.update(chunk)
    return hasher


def _hash_of(part: Path) -> "_Hash":
    if not part.exists():
        return hashlib.sha256()
    with part.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256")


def _write_checksum(target: Path, checksum: _Checksum) -> None:
    beside = target.with_name(target.name + CHECKSUM_SUFFIX)
    content = checksum.text.encode()
    if beside.exists() and beside.read_bytes() == content:
        return
    part = beside.with_name(beside.name + ".part")
    part.write_bytes(content)
    part.replace(beside)


def _wait_seconds(patience: Patience, attempt: int, error: TemporaryError) -> float:
    if error.wait_seconds is not None:
        return error.wait_seconds
    longest = min(patience.first_wait_seconds * 2.0**attempt, patience.longest_wait_seconds)
    # jitter, so that connections which failed together do not come back together
    return longest * _random.uniform(0.5, 1.0)
