"""Count what a check flags, with its first and last time, the worst and a few examples."""

from dataclasses import dataclass, field
from datetime import datetime

import polars as pl

from margincast.data.check.contract import StoredTable
from margincast.data.check.finding import CheckFinding
from margincast.data.quality import Severity

MOST_EXAMPLES = 5
"""Examples kept of each finding."""


@dataclass
class Tally:
    """Flagged rows of one kind, added up block by block in the order of time.

    Attributes:
        what: the irregularity.
        action: what margincast does about it.
        severity: how much it matters.
        kind: the irregularity without figures, where ``what`` has some.
        worst_move: largest move that was flagged, a fraction of the price.
        worst: what stands there, and when.
    """

    what: str
    action: str
    severity: Severity = "info"
    kind: str = ""
    count: int = 0
    first: datetime | None = None
    last: datetime | None = None
    examples: list[tuple[datetime, str]] = field(default_factory=list)
    worst_move: float | None = None
    worst: str = ""

    def add(
        self,
        times: pl.Series,
        flagged: pl.Series,
        values: pl.Series | None = None,
        rows: pl.Series | None = None,
    ) -> None:
        """Count flagged rows.

        Args:
            times: times of all rows looked at.
            flagged: whether each is flagged; null is no.
            values: what stands in each, for the examples.
            rows: how many rows of the table each stands for; one when None.
        """
        mask = flagged.fill_null(value=False)
        number = int(mask.sum())
        if not number:
            return
        where = times.filter(mask)
        self.count += number if rows is None else int(rows.filter(mask).sum())
        self.first = self.first or where[0]
        self.last = where[-1]
        room = MOST_EXAMPLES - len(self.examples)
        if room > 0 and values is not None:
            shown = values.filter(mask).head(room).to_list()
            self.examples += [
                (time, _text(value)) for time, value in zip(where.head(room), shown, strict=True)
            ]

    def add_moves(
        self,
        times: pl.Series,
        moves: pl.Series,
        values: pl.Series,
        rows: pl.Series | None = None,
    ) -> None:
        """Count rows whose price moved wrongly, and keep the worst.

        Args:
            times: times of all rows looked at.
            moves: by what fraction of the price each is wrong; null where it is not.
            values: what stands in each.
            rows: how many rows of the table each stands for; one when None.
        """
        self.add(times, moves.is_not_null(), values, rows)
        worst = moves.abs().arg_max()
        if worst is None:
            return
        move = float(moves[worst])
        if self.worst_move is None or abs(move) > abs(self.worst_move):
            self.worst_move = move
            self.worst = (
                f"{_text(values[worst])} on {times[worst]:%Y-%m-%d %H:%M} ({100 * move:+,.1f} %)"
            )

    def note(self, time: datetime, text: str) -> None:
        """Count one irregularity at a time."""
        self.count += 1
        self.first = self.first or time
        self.last = time
        if len(self.examples) < MOST_EXAMPLES:
            self.examples.append((time, text))

    def finding(self, table: StoredTable, total: int) -> CheckFinding:
        """Say what was found among ``total`` rows."""
        return CheckFinding(
            table.table,
            table.symbol,
            f"{self.what}; worst: {self.worst}" if self.worst else self.what,
            self.count,
            total,
            self.action,
            self.first,
            self.last,
            table.venue,
            self.severity,
            tuple(self.examples),
            self.kind or self.what,
            self.worst_move,
        )


def _text(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
