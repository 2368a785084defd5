"""The look-ahead check: change the future at random, build again, compare every bit of the past.

A *case* is one contract, one decision and one change of rows known after it; every feature row of
the contract up to that decision is compared, bit by bit. Many contracts are built at once, each
with a decision and a change of its own (the leader's is the last of them, since the others see its
columns), so that ten thousand cases take a minute. Where a value hangs on all contracts they share
the decision, and the build is one case.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from tests.features.look_ahead_changes import (
    CHANGES,
    Change,
    with_another_future,
    with_late_rows,
)
from tests.features.look_ahead_market import (
    FIRST,
    OF_LEADER,
    ROWS,
    STEP,
    Market,
    Times,
    random_market,
    sources_of,
)
from tests.features.look_ahead_rooms import Room

from margincast.features.pipeline import build_features


def moved(before: pd.DataFrame, after: pd.DataFrame, last: Mapping[str, int]) -> list[str]:
    """Columns that differ by one bit in a row decided by the time given, and where.

    Args:
        before: features.
        after: features of another future.
        last: by contract, the last decision (microseconds since 1970) that must not differ.

    Returns:
        A line a column: its name, the contract and the decision of the first difference.
    """
    left, right = (_until(frame, last) for frame in (before, after))
    keys = ["symbol", "ts"]
    if not left[keys].equals(right[keys]):
        return ["decisions differ"]
    names = [name for name in before.columns if name not in keys]
    values, others = (frame[names].to_numpy(np.float64) for frame in (left, right))
    same = values.view(np.int64) == others.view(np.int64)
    different = ~(same | (np.isnan(values) & np.isnan(others)))
    found = []
    for column in np.flatnonzero(different.any(axis=0)):
        row = int(different[:, column].argmax())
        found.append(
            f"{names[column]} of {left['symbol'][row]} at {left['ts'][row]}: "
            f"{values[row, column]!r} or {others[row, column]!r}"
        )
    return found


def _until(frame: pd.DataFrame, last: Mapping[str, int]) -> pd.DataFrame:
    return frame[_times(frame) <= _limits(frame, last)].reset_index(drop=True)


def _times(frame: pd.DataFrame) -> Times:
    return frame["ts"].dt.as_unit("us").astype(np.int64).to_numpy()


def _limits(frame: pd.DataFrame, last: Mapping[str, int]) -> Times:
    limits = np.array([*last.values(), np.iinfo(np.int64).min])
    return limits[pd.Index(list(last)).get_indexer(frame["symbol"])]


# --- cases ----------------------------------------------------------------------------------------

LATE_SHARE = 0.25
"""Share of changed tables to which rows of the past come late."""

Build = Callable[[Room, Market], pd.DataFrame]
"""From a market to the features of a room."""


def build_from_frames(part: Room, market: Market) -> pd.DataFrame:
    """Build a room's features from tables as readers hand them on."""
    return build_features(part.features, sources_of(market, part.tables)).frame


@dataclass
class Outcome:
    """What a run has seen so far.

    Attributes:
        cases: cases compared, by room.
        changes: cases by the name of the change.
        failures: what moved; empty as long as nothing looks ahead.
        known: by column, the values known at the decision of a case, and all of them.
    """

    cases: Counter[str] = field(default_factory=Counter)
    changes: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    known: dict[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """All cases."""
        return sum(self.cases.values())


@dataclass(frozen=True)
class Check:
    """How futures are changed and features built.

    Attributes:
        build: from tables to features.
        changes: what may happen after a decision.
        builds_each: changed builds that are compared with one unchanged one.
    """

    build: Build = build_from_frames
    changes: Sequence[Change] = CHANGES
    builds_each: int = 24

    def run(self, parts: Sequence[Room], cases: int, seed: int) -> Iterator[Outcome]:
        """Run the check, room by room, until each has had its share of the cases.

        Args:
            parts: rooms.
            cases: all cases; each room gets its share, and what fills its last build.
            seed: of the first market.

        Yields:
            The outcome so far, after every build.
        """
        outcome = Outcome()
        whole = sum(part.share for part in parts)
        for number, part in enumerate(parts):
            rng = np.random.default_rng([seed, number])
            wanted = cases * part.share / whole
            while outcome.cases[part.name] < wanted:
                market = random_market(rng, part.contracts, part.tables)
                before = self.build(part, market)
                for _ in range(self.builds_each):
                    if outcome.cases[part.name] >= wanted:
                        break
                    self._other_future(part, market, before, rng, outcome)
                    yield outcome

    def _other_future(
        self,
        part: Room,
        market: Market,
        before: pd.DataFrame,
        rng: np.random.Generator,
        outcome: Outcome,
    ) -> None:
        """Give every contract another future after its decision; nothing until then may move.

        Rows that arrive after the decision are part of the future, whatever time they are of.
        """
        last = _decisions(part, market, rng)
        after, names = {}, []
        for symbol, contract in market.items():
            others = [other for other in market if other != symbol]
            changed = dict(contract)
            for table in _some([table for table in part.tables if table in contract], rng):
                change = self.changes[rng.integers(len(self.changes))]
                donor = None
                if others and table not in OF_LEADER and rng.random() < 0.2:
                    donor = market[others[rng.integers(len(others))]][table]
                changed[table] = with_another_future(
                    contract[table], last[symbol], change, rng, donor
                )
                names.append(f"{table}: {change.__name__}")
                # bars are known at their close or missing
                if table != "bars" and rng.random() < LATE_SHARE:
                    changed[table] = with_late_rows(changed[table], last[symbol], rng)
                    names.append(f"{table}: late")
            after[symbol] = changed
        _count(part, before, self.build(part, after), last, names=names, outcome=outcome)


def _decisions(part: Room, market: Market, rng: np.random.Generator) -> dict[str, int]:
    rows = rng.integers(ROWS // 2, ROWS - 1, len(market))
    if part.together:
        rows[:] = rows[0]
    rows[0] = rows.max()  # the leader, whose columns the others see
    return {symbol: FIRST + STEP * (int(row) + 1) for symbol, row in zip(market, rows, strict=True)}


def _some(tables: Sequence[str], rng: np.random.Generator) -> list[str]:
    """One table or more, in any way."""
    chosen = rng.random(len(tables)) < rng.random()
    chosen[rng.integers(len(tables))] = True
    return [table for table, taken in zip(tables, chosen, strict=True) if taken]


def _count(
    part: Room,
    before: pd.DataFrame,
    after: pd.DataFrame,
    last: Mapping[str, int],
    *,
    names: Sequence[str],
    outcome: Outcome,
) -> None:
    for line in moved(before, after, last):
        outcome.failures.append(f"{part.name}: {line} ({', '.join(sorted(set(names)))})")
    outcome.cases[part.name] += 1 if part.together else len(last)
    outcome.changes.update(names)
    at_decision = before[_times(before) == _limits(before, last)]
    known = at_decision.notna().sum()
    for name in before.columns[3:]:
        column = f"{part.name}: {name}"
        count, of = outcome.known.get(column, (0, 0))
        outcome.known[column] = count + int(known[name]), of + len(at_decision)
