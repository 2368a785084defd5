"""States and flows beside bars: funding, open interest, liquidations, implied volatility, options.

What positions cost to hold, how crowded they are, who is being liquidated and what options say is
to come. Rows are sparse in time; each counts from the moment it could have been known.
"""

from dataclasses import dataclass

import polars as pl

from margincast.data.quality import Finding


@dataclass(frozen=True)
class StateTable:
    """Rows of one table for several contracts, or underlyings.

    Attributes:
        frames: per symbol, sorted by ``known_at``: ``ts``, ``known_at`` (UTC; when the row could
            have been known) and the table's values, float64.
        findings: what was irregular.
    """

    frames: dict[str, pl.DataFrame]
    findings: tuple[Finding, ...]
