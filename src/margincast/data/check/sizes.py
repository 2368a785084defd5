"""Sizes that no market of the contract has: a thousand times what is usual around them.

A unit that slips for one row makes depth and flow absurd, and with them the liquidation cost.
"""

import polars as pl

from margincast.data.check.contract import StoredTable
from margincast.data.check.coverage import NOT_READ
from margincast.data.check.tally import Tally
from margincast.data.check.windows import Window
from margincast.data.quality import Finding

ABSURD_RATIO = 1000.0
"""Times the usual size from which a size is absurd."""

AROUND_ROWS = 101
"""Rows around a row that say what is usual; 50 of them on either side."""

CONTEXT = 50
FEWEST_ROWS = 20

USUAL_QUANTILE = {"bars": 0.5, "book": 0.5, "quotes": 0.5}
EVENTS_QUANTILE = 0.9
"""Single trades differ by many powers of ten; there the usual size is the 90 % quantile."""

KEPT = "kept: flow and depth take it as real; look at it before you train"


def absurd_sizes(sizes: pl.Series, quantile: float) -> pl.Series:
    """Say which sizes are absurd by those around them.

    Args:
        sizes: sizes in the order of time; zero and null are no size.
        quantile: of the sizes around, that is called usual.
    """
    positive = sizes.cast(pl.Float64)
    positive = positive.set(positive <= 0, None)
    usual = positive.rolling_quantile(
        quantile,
        interpolation="nearest",
        window_size=AROUND_ROWS,
        min_samples=FEWEST_ROWS,
        center=True,
    )
    return (positive >= ABSURD_RATIO * usual).fill_null(value=False)


class AbsurdSizes:
    """Finds absurd sizes in one column."""

    def __init__(self, table: StoredTable, column: str) -> None:
        self.table, self.column = table, column
        name = table.schema.table
        self.quantile = USUAL_QUANTILE.get(name, EVENTS_QUANTILE)
        action = KEPT if name in ("bars", "book", "trades") else NOT_READ
        self.tally = Tally(
            f"{column} {ABSURD_RATIO:,.0f} times what is usual around it, and more",
            action,
            "warning",
        )

    def add(self, window: Window) -> None:
        """Take a window."""
        if self.column not in window.rows.columns:
            return
        sizes = window.rows[self.column]
        self.tally.add(
            window.judged(window.rows["ts"]),
            window.judged(absurd_sizes(sizes, self.quantile)),
            window.judged(sizes.cast(pl.Float64)),
        )

    def findings(self) -> list[Finding]:
        """Say what was found."""
        return [self.tally.finding(self.table, self.table.rows)]
