"""Count what a check flags, with its first and last time and a few examples."""

from dataclasses import dataclass, field
from datetime import datetime

import polars as pl

from margincast.data.check.contract import StoredTable
from margincast.data.quality import Finding, Severity

MOST_EXAMPLES = 5
"""Examples kept of each finding."""


@dataclass
class Tally:
    """Flagged rows of one kind, added up block by block in the order of time.

    Attributes:
        what: the irregularity.
        action: what margincast does about it.
        severity: how much it matters.
    """

    what: str
    action: str
    severity: Severity = "info"
    count: int = 0
    first: datetime | None = None
    last: datetime | None = None
    examples: list[tuple[datetime, str]] = field(default_factory=list)

    def add(self, times: pl.Series, flagged: pl.Series, values: pl.Series | None = None) -> None:
        """Count flagged rows.

        Args:
            times: times of all rows looked at.
            flagged: whether each is flagged; null is no.
            values: what stands in each, for the examples.
        """
        mask = flagged.fill_null(value=False)
        number = int(mask.sum())
        if not number:
            return
        where = times.filter(mask)
        self.count += number
        self.first = self.first or where[0]
        self.last = where[-1]
        room = MOST_EXAMPLES - len(self.examples)
        if room > 0 and values is not None:
            shown = values.filter(mask).head(room).to_list()
            self.examples += [
                (time, _text(value)) for time, value in zip(where.head(room), shown, strict=True)
            ]

    def note(self, time: datetime, text: str) -> None:
        """Count one irregularity at a time."""
        self.count += 1
        self.first = self.first or time
        self.last = time
        if len(self.examples) < MOST_EXAMPLES:
            self.examples.append((time, text))

    def finding(self, table: StoredTable, total: int) -> Finding:
        """Say what was found among ``total`` rows."""
        return Finding(
            table.table,
            table.symbol,
            self.what,
            self.count,
            total,
            self.action,
            self.first,
            self.last,
            table.venue,
            self.severity,
            tuple(self.examples),
        )


def _text(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
