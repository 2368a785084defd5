"""Books and trades reduced to what was known at each decision: one task a contract and table.

The part of a feature set that reads most: it knows nothing of other contracts, so that it can be
done wherever the files can be read. What was reduced before is read back here, whoever did it.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Literal

import polars as pl

from margincast.core.errors import InputError
from margincast.core.execution import Execution
from margincast.features import order_book, trade_flow
from margincast.features.cache import FeatureCache
from margincast.features.cached_lines import KnownLines, reduced_lines
from margincast.features.plan import Plan
from margincast.features.sources import Origin, Sources
from margincast.specs.features import Feature


@dataclass(frozen=True)
class _Reduction:
    """A table of a contract, what is known of it already, and how the rest is computed."""

    symbol: str
    table: Literal["book", "trades"]
    lines: KnownLines
    origins: tuple[Origin | None, ...]
    reduce: Callable[[Sequence[Feature]], pl.DataFrame]


@dataclass(frozen=True)
class _Task:
    """What is still to be computed of one reduction, in a form that travels."""

    number: int
    symbol: str
    table: str
    entries: tuple[Feature, ...]
    files: tuple[Path, ...]
    reduce: Callable[[Sequence[Feature]], pl.DataFrame]


def reduced_columns(
    plan: Plan,
    sources: Sources,
    cache: FeatureCache | None,
    done: Callable[[str], None],
    execution: Execution | None = None,
) -> dict[str, pl.DataFrame]:
    """Reduce books and trades to what was known at each decision, by contract that has bars.

    Args:
        plan: the columns of a feature set.
        sources: the market.
        cache: see :func:`margincast.features.pipeline.build_features`, and so on.
        done: told of each table of each contract.
        execution: where; None: here, one after the other.

    Raises:
        InputError: see :func:`margincast.features.pipeline.build_features`; or a worker does not
            see the files.
    """
    reductions = [*_of_books(plan, sources, cache), *_of_trades(plan, sources, cache)]
    tasks = []
    for number, one in enumerate(reductions):
        if one.lines.missing:
            files = tuple(
                stamp.path
                for origin in one.origins
                if origin is not None
                for stamp in origin.stamps
            )
            tasks.append(_Task(number, one.symbol, one.table, one.lines.missing, files, one.reduce))
        else:
            done(f"{one.table} of {one.symbol}")
    made: dict[int, pl.DataFrame] = {}
    for task, frame in _done(tasks, execution):
        made[task.number] = reductions[task.number].lines.completed(frame)
        done(f"{task.table} of {task.symbol}")
    reduced: dict[str, pl.DataFrame] = {}
    for number, one in enumerate(reductions):
        frame = made[number] if number in made else one.lines.completed(None)
        reduced[one.symbol] = (
            reduced[one.symbol].join(frame, on="ts", how="full", coalesce=True).sort("ts")
            if one.symbol in reduced
            else frame
        )
    return reduced


def _done(
    tasks: Sequence[_Task], execution: Execution | None
) -> Iterator[tuple[_Task, pl.DataFrame]]:
    if execution is None:
        return ((task, task.reduce(task.entries)) for task in tasks)
    return execution.map(_reduced, None, tasks)


def _reduced(_shared: None, task: _Task, _threads: int) -> pl.DataFrame:
    """Reduce a table of a contract, perhaps on another machine."""
    missing = [path for path in task.files if not path.exists()]
    if missing:
        raise InputError(
            f"a worker does not see {missing[0]} ({len(missing)} of {len(task.files)} files of the "
            f"{task.table} of {task.symbol}); the data must lie on storage that all machines of "
            "the cluster share, under the same path: or build here, without --cluster"
        )
    return task.reduce(task.entries)


def _of_books(plan: Plan, sources: Sources, cache: FeatureCache | None) -> Iterator[_Reduction]:
    feature_set, grid = plan.feature_set, plan.feature_set.grid
    books = sources.books
    if books is None or not feature_set.book:
        return
    ends = _last_decisions(sources, grid.leader)
    of_books = sources.origins.get("book", {})
    for symbol, snapshots in books.frames.items():
        if symbol not in ends:
            continue
        levels = books.levels[symbol]
        origins = (of_books.get(symbol),)
        lines = reduced_lines(
            cache,
            "book",
            feature_set,
            origins=origins,
            names_of=partial(order_book.column_units, interval=grid.interval),
            details={"levels": levels, "until": ends[symbol].isoformat()},
        )
        reduce = partial(
            order_book.reduce_book,
            snapshots,
            levels,
            interval=grid.interval,
            minimum_present=grid.minimum_present,
            until=ends[symbol],
        )
        yield _Reduction(symbol, "book", lines, origins, reduce)


def _of_trades(plan: Plan, sources: Sources, cache: FeatureCache | None) -> Iterator[_Reduction]:
    feature_set, grid = plan.feature_set, plan.feature_set.grid
    if sources.trades is None or not feature_set.trades:
        return
    ends = _last_decisions(sources, grid.leader)
    books = sources.books
    of_books, of_trades = (sources.origins.get(table, {}) for table in ("book", "trades"))
    for symbol, rows in sources.trades.frames.items():
        if symbol not in ends:
            continue
        book = None if books is None else books.frames.get(symbol)
        origins = (of_trades.get(symbol), *(() if book is None else (of_books.get(symbol),)))
        lines = reduced_lines(
            cache,
            "trades",
            feature_set,
            origins=origins,
            names_of=partial(trade_flow.column_units, interval=grid.interval),
            details={"with_book": book is not None, "until": ends[symbol].isoformat()},
        )
        reduce = partial(
            trade_flow.reduce_trades,
            rows,
            book,
            interval=grid.interval,
            minimum_present=grid.minimum_present,
            until=ends[symbol],
        )
        yield _Reduction(symbol, "trades", lines, origins, reduce)


def _last_decisions(sources: Sources, leader: str) -> dict[str, datetime]:
    """Close of each contract's last bar; of the leader, the last at which others see it."""
    bars = sources.bars
    ends = {symbol: frame["ts"][-1] + bars.interval for symbol, frame in bars.frames.items()}
    return ends | ({leader: max(ends.values())} if leader in ends else {})
