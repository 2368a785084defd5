"""Order-book features: what closing a position costs now, and how firmly the book stands.

Liquidation cost enters the margin as it is, and thin or one-sided books precede large moves. Each
function is an expression over one snapshot (two for order flow); :func:`reduce_book` reduces the
snapshots known by each decision to ``last``, ``mean`` and ``deviation``.

Prices are in USD and a size times its price is USD notional. A book level that is null holds
nothing: depth counts it as zero, since a book that has lost its levels is thin, not unknown.
Features named by a number of book levels need a feed with that many.

Sources: microprice and imbalance, Stoikov (2018) doi:10.1080/14697688.2018.1489139; order-flow
imbalance, Cont, Kukanov and Stoikov (2014) doi:10.1093/jjfinec/nbt003.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import reduce
from itertools import pairwise
from operator import add

import polars as pl

from margincast.core.errors import InputError
from margincast.data.intervals import interval_batches
from margincast.features.library import FeatureFunction, Unit, Window, feature, look_up
from margincast.specs.features import Feature

FLOW_GAP = timedelta(seconds=3)
"""Longest time between two snapshots across which order flow is inferred."""

SLOPE_UNIT_USD = 1e6
"""A book slope is a fraction of the mid for each million USD of depth."""

_MID = (pl.col("bid_price_0") + pl.col("ask_price_0")) / 2


@feature("book", "fraction", argument="nothing")
def relative_spread() -> pl.Expr:
    """Best ask less best bid, in fractions of the mid; 0 where the book is locked."""
    return (pl.col("ask_price_0") - pl.col("bid_price_0")) / _MID


@feature("book", "fraction", argument="nothing")
def microprice_deviation() -> pl.Expr:
    """Microprice relative to the mid, less one; the best prices weighted by the opposite size."""
    bid_size, ask_size = pl.col("bid_size_0"), pl.col("ask_size_0")
    # Half the spread times the imbalance is the same, and exactly 0 where the book is locked.
    return relative_spread() / 2 * (bid_size - ask_size) / (bid_size + ask_size)


@feature("book", "number", argument="values")
def imbalance(level_count: float, levels: int) -> pl.Expr:
    """Bid less ask size over their sum, over the best ``level_count`` levels; in [-1, 1]."""
    count = _level_count("imbalance", level_count, levels)
    bid, ask = _total_size("bid", count), _total_size("ask", count)
    return (bid - ask) / (bid + ask)


@feature("book", "number", argument="values")
def log_depth_usd(level_count: float, levels: int) -> pl.Expr:
    """Log of the USD notional on both sides of the best ``level_count`` levels."""
    count = _level_count("log_depth_usd", level_count, levels)
    return (_depth_usd("bid", count) + _depth_usd("ask", count)).log()


@feature("book", "number", argument="values")
def depth_asymmetry(level_count: float, levels: int) -> pl.Expr:
    """Log of bid over ask USD notional in the best ``level_count`` levels.

    Unlike :func:`imbalance` it goes on growing as one side empties.
    """
    count = _level_count("depth_asymmetry", level_count, levels)
    return (_depth_usd("bid", count) / _depth_usd("ask", count)).log()


@feature("book", "fraction", argument="values")
def cost_to_buy(notional_usd: float, levels: int) -> pl.Expr:
    """Average price above the mid of buying ``notional_usd / mid`` at once, in fractions.

    Fees apart, what closing a short of that notional costs; at least half the relative spread.
    Null where all levels of the feed together are too few, so that the mean over a window is of the
    snapshots that could fill it: read it beside :func:`depth_shortage`.
    """
    return _walked_cost("ask", notional_usd, levels)


@feature("book", "fraction", argument="values")
def cost_to_sell(notional_usd: float, levels: int) -> pl.Expr:
    """Average price below the mid of selling ``notional_usd / mid`` at once, in fractions.

    The mirror image of :func:`cost_to_buy`: what closing a long costs.
    """
    return _walked_cost("bid", notional_usd, levels)


@feature("book", "number", argument="values")
def depth_shortage(notional_usd: float, levels: int) -> pl.Expr:
    """1 where the feed's levels of either side cannot fill ``notional_usd``, else 0.

    Its mean is the share of snapshots in which one of the costs to trade is not known.
    """
    size = _size_to_trade(notional_usd)
    short = (_total_size("bid", levels) < size) | (_total_size("ask", levels) < size)
    return short.cast(pl.Float64)


@feature("book", "fraction", argument="values")
def book_slope(level_count: float, levels: int) -> pl.Expr:
    """How far the price moves, in fractions of the mid, for each million USD taken from the book.

    Least squares through the origin of a level's distance from the mid on the notional up to and
    including it, over the best ``level_count`` levels; the mean of both sides.
    """
    count = _level_count("book_slope", level_count, levels)
    return (_slope("bid", count) + _slope("ask", count)) / 2


@feature("book", "number", argument="values")
def order_flow_imbalance(level_count: float, levels: int) -> pl.Expr:
    """Net size added to bids and taken from asks since the snapshot before, over average depth.

    Equation (10) of Cont, Kukanov and Stoikov (2014) at each of the best ``level_count`` levels,
    summed, and divided by the mean of bid and ask size at these levels in the two snapshots; in
    [-4, 4]. A level missing from either snapshot adds nothing. Null for a first snapshot and after
    a hole longer than ``FLOW_GAP``.
    """
    count = _level_count("order_flow_imbalance", level_count, levels)
    events, depths = [], []
    for side in ("bid", "ask"):
        for level in range(count):
            price, size = pl.col(f"{side}_price_{level}"), pl.col(f"{side}_size_{level}")
            before, size_before = price.shift(1), size.shift(1)
            # A bid that rises is new demand, one that falls is demand gone; asks the other way.
            came = price >= before if side == "bid" else price <= before
            went = price <= before if side == "bid" else price >= before
            change = came.cast(pl.Float64) * size - went.cast(pl.Float64) * size_before
            events.append(change if side == "bid" else -change)
            depths.append((size + size_before) / 4)
    flow = _sum(events) / _sum(depths)
    return pl.when(pl.col("ts").diff() <= FLOW_GAP).then(flow)


@dataclass(frozen=True)
class _Signal:
    """One function of a feature set at one value, and the statistics wanted of it."""

    name: str
    function: FeatureFunction
    value: float | None
    statistics: tuple[str, ...]
    windows: tuple[Window, ...]

    def expression(self, levels: int) -> pl.Expr:
        """The function over one snapshot of a book with this many levels."""
        built = (
            self.function.build() if self.value is None else self.function.build(self.value, levels)
        )
        return built.cast(pl.Float64).alias(self.name)

    def of_interval(self) -> list[pl.Expr]:
        """What one interval's snapshots leave behind."""
        value = pl.col(self.name)
        return [
            value.last().alias(f"{self.name} last"),
            value.count().cast(pl.Float64).alias(f"{self.name} count"),
            value.sum().alias(f"{self.name} sum"),
            value.pow(2).sum().alias(f"{self.name} squares"),
        ]

    def columns(self) -> list[pl.Expr]:
        """The columns of the feature table, from regular intervals."""
        columns = []
        for statistic in self.statistics:
            if statistic == "last":
                columns.append(pl.col(f"{self.name} last").alias(f"{self.name}_last"))
                continue
            for window in self.windows:
                column = self._mean(window) if statistic == "mean" else self._deviation(window)
                columns.append(column.alias(f"{self.name}_{statistic}_{window.label}"))
        return columns

    def _total(self, what: str, window: Window) -> pl.Expr:
        known = pl.when(pl.col(f"{self.name} count") > 0).then(pl.col(f"{self.name} {what}"))
        return known.rolling_sum(window.rows, min_samples=window.minimum)

    def _mean(self, window: Window) -> pl.Expr:
        return self._total("sum", window) / self._total("count", window)

    def _deviation(self, window: Window) -> pl.Expr:
        count = self._total("count", window)
        variance = self._total("squares", window) / count - self._mean(window).pow(2)
        return pl.when(count > 1).then(variance.clip(0).sqrt())


def column_units(entries: Sequence[Feature], interval: timedelta) -> dict[str, Unit]:
    """Name and unit of every column :func:`reduce_book` makes, in order.

    Names are ``{function}[_{value}]_{statistic}[_{window}]``, for example
    ``imbalance_5_mean_10m``.

    Raises:
        InputError: an unknown function, or arguments that do not fit it.
    """
    return {
        column.meta.output_name(): signal.function.unit
        for signal in _signals(entries, interval, 1.0)
        for column in signal.columns()
    }


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
    for each interval.

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
    signals = _signals(entries, interval, minimum_present)
    rows = book.select("known_at", *(signal.expression(levels) for signal in signals))
    reduced = [
        batch.group_by("ts", maintain_order=True).agg(
            statistic for signal in signals for statistic in signal.of_interval()
        )
        for batch in interval_batches(rows, interval)
    ]
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


def _signals(
    entries: Sequence[Feature], interval: timedelta, minimum_present: float
) -> list[_Signal]:
    signals = []
    for entry in entries:
        function = look_up("book", entry.function)
        wanted = [statistic for statistic in entry.statistics if statistic != "last"]
        if not entry.statistics or bool(wanted) != bool(entry.windows):
            raise InputError(
                f"feature '{entry.function}' needs statistics (last, mean, deviation), and windows "
                f"for mean and deviation only; found statistics {list(entry.statistics)} and "
                f"{len(entry.windows)} window(s)"
            )
        if (function.argument == "values") != bool(entry.values):
            rule = "needs values" if function.argument == "values" else "takes no values"
            raise InputError(
                f"feature '{entry.function}' {rule}, and lists "
                f"{', '.join(f'{value:g}' for value in entry.values) or 'none'}"
            )
        windows = tuple(Window.over(length, interval, minimum_present) for length in entry.windows)
        signals += [
            _Signal(
                entry.function if value is None else f"{entry.function}_{value:g}",
                function,
                value,
                entry.statistics,
                windows,
            )
            for value in (entry.values or (None,))
        ]
    return signals


def _level_count(name: str, value: float, levels: int) -> int:
    if value != int(value) or not 1 <= value <= levels:
        raise InputError(
            f"feature '{name}' is asked for {value:g} book levels, and the book has {levels}; list "
            f"whole numbers from 1 to {levels}"
        )
    return int(value)


def _size_to_trade(notional_usd: float) -> pl.Expr:
    if not 0 < notional_usd < float("inf"):
        raise InputError(f"a notional to trade must be above 0 USD, found {notional_usd:g}")
    return notional_usd / _MID


def _sum(terms: Iterable[pl.Expr]) -> pl.Expr:
    """Sum with nulls as zero, left to right.

    The order in which ``pl.sum_horizontal`` adds depends on the number of threads, and with it the
    last bits.
    """
    return reduce(add, (term.fill_null(0.0) for term in terms))


def _total_size(side: str, count: int) -> pl.Expr:
    return _sum(pl.col(f"{side}_size_{level}") for level in range(count))


def _depth_usd(side: str, count: int) -> pl.Expr:
    return _sum(
        pl.col(f"{side}_price_{level}") * pl.col(f"{side}_size_{level}") for level in range(count)
    )


def _walked_cost(side: str, notional_usd: float, levels: int) -> pl.Expr:
    """Cost of trading against one side of the book, best level first, in fractions of the mid."""
    size = _size_to_trade(notional_usd)
    taken = [
        pl.lit(0.0),
        *(pl.min_horizontal(_total_size(side, count), size) for count in range(1, levels + 1)),
    ]
    # Summing distances from the mid, not prices, keeps a cost near zero exact.
    costs = [
        (pl.col(f"{side}_price_{level}") - _MID).abs() * (deeper - before)
        for level, (before, deeper) in enumerate(pairwise(taken))
    ]
    filled = _total_size(side, levels) >= size
    # Not divided: polars divides one row, but multiplies several by the reciprocal, and how many
    # rows come together depends on the threads.
    return pl.when(filled).then(_sum(costs) * (1.0 / notional_usd))


def _slope(side: str, count: int) -> pl.Expr:
    products, squares = [], []
    for level in range(count):
        price = pl.col(f"{side}_price_{level}")
        depth = pl.when(price.is_not_null()).then(_depth_usd(side, level + 1))
        products.append((price / _MID - 1).abs() * depth)
        squares.append(depth.pow(2))
    return _sum(products) / _sum(squares) * SLOPE_UNIT_USD
