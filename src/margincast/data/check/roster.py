"""The contracts of a store side by side: whose data ends early, who stands at several venues.

A margin decided today on a contract whose last row is months old is decided on nothing.
"""

from collections.abc import Sequence
from datetime import timedelta

from margincast.data.check.contract import StoredTable
from margincast.data.check.coverage import LONGEST_IRREGULAR_STEP, Coverage, Step
from margincast.data.check.finding import CheckFinding
from margincast.data.check.holes import seconds_text
from margincast.data.check.time_zones import underlying

EARLIEST_END = timedelta(days=1)
"""A contract that ends less than this before the newest of its table and venue does not end early:
sources are days, months and years, and contracts are fetched one after another."""

EARLIEST_STEPS = 3.0
"""The same in its own steps, for tables of few rows a day."""


def ends_early(tables: Sequence[tuple[StoredTable, Coverage]]) -> list[CheckFinding]:
    """Find the contracts whose last row is much older than the newest of their table and venue."""
    newest: dict[tuple[str, str], StoredTable] = {}
    for table, _ in tables:
        place = (table.table, table.venue)
        if place not in newest or table.last > newest[place].last:
            newest[place] = table
    findings = []
    for table, coverage in tables:
        other = newest[table.table, table.venue]
        behind, step = other.last - table.last, coverage.step
        if behind < max(EARLIEST_END, _usual_wait(table, step)):
            continue
        # where no number of rows is expected only the end itself can be counted
        missing = round(behind / step.length) if step is not None and step.regular else 1
        findings.append(
            CheckFinding(
                table.table,
                table.symbol,
                f"ends {seconds_text(behind)} before the others of its table and venue: "
                f"{table.last:%Y-%m-%d %H:%M}, {other.symbol} {other.last:%Y-%m-%d %H:%M}",
                missing,
                table.rows + missing,
                "nothing after it: no features, no margins; fetch the rest, or leave it out",
                table.last,
                other.last,
                table.venue,
                "warning",
                kind="ends before the others of its table and venue",
            )
        )
    return findings


def _usual_wait(table: StoredTable, step: Step | None) -> timedelta:
    """Time for which no row may come though nothing ended."""
    if step is not None and step.regular:
        return step.length * EARLIEST_STEPS
    # events crowd: the mean distance is longer than the median one
    return (table.last - table.first) / max(table.rows - 1, 1) * LONGEST_IRREGULAR_STEP


def at_several_venues(tables: Sequence[StoredTable]) -> list[CheckFinding]:
    """List the symbols that a table holds of more than one venue, however these spell them."""
    named: dict[tuple[str, str], list[StoredTable]] = {}
    for table in tables:
        named.setdefault((table.table, underlying(table.symbol)), []).append(table)
    findings = []
    for group in named.values():
        venues = sorted({table.venue for table in group})
        if len(venues) < 2:
            continue
        rows = sum(table.rows for table in group)
        findings.append(
            CheckFinding(
                group[0].table,
                group[0].symbol,
                f"the same symbol at {len(venues)} venues: {', '.join(venues)}",
                rows,
                rows,
                "kept apart by venue; never read as one contract",
                min(table.first for table in group),
                max(table.last for table in group),
                kind=f"the same symbol at {len(venues)} venues",
            )
        )
    return findings
