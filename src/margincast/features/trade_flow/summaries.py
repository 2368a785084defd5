"""What the trades of one interval leave behind: the numbers every trade-flow feature rolls over.

A summary depends on its interval's trades and on nothing else, so that memory is bounded by a batch
of trades and a day can be reduced on its own.
"""

from collections.abc import Callable, Collection
from datetime import timedelta

import polars as pl

from margincast.data.intervals import at_opens, interval_batches
from margincast.features.sharing import run

LARGE_TRADE = 10.0
"""A trade is large from this multiple of its interval's median notional."""

_NOTIONAL_USD = pl.col("price") * pl.col("size")
_SIGN = pl.when(pl.col("side") == "buy").then(1.0).when(pl.col("side") == "sell").then(-1.0)

_NOTIONAL, _CHANGE, _BEFORE = pl.col("notional_usd"), pl.col("change"), pl.col("change_before")
_PAIR = _BEFORE.is_not_null()
_SECONDS = pl.col("seconds")


def _signed(amount: pl.Expr) -> pl.Expr:
    """Sum of signed amounts; null if one trade's aggressor is not known."""
    return pl.when(pl.col("sign").null_count() == 0).then(amount.sum())


def _quantile_times_count(level: float) -> pl.Expr:
    return _NOTIONAL.quantile(level, interpolation="linear") * pl.len()


ADDITIVE = {
    "notional_usd": _NOTIONAL.sum(),
    "trade_count": pl.len().cast(pl.Float64),
    "signed_notional_usd": _signed(pl.col("sign") * _NOTIONAL),
    "signed_count": _signed(pl.col("sign")),
    "median_times_count": _quantile_times_count(0.5),
    "p90_times_count": _quantile_times_count(0.9),
    "p99_times_count": _quantile_times_count(0.99),
    "large_notional_usd": _NOTIONAL.filter(_NOTIONAL.ge(LARGE_TRADE * _NOTIONAL.median())).sum(),
    "change_pairs": _PAIR.sum().cast(pl.Float64),
    "change_products": (_CHANGE * _BEFORE).sum(),
    "changes": _CHANGE.filter(_PAIR).sum(),
    "changes_before": _BEFORE.sum(),
    "durations": _SECONDS.count().cast(pl.Float64),
    "duration_seconds": _SECONDS.sum(),
    "duration_squares": _SECONDS.pow(2).sum(),
}
"""Summaries that are zero where the feed was up and nothing was traded."""

OTHERS = {"last_price": pl.col("price").last()}
"""Summaries that are not known where nothing was traded."""

_BETWEEN = frozenset(
    name
    for name, expression in ADDITIVE.items()
    if not {"change", "change_before", "seconds"}.isdisjoint(expression.meta.root_names())
)
"""Summaries of what lies between a trade and the one before it."""

Reduce = Callable[[pl.LazyFrame], pl.LazyFrame]
"""Reduces rows of whole intervals, stamped with their interval's open as ``ts``."""

Reducing = Callable[[pl.LazyFrame, timedelta, Reduce], pl.LazyFrame]
"""Reads the rows of a query, sorted by ``known_at``, and reduces them."""


def in_batches(rows: pl.LazyFrame, interval: timedelta, reduce: Reduce) -> pl.LazyFrame:
    """Reduce rows as they are read, a batch of whole intervals at a time."""
    parts = [run(reduce(batch.lazy())) for batch in interval_batches(rows, interval)]
    if not parts:
        return reduce(at_opens(pl.LazyFrame(schema=rows.collect_schema()), interval))
    return pl.concat(parts).lazy()


def at_once(rows: pl.LazyFrame, interval: timedelta, reduce: Reduce) -> pl.LazyFrame:
    """Reduce few rows that are in memory: all as part of one query."""
    return reduce(at_opens(rows, interval))


def summarise_trades(
    trades: pl.LazyFrame,
    interval: timedelta,
    names: Collection[str],
    reducing: Reducing = in_batches,
) -> pl.LazyFrame:
    """Reduce trades to one row for each interval that has any.

    Args:
        trades: trades as :class:`margincast.data.trades.TradeTable` holds them.
        interval: length of the intervals.
        names: summaries wanted, of ``ADDITIVE`` and ``OTHERS``.
        reducing: how the trades are read.

    Returns:
        ``ts`` (the interval's open), ``known_at`` of its last trade, ``trade_count`` and the
        summaries, float64.
    """
    wanted = [
        expression.alias(name)
        for name, expression in (ADDITIVE | OTHERS).items()
        if name in names or name == "trade_count"
    ]
    between = not _BETWEEN.isdisjoint(names)

    def summed(rows: pl.LazyFrame) -> pl.LazyFrame:
        rows = _with_changes(rows) if between else rows
        return rows.group_by("ts", maintain_order=True).agg(pl.col("known_at").last(), *wanted)

    return reducing(signed_trades(trades), interval, summed)


def signed_trades(trades: pl.LazyFrame) -> pl.LazyFrame:
    """Select when each trade was known, its price and notional (USD), and its aggressor's sign."""
    return trades.select(
        "known_at", "price", _NOTIONAL_USD.alias("notional_usd"), _SIGN.alias("sign")
    )


def _with_changes(rows: pl.LazyFrame) -> pl.LazyFrame:
    """Add what lies between a trade and the one before it, null across intervals."""
    same = pl.col("ts") == pl.col("ts").shift(1)
    return rows.with_columns(
        pl.when(same).then(pl.col("price").log().diff()).alias("change"),
        pl.when(same)
        .then(pl.col("known_at").diff().dt.total_microseconds() * 1e-6)
        .alias("seconds"),
    ).with_columns(pl.when(same).then(pl.col("change").shift(1)).alias("change_before"))
