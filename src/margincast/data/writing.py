"""Write results, a table or a text, so that a file appears under its name whole or not at all.

A half-written table of margins or features must never be read by the next step.
"""

import glob
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

_PARTIAL = ".part"
_KILLED_SECONDS = 3600.0
"""Age at which a file that is being written belongs to a process that was killed."""


def write_table(frame: pd.DataFrame, path: Path) -> None:
    """Write a frame without its index; its folder is made where it does not exist.

    Times with a zone are stored as UTC in microseconds.
    """
    with _whole(path) as partial:
        pq.write_table(arrow_table(frame), partial)


def write_text(path: Path, text: str) -> None:
    """Write a text as UTF-8; its folder is made where it does not exist."""
    with _whole(path) as partial:
        partial.write_text(text, encoding="utf-8")


def arrow_table(frame: pd.DataFrame) -> pa.Table:
    """Return a frame as an Arrow table, without its index."""
    return pa.table({str(name): _array(frame[name]) for name in frame})


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """Give a name to write under that no other process uses, then put the file in its place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f"{glob.escape(path.name)}.*{_PARTIAL}"):
        with suppress(OSError):  # another process may remove it now
            if time.time() - left.stat().st_mtime > _KILLED_SECONDS:
                left.unlink()
    partial = path.with_name(f"{path.name}.{os.getpid()}-{secrets.token_hex(4)}{_PARTIAL}")
    try:
        yield partial
        with partial.open("rb") as stream:
            os.fsync(stream.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _array(column: pd.Series) -> pa.Array:
    if isinstance(column.dtype, pd.DatetimeTZDtype):
        # pyarrow's own conversion asks for Series.values, which pandas deprecates for these
        naive = column.dt.tz_convert(None).to_numpy(dtype="datetime64[us]")
        return pa.array(naive).cast(pa.timestamp("us", tz="UTC"))
    return pa.Array.from_pandas(column.to_numpy() if column.dtype == np.object_ else column)
