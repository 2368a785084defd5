"""Run the trade-flow lines of a feature set: from trades to what was known at each decision."""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta

import polars as pl
import polars.selectors as cs

from margincast.core.errors import InputError
from margincast.data.intervals import bar_open
from margincast.data.schemas import TIMESTAMP
from margincast.features.library import Unit, Window, look_up
from margincast.features.order_book import on_decisions
from margincast.features.sharing import run
from margincast.features.trade_flow.execution import EXECUTION, with_execution
from margincast.features.trade_flow.summaries import (
    ADDITIVE,
    OTHERS,
    at_once,
    in_batches,
    signed_trades,
    summarise_trades,
)
from margincast.specs.features import Feature

LONGEST_PAUSE = timedelta(hours=2)
"""A feed of trades that is silent for longer is taken to be down.

The longest pause of the thinnest contract whose trades were looked at, a dated future on Kraken,
is 1 h 49 min; those of perpetuals are minutes.
"""


def column_units(entries: Sequence[Feature], interval: timedelta) -> dict[str, Unit]:
    """Name and unit of every column :func:`reduce_trades` makes, in order.

    Names are ``{function}_{window}``, for example ``trade_count_10m``.

    Raises:
        InputError: an unknown function, or arguments that do not fit it.
    """
    return {column.meta.output_name(): unit for column, unit in _columns(entries, interval, 1.0)}


def reduce_trades(
    trades: pl.LazyFrame,
    book: pl.LazyFrame | None,
    entries: Sequence[Feature],
    interval: timedelta,
    minimum_present: float,
    *,
    until: datetime | None = None,
) -> pl.DataFrame:
    """Reduce trades to what was known at each decision.

    Args:
        trades: trades as :class:`margincast.data.trades.TradeTable` holds them.
        book: the contract's snapshots, which say when the feed was up and what trades met; None
            without a book.
        entries: the ``trades`` lines of a feature set.
        interval: distance between decisions.
        minimum_present: share of a window's intervals that must be known.
        until: see :func:`margincast.features.order_book.on_decisions`.

    Returns:
        ``ts`` (decision time, one row an interval as that function gives them) and the columns of
        :func:`column_units`, float64, null where not known.

    Raises:
        InputError: see :func:`column_units`.
    """
    columns = window_columns(entries, interval, minimum_present)
    read = {name for column in columns for name in column.meta.root_names()}
    known = flow_intervals(trades, book, read, interval)
    if known.is_empty():
        names = column_units(entries, interval)
        return pl.DataFrame(schema={"ts": TIMESTAMP} | dict.fromkeys(names, pl.Float64()))
    return on_decisions(known, interval, until).select("ts", *columns)


def window_columns(
    entries: Sequence[Feature], interval: timedelta, minimum_present: float
) -> list[pl.Expr]:
    """Columns of :func:`reduce_trades` over regular intervals, in order.

    Raises:
        InputError: see :func:`column_units`.
    """
    return [column for column, _ in _columns(entries, interval, minimum_present)]


def flow_intervals(
    trades: pl.LazyFrame,
    book: pl.LazyFrame | None,
    read: Collection[str],
    interval: timedelta,
    *,
    few: bool = False,
) -> pl.DataFrame:
    """Sum trades up, one row an interval in which the feed was up.

    Args:
        trades: see :func:`reduce_trades`.
        book: see :func:`reduce_trades`.
        read: what columns over regular intervals read of them.
        interval: distance between decisions.
        few: whether all rows are in memory, and few: they are read at once.

    Returns:
        ``ts`` (the interval's open) and what it leaves behind, float64; no row where not known.
    """
    reducing = at_once if few else in_batches
    traded = summarise_trades(trades, interval, read, reducing)
    up = traded.select("ts") if book is None else _times_up(book, interval, few=few)
    known = known_intervals(up, traded, interval)
    if not EXECUTION.isdisjoint(read):
        known = with_execution(
            known, signed_trades(trades), book, interval, read, reducing=reducing
        )
    return run(known)


def _times_up(book: pl.LazyFrame, interval: timedelta, *, few: bool) -> pl.LazyFrame:
    """Intervals in which the feed was up: those with a snapshot."""
    up = book.select(bar_open(interval).alias("ts")).unique().sort("ts")
    return up if few else up.collect(engine="streaming").lazy()


def known_intervals(up: pl.LazyFrame, traded: pl.LazyFrame, interval: timedelta) -> pl.LazyFrame:
    """Keep the intervals of which trades are known; those without a trade get zeros.

    A book that is up does not say that the feed of trades is: nothing was traded in an interval
    only where a trade was known within ``LONGEST_PAUSE`` before its close. Before the first trade,
    and where they fell silent for longer, it is not known whether any were made.

    Args:
        up: ``ts``, open of each interval in which the feed was up, sorted.
        traded: of each interval with trades, sorted, ``ts``, ``known_at`` of its last trade, and
            what the trades leave behind.
        interval: length of the intervals.

    Returns:
        ``ts`` and what the trades leave behind.
    """
    # the newest interval with trades: the very one, or it tells for how long none was made
    newest = traded.with_columns(pl.col("ts").alias("traded_in"))
    silent_for = pl.col("ts") + interval - pl.col("known_at")
    own = pl.col("traded_in") == pl.col("ts")
    return (
        up.join_asof(newest, on="ts", strategy="backward")
        .filter(own | (silent_for <= LONGEST_PAUSE))
        .select(
            "ts",
            pl.when(own).then(cs.by_name(*ADDITIVE, require_all=False)).otherwise(0.0),
            pl.when(own).then(cs.by_name(*OTHERS, require_all=False)),
        )
    )


def _columns(
    entries: Sequence[Feature], interval: timedelta, minimum_present: float
) -> list[tuple[pl.Expr, Unit]]:
    columns = []
    for entry in entries:
        function = look_up("trades", entry.function)
        if not entry.windows or entry.values or entry.statistics:
            raise InputError(
                f"feature '{entry.function}' needs windows, and takes no values or statistics"
            )
        for length in entry.windows:
            window = Window.over(length, interval, minimum_present)
            column = function.build(window).cast(pl.Float64)
            columns.append((column.alias(f"{entry.function}_{window.label}"), function.unit))
    return columns
