"""What a table in memory is called by its content, so that what was built of it is found again.

A margin computed from a kept feature is that of the values the feature was built of, bit by bit.
"""

import hashlib

import numpy as np
import polars as pl

from margincast.core.digest import digest_of

_NUMBERS = {
    *(pl.Int8, pl.Int16, pl.Int32, pl.Int64),
    *(pl.UInt8, pl.UInt16, pl.UInt32, pl.UInt64),
    *(pl.Float32, pl.Float64),
}


def digest_of_frame(frame: pl.DataFrame) -> str:
    """SHA-256 of a frame's columns: names, types and values, in order.

    Raises:
        TypeError: see :func:`digest_of_series`.
    """
    return digest_of([[series.name, digest_of_series(series)] for series in frame])


def digest_of_series(series: pl.Series) -> str:
    """SHA-256 of a column's type and values to the last bit; what lies below a null does not count.

    Categories count by their text: the numbers that stand for them differ between processes.

    Raises:
        TypeError: values of a kind that features are not computed from (lists, structures).
    """
    is_text = isinstance(series.dtype, pl.String | pl.Categorical | pl.Enum)
    values = series.cast(pl.String) if is_text else series.to_physical()
    if values.dtype == pl.Boolean:
        values = values.cast(pl.UInt8)
    if is_text:
        sizes, text = values.str.len_bytes(), values.fill_null("").str.join("").item()
        payload = [digest_of_series(sizes).encode(), text.encode()]
    elif values.dtype in _NUMBERS:
        unknown = np.packbits(values.is_null().to_numpy()) if values.null_count() else b""
        payload = [np.ascontiguousarray(values.fill_null(0).to_numpy()), unknown]
    elif values.dtype == pl.Null:
        payload = []
    else:
        raise TypeError(f"column '{series.name}' is {series.dtype}, which has no digest")
    # categories may have a name that was drawn at random
    kind = "Categorical" if isinstance(series.dtype, pl.Categorical) else str(series.dtype)
    digest = hashlib.sha256(f"{kind} {len(series)} {series.null_count()} ".encode())
    for part in payload:
        digest.update(part)
    return digest.hexdigest()
