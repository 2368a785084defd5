"""The folder of a live engine: its newest margins and a heartbeat, for other processes to read.

Responsible for handing live margins to the service's workers. ``levels.arrow`` holds the whole
table and appears at once; ``status.json`` is written at every look of the watchdog, so that a
reader notices an engine that is gone.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import feather

from margincast.core.errors import InputError
from margincast.serving.snapshot import Header, Snapshot

LEVELS, STATUS, SOCKET = "levels.arrow", "status.json", "events.sock"


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

    def is_alive(self, now: datetime, longest: timedelta) -> bool:
        """Say whether the engine looked within a time."""
        return now - self.beat <= longest


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

    def prepare(self) -> None:
        """Make the folder.

        Raises:
            InputError: it cannot be made.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
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
            table = table_of(snapshot)
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
        """Read the heartbeat and what goes with it; None where there is none."""
        try:
            body = json.loads((self.path / STATUS).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        header = body.pop("header")
        if header is None:
            return None
        header["published_at"] = datetime.fromisoformat(header["published_at"])
        beat = datetime.fromisoformat(body.pop("beat"))
        return LiveStatus(Header(**header), beat, body)

    def read(self) -> LiveState | None:
        """Read what was written last; None where nothing was."""
        status = self.status()
        if status is None:
            return None
        try:
            levels: pd.DataFrame = feather.read_feather(self.path / LEVELS)
        except FileNotFoundError:
            return None
        return LiveState(status.header, status.beat, status.counts, levels)


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


def _header_json(header: Header | None) -> dict[str, Any] | None:
    if header is None:
        return None
    return asdict(header) | {"published_at": header.published_at.astimezone(UTC).isoformat()}
