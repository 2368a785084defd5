"""Run a feature set: from regular bars (and book minutes) to one row a contract and decision.

What enters a forecast is decided here once, for training, backtest and scoring alike. A decision
is a bar close; a contract has decisions where its bar is present and its warm-up is over.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial

import pandas as pd
import polars as pl

from margincast.core.errors import InputError
from margincast.core.execution import Execution
from margincast.core.time import format_duration
from margincast.data.quality import Finding
from margincast.data.underlyings import symbol_of_leader
from margincast.features import implied_vol
from margincast.features.cache import FeatureCache
from margincast.features.cached_lines import kept_states
from margincast.features.causes import Causes
from margincast.features.contract import own_columns, states_of, with_shared
from margincast.features.handing_over import to_models
from margincast.features.leader import beside_the_leader, leader_columns, leader_to_the_end
from margincast.features.library import Unit
from margincast.features.plan import Plan
from margincast.features.reductions import reduced_columns
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
    execution: Execution | None = None,
) -> FeatureTable:
    """Build the features of a set at every decision of every contract.

    Args:
        feature_set: which features.
        sources: regular bars on the set's grid, and what else was read.
        cache: where what was reduced of books and trades or fitted to options before is read back,
            and the rest kept; the table is the same to the last bit with and without.
        done: told of each table of each contract that is done, for those who wait.
        execution: where books and trades are reduced, a table of a contract a task; None: here,
            where Polars uses all cores for one after the other.

    Raises:
        InputError: an unknown function or column, a window off the grid, or no decision at all.
    """
    plan = Plan.of(feature_set)
    grid = feature_set.grid
    findings: list[Finding] = []
    tell = done or _nobody
    reduced = reduced_columns(plan, sources, cache, tell, execution)
    sources, more = with_surfaces(plan, sources, cache)
    findings += more
    seen = leader_columns(plan, sources)
    whole = {}
    for symbol, frame in sources.bars.frames.items():
        part = own_columns(plan, frame, states_of(sources.states, symbol))
        whole[symbol] = with_shared(plan, part, reduced.get(symbol), seen)
        tell(f"bars of {symbol}")
    leading = whole.get(grid.leader)
    if leading is not None and plan.against:
        leading = leader_to_the_end(plan, sources, leading, reduced.get(grid.leader), seen)
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
    findings += [] if cache is None else cache.finish()
    return FeatureTable(
        to_models(table, plan.units), plan.units, feature_set.digest(), tuple(findings)
    )


def _nobody(_: str) -> None:
    """Tell nobody."""


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
