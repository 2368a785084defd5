"""Coverage: which rows should be there and are not. A margin is decided on what was seen.

A table whose rows cover an interval should have one each interval. Of other states (books, funding,
chains) the usual step says it, where one is usual; events come when they come.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta

import numpy as np
import numpy.typing as npt
import polars as pl

from margincast.data.check.contract import StoredTable
from margincast.data.check.finding import CheckFinding
from margincast.data.check.holes import periodic_holes, seconds_text
from margincast.data.check.tally import MOST_EXAMPLES, Tally

REGULAR_SHARE = 0.5
"""A table has a usual step if at least this share of its steps has that length."""

SHORTEST_REGULAR_STEP = timedelta(seconds=1)
"""Faster feeds send when something changes: that nothing came for two steps is no loss."""

LONGEST_REGULAR_STEP = 1.5
"""A step beyond this many usual steps leaves a row out."""

LONGEST_IRREGULAR_STEP = 20.0
"""Where no step is usual, a step beyond this many median ones is a pause."""

SHORTEST_PAUSE = timedelta(seconds=5)
"""Shorter pauses of a table without a usual step are no finding."""

SPORADIC = ("liquidations",)
"""Tables of events that come in clusters, then not for days: no pause says that one is missing."""

DIGITS = 3
"""Significant digits to which steps are rounded, so that clocks that tremble have a usual step."""

ACTIONS = {
    "bars": "left unknown; windows that need them have no value",
    "book": "left unknown; intervals without a snapshot have no value",
    "trades": "with a book: its snapshots say if the feed was up; without: not known",
}
NOT_READ = "nothing: no feature or margin is computed from this table"

DAY = timedelta(days=1)


@dataclass(frozen=True)
class Step:
    """Distance between the rows of a table.

    Attributes:
        length: usual or, where none is usual, median distance.
        regular: whether it is usual.
    """

    length: timedelta
    regular: bool


@dataclass(frozen=True)
class Day:
    """Rows of a day.

    Attributes:
        rows: rows that are there.
        expected: rows that should be; None where no number of rows is expected.
    """

    rows: int
    expected: int | None

    @property
    def share(self) -> float | None:
        """Share of the expected rows that is there; None where none is expected."""
        return min(1.0, self.rows / self.expected) if self.expected else None


@dataclass
class Coverage:
    """What of a table is there.

    Attributes:
        step: distance between its rows; None with a single one, and where it says nothing.
        gaps: start (time of the row before) and length of each gap, in the order of time.
        days: every day from the first row to the last.
    """

    step: Step | None
    gaps: list[tuple[datetime, timedelta]] = field(default_factory=list)
    days: dict[date, Day] = field(default_factory=dict)


def action_on_missing(table: StoredTable) -> str:
    """Say what happens to what needs rows that are not there."""
    return ACTIONS.get(table.schema.table, NOT_READ)


def usual_step(blocks: Iterable[pl.DataFrame], *, events: bool = False) -> Step | None:
    """Find the distance between rows of different times.

    Args:
        blocks: ``ts`` in the order of time.
        events: whether rows are events: these have no step that is usual, also where a clock or a
            recorder puts their times on a raster.

    Returns:
        The step; None for a single row.
    """
    counts: Counter[int] = Counter()
    before: int | None = None
    for block in blocks:
        times = block["ts"].to_physical().to_numpy()
        steps = np.diff(times, prepend=times[0] if before is None else before)
        before = int(times[-1])
        values, numbers = np.unique(_rounded(steps[steps > 0]), return_counts=True)
        counts.update(dict(zip(values.tolist(), numbers.tolist(), strict=True)))
    if not counts:
        return None
    total = sum(counts.values())
    usual, number = min(counts.items(), key=lambda item: (-item[1], item[0]))
    length = timedelta(microseconds=usual)
    if not events and number >= REGULAR_SHARE * total and length >= SHORTEST_REGULAR_STEP:
        return Step(length, regular=True)
    reached = 0
    for value in sorted(counts):
        reached += counts[value]
        if 2 * reached >= total:
            break
    return Step(timedelta(microseconds=value), regular=False)


def cover(blocks: Iterable[pl.DataFrame], step: Step | None) -> Coverage:
    """Find gaps and count rows by day.

    Args:
        blocks: ``ts`` in the order of time.
        step: distance between rows.
    """
    coverage = Coverage(step)
    longest = np.inf if step is None else _longest(step) / timedelta(microseconds=1)
    numbers: Counter[int] = Counter()
    day = DAY // timedelta(microseconds=1)
    first = before = None
    for block in blocks:
        times = block["ts"].to_physical().to_numpy()
        first = int(times[0]) if first is None else first
        steps = np.diff(times, prepend=times[0] if before is None else before)
        for row in np.flatnonzero(steps > longest).tolist():
            length = int(steps[row])
            coverage.gaps.append((_instant(int(times[row]) - length), _span(length)))
        before = int(times[-1])
        days, rows = np.unique(times // day, return_counts=True)
        numbers.update(dict(zip(days.tolist(), rows.tolist(), strict=True)))
    if first is None or before is None:
        return coverage
    for number in range(first // day, before // day + 1):
        expected = None
        if step is not None and step.regular:
            length = step.length // timedelta(microseconds=1)
            start, end = max(first, number * day), min(before + 1, (number + 1) * day)
            # steps from the first row on that lie in [start, end)
            expected = -((first - end) // length) + (first - start) // length
        coverage.days[_instant(number * day).date()] = Day(numbers[number], expected)
    return coverage


def coverage_findings(table: StoredTable, coverage: Coverage) -> list[CheckFinding]:
    """Say which gaps there are: holes that come again and again as one, others each by itself."""
    step, rows = coverage.step, table.rows
    if step is None or not coverage.gaps:
        return []
    action = action_on_missing(table)
    findings = []
    gaps = coverage.gaps
    missing = sum(_missing(length, step) for _, length in gaps)
    total = rows + missing if step.regular else rows
    periodic = periodic_holes(gaps)
    if periodic is not None:
        members = [gaps[index] for index in periodic.members]
        words = periodic.words() + _share_text(present_share(coverage))
        holes = Tally(
            f"{words}; {len(members):,} holes", action, "warning", kind="holes with a period"
        )
        for start, length in members:
            holes.note(start, f"{seconds_text(length)} without a row")
        holes.count = sum(_missing(length, step) for _, length in members)
        findings.append(holes.finding(table, total))
        inside = set(periodic.members)
        gaps = [gap for index, gap in enumerate(gaps) if index not in inside]
    if gaps:
        findings.append(_single_gaps(table, gaps, step, total))
    return findings


def _single_gaps(
    table: StoredTable, gaps: Sequence[tuple[datetime, timedelta]], step: Step, total: int
) -> CheckFinding:
    longest = max(gaps, key=lambda gap: gap[1])
    kind = "missing rows" if step.regular else "pauses before a row"
    tally = Tally(
        f"{kind}: longest step {seconds_text(longest[1])} from {longest[0]:%Y-%m-%d %H:%M:%S}",
        action_on_missing(table),
        "warning" if step.regular else "info",
        kind=kind,
    )
    for start, length in sorted(gaps, key=lambda gap: (-gap[1], gap[0]))[:MOST_EXAMPLES]:
        tally.note(start, f"{seconds_text(length)} to the next row")
    tally.count = sum(_missing(length, step) for _, length in gaps)
    tally.first, tally.last = gaps[0][0], gaps[-1][0]
    return tally.finding(table, total)


def _missing(length: timedelta, step: Step) -> int:
    """Rows that a gap leaves out; where no number is expected, the row that came after it."""
    return max(1, round(length / step.length) - 1) if step.regular else 1


def present_share(coverage: Coverage) -> float | None:
    """Share of the expected rows that is there; None where no number of rows is expected."""
    days = [day for day in coverage.days.values() if day.expected]
    expected = sum(day.expected or 0 for day in days)
    return sum(min(day.rows, day.expected or 0) for day in days) / expected if expected else None


def _share_text(share: float | None) -> str:
    return "" if share is None else f"; {100 * share:.0f} % of the expected rows are there"


def _longest(step: Step) -> timedelta:
    if step.regular:
        return step.length * LONGEST_REGULAR_STEP
    return max(SHORTEST_PAUSE, step.length * LONGEST_IRREGULAR_STEP)


def _rounded(steps: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Round positive whole numbers to :data:`DIGITS` significant digits."""
    magnitude = np.floor(np.log10(np.maximum(steps, 1))) - (DIGITS - 1)
    unit = np.power(10.0, np.maximum(magnitude, 0.0))
    rounded: npt.NDArray[np.int64] = (np.rint(steps / unit) * unit).astype(np.int64)
    return rounded


def _instant(microseconds: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)


def _span(microseconds: int) -> timedelta:
    return timedelta(microseconds=microseconds)
