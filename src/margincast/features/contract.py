"""One contract's part of the feature table: columns of its own bars and of what stands beside them.

A margin is decided contract by contract; what others show of the market is set beside it later.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime

import polars as pl

from margincast.data.states import OF_ONE_MARKET, StateTable
from margincast.data.underlyings import LEADER_TABLES, symbol_of_contract, symbol_of_leader
from margincast.features.alignment import beside_bars, with_states
from margincast.features.calendar import FIRST_CLOSE
from margincast.features.lines import Column
from margincast.features.plan import Plan
from margincast.features.sharing import select_sharing


def states_of(states: Mapping[str, StateTable], contract: str) -> dict[str, pl.DataFrame]:
    """Pick a contract's rows of every table, by its name or its underlying.

    Of another market, which has its underlying and not its name, columns in its own unit are left
    out.

    Raises:
        InputError: a table holds several symbols on its underlying.
    """
    found = {}
    for name, table in states.items():
        # of these tables only the leader's rows are read
        find = symbol_of_leader if name in LEADER_TABLES else symbol_of_contract
        symbol = find(contract, table.frames, name)
        if symbol is not None:
            rows = table.frames[symbol]
            foreign = () if symbol == contract else OF_ONE_MARKET.get(name, ())
            found[name] = rows.drop(foreign, strict=False) if foreign else rows
    return found


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
    decided = evaluated(plan, frame, states, plan.own)
    first = pl.lit(first_close, decided.schema["ts"]) if first_close else pl.col("ts").first()
    clocked = decided.with_columns(first.alias(FIRST_CLOSE)).with_columns(
        column.expression for column in plan.clock
    )
    return clocked.drop(FIRST_CLOSE)


def evaluated(
    plan: Plan,
    frame: pl.DataFrame,
    states: Mapping[str, pl.DataFrame],
    columns: Sequence[Column],
) -> pl.DataFrame:
    """Evaluate columns at every bar close, beside what stands there.

    Args:
        plan: the set.
        frame: regular bars.
        states: rows of other tables.
        columns: over these rows.

    Returns:
        ``symbol``, ``ts`` (the decision), ``close`` and the columns.
    """
    interval = plan.feature_set.grid.interval
    read = {name for column in columns for name in column.expression.meta.root_names()}
    beside = beside_bars(read, frame.columns)
    aligned = with_states(frame, interval, states, plan.feature_set.standing, beside)
    decided_at = (pl.col("ts") + interval).alias("ts")
    return select_sharing(
        aligned, ("symbol", decided_at, "close"), [column.expression for column in columns]
    )


def with_shared(
    plan: Plan, part: pl.DataFrame, reduced: pl.DataFrame | None, seen: pl.DataFrame | None
) -> pl.DataFrame:
    """Set what books and trades give, and what all see of the leader, beside own columns."""
    part = _joined(part, reduced, list(plan.reduced))
    return _joined(part, seen, [column.name for column in plan.of_leader])


def _joined(part: pl.DataFrame, others: pl.DataFrame | None, names: list[str]) -> pl.DataFrame:
    """Join columns by decision time, in order; those that are not there are null."""
    own = part.columns
    known = [] if others is None else [name for name in names if name in others.columns]
    if others is not None and known:
        part = part.join(others.select("ts", *known), on="ts", how="left", maintain_order="left")
    absent = [name for name in names if name not in known]
    nulls = (pl.lit(None, dtype=pl.Float64).alias(name) for name in absent)
    return part.with_columns(nulls).select(*own, *names)
