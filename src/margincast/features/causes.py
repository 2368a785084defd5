"""Why features are not known: every NaN of a feature table counted under the first cause that fits.

A margin rests on what its model saw, and a NaN alone does not say whether data was missing, history
short, or the quantity without a value. Causes exclude each other and their counts add up to the
NaN of the table.

====================================  ============================================================
no *table* for the contract           it was not given, or has no rows of the contract; or bars or
                                      trades lack a column (a mark price, an aggressor side)
*table* not there then                before its first or after its last row, or the newest row is
                                      older than it stands, or trades fell silent for long
history shorter than the look-back    fewer rows since the table's first than a value hangs on
rows missing in the look-back         a missing or stale bar, an interval without a snapshot
a column it reads is not known        of a market column: the contract's, or the leader's
leader has no bar                     of a column that reads the leader; where it has none at all
                                      that comes before every other cause
leader has no decision                the leader has a bar, and is in its warm-up
not defined                           all is there: a locked book, nothing moved, nothing traded
====================================  ============================================================
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping

import numpy as np
import polars as pl

from margincast.core.types import BoolArray
from margincast.data.quality import Finding
from margincast.features.lines import Column
from margincast.features.plan import Plan
from margincast.features.presence import MICROSECOND, Presence, Rows, Table, Times, label_of
from margincast.features.sources import Sources
from margincast.features.tables import Reading, readings_of

SHORT = "history shorter than the look-back"
INCOMPLETE = "rows missing in the look-back"
UNREAD = "a column it reads is not known"
NO_LEADER = "leader has no bar"
NO_DECISION = "leader has no decision"
NOT_DEFINED = "not defined"

_Applies = Callable[[Times], BoolArray]
_Step = tuple[str, _Applies]
"""A cause, and at which decision times it applies."""


class Causes:
    """Counts of features not known by cause, contract after contract.

    Args:
        plan: the feature set.
        sources: what features are built from.
        states_of_leader: the leader's rows of other tables.
    """

    def __init__(
        self, plan: Plan, sources: Sources, states_of_leader: Mapping[str, pl.DataFrame]
    ) -> None:
        self._plan, self._sources = plan, sources
        self._readings = readings_of(plan.feature_set)
        self._counts: Counter[tuple[str, str]] = Counter()
        self._found: list[Finding] = []
        leader = plan.feature_set.grid.leader
        self._leader = Presence(
            sources, plan.feature_set, leader, states_of_leader, to_the_end=True
        )

    def count_contract(
        self,
        symbol: str,
        decided: pl.DataFrame,
        states: Mapping[str, pl.DataFrame],
        whole: Mapping[str, pl.DataFrame],
    ) -> None:
        """Count what is not known at a contract's decisions, but for columns across contracts.

        Args:
            symbol: the contract.
            decided: its decisions, ``ts`` and columns.
            states: its rows of other tables.
            whole: by contract, all bar closes with the columns that market columns read.
        """
        unknown = {
            name
            for name, count in zip(decided.columns, decided.null_count().row(0), strict=True)
            if count
        }
        contract = Presence(self._sources, self._plan.feature_set, symbol, states)
        leader = whole.get(self._plan.feature_set.grid.leader)
        times = decided["ts"].to_physical().to_numpy()
        of_leader = {column.name for column in self._plan.of_leader}
        for name in self._plan.units:
            if name in unknown and self._readings[name].family != "market":
                reading = self._readings[name]
                if name in of_leader:
                    steps = _of_leader(self._leader, reading)
                else:
                    steps = _of_tables(contract, reading, "contract")
                self._count(name, decided, times, steps)
        for column in self._plan.against:
            if column.name in unknown:
                steps = self._beside_leader(column, whole[symbol], leader)
                self._count(column.name, decided, times, steps)
        self._found += contract.findings

    def count_across(self, table: pl.DataFrame) -> None:
        """Count what is not known of the columns across contracts, over all decisions."""
        leader = self._plan.feature_set.grid.leader
        for column in self._plan.across:
            unknown = table.filter(pl.col(column.name).is_null())
            if unknown.is_empty():
                continue
            steps: list[_Step]
            if "is_leader" in column.expression.meta.root_names():
                decided = table.filter(pl.col("symbol") == leader)["ts"]
                undecided = _not_in(decided.to_physical().to_numpy())
                steps = [
                    (NO_LEADER, _without_bar(self._leader)),
                    (NO_DECISION, undecided),
                    (UNREAD, _everywhere),
                ]
            else:
                read = pl.all_horizontal(pl.col(name).is_not_null() for name in column.reads)
                known = table.filter(read)["ts"].unique()
                steps = [(UNREAD, _not_in(known.to_physical().to_numpy()))]
            self._count(column.name, unknown, unknown["ts"].to_physical().to_numpy(), steps)

    def findings(self, decisions: int) -> list[Finding]:
        """One finding a column and cause, columns in the order of the table, and what it shows."""
        place = {name: number for number, name in enumerate(self._plan.units)}
        return self._found + [
            Finding("features", name, cause, count, decisions, "left as NaN")
            for (name, cause), count in sorted(
                self._counts.items(), key=lambda item: (place[item[0][0]], item[0][1])
            )
            if count
        ]

    def _beside_leader(
        self, column: Column, own: pl.DataFrame, leader: pl.DataFrame | None
    ) -> list[_Step]:
        if leader is None:
            return [(NO_LEADER, _everywhere)]
        step = self._plan.feature_set.grid.interval // MICROSECOND
        look_back = column.look_back

        def known(frame: pl.DataFrame, name: str) -> Rows:
            begin = int(frame["ts"].to_physical()[0])
            return Rows.of(begin, step, frame[name].is_not_null().to_numpy())

        bars = known(own, "close")
        return [
            (SHORT, _short(bars, look_back)),
            (INCOMPLETE, _incomplete(bars, look_back)),
            *((UNREAD, _incomplete(known(own, name), look_back)) for name in column.reads),
            (NO_LEADER, _incomplete(known(leader, "close"), look_back)),
            *((UNREAD, _incomplete(known(leader, name), look_back)) for name in column.reads),
        ]

    def _count(
        self, name: str, decided: pl.DataFrame, times: Times, steps: Iterable[_Step]
    ) -> None:
        left = times[decided[name].is_null().to_numpy()]
        for cause, applies in steps:
            if not len(left):
                return
            concerned = applies(left)
            self._counts[name, cause] += int(np.count_nonzero(concerned))
            left = left[~concerned]
        self._counts[name, NOT_DEFINED] += len(left)


def _of_tables(
    contract: Presence, reading: Reading, whose: str, between: Iterable[_Step] = ()
) -> list[_Step]:
    """Causes of a column over tables, in order; ``between`` come after what was not given."""
    absent: list[_Step] = []
    tables: list[Table] = []
    for table, names in reading.names.items():
        for name in names or ("",):
            found = contract.table(table, name)
            if found is None:
                absent.append((f"no {label_of(table, name)} for the {whose}", _everywhere))
            elif found not in tables:
                tables.append(found)
    return [
        *absent,
        *between,
        *((f"{table.name} not there then", table.not_there) for table in tables),
        *((SHORT, _short(table.rows, reading.look_back)) for table in tables),
        *((INCOMPLETE, _incomplete(table.rows, reading.look_back)) for table in tables),
    ]


def _of_leader(leader: Presence, reading: Reading) -> list[_Step]:
    """Causes of a column that every contract sees; without a leader that is the cause."""
    bars = leader.table("bars", "close")
    if bars is None:
        return [(NO_LEADER, _everywhere)]
    return _of_tables(leader, reading, "leader", [(NO_LEADER, bars.rows.outside)])


def _without_bar(leader: Presence) -> _Applies:
    bars = leader.table("bars", "close")
    return _everywhere if bars is None else _incomplete(bars.rows, 1)


def _everywhere(times: Times) -> BoolArray:
    return np.ones(len(times), dtype=np.bool_)


def _not_in(known: Times) -> _Applies:
    return lambda times: ~np.isin(times, known)


def _short(rows: Rows, look_back: int) -> _Applies:
    return lambda times: rows.short(times, look_back)


def _incomplete(rows: Rows, look_back: int) -> _Applies:
    return lambda times: rows.incomplete(times, look_back)
