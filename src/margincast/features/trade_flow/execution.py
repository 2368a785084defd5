"""What trades paid and left behind, met with the book: spread paid, impact, and how depth returned.

Closing a position pays the effective spread; the part of it that the price keeps is impact, the
rest is what makers earned. Each trade is met with snapshots of the book, all at the time they were
known: the last one before the trade, the first at or after it, and the first ``AFTER`` or more
later. What hangs on the later snapshot belongs to the interval in which that snapshot was known,
not to the trade's own. No snapshot further than ``FLOW_GAP`` from its time is used: a trade before
or after a hole of the feed is left out.

All are null without a book. None hangs on the price's unit at the same notional.

Source: Huang and Stoll (1996), Dealer versus auction markets, doi:10.1016/0304-405X(95)00867-E.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from functools import partial

import polars as pl

from margincast.core.time import parse_duration
from margincast.features.library import Window, feature
from margincast.features.order_book import FLOW_GAP
from margincast.features.rolling import rolling_mean
from margincast.features.trade_flow.summaries import Reducing

AFTER = timedelta(seconds=10)
"""How long after a trade the price and the depth are looked at again.

Long enough for quotes of a second to follow a trade and be put back, short against the minutes over
which a liquidation is worked.
"""

DEPTH_LEVELS = 5
"""Book levels whose depth is watched; all of a feed that has fewer."""

LARGE_SHARE = 0.1
"""A trade, or a loss of depth, is large from this share of one side's depth (half of both)."""


def _look_back(window: Window) -> int:
    """Rows of a window and of the trades and snapshots that its first outcomes come from."""
    interval = parse_duration(window.label) / window.rows
    return window.rows + -(-(AFTER + 2 * FLOW_GAP) // interval)


@feature("trades", "fraction", look_back=_look_back)
def effective_spread_paid(window: Window) -> pl.Expr:
    """Spread that trades paid: mean of 2 |price - mid| / mid, weighted by notional; at least 0.

    The mid is that of the last snapshot known strictly before the trade was; known with the trade.
    Needs no aggressor. Null where no trade of the window met a snapshot.

    Source: Huang and Stoll (1996), doi:10.1016/0304-405X(95)00867-E, twice their half-spread.
    """
    return _per_notional(pl.col("spread_paid_usd"), "met", window).clip(0)


@feature("trades", "fraction", look_back=_look_back)
def price_impact(window: Window) -> pl.Expr:
    """What of the spread paid the price kept: mean of 2 q (later mid - mid) / mid, by notional.

    q is 1 for a buyer and -1 for a seller; the mid before as in :func:`effective_spread_paid`, the
    later one that of the first snapshot known ``AFTER`` or more after the trade, and the value is
    known with that snapshot. Negative where prices went against the flow; the same when buyers and
    sellers trade places in a mirrored market. An interval in which the aggressor of one trade is
    not known is not known. Null where no trade of the window has both.

    Source: Huang and Stoll (1996), doi:10.1016/0304-405X(95)00867-E.
    """
    return _per_notional(pl.col("impact_usd"), "outcome", window)


@feature("trades", "fraction", look_back=_look_back)
def realised_spread(window: Window) -> pl.Expr:
    """What makers kept of the spread: mean of 2 q (price - later mid) / mid, by notional.

    q and the two mids as in :func:`price_impact`, over the same trades and known with it. Negative
    where the price ran away from those who had just made it. Null where the impact is.

    Source: Huang and Stoll (1996), doi:10.1016/0304-405X(95)00867-E.
    """
    return _per_notional(pl.col("realised_usd"), "outcome", window)


@feature("trades", "number", look_back=_look_back)
def depth_restored(window: Window) -> pl.Expr:
    """Resilience: share of the depth that large trades took which was back after ``AFTER``.

    Depth is the USD notional of both sides in the best ``DEPTH_LEVELS`` levels; a trade is large
    from ``LARGE_SHARE`` of one side of it. It took what the first snapshot at or after the trade
    has less than the last before; back is what the first snapshot ``AFTER`` or more later has more
    than that. Sum over sum, over the window's large trades that took as large a share of the depth;
    0 where it stayed as low, 1 where it is back, negative where it fell further. Needs no
    aggressor. Null where no large trade of the window took so much.

    Source: resilience as in Large (2007), Measuring the resiliency of an electronic limit order
    book, doi:10.1016/j.finmar.2006.09.001.
    """
    taken = rolling_mean(pl.col("depth_taken_usd"), window)
    back = rolling_mean(pl.col("depth_back_usd"), window)
    return pl.when(rolling_mean(pl.col("taking_count"), window) > 0).then(back / taken)


def _per_notional(amount: pl.Expr, trades: str, window: Window) -> pl.Expr:
    def where_known(name: str) -> pl.Expr:
        return rolling_mean(pl.when(amount.is_not_null()).then(pl.col(f"{trades}_{name}")), window)

    # counts are whole numbers and sum exactly: what is left of a sum of notionals may be rounding
    count, notional = where_known("count"), where_known("notional_usd")
    return pl.when((count > 0) & (notional > 0)).then(rolling_mean(amount, window) / notional)


_NOTIONAL, _MID = pl.col("notional_usd"), pl.col("mid")
_SPREAD_PAID = 2 * (pl.col("price") / _MID - 1).abs() * _NOTIONAL
_IMPACT = 2 * pl.col("sign") * (pl.col("later_mid") / _MID - 1) * _NOTIONAL
_REALISED = 2 * pl.col("sign") * (pl.col("price") - pl.col("later_mid")) / _MID * _NOTIONAL
_TAKEN = pl.col("depth") - pl.col("after_depth")
_LARGE = LARGE_SHARE / 2 * pl.col("depth")
# a share of next to nothing would say nothing
_TAKES = _NOTIONAL.ge(_LARGE) & _TAKEN.ge(_LARGE)


def _signed(amount: pl.Expr) -> pl.Expr:
    """Sum that needs every trade's aggressor."""
    return pl.when(pl.col("sign").null_count() == 0).then(amount.sum())


_WITH_THE_TRADE: Mapping[str, pl.Expr] = {
    "met_count": pl.len().cast(pl.Float64),
    "met_notional_usd": _NOTIONAL.sum(),
    "spread_paid_usd": _SPREAD_PAID.sum(),
}
"""Over trades that met a snapshot, by the interval in which the trade was known."""

_LATER: Mapping[str, pl.Expr] = {
    "outcome_count": pl.len().cast(pl.Float64),
    "outcome_notional_usd": _NOTIONAL.sum(),
    "impact_usd": _signed(_IMPACT),
    "realised_usd": _signed(_REALISED),
    "taking_count": _TAKES.sum().cast(pl.Float64),
    "depth_taken_usd": _TAKEN.filter(_TAKES).sum(),
    "depth_back_usd": (pl.col("later_depth") - pl.col("after_depth")).filter(_TAKES).sum(),
}
"""Over trades that have an outcome, by the interval in which the later snapshot was known."""

EXECUTION = frozenset((*_WITH_THE_TRADE, *_LATER))
"""Summaries that need the book."""


def with_execution(
    intervals: pl.LazyFrame,
    trades: pl.LazyFrame,
    book: pl.LazyFrame | None,
    interval: timedelta,
    names: Collection[str],
    *,
    reducing: Reducing,
) -> pl.LazyFrame:
    """Add what trades met with the book leave behind to the intervals in which the feed was up.

    Args:
        intervals: ``ts`` (the interval's open) and what else is known of it, sorted.
        trades: ``known_at``, ``price`` (USD), ``notional_usd`` and ``sign`` (1 bought, -1 sold,
            null where not known), sorted by ``known_at``.
        book: snapshots as :class:`margincast.data.book.BookTable` holds them; None without a book.
        interval: length of the intervals.
        names: summaries wanted, of ``EXECUTION``.
        reducing: how the trades are read.

    Returns:
        The intervals with the summaries, float64: zero where there was no such trade, null where an
        aggressor that a sum needs is not known, and everywhere without a book.
    """
    if book is None:
        return intervals.with_columns(
            pl.lit(None, dtype=pl.Float64).alias(name) for name in sorted(EXECUTION & {*names})
        )
    met = _met(trades, _quotes(book))
    for rows, summaries in ((met, _WITH_THE_TRADE), (_with_outcome(met, book), _LATER)):
        wanted = [sums.alias(name) for name, sums in summaries.items() if name in names]
        if wanted:
            summed = reducing(rows, interval, partial(_summed, wanted))
            intervals = _beside(intervals, summed, [sums.meta.output_name() for sums in wanted])
    return intervals


def _quotes(book: pl.LazyFrame) -> pl.LazyFrame:
    there = [
        (f"{side}_price_{level}", f"{side}_size_{level}")
        for side in ("bid", "ask")
        for level in range(DEPTH_LEVELS)
    ]
    names = book.collect_schema().names()
    levels = [pl.col(price) * pl.col(size) for price, size in there if size in names]
    return book.select(
        "known_at",
        ((pl.col("bid_price_0") + pl.col("ask_price_0")) / 2).alias("mid"),
        pl.sum_horizontal(levels).alias("depth"),
    )


def _met(trades: pl.LazyFrame, quotes: pl.LazyFrame) -> pl.LazyFrame:
    """Set the last snapshot known strictly before each trade beside it; others are left out."""
    return trades.join_asof(
        quotes,
        on="known_at",
        strategy="backward",
        allow_exact_matches=False,
        tolerance=FLOW_GAP,
        check_sortedness=False,  # both tables promise it
    ).filter(pl.col("mid").is_not_null())


def _with_outcome(met: pl.LazyFrame, book: pl.LazyFrame) -> pl.LazyFrame:
    """Add the first snapshot at or after each trade, and the later one with which it is known.

    ``known_at`` becomes that of the later snapshot; rows stay sorted by it.
    """
    quotes = _quotes(book)
    after = quotes.select("known_at", pl.col("depth").alias("after_depth"))
    later = quotes.select(
        pl.col("known_at").alias("later_at"),
        pl.col("mid").alias("later_mid"),
        pl.col("depth").alias("later_depth"),
    )
    return (
        met.join_asof(
            after, on="known_at", strategy="forward", tolerance=FLOW_GAP, check_sortedness=False
        )
        .with_columns((pl.col("known_at") + AFTER).alias("due_at"))
        .join_asof(
            later,
            left_on="due_at",
            right_on="later_at",
            strategy="forward",
            tolerance=FLOW_GAP,
            coalesce=False,
            check_sortedness=False,
        )
        .filter(pl.col("later_mid").is_not_null())
        .with_columns(pl.col("later_at").alias("known_at"))
    )


def _summed(wanted: Sequence[pl.Expr], rows: pl.LazyFrame) -> pl.LazyFrame:
    return rows.group_by("ts", maintain_order=True).agg(*wanted, pl.lit(value=True).alias("traded"))


def _beside(intervals: pl.LazyFrame, summed: pl.LazyFrame, names: list[str]) -> pl.LazyFrame:
    return (
        intervals.join(summed, on="ts", how="left", maintain_order="left")
        .with_columns(
            pl.when(pl.col("traded")).then(pl.col(name)).otherwise(0.0).alias(name)
            for name in names
        )
        .drop("traded")
    )
