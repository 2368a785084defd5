"""The folder of a live engine: its newest margins and a heartbeat, for other processes to read.

Responsible for handing live margins to the service's workers. ``levels.arrow`` holds the whole
table and appears at once; ``status.json`` is written at every look of the watchdog, so that a
reader notices an engine that is gone.
"""

import fcntl
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from io import BufferedWriter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import feather

from margincast.core.errors import InputError
from margincast.serving.live.faults import EVERYTHING, Fault, sentence
from margincast.serving.snapshot import Header, Snapshot

LEVELS, STATUS, SOCKET, LOCK = "levels.arrow", "status.json", "events.sock", ".lock"
_HEADER = b"margincast.header"


@dataclass(frozen=True)
class LiveStatus:
    """How a live engine stood at its last look.

    Attributes:
        header: where its margins come from.
        beat: when it looked, UTC.
        counts: counts and fallbacks, JSON-like.
    """

    header: Header
    beat: datetime
    counts: Mapping[str, Any]

    def fallbacks(self) -> dict[str, tuple[Fault, str]]:
        """Return which subjects were in fallback, and all of them since the engine is gone."""
        found = {
            "" if subject == "all" else subject: (Fault(one["fault"]), str(one["reason"]))
            for subject, one in self.counts["fallbacks"].items()
        }
        gone = f"started again; the engine before was last seen at {self.beat:%F %H:%M:%S} UTC"
        restarted = {Fault.ENGINE_STOPPED: gone}
        return {EVERYTHING: (Fault.ENGINE_STOPPED, sentence(restarted)), **found}


@dataclass(frozen=True)
class LiveState(LiveStatus):
    """The same with its margins.

    Attributes:
        levels: the margin levels.
    """

    levels: pd.DataFrame


@dataclass
class LiveFolder:
    """Writes and reads the folder.

    Attributes:
        path: the folder.
    """

    path: Path
    _written: str | None = None
    _lock: BufferedWriter | None = None

    def prepare(self) -> None:
        """Make the folder, and keep it for this engine as long as its process lives.

        Raises:
            InputError: it cannot be made, or another engine writes to it.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = (self.path / LOCK).open("ab")
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"{self.path}: another live engine writes there; stop it first, or choose another "
                "folder with --out"
            ) from error
        except OSError as error:
            raise InputError(f"{self.path} cannot be a folder: {error.strerror}") from error

    def free_bytes(self) -> int:
        """Return the free space of its disk."""
        return shutil.disk_usage(self.path).free

    def write(self, snapshot: Snapshot | None, status: Mapping[str, Any], now: datetime) -> None:
        """Write what is shown now; the levels only where they changed.

        Raises:
            OSError: the disk is full, or gone.
        """
        header = None if snapshot is None else snapshot.header
        version = None if header is None else f"{header.version} {header.published_at.isoformat()}"
        if snapshot is not None and version != self._written:
            # the header goes with the levels, so that one is never read beside another's
            own = {_HEADER: json.dumps(_header_json(header)).encode()}
            table = table_of(snapshot).replace_schema_metadata(own)
            new = self.path / f".{LEVELS}.new"
            with new.open("wb") as file:
                feather.write_feather(table, file, compression="uncompressed")
            new.replace(self.path / LEVELS)
            self._written = version
        body = {"beat": now.isoformat(), "header": _header_json(header), **status}
        new = self.path / f".{STATUS}.new"
        with new.open("w", encoding="utf-8") as file:
            json.dump(body, file)
        new.replace(self.path / STATUS)

    def status(self) -> LiveStatus | None:
        """Read the heartbeat and what goes with it; None where there is none.

        Raises:
            InputError: the file is damaged.
        """
        path = self.path / STATUS
        try:
            body = json.loads(path.read_text(encoding="utf-8"))
            header = body.pop("header")
            if header is None:
                return None
            beat = datetime.fromisoformat(body.pop("beat"))
            return LiveStatus(_header_of(header), beat, body)
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"{path} is damaged ({type(error).__name__}); the live engine writes it anew, "
                "remove it if none runs"
            ) from error

    def read(self) -> LiveState | None:
        """Read what was written last; None where nothing was."""
        status = self.status()
        if status is None:
            return None
        try:
            table = feather.read_table(self.path / LEVELS, memory_map=False)
        except FileNotFoundError:
            return None
        metadata = table.schema.metadata or {}
        if _HEADER not in metadata:
            raise InputError(
                f"{self.path / LEVELS} is damaged: it does not say whose levels it holds"
            )
        # the table may be a moment ahead of the heartbeat
        header = _header_of(json.loads(metadata[_HEADER]))
        return LiveState(header, status.beat, status.counts, table.to_pandas())


def table_of(snapshot: Snapshot) -> pa.Table:
    """Return a snapshot as the table of margin levels that it was made of."""
    sides = [side for both in snapshot.contracts.values() for side in both.values()]
    if not sides:
        return pa.table({})
    arrays = {}
    for name in sides[0].columns:
        values = np.concatenate([side.columns[name][side.place] for side in sides])
        kind = pa.timestamp("us", "UTC") if values.dtype.kind == "M" else None
        arrays[name] = pa.array(values, type=kind, from_pandas=values.dtype.kind == "O")
    return pa.table(arrays)


def _header_of(body: dict[str, Any]) -> Header:
    return Header(**{**body, "published_at": datetime.fromisoformat(body["published_at"])})


def _header_json(header: Header | None) -> dict[str, Any] | None:
    if header is None:
        return None
    return asdict(header) | {"published_at": header.published_at.astimezone(UTC).isoformat()}
