"""From snapshots to decisions: run the book features of a set over a book in one pass.

The book streams through in bounded batches. Each block of snapshots is small enough for the
processor's cache, every feature of the set is computed while it is there, and only their values are
kept until their interval is complete.
"""

from collections.abc import Iterator, Sequence
from datetime import timedelta
from functools import partial

import numpy as np
import numpy.typing as npt
import polars as pl

from margincast.data.intervals import bar_open
from margincast.data.schemas import book_columns
from margincast.features.library import Unit
from margincast.features.order_book.snapshots import FloatArray, Snapshots, as_arrays
from margincast.features.order_book.statistics import Intervals, Signal, signals_of
from margincast.specs.features import Feature

READ_ROWS = 32_768
"""Snapshots decoded at a time; 20 levels of them take 21 MB."""

BLOCK_ROWS = 2_048
"""Snapshots computed together: 20 levels of them take 1.3 MB, and stay in cache."""

_MICROSECOND = timedelta(microseconds=1)
_Times = npt.NDArray[np.int64]


def column_units(entries: Sequence[Feature], interval: timedelta) -> dict[str, Unit]:
    """Name and unit of every column :func:`reduce_book` makes, in order.

    Names are ``{function}[_{value}]_{statistic}[_{window}]``, for example
    ``imbalance_5_mean_10m``. A rank is a number, whatever it is the rank of.

    Raises:
        InputError: an unknown function, or arguments that do not fit it.
    """
    units: dict[str, Unit] = {}
    for signal in signals_of(entries, interval, 1.0):
        for column in signal.columns():
            name = column.meta.output_name()
            ranked = name.startswith(f"{signal.name}_rank_")
            units[name] = "number" if ranked else signal.function.unit
    return units


def reduce_book(
    book: pl.LazyFrame,
    levels: int,
    entries: Sequence[Feature],
    interval: timedelta,
    minimum_present: float,
) -> pl.DataFrame:
    """Reduce snapshots to what was known at each decision.

    ``last`` is the value at the last snapshot known in (ts - interval, ts]; ``mean`` and
    ``deviation`` (population, null for fewer than two values) are those of all snapshots known in
    (ts - window, ts] whose value is known, each with the same weight, from sums and sums of squares
    for each interval. ``time_mean`` weights each of them by the time until the next or until its
    interval closes, at most ``statistics.WEIGHT_CAP``; ``minimum`` is the least of them. ``rank``
    is the place of ``last`` among the ``last`` values of the window: the share below it plus half
    the share equal to it, itself included; above 0 and below 1.

    Args:
        book: snapshots as :class:`margincast.data.book.BookTable` holds them.
        levels: book levels on each side.
        entries: the ``book`` lines of a feature set.
        interval: distance between decisions.
        minimum_present: share of a window's intervals that must hold a known value.

    Returns:
        ``ts`` (decision time, one row an interval from the first to the last with a snapshot) and
        the columns of :func:`column_units`, float64, null where not known.

    Raises:
        InputError: see :func:`column_units`; or the book has fewer levels than a feature needs.
    """
    signals = signals_of(entries, interval, minimum_present)
    reduced: list[pl.DataFrame] = []
    held: list[tuple[_Times, _Times, FloatArray]] = []
    for batch in _signal_batches(book, levels, signals, interval):
        held.append(batch)
        known_at, opens, values = (
            np.concatenate(part, axis=-1) for part in zip(*held, strict=True)
        )
        unfinished = int(np.searchsorted(opens, opens[-1]))
        if unfinished:
            whole = known_at[:unfinished], opens[:unfinished], values[:, :unfinished]
            reduced.append(_of_intervals(signals, *whole, interval))
        held = [(known_at[unfinished:], opens[unfinished:], values[:, unfinished:])]
    reduced += [_of_intervals(signals, *rest, interval) for rest in held]
    return on_decisions(pl.concat(reduced), interval).select(
        "ts", *(column for signal in signals for column in signal.columns())
    )


def on_decisions(intervals: pl.DataFrame, interval: timedelta) -> pl.DataFrame:
    """Put intervals (``ts`` their open, sorted) on their full grid, with ``ts`` the decision time.

    Intervals that are not there become rows of nulls.
    """
    return (
        intervals.select(
            pl.datetime_range(pl.col("ts").first(), pl.col("ts").last(), interval).alias("ts")
        )
        .join(intervals, on="ts", how="left", maintain_order="left")
        .with_columns(pl.col("ts") + interval)
    )


def _of_intervals(
    signals: Sequence[Signal],
    known_at: _Times,
    opens: _Times,
    values: FloatArray,
    interval: timedelta,
) -> pl.DataFrame:
    intervals = Intervals.of(known_at, opens, interval)
    ts = pl.Series("ts", opens[intervals.starts]).cast(pl.Datetime("us", "UTC"))
    # In one frame, the same signal in two lines of a set is one column.
    columns = {"ts": ts.set_sorted()}
    for signal, row in zip(signals, values, strict=True):
        columns |= {series.name: series for series in signal.of_intervals(row, intervals)}
    return pl.DataFrame(columns)


def _signal_batches(
    book: pl.LazyFrame, levels: int, signals: Sequence[Signal], interval: timedelta
) -> Iterator[tuple[_Times, _Times, FloatArray]]:
    """For every batch: when each row was known, its interval's open, and signals x rows."""
    names = book_columns(levels)
    memory = max((signal.memory for signal in signals), default=timedelta(0))
    stream = book.select("ts", "known_at", bar_open(interval).alias("open"), *names)
    compute = partial(_signal_values, names=names, signals=signals, memory=memory)
    before: pl.DataFrame | None = None
    for batch in stream.collect_batches(
        chunk_size=READ_ROWS, maintain_order=True, engine="streaming"
    ):
        if batch.is_empty():
            continue
        ts, known_at, opens = (
            batch[name].to_physical().to_numpy() for name in ("ts", "known_at", "open")
        )
        if before is None:
            values, whole = compute(batch, 0), batch
        else:
            # Only the rows that look back into the batch before are copied together with it.
            reach = int(np.searchsorted(ts, ts[0] + memory // _MICROSECOND, side="right")) + 1
            head = max(reach, BLOCK_ROWS)
            whole = pl.concat([before, batch[:head]], rechunk=True)
            values = compute(whole, len(before))
            if head < len(batch):
                values, whole = np.hstack([values, compute(batch, head)]), batch
        times = whole["ts"].to_physical().to_numpy()
        before = whole[_first_remembered(times, len(times), memory) :]
        yield known_at, opens, values


def _signal_values(
    book: pl.DataFrame,
    begin: int,
    *,
    names: Sequence[str],
    signals: Sequence[Signal],
    memory: timedelta,
) -> FloatArray:
    """Signals x snapshots, block by block, from the snapshot at ``begin`` on."""
    ts = book["ts"].to_physical().to_numpy()
    columns, complete = as_arrays(book, names)
    values = np.empty((len(signals), len(ts) - begin))
    for start in range(begin, len(ts), BLOCK_ROWS):
        stop = min(start + BLOCK_ROWS, len(ts))
        first = _first_remembered(ts, start, memory)
        block = Snapshots(
            ts[first:stop], [column[first:stop] for column in columns], complete=complete
        )
        with np.errstate(divide="ignore", invalid="ignore"):
            for row, signal in zip(values, signals, strict=True):
                row[start - begin : stop - begin] = signal.of_snapshots(block)[start - first :]
    return values


def _first_remembered(ts: _Times, row: int, memory: timedelta) -> int:
    """First snapshot that a function may look back to from a row on; the one before at least."""
    if not row:
        return 0
    oldest = ts[row - 1] - memory // _MICROSECOND
    return min(int(np.searchsorted(ts, oldest)), row - 1)
