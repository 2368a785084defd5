"""Run a feature set: from regular bars (and book minutes) to one row a contract and decision.

What enters a forecast is decided here once, for training, backtest and scoring alike. A decision
is a bar close; a contract has decisions where its bar is present and its warm-up is over.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

import pandas as pd
import polars as pl

from margincast.core.errors import InputError
from margincast.core.time import format_duration
from margincast.data.quality import Finding
from margincast.data.states import StateTable
from margincast.data.underlyings import rows_of_contract
from margincast.features import market, order_book, trade_flow
from margincast.features.alignment import with_states
from margincast.features.library import Unit
from margincast.features.lines import Column
from margincast.features.plan import Plan
from margincast.features.sources import Sources
from margincast.specs.features import FeatureSet


@dataclass(frozen=True)
class FeatureTable:
    """Features at every decision.

    Attributes:
        frame: columns ``symbol``, ``ts`` (decision time, UTC), ``close`` (decision price) and the
            features (float64, NaN where not known); sorted by ``ts`` then ``symbol``.
        units: unit of every feature column.
        feature_set_hash: digest of the feature set.
        findings: decisions left out and features unknown, with counts.
    """

    frame: pd.DataFrame
    units: Mapping[str, Unit]
    feature_set_hash: str
    findings: tuple[Finding, ...]


def build_features(feature_set: FeatureSet, sources: Sources) -> FeatureTable:
    """Build the features of a set at every decision of every contract.

    Args:
        feature_set: which features.
        sources: regular bars on the set's grid, and what else was read.

    Raises:
        InputError: an unknown function or column, a window off the grid, or no decision at all.
    """
    plan = Plan.of(feature_set)
    grid = feature_set.grid
    findings: list[Finding] = []
    reduced = reduced_columns(plan, sources)
    seen = leader_columns(plan, sources)
    whole = {}
    for symbol, frame in sources.bars.frames.items():
        part = own_columns(plan, frame, states_of(sources.states, symbol))
        part = _joined(part, reduced.get(symbol), list(plan.reduced))
        whole[symbol] = _joined(part, seen, [column.name for column in plan.of_leader])
    parts = []
    for symbol, part in whole.items():
        beside_leader = beside_the_leader(plan, part, whole.get(grid.leader))
        decided, more = _eligible(beside_leader, symbol, grid.warm_up, grid.interval)
        findings += more
        parts.append(decided)
    table = pl.concat(parts)
    if table.is_empty():
        raise InputError(
            f"no decision is left: every contract is shorter than grid.warm_up "
            f"({format_duration(grid.warm_up)}); use more history or a shorter warm-up"
        )
    table = across_contracts(plan, table)
    table = table.select("symbol", "ts", "close", *plan.units).sort("ts", "symbol")
    findings += _unknown_shares(table, list(plan.units))
    decisions = table.to_pandas()
    decisions[list(plan.units)] = decisions[list(plan.units)].astype("float64")
    return FeatureTable(decisions, plan.units, feature_set.digest(), tuple(findings))


def states_of(states: Mapping[str, StateTable], contract: str) -> dict[str, pl.DataFrame]:
    """Pick a contract's rows of every table, by its name or its underlying.

    Raises:
        InputError: a table holds several symbols on its underlying.
    """
    found = {name: rows_of_contract(contract, table.frames, name) for name, table in states.items()}
    return {name: rows for name, rows in found.items() if rows is not None}


def reduced_columns(plan: Plan, sources: Sources) -> dict[str, pl.DataFrame]:
    """Reduce books and trades to what was known at each decision, by contract."""
    feature_set, grid = plan.feature_set, plan.feature_set.grid
    reduced: dict[str, pl.DataFrame] = {}
    books = sources.books
    if books is not None and feature_set.book:
        for symbol, snapshots in books.frames.items():
            reduced[symbol] = order_book.reduce_book(
                snapshots,
                books.levels[symbol],
                feature_set.book,
                grid.interval,
                grid.minimum_present,
            )
    if sources.trades is not None and feature_set.trades:
        for symbol, rows in sources.trades.frames.items():
            book = None if books is None else books.frames.get(symbol)
            flow = trade_flow.reduce_trades(
                rows, book, feature_set.trades, grid.interval, grid.minimum_present
            )
            reduced[symbol] = (
                reduced[symbol].join(flow, on="ts", how="full", coalesce=True).sort("ts")
                if symbol in reduced
                else flow
            )
    return reduced


def own_columns(
    plan: Plan, frame: pl.DataFrame, states: Mapping[str, pl.DataFrame]
) -> pl.DataFrame:
    """One contract's own columns and clock at every bar close, present or not.

    Args:
        plan: the set.
        frame: regular bars.
        states: the contract's rows of other tables.
    """
    decided = _evaluated(plan, frame, states, plan.own)
    return decided.with_columns(column.expression for column in plan.clock)


def leader_columns(plan: Plan, sources: Sources) -> pl.DataFrame | None:
    """Columns of the leader that every contract sees; None where there is no leader."""
    leader = plan.feature_set.grid.leader
    if not plan.of_leader or leader not in sources.bars.frames:
        return None
    states = states_of(sources.states, leader)
    return _evaluated(plan, sources.bars.frames[leader], states, plan.of_leader)


def _evaluated(
    plan: Plan,
    frame: pl.DataFrame,
    states: Mapping[str, pl.DataFrame],
    columns: Sequence[Column],
) -> pl.DataFrame:
    interval = plan.feature_set.grid.interval
    read = {name for column in columns for name in column.expression.meta.root_names()}
    beside = sorted(read - set(frame.columns))
    aligned = with_states(frame, interval, states, plan.feature_set.standing, beside)
    # eager and not lazy: a lazy query cuts a rolling sum into pieces at places that hang on the
    # number of rows, so bars to come would move the last bit of earlier features
    return aligned.select(
        "symbol",
        (pl.col("ts") + interval).alias("ts"),
        "close",
        *[column.expression for column in columns],
    )


def _joined(part: pl.DataFrame, others: pl.DataFrame | None, names: list[str]) -> pl.DataFrame:
    """Join columns by decision time; those that are not there are null."""
    known = [] if others is None else [name for name in names if name in others.columns]
    if others is not None and known:
        part = part.join(others.select("ts", *known), on="ts", how="left", maintain_order="left")
    absent = [name for name in names if name not in known]
    return part.with_columns(pl.lit(None, dtype=pl.Float64).alias(name) for name in absent)


def _eligible(
    part: pl.DataFrame, symbol: str, warm_up: timedelta, interval: timedelta
) -> tuple[pl.DataFrame, list[Finding]]:
    present = part["close"].is_not_null()
    warm = part["ts"] >= part["ts"].min() + warm_up - interval  # type: ignore[operator]
    kept = part.filter(present & warm)
    return kept, [
        Finding(
            "decisions",
            symbol,
            "in the contract's warm-up",
            int((present & ~warm).sum()),
            len(part),
            "no decision",
        ),
        Finding(
            "decisions",
            symbol,
            "bar missing or stale",
            int((~present).sum()),
            len(part),
            "no decision",
        ),
    ]


def beside_the_leader(plan: Plan, part: pl.DataFrame, leader: pl.DataFrame | None) -> pl.DataFrame:
    """Set a contract's columns beside the leader's, on its full grid: windows roll over rows."""
    if not plan.against:
        return part
    read = sorted({name for column in plan.against for name in column.reads})
    beside = [market.of_leader(name) for name in read]
    values = part.clear() if leader is None else leader
    return (
        part.join(
            values.select(
                "ts", *(pl.col(name).alias(of) for name, of in zip(read, beside, strict=True))
            ),
            on="ts",
            how="left",
            maintain_order="left",
        )
        .rechunk()
        .with_columns(column.expression for column in plan.against)
        .drop(beside)
    )


def across_contracts(plan: Plan, table: pl.DataFrame) -> pl.DataFrame:
    """Add what all contracts with a decision at the same time show together."""
    if not plan.across:
        return table
    # eager and not lazy here too: the optimiser takes out the order in which contracts are added
    is_leader = pl.col("symbol") == plan.feature_set.grid.leader
    values = (
        table.with_columns(is_leader.alias("is_leader"))
        .group_by("ts")
        .agg(column.expression for column in plan.across)
    )
    return table.join(values, on="ts", how="left")


def _unknown_shares(table: pl.DataFrame, names: list[str]) -> list[Finding]:
    unknown = table.select(pl.col(names).null_count()).row(0)
    return [
        Finding("features", name, "value not known", count, len(table), "left as NaN")
        for name, count in zip(names, unknown, strict=True)
    ]
