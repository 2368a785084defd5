"""Open the files a risk desk has: plain, compressed or zipped, read as one bounded stream of bytes.

A margin is only as good as its inputs were complete: a truncated archive is an error that names
the byte, never a shorter table. Nothing is unpacked to disk, and an archive that grows out of all
proportion is refused before it fills memory or store.
"""

import gzip
import hashlib
import io
import lzma
import os
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePath, PurePosixPath
from typing import IO, BinaryIO, NoReturn, cast

import pyarrow as pa

from margincast.core.errors import InputError

COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2", ".xz": "xz"}
"""Suffixes of compressed single files and what they mean."""

EXPANSION_LIMIT = 300
"""Expanded over stored size from which an archive is taken for a decompression bomb.

Order-book text compresses 5 to 40 times; deflate can reach 1,032, zstd more than 10,000.
"""

EXPANSION_ALLOWANCE = 256 * 1024**2
"""Expanded bytes that are allowed whatever the ratio."""

HEAD_BYTES = 64 * 1024

_IGNORED_SUFFIXES = (".CHECKSUM", ".part", ".md")

_CONTENTS = (
    (b"\x1f\x8b", "compressed by gzip", "unpack it, or give it the suffix .gz"),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd", "unpack it, or give it the suffix .zst"),
    (b"BZh", "compressed by bzip2", "unpack it, or give it the suffix .bz2"),
    (b"\xfd7zXZ\x00", "compressed by xz", "unpack it, or give it the suffix .xz"),
    (b"PK\x03\x04", "a zip archive or a spreadsheet", "unpack it, or export it as text"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it and give the files in it"),
    (b"Rar!\x1a\x07", "a RAR archive", "unpack it and give the files in it"),
    (b"%PDF-", "a PDF document", "give the data it was made from"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file", "write its tables as Parquet"),
    (b"SQLite format 3\x00", "an SQLite database", "write its tables as Parquet"),
    (b"\xff\xfe", "text in UTF-16", "convert it to UTF-8"),
    (b"\xfe\xff", "text in UTF-16", "convert it to UTF-8"),
)
"""First bytes of what no format reads, what they mean, and what to do."""

_TAR_MARK, _TAR_PLACE = b"ustar", 257


@dataclass(frozen=True)
class Source:
    """A file, or one member of a zip archive.

    Attributes:
        path: the file on disk.
        member: name of the member inside a zip archive; None for any other file.
    """

    path: Path
    member: str | None = None

    def __str__(self) -> str:
        return str(self.path) if self.member is None else f"{self.path}!{self.member}"

    @property
    def name(self) -> str:
        """File name without folders and without the suffix of its compression."""
        inner = self.path.name if self.member is None else PurePosixPath(self.member).name
        suffix = PurePosixPath(inner).suffix
        return inner.removesuffix(suffix) if suffix.lower() in COMPRESSIONS else inner

    @property
    def stem(self) -> str:
        """:attr:`name` without its last suffix."""
        return PurePosixPath(self.name).stem

    @property
    def folders(self) -> tuple[str, ...]:
        """Names of the folders around the file, outermost first."""
        return self.path.resolve().parts[1:-1]

    @property
    def is_plain(self) -> bool:
        """Whether the bytes on disk are the content, so that the file can be read at random."""
        return self.member is None and self.path.suffix.lower() not in COMPRESSIONS

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """Open the expanded bytes.

        Raises:
            InputError: the file cannot be read, is truncated or damaged, or expands out of all
                proportion; names the byte of the expanded stream where that was noticed.
        """
        reached = _Position()
        try:
            if self.path.is_dir():
                raise InputError(f"{self} is a folder where a file should be; give the files in it")
            with self._expanded() as (stream, stored):
                bounded = _Bounded(stream, stored, str(self), reached)
                yield cast("BinaryIO", io.BufferedReader(bounded, buffer_size=1024**2))
        except (
            EOFError,
            zlib.error,
            lzma.LZMAError,
            gzip.BadGzipFile,
            zipfile.BadZipFile,
        ) as error:
            raise self._damaged(reached.byte, error) from None
        except OSError as error:
            if isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError):
                reason = os.strerror(error.errno) if error.errno else error
                raise InputError(f"{self} cannot be read: {reason}") from None
            raise self._damaged(reached.byte, error) from None

    def head(self, size: int = HEAD_BYTES) -> bytes:
        """Return the first expanded bytes.

        Raises:
            InputError: see :meth:`open`.
        """
        with self.open() as stream:
            return stream.read(size)

    @contextmanager
    def _expanded(self) -> Iterator[tuple[BinaryIO, int]]:
        if self.member is not None:
            with zipfile.ZipFile(self.path) as archive, self._opened(archive) as stream:
                yield cast("BinaryIO", stream), archive.getinfo(self.member).compress_size
            return
        stored = self.path.stat().st_size
        kind = COMPRESSIONS.get(self.path.suffix.lower())
        if kind == "xz":
            with lzma.open(self.path) as stream:
                yield cast("BinaryIO", stream), stored
        elif kind == "gzip":
            # the standard library notices a truncated stream; Arrow reads it as a shorter one
            with gzip.open(self.path) as stream:
                yield cast("BinaryIO", stream), stored
        elif kind is not None:
            with pa.input_stream(str(self.path), compression=kind) as stream:
                yield stream, stored
        else:
            with self.path.open("rb") as stream:
                yield stream, stored

    def _opened(self, archive: zipfile.ZipFile) -> IO[bytes]:
        try:
            return archive.open(str(self.member))
        except KeyError:
            raise InputError(f"{self.path} has no member '{self.member}'") from None
        except NotImplementedError as error:
            raise InputError(
                f"{self} is compressed in a way that is not read ({error}); unpack it yourself and "
                "give the unpacked file"
            ) from None
        except RuntimeError:  # the standard library's answer to an encrypted member
            raise InputError(
                f"{self} is encrypted; unpack it with its password and give the unpacked file"
            ) from None

    def _damaged(self, byte: int, error: Exception) -> InputError:
        return InputError(
            f"{self} is damaged or incomplete after byte {byte:,} of its content: {error}; "
            "fetch or copy the file again"
        )


@dataclass
class _Position:
    byte: int = 0


class _Bounded(io.RawIOBase):
    """Count what passes and refuse a stream that grows out of all proportion."""

    def __init__(self, stream: BinaryIO, stored: int, name: str, reached: _Position) -> None:
        super().__init__()
        self._stream, self._name, self._reached = stream, name, reached
        self._limit = max(EXPANSION_ALLOWANCE, EXPANSION_LIMIT * stored)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # a writable buffer
        content = self._stream.read(len(buffer))
        buffer[: len(content)] = content
        self._reached.byte += len(content)
        if self._reached.byte > self._limit:
            raise InputError(
                f"{self._name} expands to more than {self._limit:,} bytes, over {EXPANSION_LIMIT} "
                "times its size: it looks like a decompression bomb; if it is genuine, unpack it "
                "yourself and give the unpacked file"
            )
        return len(content)


def sources_in(paths: Sequence[Path]) -> list[Source]:
    """List files below folders and members of zip archives, in the order of their names.

    Raises:
        InputError: see :func:`files_in` and :func:`members_of`.
    """
    return list(dict.fromkeys(source for file in files_in(paths) for source in members_of(file)))


def files_in(paths: Sequence[Path]) -> list[Path]:
    """List files and the files below folders, in the order of their names.

    Hidden files, checksum files, partial downloads and Markdown notes are no data and are left
    out of folders. Links to folders are followed, a folder once; a link that leads nowhere is
    listed, for :func:`members_of` to refuse.

    Raises:
        InputError: a path does not exist, a folder cannot be listed, or there is no file at all.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += _files_below(path)
        elif path.exists():
            found.append(path)
        else:
            raise InputError(f"{path} does not exist; give a file or a folder of market data")
    if not found:
        raise InputError(
            f"{', '.join(map(str, paths))} holds no file of market data (hidden files, names that "
            f"begin with '_', and *{', *'.join(_IGNORED_SUFFIXES)} are none); give a file, or a "
            "folder that holds some"
        )
    return list(dict.fromkeys(found))


def _files_below(folder: Path) -> list[Path]:
    """List files; a folder that may not be listed is an error, pathlib would pass it over."""

    def fail(error: OSError) -> NoReturn:
        raise InputError(
            f"{error.filename} cannot be listed: {error.strerror}; allow it or leave it out"
        ) from None

    seen: set[str] = set()
    found: list[Path] = []
    for where, folders, names in os.walk(folder, onerror=fail, followlinks=True):
        true_place = os.path.realpath(where)
        if true_place in seen:  # a link to a folder that is listed already, or around this one
            folders.clear()
            continue
        seen.add(true_place)
        known = [name for name in folders if not _is_ignored(PurePath(name))]
        # links after the others: a file is listed under its own folder where that is among them
        folders[:] = sorted(known, key=lambda name: (Path(where, name).is_symlink(), name))
        found += [Path(where, name) for name in names if not _is_ignored(PurePath(name))]
    return sorted(found)


def _is_ignored(path: PurePath) -> bool:
    return path.name.endswith(_IGNORED_SUFFIXES) or any(
        part.startswith((".", "_")) for part in path.parts
    )


def members_of(path: Path) -> list[Source]:
    """List the sources of a file: the members of a zip archive, or the file itself.

    Raises:
        InputError: the path is a link that leads nowhere, or no file; an archive is damaged, has no
            members, two of one name, or one whose name would lead out of its folder.
    """
    if path.is_symlink() and not path.exists():
        raise InputError(
            f"{path} is a link to {path.readlink()}, which is not there; mend it or remove it"
        )
    if path.exists() and not path.is_file() and not path.is_dir():
        raise InputError(f"{path} is a pipe or a device; write its content to a file and give that")
    if path.suffix.lower() != ".zip":
        return [Source(path)]
    try:
        with zipfile.ZipFile(path) as archive:
            names = [info.filename for info in archive.infolist() if not info.is_dir()]
    except (zipfile.BadZipFile, OSError) as error:
        raise InputError(
            f"{path} is no readable zip archive: {error}; fetch or copy the file again"
        ) from None
    for name in names:
        inner = PurePosixPath(name.replace("\\", "/"))
        if inner.is_absolute() or ".." in inner.parts:
            raise InputError(
                f"{path}: member '{name}' would lead out of its folder; such an archive is not "
                "read, obtain it from its origin again"
            )
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise InputError(
            f"{path} has several members named '{twice[0]}', of which only the last can be read; "
            "unpack it yourself and give the unpacked files"
        )
    members = [name for name in sorted(names) if not _is_ignored(PurePosixPath(name))]
    if not members:
        raise InputError(f"{path} is an archive without members; fetch or copy the file again")
    return [Source(path, name) for name in members]


def foreign_content(head: bytes) -> str:
    """Say what the first bytes of a content are where no format reads such; empty otherwise."""
    for mark, what, advice in _CONTENTS:
        if head.startswith(mark):
            return f"is {what}, as its first bytes {mark.hex(' ')} say; {advice}"
    if head[_TAR_PLACE:].startswith(_TAR_MARK):
        return "is a tar archive, as 'ustar' in its first bytes says; unpack it and give its files"
    start = head[:64]
    if len(start) > 1 and (not any(start[1::2]) or not any(start[::2])):
        return (
            f"is text in UTF-16 or of zeros, as its first bytes {start[:4].hex(' ')} say; convert "
            "it to UTF-8"
        )
    return ""


@dataclass(frozen=True)
class Stamp:
    """By what it shows that a file was written again: its place on the disk, size and time."""

    path: Path
    inode: int
    size_bytes: int
    modified_ns: int


def stamp_of(path: Path) -> Stamp:
    """Take the stamp of a file.

    Raises:
        InputError: the file is gone.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    return Stamp(path, status.st_ino, status.st_size, status.st_mtime_ns)


def digest_of_source(source: Source, companions: Sequence[Path] = ()) -> str:
    """SHA-256 over the stored bytes of a source and of the files it is read together with.

    Raises:
        InputError: a file cannot be read.
    """
    try:
        digest = _hash_of(tuple(stamp_of(path) for path in (source.path, *companions))).copy()
    except OSError as error:
        raise InputError(f"{source} cannot be read: {error.strerror}") from None
    digest.update((source.member or "").encode())
    return digest.hexdigest()


@lru_cache(maxsize=8)
def _hash_of(files: tuple[Stamp, ...]) -> "hashlib._Hash":
    """Hash files, once for all members of an archive; not to be updated, but copied."""
    digest = hashlib.sha256()
    for file in files:
        with file.path.open("rb") as stream:
            for block in iter(lambda: stream.read(1024**2), b""):
                digest.update(block)
    return digest
