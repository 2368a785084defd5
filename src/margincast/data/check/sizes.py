"""Sizes that no market of the contract has: a thousand times what is usual around them.

A unit that slips for one row makes depth and flow absurd, and with them the liquidation cost.
"""

import polars as pl

from margincast.data.check.contract import StoredTable
from margincast.data.check.coverage import NOT_READ
from margincast.data.check.finding import CheckFinding
from margincast.data.check.tally import Tally
from margincast.data.check.windows import Window

ABSURD_RATIO = 1000.0
"""Times the usual size from which a size is absurd."""

AROUND_ROWS = 101
"""Rows around a row that say what is usual; 50 of them on either side."""

CONTEXT = 50
FEWEST_ROWS = 20

USUAL_QUANTILE = {"bars": 0.5, "book": 0.5}
EVENTS_QUANTILE = 0.9
"""Single trades differ by many powers of ten; there the usual size is the 90 % quantile."""

KEPT = "kept: flow and depth take it as real; look at it before you train"


DEPTH_RATIO = 300.0
"""Times the usual size of a side's whole depth from which it is absurd.

A unit that slips by a thousand must show also in a snapshot that is thin by itself; of 2.5 days of
a perpetual's snapshots, walls included, the deepest side was 103 times its usual depth.
"""


def absurd_sizes(sizes: pl.Series, quantile: float, ratio: float = ABSURD_RATIO) -> pl.Series:
    """Say which sizes are absurd by those around them.

    Args:
        sizes: sizes in the order of time; zero and null are no size.
        quantile: of the sizes around, that is called usual.
        ratio: times the usual size from which a size is absurd.
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
    return (positive >= ratio * usual).fill_null(value=False)


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

    def findings(self) -> list[CheckFinding]:
        """Say what was found."""
        return [self.tally.finding(self.table, self.table.rows)]


class AbsurdDepth:
    """Finds absurd sizes in books: of a side's whole depth, or of its largest level.

    A best price alone holds a crumb now and a wall then; where there is one level its sizes are
    judged as those of trades are.
    """

    def __init__(self, table: StoredTable) -> None:
        self.table = table
        self.tally = Tally(
            f"sizes of a book {DEPTH_RATIO:,.0f} times the usual depth around it, or a level "
            f"{ABSURD_RATIO:,.0f} times the usual largest",
            KEPT if table.schema.table == "book" else NOT_READ,
            "warning",
            kind="absurd sizes of a book",
        )

    def add(self, window: Window) -> None:
        """Take a window: ``ts`` and, of each side, the sum and the largest of its sizes."""
        rows = window.rows
        flagged = pl.repeat(value=False, n=len(rows), eager=True)
        for side in ("bid", "ask"):
            total, largest = rows[f"{side}_total"], rows[f"{side}_largest"]
            if (total == largest).all():
                flagged |= absurd_sizes(total, EVENTS_QUANTILE)
            else:
                flagged |= absurd_sizes(total, USUAL_QUANTILE["book"], DEPTH_RATIO)
                flagged |= absurd_sizes(largest, USUAL_QUANTILE["book"])
        shown = rows.select(
            pl.format(
                "bids {}, asks {} in all",
                *(pl.col(f"{side}_total").round_sig_figs(6) for side in ("bid", "ask")),
            ).alias("text")
        )["text"]
        self.tally.add(window.judged(rows["ts"]), window.judged(flagged), window.judged(shown))

    def findings(self) -> list[CheckFinding]:
        """Say what was found."""
        return [self.tally.finding(self.table, self.table.rows)]
