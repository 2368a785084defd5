"""Run the trade-flow lines of a feature set: from trades to what was known at each decision."""

from collections.abc import Sequence
from datetime import timedelta

import polars as pl

from margincast.core.errors import InputError
from margincast.data.intervals import bar_open
from margincast.features.library import Unit, Window, look_up
from margincast.features.order_book import on_decisions
from margincast.features.trade_flow.execution import EXECUTION, with_execution
from margincast.features.trade_flow.summaries import ADDITIVE, signed_trades, summarise_trades
from margincast.specs.features import Feature


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
) -> pl.DataFrame:
    """Reduce trades to what was known at each decision.

    Args:
        trades: trades as :class:`margincast.data.trades.TradeTable` holds them.
        book: the contract's snapshots, which say when the feed was up and what trades met; None
            without a book.
        entries: the ``trades`` lines of a feature set.
        interval: distance between decisions.
        minimum_present: share of a window's intervals that must be known.

    Returns:
        ``ts`` (decision time, one row an interval from the first to the last known one) and the
        columns of :func:`column_units`, float64, null where not known.

    Raises:
        InputError: see :func:`column_units`.
    """
    columns = window_columns(entries, interval, minimum_present)
    known = flow_intervals(trades, book, columns, interval)
    return on_decisions(known, interval).select("ts", *columns)


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
    columns: Sequence[pl.Expr],
    interval: timedelta,
) -> pl.DataFrame:
    """Sum trades up, one row an interval in which the feed was up, as far as the columns read it.

    Returns:
        ``ts`` (the interval's open) and what it leaves behind, float64; no row where not known.
    """
    read = {name for column in columns for name in column.meta.root_names()}
    known = _known(summarise_trades(trades, interval, read), book, interval)
    if EXECUTION.isdisjoint(read):
        return known
    return with_execution(known, signed_trades(trades), book, interval, read)


def _known(traded: pl.DataFrame, book: pl.LazyFrame | None, interval: timedelta) -> pl.DataFrame:
    """Keep the intervals in which the feed was up; those without a trade get zeros."""
    if book is None:
        return traded
    up = book.select(bar_open(interval).alias("ts")).unique().sort("ts")
    quiet = pl.col("trade_count").is_null()
    return (
        up.collect(engine="streaming")
        .join(traded, on="ts", how="left", maintain_order="left")
        .with_columns(
            pl.when(quiet).then(0.0).otherwise(pl.col(name)).alias(name)
            for name in traded.columns
            if name in ADDITIVE
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
