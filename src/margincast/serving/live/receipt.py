"""What became of rows that were sent: the answer of whoever takes them."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Receipt:
    """What became of lines that were sent.

    Attributes:
        taken: rows that wait for the engine now.
        refused: by reason, lines that break a rule.
        dropped: rows for which there was no room.
    """

    taken: int
    refused: Mapping[str, int]
    dropped: int

    def plus(self, other: "Receipt") -> "Receipt":
        """Return what became of both."""
        refused = dict(self.refused)
        for reason, lines in other.refused.items():
            refused[reason] = refused.get(reason, 0) + lines
        return Receipt(self.taken + other.taken, refused, self.dropped + other.dropped)
