"""Prices that stick out of their neighbours: an error of the feed sets a margin as a crash does.

A close is a spike if it lies far from the closes before and from those after it, on the same side,
while these agree with each other. A crash does not come back, so it is none; nor is it one where
the whole market is wild, because far is measured by the moves around it.
"""

import polars as pl

from margincast.data.check.contract import StoredTable
from margincast.data.check.coverage import NOT_READ
from margincast.data.check.tally import Tally
from margincast.data.check.windows import Window
from margincast.data.quality import Finding

LEVEL_ROWS = 5
"""Rows before, and after, whose median close is the level around a row."""

SCALE_ROWS = 49
"""Rows around a row whose median absolute move is the scale; an error is two of these moves."""

CONTEXT = 30
"""Rows of context that the rolling medians need."""

SPIKE_SCALES = 20.0
"""A spike is this many scales away. Of 29 contracts' hourly bars, 2019 to 2024, no close is this
far, the crashes of those years included."""

SMALLEST_SPIKE = 0.02
"""No spike is a smaller fraction of the price: where prices stand still any move is many scales."""

AGREEMENT = 0.25
"""Levels before and after agree if they differ by at most this share of the spike."""

WICK_SCALES = 20.0
"""A wick is a spike if it is this many median ranges (high over low) of the bars around."""

SMALLEST_WICK = 0.1
"""No wick spike is a smaller fraction of the price."""

REFERENCE_BOUND = 0.05
"""A close farther from mark or index than this fraction is told."""

_EXCURSION = "kept: outcomes and volatility take it as real; look at it before you train"
_CLOSE = pl.col("close").log()


def close_spikes(close: pl.Series) -> pl.Series:
    """Say which closes stick out of their neighbours (see the module).

    Args:
        close: prices in the order of time, above zero.
    """
    frame = pl.DataFrame({"close": close.cast(pl.Float64)}).with_columns(_CLOSE.alias("p"))
    move = pl.col("p").diff().abs()
    level = pl.col("p").rolling_median(LEVEL_ROWS, min_samples=LEVEL_ROWS)
    sides = frame.with_columns(
        level.shift(1).alias("before"),
        level.shift(-LEVEL_ROWS).alias("after"),
        move.rolling_median(SCALE_ROWS, min_samples=LEVEL_ROWS, center=True).alias("scale"),
    )
    up, down = pl.col("p") - pl.col("before"), pl.col("p") - pl.col("after")
    height = pl.min_horizontal(up.abs(), down.abs())
    far = height > pl.max_horizontal(SPIKE_SCALES * pl.col("scale"), pl.lit(SMALLEST_SPIKE))
    agree = (pl.col("before") - pl.col("after")).abs() <= AGREEMENT * height
    spike = far & agree & (up.sign() == down.sign())
    return sides.select(spike.fill_null(value=False).alias("spike"))["spike"]


def wick_spikes(bars: pl.DataFrame) -> pl.Series:
    """Say in which bars the high or low lies absurdly far from open and close."""
    top = (pl.col("high") / pl.max_horizontal("open", "close")).log()
    bottom = (pl.min_horizontal("open", "close") / pl.col("low")).log()
    wick = pl.max_horizontal(top, bottom)
    usual = (
        (pl.col("high") / pl.col("low"))
        .log()
        .rolling_median(SCALE_ROWS, min_samples=LEVEL_ROWS, center=True)
    )
    far = wick > pl.max_horizontal(WICK_SCALES * usual, pl.lit(SMALLEST_WICK))
    return bars.select(far.fill_null(value=False).alias("far"))["far"]


class PriceSpikes:
    """Finds closes and wicks that stick out, bars only."""

    def __init__(self, table: StoredTable) -> None:
        self.table = table
        action = _EXCURSION if table.schema.table == "bars" else NOT_READ
        self.closes = Tally("price spikes that come back (close)", action, "warning")
        self.wicks = Tally("wicks far beyond the bars around (high or low)", action, "warning")

    def add(self, window: Window) -> None:
        """Take a window of bars."""
        rows = window.rows
        times = window.judged(rows["ts"])
        close = window.judged(rows["close"].cast(pl.Float64))
        self.closes.add(times, window.judged(close_spikes(rows["close"])), close)
        shown = rows.select(
            pl.format("open {} high {} low {} close {}", "open", "high", "low", "close").alias("x")
        )["x"]
        self.wicks.add(times, window.judged(wick_spikes(rows)), window.judged(shown))

    def findings(self) -> list[Finding]:
        """Say what was found."""
        rows = self.table.rows
        return [self.closes.finding(self.table, rows), self.wicks.finding(self.table, rows)]


class ReferenceDeviation:
    """Finds closes far from the mark or index price of the same moment."""

    def __init__(self, table: StoredTable, others: dict[str, StoredTable]) -> None:
        self.table, self.others = table, others
        self.tallies: dict[str, Tally] = {}
        self.compared: dict[str, int] = {}

    def add(self, block: pl.DataFrame) -> None:
        """Take a block of bars, with ``mark_close`` or ``index_close`` where it has them."""
        for kind in ("mark", "index"):
            column = f"{kind}_close"
            if column in block.columns:
                self._compare(kind, block, block[column].cast(pl.Float64))
            elif kind in self.others:
                first, last = block["ts"][0], block["ts"][-1]
                other = self.others[kind].between(first, last, ("ts", "close"))
                if not other.is_empty():
                    joined = block.select("ts").join(other, on="ts", how="left")
                    self._compare(kind, block, joined["close"].cast(pl.Float64))

    def findings(self) -> list[Finding]:
        """Say what was found."""
        return [
            tally.finding(self.table, self.compared[kind]) for kind, tally in self.tallies.items()
        ]

    def _compare(self, kind: str, block: pl.DataFrame, reference: pl.Series) -> None:
        tally = self.tallies.setdefault(
            kind,
            Tally(
                f"close more than {REFERENCE_BOUND:.0%} from the {kind} price",
                _EXCURSION,
                "warning",
            ),
        )
        self.compared[kind] = self.compared.get(kind, 0) + len(reference.drop_nulls())
        away = block["close"].cast(pl.Float64) / reference - 1
        tally.add(block["ts"], away.abs() > REFERENCE_BOUND, away)
