"""What the store's manifest says of its sources: rows that are not in the store, and why."""

from collections.abc import Iterable

from margincast.data.check.finding import CheckFinding
from margincast.data.quality import Severity
from margincast.data.store import QUARANTINE, Record, TableCount

_LOSSES = ("hole", "gap", "does not follow", "mismatch", "fail", "wrong", "invalid", "crossed")
"""Words in the name of an event that mean something was lost; others are remarks."""


def manifest_findings(records: Iterable[Record]) -> list[CheckFinding]:
    """Turn the counts of all sources into findings, by contract where the manifest knows it.

    Reasons and events are counted by source, so they are told by table and venue of the source.
    """
    findings: list[CheckFinding] = []
    tables: dict[tuple[str, str, str], list[TableCount]] = {}
    by_source: dict[tuple[str, str, str, str], tuple[int, int]] = {}
    for record in records:
        for table in record.tables:
            tables.setdefault((table.table, table.venue, table.symbol), []).append(table)
        told = sum(record.records.values()) + sum(record.rejected.values())
        rows = record.rows_in
        for kind, counts, total in (
            ("rejected", record.rejected, told),
            ("quarantined", record.quarantined, rows),
            ("event", record.events, max(told, rows)),
        ):
            for reason, count in counts.items():
                place = (str(record.settings["table"]), str(record.settings["venue"]), kind, reason)
                before = by_source.get(place, (0, 0))
                by_source[place] = (before[0] + count, before[1] + total)
    for (table_name, venue, symbol), counted in sorted(tables.items()):
        rows_in = sum(count.rows_in for count in counted)
        findings += [
            CheckFinding(table_name, symbol, what, number, rows_in, action, venue=venue, kind=what)
            for what, number, action in (
                (
                    "exact duplicates in the sources",
                    sum(count.duplicates for count in counted),
                    "stored once",
                ),
                (
                    "rows after a row of a later time in their source",
                    sum(count.out_of_order for count in counted),
                    "sorted by time when they were ingested",
                ),
            )
        ]
    actions = {
        "rejected": f"not stored; the records lie in {QUARANTINE}/",
        "quarantined": f"not stored; the rows lie in {QUARANTINE}/",
        "event": "counted when it was ingested",
    }
    for (table_name, venue, kind, reason), (count, total) in sorted(by_source.items()):
        severity: Severity = "fault"
        what = reason if kind == "event" else f"{kind}: {reason}"
        if kind == "event":
            severity = "warning" if any(word in reason for word in _LOSSES) else "info"
        findings.append(
            CheckFinding(
                table_name,
                "(by source)",
                what,
                count,
                # several events may come of one record
                max(count, total),
                actions[kind],
                venue=venue,
                severity=severity,
                kind=what,
            )
        )
    return findings
