"""Run a feature set: from regular bars (and book minutes) to one row a contract and decision.

What enters a forecast is decided here once, for training, backtest and scoring alike. A decision
is a bar close; a contract has decisions where its bar is present and its warm-up is over.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial

import pandas as pd
import polars as pl

from margincast.core.errors import InputError
from margincast.core.time import format_duration
from margincast.data.quality import Finding
from margincast.data.states import StateTable
from margincast.data.underlyings import LEADER_TABLES, symbol_of_contract, symbol_of_leader
from margincast.features import implied_vol, market, order_book, trade_flow
from margincast.features.alignment import with_states
from margincast.features.cache import FeatureCache
from margincast.features.cached_lines import kept_states, reduced_lines
from margincast.features.calendar import FIRST_CLOSE
from margincast.features.causes import Causes
from margincast.features.library import Unit
from margincast.features.lines import Column
from margincast.features.plan import Plan
from margincast.features.sharing import select_sharing
from margincast.features.sources import Sources
from margincast.features.tables import missing_tables
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


def build_features(
    feature_set: FeatureSet,
    sources: Sources,
    cache: FeatureCache | None = None,
    done: Callable[[str], None] | None = None,
) -> FeatureTable:
    """Build the features of a set at every decision of every contract.

    Args:
        feature_set: which features.
        sources: regular bars on the set's grid, and what else was read.
        cache: where what was reduced of books and trades or fitted to options before is read back,
            and the rest kept; the table is the same to the last bit with and without.
        done: told of each table of each contract that is done, for those who wait.

    Raises:
        InputError: an unknown function or column, a window off the grid, or no decision at all.
    """
    plan = Plan.of(feature_set)
    grid = feature_set.grid
    findings: list[Finding] = []
    tell = done or _nobody
    reduced = reduced_columns(plan, sources, cache, tell)
    sources, more = with_surfaces(plan, sources, cache)
    findings += more
    seen = leader_columns(plan, sources)
    whole = {}
    for symbol, frame in sources.bars.frames.items():
        part = own_columns(plan, frame, states_of(sources.states, symbol))
        part = _joined(part, reduced.get(symbol), list(plan.reduced))
        whole[symbol] = _joined(part, seen, [column.name for column in plan.of_leader])
        tell(f"bars of {symbol}")
    leading = _leader_to_the_end(plan, sources, whole.get(grid.leader))
    parts = []
    causes = Causes(plan, sources, states_of(sources.states, grid.leader))
    for symbol, part in whole.items():
        beside_leader = beside_the_leader(plan, part, leading)
        decided, more = _eligible(beside_leader, symbol, grid.warm_up, grid.interval)
        findings += more
        causes.count_contract(symbol, decided, states_of(sources.states, symbol), whole)
        parts.append(decided)
    table = pl.concat(parts)
    if table.is_empty():
        raise InputError(
            f"no decision is left: every contract is shorter than grid.warm_up "
            f"({format_duration(grid.warm_up)}); use more history or a shorter warm-up"
        )
    table = across_contracts(plan, table)
    table = table.select("symbol", "ts", "close", *plan.units).sort("ts", "symbol")
    causes.count_across(table)
    findings += missing_tables(feature_set, sources)
    findings += causes.findings(len(table))
    findings += [] if cache is None else cache.take_findings()
    decisions = table.to_pandas()
    decisions[list(plan.units)] = decisions[list(plan.units)].astype("float64")
    return FeatureTable(decisions, plan.units, feature_set.digest(), tuple(findings))


def _nobody(_: str) -> None:
    """Tell nobody."""


def states_of(states: Mapping[str, StateTable], contract: str) -> dict[str, pl.DataFrame]:
    """Pick a contract's rows of every table, by its name or its underlying.

    Raises:
        InputError: a table holds several symbols on its underlying.
    """
    found = {}
    for name, table in states.items():
        # of these tables only the leader's rows are read
        find = symbol_of_leader if name in LEADER_TABLES else symbol_of_contract
        symbol = find(contract, table.frames, name)
        if symbol is not None:
            found[name] = table.frames[symbol]
    return found


def reduced_columns(
    plan: Plan,
    sources: Sources,
    cache: FeatureCache | None = None,
    done: Callable[[str], None] = _nobody,
) -> dict[str, pl.DataFrame]:
    """Reduce books and trades to what was known at each decision, by contract."""
    feature_set, grid = plan.feature_set, plan.feature_set.grid
    of_books, of_trades = (sources.origins.get(table, {}) for table in ("book", "trades"))
    reduced: dict[str, pl.DataFrame] = {}
    books = sources.books
    if books is not None and feature_set.book:
        for symbol, snapshots in books.frames.items():
            levels = books.levels[symbol]
            reduced[symbol] = reduced_lines(
                cache,
                "book",
                feature_set,
                origins=[of_books.get(symbol)],
                names_of=partial(order_book.column_units, interval=grid.interval),
                reduce=partial(
                    order_book.reduce_book,
                    snapshots,
                    levels,
                    interval=grid.interval,
                    minimum_present=grid.minimum_present,
                ),
                details={"levels": levels},
            )
            done(f"book of {symbol}")
    if sources.trades is not None and feature_set.trades:
        for symbol, rows in sources.trades.frames.items():
            book = None if books is None else books.frames.get(symbol)
            flow = reduced_lines(
                cache,
                "trades",
                feature_set,
                origins=[of_trades.get(symbol), *([] if book is None else [of_books.get(symbol)])],
                names_of=partial(trade_flow.column_units, interval=grid.interval),
                reduce=partial(
                    trade_flow.reduce_trades,
                    rows,
                    book,
                    interval=grid.interval,
                    minimum_present=grid.minimum_present,
                ),
                details={"with_book": book is not None},
            )
            reduced[symbol] = (
                reduced[symbol].join(flow, on="ts", how="full", coalesce=True).sort("ts")
                if symbol in reduced
                else flow
            )
            done(f"trades of {symbol}")
    return reduced


def own_columns(
    plan: Plan,
    frame: pl.DataFrame,
    states: Mapping[str, pl.DataFrame],
    first_close: datetime | None = None,
) -> pl.DataFrame:
    """One contract's own columns and clock at every bar close, present or not.

    Args:
        plan: the set.
        frame: regular bars.
        states: the contract's rows of other tables.
        first_close: close of the contract's first bar, where the frame begins later.
    """
    decided = _evaluated(plan, frame, states, plan.own)
    first = pl.lit(first_close, decided.schema["ts"]) if first_close else pl.col("ts").first()
    clocked = decided.with_columns(first.alias(FIRST_CLOSE)).with_columns(
        column.expression for column in plan.clock
    )
    return clocked.drop(FIRST_CLOSE)


def leader_columns(plan: Plan, sources: Sources) -> pl.DataFrame | None:
    """Columns of the leader that every contract sees; None where there is no leader."""
    leader = plan.feature_set.grid.leader
    if not plan.of_leader or leader not in sources.bars.frames:
        return None
    fitted, _ = with_surfaces(plan, sources)
    states = states_of(fitted.states, leader)
    return _evaluated(plan, sources.bars_to_the_end(leader), states, plan.of_leader)


def _leader_to_the_end(
    plan: Plan, sources: Sources, leader: pl.DataFrame | None
) -> pl.DataFrame | None:
    """Give the leader's columns up to the last bar of any contract."""
    name = plan.feature_set.grid.leader
    if leader is None or not plan.against:
        return leader
    frame = sources.bars_to_the_end(name)
    if len(frame) == len(leader):
        return leader
    own = own_columns(plan, frame, states_of(sources.states, name))
    return _joined(own, leader, [name for name in leader.columns if name not in own.columns])


def with_surfaces(
    plan: Plan, sources: Sources, cache: FeatureCache | None = None
) -> tuple[Sources, list[Finding]]:
    """Fit the leader's option chain, so that what it says can stand beside bars.

    A chain fitted before, or one of which the set reads nothing, stays as it is.

    Returns:
        The sources with the surface in place of the chain, and what the fit left out or mended.
    """
    table = sources.states.get("options")
    read = {name for column in plan.of_leader for name in column.expression.meta.root_names()}
    tenors = implied_vol.tenors_in(read)
    if table is None or not tenors:
        return sources, []
    symbol = symbol_of_leader(plan.feature_set.grid.leader, table.frames, "options")
    if symbol is None or "strike" not in table.frames[symbol].columns:
        return sources, []
    surface = kept_states(
        cache,
        "options",
        table.frames[symbol],
        build=partial(implied_vol.surface_states, tenors=tenors),
        details={"tenors": tenors},
        module="margincast.features.implied_vol.surface",
    )
    fitted = replace(table, frames={**table.frames, symbol: surface})
    states = {**sources.states, "options": fitted}
    return replace(sources, states=states), implied_vol.surface_findings(surface, symbol)


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
    decided_at = (pl.col("ts") + interval).alias("ts")
    return select_sharing(
        aligned, ("symbol", decided_at, "close"), [column.expression for column in columns]
    )


def _joined(part: pl.DataFrame, others: pl.DataFrame | None, names: list[str]) -> pl.DataFrame:
    """Join columns by decision time, in order; those that are not there are null."""
    own = part.columns
    known = [] if others is None else [name for name in names if name in others.columns]
    if others is not None and known:
        part = part.join(others.select("ts", *known), on="ts", how="left", maintain_order="left")
    absent = [name for name in names if name not in known]
    nulls = (pl.lit(None, dtype=pl.Float64).alias(name) for name in absent)
    return part.with_columns(nulls).select(*own, *names)


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
    joined = part.join(
        values.select(
            "ts", *(pl.col(name).alias(of) for name, of in zip(read, beside, strict=True))
        ),
        on="ts",
        how="left",
        maintain_order="left",
    )
    return select_sharing(
        joined.rechunk(), part.columns, [column.expression for column in plan.against]
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
