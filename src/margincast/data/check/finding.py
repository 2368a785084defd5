"""A finding of the check, and how much harm it does to a margin: what to look at first."""

from dataclasses import dataclass

from margincast.data.quality import Finding


@dataclass(frozen=True)
class CheckFinding(Finding):
    """A finding that can be put in order, and together with those of other contracts.

    Attributes:
        kind: the irregularity without its figures; equal for all contracts that have it.
        worst_move: largest move by which a price is wrong, as a fraction of the price (-0.5: half
            of it); None where no price is.
    """

    kind: str = ""
    worst_move: float | None = None
