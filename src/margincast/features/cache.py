"""Built features kept on disk: what was computed once is read back until what it hangs on changes.

A backtest, a training run and a score of the same data see the same numbers, and the later of them
need not compute them again. One Parquet file holds one line of a feature set for one contract,
under a name that is the SHA-256 of everything its values hang on: the line and its grid, the
content of exactly the data it reads, and the code it runs through
(:mod:`margincast.features.cached_lines`). Nothing is ever out of date, because another state of any
of these has another name.
"""

import hashlib
import os
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from margincast.core.digest import digest_of
from margincast.data.quality import Finding

PARTIAL = ".part"
PARTIAL_SECONDS = 300.0
"""Age at which a file that is being written belongs to a process that was killed.

One is written in far less; a writer that slept through it finds its file gone and keeps nothing.
"""

_KEY, _CONTENT = b"margincast.key", b"margincast.content"
_KEY_LENGTH = 64
_TYPES = {pa.timestamp("us", tz="UTC"), pa.float64(), pa.int64()}


@dataclass(frozen=True)
class Line:
    """One line of a feature set over the data of one contract.

    Attributes:
        family: section of the feature set; entries of a family share a folder.
        columns: what an entry holds, in order; None for all that is built.
        key: SHA-256 of all that the values hang on; None where that is not known, as for a function
            from outside the package, or code that was edited meanwhile: it is always computed.
    """

    family: str
    columns: tuple[str, ...] | None
    key: str | None


@dataclass(frozen=True)
class Entry:
    """A file of the cache: its family, place and size."""

    family: str
    path: Path
    size_bytes: int


@dataclass
class FeatureCache:
    """A folder of built features, which several processes may use at a time.

    Entries appear under their name whole or not at all. One that cannot be read, holds something
    else than its name says, or does not match the digest of its own content is built again. A
    folder that cannot be written is reported once, and the build goes on without it.

    Attributes:
        folder: where the entries lie; made when the first one is written.
        reused: lines read back so far.
        built: lines computed so far.
        damaged: entries found damaged so far.
        refusal: why nothing is written any more; empty while it is.
    """

    folder: Path
    reused: int = 0
    built: int = 0
    damaged: int = 0
    refusal: str = ""
    _reported: tuple[int, str] = field(default=(0, ""), repr=False)

    def __post_init__(self) -> None:
        remove_partial(self.folder, older_than_seconds=PARTIAL_SECONDS)

    def lines(
        self,
        wanted: Sequence[Line],
        build: Callable[[Sequence[int]], pl.DataFrame],
        unchanged: Callable[[], bool] = lambda: True,
    ) -> list[pl.DataFrame]:
        """Return the columns of every line, read back or computed.

        Args:
            wanted: the lines, all over the same rows.
            build: computes the lines that are not there, given by their places, in one go.
            unchanged: asked after they were computed: whether the data is still that of the keys;
                if not, nothing is kept.

        Returns:
            A frame a line, in the order wanted.
        """
        found: dict[int, pl.DataFrame] = {}
        for number, line in enumerate(wanted):
            frame = self._read(line)
            if frame is not None:
                found[number] = frame
        missing = [number for number in range(len(wanted)) if number not in found]
        self.reused += len(found)
        self.built += len(missing)
        if missing:
            made = build(missing)
            keep = unchanged()
            for number in missing:
                columns = wanted[number].columns
                found[number] = made if columns is None else made.select(columns)
                if keep:
                    self._write(wanted[number], found[number])
        return [found[number] for number in range(len(wanted))]

    def take_findings(self) -> list[Finding]:
        """Return what went wrong since last asked; nothing where nothing did."""
        damaged_before, refusal_before = self._reported
        self._reported = self.damaged, self.refusal
        findings = []
        if self.damaged > damaged_before:
            findings.append(
                Finding(
                    "cache",
                    "built features",
                    "entry damaged or not what its name says",
                    self.damaged - damaged_before,
                    self.reused + self.built,
                    "built again and replaced",
                    severity="warning",
                )
            )
        if self.refusal != refusal_before:
            findings.append(
                Finding(
                    "cache",
                    "built features",
                    f"cannot be written: {self.refusal}",
                    1,
                    1,
                    "features built without keeping them",
                    severity="warning",
                )
            )
        return findings

    def describe(self) -> str:
        """One line for a log: what was read back, and what went wrong."""
        text = f"{self.reused} of {self.reused + self.built} lines of features read from the cache"
        if self.damaged:
            text += f"; {self.damaged} damaged, built again"
        if self.refusal:
            text += f"; it cannot be written: {self.refusal}"
        return text

    def _path(self, line: Line) -> Path:
        return self.folder / line.family / f"{line.key}.parquet"

    def _read(self, line: Line) -> pl.DataFrame | None:
        if line.key is None:
            return None
        try:
            with pq.ParquetFile(self._path(line)) as file:
                table = file.read(use_threads=False)
            frame = _content(table, line)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, pa.ArrowException, ValueError):
            frame = None
        if frame is None:
            self.damaged += 1
        return frame

    def _write(self, line: Line, frame: pl.DataFrame) -> None:
        if line.key is None or self.refusal:
            return
        path = self._path(line)
        partial = path.with_name(f"{path.name}.{os.getpid()}-{secrets.token_hex(4)}{PARTIAL}")
        metadata = {_KEY: line.key, _CONTENT: digest_of_frame(frame)}
        table = frame.to_arrow().replace_schema_metadata(metadata)
        try:
            self._make_folder()
            path.parent.mkdir(exist_ok=True)
            # features are floats of their own each: neither dictionary nor compression pays
            pq.write_table(
                table, partial, compression="none", use_dictionary=False, write_statistics=False
            )
            partial.replace(path)
        except OSError as error:
            self.refusal = error.strerror or str(error)
        finally:
            with suppress(OSError):
                partial.unlink()

    def _make_folder(self) -> None:
        if not self.folder.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / ".gitignore").write_text("*\n", encoding="utf-8")


def entries_of(folder: Path) -> Iterator[Entry]:
    """List the entries of a cache, family by family; other files are passed over."""
    for path in sorted(folder.glob("*/*.parquet")):
        name = path.stem
        if len(name) == _KEY_LENGTH and not name.strip("0123456789abcdef"):
            with suppress(FileNotFoundError):  # another process may clear it now
                yield Entry(path.parent.name, path, path.stat().st_size)


def remove_partial(folder: Path, older_than_seconds: float) -> int:
    """Remove what a killed process left half-written, and count it."""
    count = 0
    for path in folder.glob(f"*/*.parquet.*{PARTIAL}"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime >= older_than_seconds:
                path.unlink()
                count += 1
    return count


def digest_of_frame(frame: pl.DataFrame) -> str:
    """SHA-256 of a frame's columns: names, types and values, in order."""
    return digest_of([[series.name, digest_of_series(series)] for series in frame])


def digest_of_series(series: pl.Series) -> str:
    """SHA-256 of a column's type and values to the last bit; what lies below a null does not count.

    Raises:
        TypeError: values of a kind that features are not computed from (lists, structures).
    """
    values = series.to_physical()
    if values.dtype in (pl.String, pl.Binary, pl.Categorical, pl.Enum):
        values = values.cast(pl.String)
        sizes, text = values.str.len_bytes(), values.fill_null("").str.join("").item()
        payload = [digest_of_series(sizes).encode(), text.encode()]
    elif values.dtype.is_numeric() or values.dtype == pl.Boolean:
        known = values.cast(pl.UInt8) if values.dtype == pl.Boolean else values
        unknown = np.packbits(values.is_null().to_numpy()) if values.null_count() else b""
        payload = [np.ascontiguousarray(known.fill_null(0).to_numpy()), unknown]
    else:
        raise TypeError(f"column '{series.name}' is {series.dtype}: it has no digest")
    digest = hashlib.sha256(f"{series.dtype} {len(series)} {series.null_count()} ".encode())
    for part in payload:
        digest.update(part)
    return digest.hexdigest()


def _content(table: pa.Table, line: Line) -> pl.DataFrame | None:
    """Return the entry's columns; None where they are not what its name and digest say."""
    metadata = table.schema.metadata or {}
    if (
        metadata.get(_KEY) != (line.key or "").encode()
        or tuple(table.column_names) != (line.columns or tuple(table.column_names))
        or not _TYPES.issuperset(table.schema.types)
    ):
        return None
    # column by column: what damaged metadata says of the table must not reach polars
    columns = [pl.Series(pl.from_arrow(column, rechunk=True)) for column in table.columns]
    named = zip(table.column_names, columns, strict=True)
    frame = pl.DataFrame([column.alias(name) for name, column in named])
    return frame if metadata.get(_CONTENT) == digest_of_frame(frame).encode() else None
