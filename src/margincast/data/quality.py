"""What was found in the data and what was done about it: nothing is dropped without a count."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal

Severity = Literal["info", "warning", "fault"]
"""``info``: good to know; ``warning``: look before you rely on it; ``fault``: the data is wrong."""

SEVERITIES: tuple[Severity, ...] = ("fault", "warning", "info")
"""Most severe first."""


@dataclass(frozen=True)
class Finding:
    """One kind of irregularity in one contract's table.

    Attributes:
        table: canonical table name.
        symbol: contract.
        what: the irregularity, in a few words.
        count: rows (or decisions) concerned.
        total: rows (or decisions) looked at.
        action: what was done about them.
        first: time of the first one, where there is one.
        last: time of the last one, where it is known.
        venue: where the contract trades, where it is known.
        severity: how much it matters.
        examples: some of them, as time and what stands there.
    """

    table: str
    symbol: str
    what: str
    count: int
    total: int
    action: str
    first: datetime | None = None
    last: datetime | None = None
    venue: str = ""
    severity: Severity = "info"
    examples: tuple[tuple[datetime, str], ...] = ()

    def as_record(self) -> dict[str, Any]:
        """Return a JSON-like record."""
        return asdict(self) | {
            "first": self.first.isoformat() if self.first else None,
            "last": self.last.isoformat() if self.last else None,
            "examples": [[time.isoformat(), text] for time, text in self.examples],
        }


def found(findings: Iterable[Finding]) -> list[Finding]:
    """Keep the findings that found something, most affected first."""
    return sorted(
        (finding for finding in findings if finding.count > 0),
        key=lambda finding: (-finding.count, finding.symbol, finding.what),
    )
