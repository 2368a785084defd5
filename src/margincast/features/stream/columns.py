"""Columns of a feature set over bars at the last decisions, prepared once for every decision.

A service that waits for a margin's features cannot wait for expressions to be built: what they
share is found when the stream starts, and a decision runs them as one query.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime

import numpy as np
import polars as pl

from margincast.core.types import FloatArray
from margincast.data.schemas import TIMESTAMP
from margincast.features.alignment import beside_bars, with_states
from margincast.features.calendar import FIRST_CLOSE
from margincast.features.lines import Column
from margincast.features.plan import Plan
from margincast.features.sharing import Staged, run


class BarColumns:
    """Columns over regular bars and what stands beside them, and over decision times.

    Attributes:
        read: what the columns over bars read.
    """

    def __init__(self, plan: Plan, columns: Sequence[Column], clock: Sequence[Column] = ()) -> None:
        """Find what the columns share.

        Args:
            plan: the set.
            columns: those over bars.
            clock: those over decision times.
        """
        expressions = [column.expression for column in columns]
        self._interval = plan.feature_set.grid.interval
        self._standing = plan.feature_set.standing
        self.read = {name for expression in expressions for name in expression.meta.root_names()}
        self._staged = Staged.of(expressions)
        self._kept = ((pl.col("ts") + self._interval).alias("ts"), pl.col("close"))
        self._clock = [column.expression for column in clock]
        self.reads_first_close = any(
            FIRST_CLOSE in expression.meta.root_names() for expression in self._clock
        )

    def last(
        self,
        bars: pl.DataFrame,
        states: Mapping[str, pl.DataFrame],
        count: int,
        first_close: datetime,
    ) -> pl.DataFrame:
        """Compute the columns at the last decisions, as ``pipeline`` does at all of them.

        Args:
            bars: regular bars, as many as the columns look back to.
            states: the contract's rows of other tables.
            count: decisions.
            first_close: close of the contract's first bar.

        Returns:
            ``ts`` (the decision), ``close`` and the columns.
        """
        beside = beside_bars(self.read, bars.columns)
        if beside:
            bars = with_states(bars, self._interval, states, self._standing, beside)
        query = self._staged.query(bars, self._kept).tail(count)
        if self.reads_first_close:
            first = pl.lit(first_close, TIMESTAMP).alias(FIRST_CLOSE)
            query = query.with_columns(first).with_columns(self._clock).drop(FIRST_CLOSE)
        elif self._clock:
            query = query.with_columns(self._clock)
        return run(query)


def frame_of(names: Sequence[str], values: FloatArray) -> pl.DataFrame:
    """Make a table of few rows: shape (rows, columns), NaN where not known."""
    known = ~np.isnan(values)
    rows = [
        {name: value if there else None for name, value, there in zip(names, *row, strict=True)}
        for row in zip(values.tolist(), known.tolist(), strict=True)
    ]
    return pl.from_dicts(rows, schema=dict.fromkeys(names, pl.Float64()))


def with_nulls(part: pl.DataFrame, names: Sequence[str]) -> pl.DataFrame:
    """Add columns of which nothing is known."""
    return part.with_columns(pl.lit(None, dtype=pl.Float64).alias(name) for name in names)


def joined(part: pl.DataFrame, others: pl.DataFrame | None, names: Sequence[str]) -> pl.DataFrame:
    """Join columns by decision time; null where they are not known."""
    if not names:
        return part
    if others is None:
        return with_nulls(part, names)
    if others["ts"].equals(part["ts"]):
        return part.hstack([others[name] for name in names])
    return part.join(others.select("ts", *names), on="ts", how="left", maintain_order="left")


def one_decision(plan: Plan, table: pl.DataFrame) -> pl.DataFrame:
    """Add what all contracts show together at one decision, and put the columns in order.

    ``pipeline.across_contracts`` of a single time, without a group for it.
    """
    names = ["symbol", "ts", "close", *plan.units]
    if not plan.across:
        return table[names]
    is_leader = pl.col("symbol") == plan.feature_set.grid.leader
    together = table.lazy().with_columns(is_leader.alias("is_leader"))
    return run(together.with_columns(column.expression for column in plan.across))[names]
