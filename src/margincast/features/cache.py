"""Built features kept on disk: what was computed once is read back until what it hangs on changes.

A backtest, a training run and a score of the same data see the same numbers, and the later of them
need not compute them again. One Parquet file holds one line of a feature set for one contract,
under a name that is the SHA-256 of everything its values hang on: the line and its grid, the
content of exactly the data it reads, and the code it runs through
(:mod:`margincast.features.cached_lines`). Nothing is ever out of date, because another state of any
of these has another name.
"""

import io
import os
import secrets
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from margincast.data.quality import Finding
from margincast.features.cache_entries import (
    PARTIAL,
    PARTIAL_SECONDS,
    UNREAD_DAYS,
    Amount,
    remove_entries,
    remove_partial,
    unread_entries,
)
from margincast.features.code_version import RUNNING, SourceCode, Unkept
from margincast.features.column_digest import digest_of_frame

_KEY, _CONTENT = b"margincast.key", b"margincast.content"
_TYPES = {pa.timestamp("us", tz="UTC"), pa.float64(), pa.int64()}
_DAY_SECONDS = 86_400.0


@dataclass(frozen=True)
class Line:
    """One line of a feature set over the data of one contract.

    Attributes:
        family: section of the feature set; entries of a family share a folder.
        columns: what an entry holds, in order; None for all that is built.
        key: SHA-256 of all that the values hang on; or why that is not known, as for a function
            from outside the package, or code that was edited meanwhile: it is always computed.
    """

    family: str
    columns: tuple[str, ...] | None
    key: str | Unkept


@dataclass(frozen=True)
class Known:
    """Lines as far as they could be read back.

    Attributes:
        wanted: the lines.
        found: those that were there, by their place.
        missing: places of the others, and whether their entries may be written.
    """

    wanted: tuple[Line, ...]
    found: Mapping[int, pl.DataFrame]
    missing: Mapping[int, bool]


@dataclass
class FeatureCache:
    """A folder of built features, which several processes may use at a time.

    Entries appear under their name whole or not at all. One that holds something else than its
    name says, or does not match the digest of its own content, is built again and replaced; one
    that the system does not let be read is built again and left alone. A folder that cannot be
    written is reported once, and the build goes on without it.

    Attributes:
        folder: where the entries lie; made when the first one is written.
        read_only: keep nothing that is built.
        source: the code that what is built runs through.
        reused: lines read back so far.
        built: lines computed so far.
        damaged: entries found damaged so far.
        unreadable: entries that the system did not let be read so far.
        obstacle: why, of the last of them.
        refusal: why nothing is written any more; empty while it is.
        unkept: lines computed that have no name or were not kept under it, by reason.
        removed: entries removed because no build read them for :data:`UNREAD_DAYS` days.
    """

    folder: Path
    read_only: bool = field(default=False, kw_only=True)
    source: SourceCode = field(default=RUNNING, kw_only=True)
    reused: int = field(default=0, init=False)
    built: int = field(default=0, init=False)
    damaged: int = field(default=0, init=False)
    unreadable: int = field(default=0, init=False)
    obstacle: str = field(default="", init=False)
    refusal: str = field(default="", init=False)
    unkept: Counter[str] = field(default_factory=Counter, init=False)
    removed: Amount = field(default=Amount(), init=False)
    _reported: tuple[int, int, str] = field(default=(0, 0, ""), init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.read_only:
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
        known = self.look_up(wanted)
        made = build(list(known.missing)) if known.missing else None
        return self.completed(known, made, unchanged)

    def look_up(self, wanted: Sequence[Line]) -> "Known":
        """Read back the lines that are there; :meth:`completed` takes the others.

        Args:
            wanted: the lines, all over the same rows.
        """
        found: dict[int, pl.DataFrame] = {}
        missing: dict[int, bool] = {}
        for number, line in enumerate(wanted):
            try:
                frame = self._read(line)
            except OSError as error:
                self.unreadable += 1
                self.obstacle = _words(error)
                missing[number] = False
                continue
            if frame is None:
                missing[number] = True
            else:
                found[number] = frame
        self.reused += len(found)
        self.built += len(missing)
        return Known(tuple(wanted), found, missing)

    def completed(
        self,
        known: "Known",
        made: pl.DataFrame | None,
        unchanged: Callable[[], bool] = lambda: True,
    ) -> list[pl.DataFrame]:
        """Keep the lines that were missing, and return all of them in the order wanted.

        Args:
            known: what was looked up.
            made: columns of the missing lines; None where none is.
            unchanged: see :meth:`lines`.
        """
        found = dict(known.found)
        if known.missing:
            assert made is not None, "lines are missing"
            still_named = unchanged()
            for number, replaceable in known.missing.items():
                line = known.wanted[number]
                found[number] = made if line.columns is None else made.select(line.columns)
                if replaceable:
                    self._keep(line, found[number], still_named=still_named)
        return [found[number] for number in range(len(known.wanted))]

    def finish(self) -> list[Finding]:
        """End a build: remove what no build read for long, and say what went wrong.

        What the build itself read or wrote is never removed.

        Returns:
            What :meth:`take_findings` does.
        """
        if not self.read_only:
            unread = unread_entries(self.folder, UNREAD_DAYS * _DAY_SECONDS)
            self.removed += sum(remove_entries(unread).values(), Amount())
        return self.take_findings()

    def take_findings(self) -> list[Finding]:
        """Return what went wrong since last asked; nothing where nothing did."""
        damaged_before, unreadable_before, refusal_before = self._reported
        self._reported = self.damaged, self.unreadable, self.refusal
        lines = self.reused + self.built
        wrong = (
            (
                self.damaged - damaged_before,
                lines,
                "entry damaged or not what its name says",
                "built again and replaced",
            ),
            (
                self.unreadable - unreadable_before,
                lines,
                f"entry cannot be read: {self.obstacle}",
                "built again, and the entry left as it is",
            ),
            (
                int(self.refusal != refusal_before),
                1,
                f"cannot be written: {self.refusal}",
                "features built without keeping them",
            ),
        )
        return [
            Finding("cache", "built features", what, count, total, action, severity="warning")
            for count, total, what, action in wrong
            if count
        ]

    def describe(self) -> str:
        """One line for a log: what was read back, what was not kept and why, what was let go."""
        lines = self.reused + self.built
        parts = [f"{self.reused} of {lines} lines of features read from the cache"]
        if self.damaged:
            parts.append(f"{self.damaged} damaged, built again")
        if self.unreadable:
            parts.append(f"{self.unreadable} cannot be read ({self.obstacle}), built again")
        parts += [f"{count} not kept: {reason}" for reason, count in self.unkept.most_common()]
        if self.refusal:
            parts.append(f"it cannot be written: {self.refusal}")
        if self.removed.count:
            parts.append(f"{self.removed} not read for {UNREAD_DAYS} days removed")
        return "; ".join(parts)

    def _path(self, line: Line, key: str) -> Path:
        return self.folder / line.family / f"{key}.parquet"

    def _read(self, line: Line) -> pl.DataFrame | None:
        """Read an entry back; None where there is none, or a damaged one.

        Raises:
            OSError: the system does not let it be read.
        """
        if isinstance(line.key, Unkept):
            return None
        path = self._path(line, line.key)
        try:
            content = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            with pq.ParquetFile(pa.BufferReader(content)) as file:
                table = file.read(use_threads=False)
            frame = _content(table, line)
        except (OSError, pa.ArrowException, ValueError):
            frame = None
        if frame is None:
            self.damaged += 1
        else:
            with suppress(OSError):  # of another user's entry the time cannot be set
                os.utime(path)
        return frame

    def _keep(self, line: Line, frame: pl.DataFrame, *, still_named: bool) -> None:
        if isinstance(line.key, Unkept):
            self.unkept[line.key.reason] += 1
        elif self.read_only:
            return
        elif still_named:
            self._write(line, line.key, frame)
        else:
            self.unkept["their files were written again while they were read"] += 1

    def _write(self, line: Line, key: str, frame: pl.DataFrame) -> None:
        if self.refusal:
            return
        path = self._path(line, key)
        partial = path.with_name(f"{path.name}.{os.getpid()}-{secrets.token_hex(4)}{PARTIAL}")
        metadata = {_KEY: key, _CONTENT: digest_of_frame(frame)}
        table = frame.to_arrow().replace_schema_metadata(metadata)
        content = io.BytesIO()
        # features are floats of their own each: neither dictionary nor compression pays
        pq.write_table(
            table, content, compression="none", use_dictionary=False, write_statistics=False
        )
        try:
            self._make_folder()
            path.parent.mkdir(exist_ok=True)
            partial.write_bytes(content.getbuffer())
            partial.replace(path)
        except OSError as error:
            self.refusal = f"{self.folder}: {_words(error)}"
        finally:
            with suppress(OSError):
                partial.unlink()

    def _make_folder(self) -> None:
        if not self.folder.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / ".gitignore").write_text("*\n", encoding="utf-8")


def _words(error: OSError) -> str:
    """Words of the system, without the name of the file."""
    return error.strerror or type(error).__name__


def _content(table: pa.Table, line: Line) -> pl.DataFrame | None:
    """Return the entry's columns; None where they are not what its name and digest say."""
    metadata = table.schema.metadata or {}
    if (
        metadata.get(_KEY) != str(line.key).encode()
        or tuple(table.column_names) != (line.columns or tuple(table.column_names))
        or not _TYPES.issuperset(table.schema.types)
    ):
        return None
    # column by column: what damaged metadata says of the table must not reach polars
    columns = [pl.Series(pl.from_arrow(column, rechunk=True)) for column in table.columns]
    named = zip(table.column_names, columns, strict=True)
    frame = pl.DataFrame([column.alias(name) for name, column in named])
    return frame if metadata.get(_CONTENT) == digest_of_frame(frame).encode() else None
