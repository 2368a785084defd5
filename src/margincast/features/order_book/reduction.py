"""From snapshots to decisions: run the book features of a set over a book in one pass.

In two steps: what the snapshots of each interval leave behind, and windows over these intervals.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

import polars as pl

from margincast.data.schemas import TIMESTAMP, book_columns
from margincast.features.library import Unit, Window
from margincast.features.order_book.statistics import rolling_total, signals_of
from margincast.features.order_book.summary import BookSummary
from margincast.specs.features import Feature

READ_ROWS = 32_768
"""Snapshots decoded at a time; 20 levels of them take 21 MB."""


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
    *,
    until: datetime | None = None,
) -> pl.DataFrame:
    """Reduce snapshots to what was known at each decision.

    :func:`summarise_book` and, of what it returns, :func:`over_windows`.

    Args:
        book: snapshots as :class:`margincast.data.book.BookTable` holds them.
        levels: book levels on each side.
        entries: the ``book`` lines of a feature set.
        interval: distance between decisions.
        minimum_present: share of a window's intervals that must hold a known value.
        until: see :func:`on_decisions`.

    Raises:
        InputError: see :func:`column_units`; or the book has fewer levels than a feature needs.
    """
    summaries = summarise_book(book, levels, entries, interval)
    return over_windows(summaries, entries, interval, minimum_present, until=until)


def summarise_book(
    book: pl.LazyFrame, levels: int, entries: Sequence[Feature], interval: timedelta
) -> pl.DataFrame:
    """Reduce snapshots to one row an interval, in one pass in bounded memory.

    Args:
        book: snapshots as :class:`margincast.data.book.BookTable` holds them.
        levels: book levels on each side.
        entries: the ``book`` lines of a feature set.
        interval: length of an interval; one holds the snapshots known in (ts, ts + interval].

    Returns:
        ``ts``, the open of each interval that holds a snapshot, in time order, and what its
        snapshots leave behind: columns ``{function}[_{value}] {summary}``, float64, where summary
        is ``last``, ``minimum``, ``count`` (of known values), ``sum``, ``squares``, ``weight``
        (seconds) and ``weighted`` (sum of value times seconds), as far as a statistic needs it.
        An interval's row depends on its own snapshots, and on those before it that a function
        looks back to, and on nothing else.

    Raises:
        InputError: see :func:`column_units`; or the book has fewer levels than a feature needs.
    """
    summary = BookSummary(levels, entries, interval)
    stream = book.select("ts", "known_at", *book_columns(levels))
    for batch in stream.collect_batches(
        chunk_size=READ_ROWS, maintain_order=True, engine="streaming"
    ):
        summary.add(batch)
    return summary.finish()


def over_windows(
    summaries: pl.DataFrame,
    entries: Sequence[Feature],
    interval: timedelta,
    minimum_present: float,
    *,
    until: datetime | None = None,
) -> pl.DataFrame:
    """Take the statistics of a feature set over windows of intervals.

    ``last`` is the value at the last snapshot known in (ts - interval, ts]; ``mean`` and
    ``deviation`` (population, null for fewer than two values) are those of all snapshots known in
    (ts - window, ts] whose value is known, each with the same weight, from sums and sums of squares
    for each interval. ``time_mean`` weights each of them by the time until the next or until its
    interval closes, at most ``statistics.WEIGHT_CAP``; ``minimum`` is the least of them. ``rank``
    is the place of ``last`` among the ``last`` values of the window: the share below it plus half
    the share equal to it, itself included; above 0 and below 1.

    Args:
        summaries: what :func:`summarise_book` returns for the same lines and interval.
        entries: the ``book`` lines of a feature set.
        interval: distance between decisions.
        minimum_present: share of a window's intervals that must hold a known value.
        until: see :func:`on_decisions`.

    Returns:
        ``ts`` (decision time, one row an interval as :func:`on_decisions` gives them) and the
        columns of :func:`column_units`, float64, null where not known.

    Raises:
        InputError: see :func:`column_units`.
    """
    grid = on_decisions(summaries, interval, until)
    same = _equal_columns(grid)
    totals: dict[str, pl.Expr] = {}

    def total(what: str, known: str, window: Window) -> pl.Expr:
        name = f"{same[what]} where {same[known]} over {window.rows}"
        totals[name] = rolling_total(same[what], same[known], window).alias(name)
        return pl.col(name)

    signals = signals_of(entries, interval, minimum_present)
    columns = [column for signal in signals for column in signal.columns(total)]
    return grid.with_columns(totals.values()).select("ts", *columns)


def _equal_columns(frame: pl.DataFrame) -> dict[str, str]:
    """For each column the first one that is equal: most signals are known where the book is."""
    first = {name: name for name in frame.columns}
    for summary in (" count", " weight"):
        different: list[str] = []
        for name in (name for name in frame.columns if name.endswith(summary)):
            equal = (one for one in different if frame[one].equals(frame[name]))
            first[name] = next(equal, name)
            if first[name] == name:
                different.append(name)
    return first


def on_decisions(
    intervals: pl.DataFrame, interval: timedelta, until: datetime | None = None
) -> pl.DataFrame:
    """Put intervals on their full grid, with ``ts`` the decision time.

    Where a feed ends, it is not known whether it will go on: at decisions after its end a window is
    known in part, as it would be if it did.

    Args:
        intervals: ``ts`` (their open, sorted) and what they hold.
        interval: distance between decisions.
        until: a decision that the grid reaches; None ends it with the last interval that is there.

    Returns:
        One row an interval from the first that is there to the last, or to ``until`` if that is
        later; intervals that are not there are rows of nulls.
    """
    last = pl.col("ts").last()
    if until is not None:
        last = pl.max_horizontal(last, pl.lit(until - interval, TIMESTAMP))
    return (
        intervals.select(pl.datetime_range(pl.col("ts").first(), last, interval).alias("ts"))
        .join(intervals, on="ts", how="left", maintain_order="left")
        .with_columns(pl.col("ts") + interval)
    )
