"""When a row came in: a margin may only rest on what had arrived by its decision.

A feed that says when it received a row (column ``received_at``) says since when the row was known;
where it leaves that out, the row counts from its own time, and is counted here.
"""

import polars as pl

from margincast.core.errors import InputError
from margincast.data.quality import Finding
from margincast.data.schemas import TIMESTAMP


def utc_time(name: str, dtype: pl.DataType, source: str) -> pl.Expr:
    """Give a column of times the canonical type: UTC, microseconds; without a zone it is UTC.

    Args:
        name: of the column.
        dtype: type it has.
        source: name of the file, for messages.

    Raises:
        InputError: the column is a number or text, whose unit or zone would have to be guessed.
    """
    if not isinstance(dtype, pl.Datetime):
        raise InputError(
            f"{source}: column '{name}' is {dtype}, not a timestamp; store it as a datetime in UTC"
        )
    time = pl.col(name)
    if dtype.time_zone is None:
        time = time.dt.replace_time_zone("UTC")
    return time.dt.convert_time_zone("UTC").cast(TIMESTAMP)


def not_received(
    frame: pl.DataFrame, table: str, symbol: str, known: str = "at its own time"
) -> Finding:
    """Count the rows that do not say when they were received, of a feed that says it of others.

    Args:
        frame: rows with the columns ``ts`` and ``received_at``.
        table: canonical name of the table.
        symbol: contract or underlying.
        known: when such a row counts as known.
    """
    silent = frame.filter(pl.col("received_at").is_null())["ts"]
    return Finding(
        table,
        symbol,
        "without a time of reception",
        len(silent),
        len(frame),
        f"known {known}",
        silent.min(),  # type: ignore[arg-type] # a time, as ts is
    )
