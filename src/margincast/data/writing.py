"""Write results, a table or a text, so that a file appears under its name whole or not at all.

A half-written table of margins or features must never be read by the next step.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq


def write_table(frame: pd.DataFrame, path: Path) -> None:
    """Write a frame without its index; its folder is made where it does not exist.

    Times with a zone are stored as UTC in microseconds.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".part")
    pq.write_table(pa.table({str(name): _array(frame[name]) for name in frame}), partial)
    partial.replace(path)


def write_text(path: Path, text: str) -> None:
    """Write a text as UTF-8; its folder is made where it does not exist."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".part")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def _array(column: pd.Series) -> pa.Array:
    if isinstance(column.dtype, pd.DatetimeTZDtype):
        # pyarrow's own conversion asks for Series.values, which pandas deprecates for these
        naive = column.dt.tz_convert(None).to_numpy(dtype="datetime64[us]")
        return pa.array(naive).cast(pa.timestamp("us", tz="UTC"))
    return pa.Array.from_pandas(column.to_numpy() if column.dtype == np.object_ else column)
