"""Trade-flow features: how much was traded, and which side pressed.

Trades come over the same wire as books and vanish with them. So an interval without a trade means
"nothing was traded" only if a snapshot of the book shows that the feed was up; an interval without
a snapshot is not known, whatever trades it holds. Where there is no book at all, an interval
without a trade is not known. Means are over the window's known intervals.
"""

from collections.abc import Sequence
from datetime import timedelta

import polars as pl

from margincast.core.errors import InputError
from margincast.data.intervals import bar_open, interval_batches
from margincast.features.library import Unit, Window, feature, look_up
from margincast.features.order_book import on_decisions
from margincast.specs.features import Feature

_NOTIONAL_USD = pl.col("price") * pl.col("size")
_SIGN = pl.when(pl.col("side") == "buy").then(1.0).when(pl.col("side") == "sell").then(-1.0)


def _rolling_mean(expression: pl.Expr, window: Window) -> pl.Expr:
    return expression.rolling_mean(window.rows, min_samples=window.minimum)


@feature("trades", "number")
def log_traded_notional_usd(window: Window) -> pl.Expr:
    """Log of one plus the mean notional traded in an interval of the window, USD."""
    return _rolling_mean(pl.col("notional_usd"), window).clip(0).log1p()


@feature("trades", "number")
def trade_count(window: Window) -> pl.Expr:
    """Mean number of trades in an interval of the window."""
    return _rolling_mean(pl.col("trade_count"), window)


@feature("trades", "number")
def signed_flow_imbalance(window: Window) -> pl.Expr:
    """Notional bought less sold by aggressors over their sum, in the window; in [-1, 1].

    Null where nothing was traded, and where the aggressor's side is not known.
    """
    signed = pl.col("signed_notional_usd")
    known = pl.when(signed.is_not_null()).then(pl.col("notional_usd"))
    total = _rolling_mean(known, window)
    return pl.when(total > 0).then((_rolling_mean(signed, window) / total).clip(-1, 1))


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
        book: the contract's snapshots, which say when the feed was up; None without a book.
        entries: the ``trades`` lines of a feature set.
        interval: distance between decisions.
        minimum_present: share of a window's intervals that must be known.

    Returns:
        ``ts`` (decision time, one row an interval from the first to the last known one) and the
        columns of :func:`column_units`, float64, null where not known.

    Raises:
        InputError: see :func:`column_units`.
    """
    columns = [column for column, _ in _columns(entries, interval, minimum_present)]
    rows = trades.select("known_at", _NOTIONAL_USD.alias("notional_usd"), _SIGN.alias("sign"))
    signed = (pl.col("sign") * pl.col("notional_usd")).sum()
    traded = pl.concat(
        batch.group_by("ts", maintain_order=True).agg(
            pl.col("notional_usd").sum(),
            pl.len().cast(pl.Float64).alias("trade_count"),
            pl.when(pl.col("sign").null_count() == 0).then(signed).alias("signed_notional_usd"),
        )
        for batch in interval_batches(rows, interval)
    )
    return on_decisions(_known(traded, book, interval), interval).select("ts", *columns)


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
            for name in ("notional_usd", "signed_notional_usd", "trade_count")
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
