"""What contracts see of the leader at a decision: its states, and their own moves beside its.

When the leader moves, a contract's tail widens before its own bars show it.
"""

from collections.abc import Mapping

import polars as pl

from margincast.data.states import StateTable
from margincast.features import market
from margincast.features.contract import states_of
from margincast.features.sharing import Staged, run
from margincast.features.stream.clock import instant
from margincast.features.stream.columns import BarColumns, joined
from margincast.features.stream.contract import Contract, Setting


class Leader:
    """The leader's part of every contract's row.

    Attributes:
        read: what columns that every contract sees read beside the leader's bars.
    """

    def __init__(self, setting: Setting) -> None:
        """Find what the columns share.

        Args:
            setting: of the stream.
        """
        plan = setting.plan
        self._plan, self._bounds = plan, setting.bounds
        self._names = [column.name for column in plan.of_leader]
        self._columns = BarColumns(plan, plan.of_leader)
        self._staged = Staged.of([column.expression for column in plan.against])
        self._beside = {name: market.of_leader(name) for name in setting.read_beside_leader}
        # as far back as columns beside the leader read them
        self._count = setting.bounds.decided if self._beside.keys() & {*self._names} else 1
        self._seen: pl.DataFrame | None = None
        self._rows: pl.DataFrame | None = None
        self.read = self._columns.read

    def look(
        self, leader: Contract | None, tables: Mapping[str, StateTable], decided_us: int
    ) -> None:
        """Look at the leader's last decisions, once it has come to the last.

        Args:
            leader: the contract; None where nothing of it was given.
            tables: rows of the tables beside bars.
            decided_us: the decision.
        """
        self._seen = self._rows = None
        if leader is None or leader.rows is None:
            return
        if self._names:
            self._seen = self._columns.last(
                leader.bars.frame(decided_us, self._bounds.leader + self._count - 1),
                states_of(tables, self._plan.feature_set.grid.leader),
                self._count,
                instant(leader.first_close_us),
            )
        if self._beside:
            self._rows = (
                self._with_seen(leader.rows).select("ts", *self._beside).rename(self._beside)
            )

    def row(self, contract: Contract) -> pl.DataFrame:
        """Give a contract's row at the decision, with what it sees of the leader."""
        assert contract.row is not None
        assert contract.rows is not None
        seen = None if self._seen is None else self._seen.tail(1)
        row = joined(contract.row, seen, self._names)
        if not self._beside:
            return row
        rows = self._with_seen(contract.rows).select("ts", *self._beside)
        beside = joined(rows, self._rows, list(self._beside.values()))
        return row.hstack(run(self._staged.query(beside, ()).tail(1)))

    def _with_seen(self, rows: pl.DataFrame) -> pl.DataFrame:
        return joined(rows, self._seen, [name for name in self._names if name in self._beside])
