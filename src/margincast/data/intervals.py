"""Cut what was known over time into the intervals at whose ends a margin is decided."""

from collections.abc import Iterator
from datetime import timedelta

import polars as pl

BATCH_ROWS = 100_000
"""Rows held at a time when a book or trades are reduced to intervals."""


def bar_open(interval: timedelta) -> pl.Expr:
    """Open of the bar at whose close a row is first known: rows known in (ts, ts + interval].

    A row known exactly at a close belongs to the bar that closes there.
    """
    just_before = pl.col("known_at") - timedelta(microseconds=1)
    return just_before.dt.truncate(interval)


def at_opens(rows: pl.LazyFrame, interval: timedelta) -> pl.LazyFrame:
    """Stamp rows with the open of their bar, as ``ts`` (see :func:`bar_open`)."""
    return rows.with_columns(bar_open(interval).alias("ts"))


def interval_batches(
    rows: pl.LazyFrame, interval: timedelta, batch_rows: int = BATCH_ROWS
) -> Iterator[pl.DataFrame]:
    """Run a query over rows and give its result in batches that never split an interval.

    Sums of floats depend on their order, and a streaming group-by adds in whatever order its
    threads finish. Here each interval's rows come together, in time order and in one piece of
    memory, so that sums are the same for any number of threads and any size of batch.

    Args:
        rows: a query with the column ``known_at``, sorted by it.
        interval: length of the intervals.
        batch_rows: rows held at a time.

    Yields:
        The rows with ``ts``, the open of their bar (see :func:`bar_open`); in time order.
    """
    held: pl.DataFrame | None = None
    for batch in at_opens(rows, interval).collect_batches(
        chunk_size=batch_rows, maintain_order=True, engine="streaming"
    ):
        joined = batch if held is None else pl.concat([held, batch])
        if joined.is_empty():
            continue
        unfinished = pl.col("ts") == joined["ts"][-1]
        held = joined.filter(unfinished)
        whole = joined.filter(~unfinished)
        if not whole.is_empty():
            yield _in_one_piece(whole)
    if held is not None:
        yield _in_one_piece(held)


def _in_one_piece(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.rechunk().with_columns(pl.col("ts").set_sorted())
