"""What contracts see of the leader: its own columns, and theirs beside them.

When the leader moves, a contract's tail widens before its own bars show it. Whether the leader's
bars go on after its last one is not known before they do, so its columns reach to the last bar of
any contract.
"""

import polars as pl

from margincast.features import market
from margincast.features.contract import evaluated, own_columns, states_of, with_shared
from margincast.features.plan import Plan
from margincast.features.sharing import select_sharing
from margincast.features.sources import Sources


def leader_columns(plan: Plan, sources: Sources) -> pl.DataFrame | None:
    """Columns of the leader that every contract sees; None where there is no leader.

    Args:
        plan: the set.
        sources: market data, with the leader's option chain fitted.
    """
    leader = plan.feature_set.grid.leader
    if not plan.of_leader or leader not in sources.bars.frames:
        return None
    states = states_of(sources.states, leader)
    return evaluated(plan, sources.bars_to_the_end(leader), states, plan.of_leader)


def leader_to_the_end(
    plan: Plan,
    sources: Sources,
    leader: pl.DataFrame,
    reduced: pl.DataFrame | None,
    seen: pl.DataFrame | None,
) -> pl.DataFrame:
    """Give the leader's columns up to the last bar of any contract."""
    name = plan.feature_set.grid.leader
    frame = sources.bars_to_the_end(name)
    if len(frame) == len(leader):
        return leader
    own = own_columns(plan, frame, states_of(sources.states, name))
    return with_shared(plan, own, reduced, seen)


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
