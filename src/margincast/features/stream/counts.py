"""Count what was irregular among the updates of a stream: nothing is dropped without a count."""

from dataclasses import dataclass
from datetime import datetime

from margincast.data.quality import Finding


@dataclass
class _Kind:
    action: str
    count: int
    first: datetime | None
    last: datetime | None


class Counts:
    """How many rows of each contract and table came, and how many met which irregularity."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], int] = {}
        self._kinds: dict[tuple[str, str, str], _Kind] = {}

    def row(self, table: str, symbol: str, count: int = 1) -> None:
        """Count a row that came, or several."""
        self._rows[table, symbol] = self._rows.get((table, symbol), 0) + count

    def meet(
        self, table: str, symbol: str, what: str, action: str, at: datetime, *, count: int = 1
    ) -> None:
        """Count an irregularity, what is done about it, and the time of its row or rows."""
        kind = self._kinds.setdefault((table, symbol, what), _Kind(action, 0, at, at))
        kind.count += count
        kind.last = at

    def findings(self) -> tuple[Finding, ...]:
        """Give what was found so far, in the order in which it was first met."""
        return tuple(
            Finding(
                table,
                symbol,
                what,
                kind.count,
                self._rows[table, symbol],
                kind.action,
                kind.first,
                kind.last,
            )
            for (table, symbol, what), kind in self._kinds.items()
        )
