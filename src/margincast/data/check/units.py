"""Units that change: a contract of 1000 coins instead of one, a redenomination, a finer tick.

A price that moves by a power of ten between two rows and stays there moved by a decision, not by a
market: every return over it is wrong by that factor. If volume moved the other way by the same
power it is certain; if not it may have been a crash of 90 %, which did happen (LUNA, May 2022).
"""

from datetime import datetime

import numpy as np
import polars as pl

from margincast.core.types import BoolArray, FloatArray
from margincast.data.check.contract import StoredTable
from margincast.data.check.finding import CheckFinding
from margincast.data.check.tally import Tally
from margincast.data.check.windows import Window

SIDE_ROWS = 12
"""Rows on either side whose medians are the levels before and after."""

CONTEXT = SIDE_ROWS + 1

TOLERANCE = 0.1
"""Distance of a shift from a whole power of ten, in decades, at which it is one: -21 to +26 %."""

VOLUME_TOLERANCE = 0.7
"""The same for volume, which varies by itself: a factor of five."""

TICK_RATIO = 1.5
"""The smallest increment changed if it changed by this factor, for two periods at least."""

FEWEST_PRICES = 200
"""Distinct prices in a period from which its smallest increment is known."""

ON_TICK = 0.99
"""Share of prices that must be multiples of an increment: else it is an accident of few prices."""

_ACTION = "nothing: returns across it are wrong; cut the contract there or rescale it"


def decade_shifts(values: pl.Series) -> tuple[FloatArray, FloatArray]:
    """Measure by how many decades the level shifts at each row, and the row itself.

    Args:
        values: values in the order of time, shape (n,); null, zero and NaN are not known.

    Returns:
        log10 of the median of the row and the next ones over the median of those before, and log10
        of the row over the row before; both of shape (n,), NaN where not known.
    """
    known = values.cast(pl.Float64)
    logs = known.set(known <= 0, None).log(10)
    level = logs.rolling_median(SIDE_ROWS, min_samples=SIDE_ROWS // 2)
    shift = level.shift(1 - SIDE_ROWS) - level.shift(1)
    return shift.to_numpy().astype(np.float64), logs.diff().to_numpy().astype(np.float64)


class UnitChanges:
    """Finds shifts by powers of ten in price and volume, in bars or the minutes of other prices.

    Args:
        table: the table.
        price: what its prices are called.
        volume: what its volumes are called.
    """

    def __init__(self, table: StoredTable, price: str = "price", volume: str = "volume") -> None:
        self.table = table
        self.certain = Tally(f"unit change: {price} by 10^k, {volume} by 10^-k", _ACTION, "fault")
        self.price = Tally(
            f"{price} by about 10^k and stays there: a unit change, or a crash of 90 %",
            "nothing: look at it; cut the contract there or rescale it",
            "warning",
        )
        self.volume = Tally(
            f"{volume} by about 100 or more and stays there, {price} as before: its unit changed",
            f"nothing: features that use {volume} are wrong across it",
            "warning",
        )

    def add(self, window: Window) -> None:
        """Take a window of bars."""
        rows = window.rows
        shift, jump = decade_shifts(rows["close"])
        power = np.rint(shift)
        # NaN compares false: a shift that is not known is none
        moved = (
            (np.abs(power) >= 1)
            & (np.abs(shift - power) <= TOLERANCE)
            & (np.abs(jump - power) <= 2 * TOLERANCE)
        )
        opposite = np.zeros(len(rows), dtype=bool)
        by_itself = np.zeros(len(rows), dtype=bool)
        if "volume" in rows.columns:
            volume_shift, volume_jump = decade_shifts(rows["volume"])
            opposite = np.abs(volume_shift + power) <= VOLUME_TOLERANCE
            by_itself = (
                ~moved
                & (np.abs(shift) < 0.5)
                & (np.abs(volume_shift) >= 2 - TOLERANCE)
                & (np.abs(volume_jump - volume_shift) <= VOLUME_TOLERANCE)
            )
            times = window.judged(rows["ts"])
            flagged, shown = self._flagged(window, by_itself, volume_shift)
            self.volume.add(times, flagged, shown)
        self._flag(window, moved & opposite, self.certain, shift)
        self._flag(window, moved & ~opposite, self.price, shift)

    def findings(self) -> list[CheckFinding]:
        """Say what was found."""
        tallies = (self.certain, self.price, self.volume)
        return [tally.finding(self.table, self.table.rows) for tally in tallies]

    def _flag(self, window: Window, flagged: BoolArray, tally: Tally, shift: FloatArray) -> None:
        told, shown = self._flagged(window, flagged, shift)
        with np.errstate(over="ignore"):
            moves = pl.Series(10.0**shift - 1, dtype=pl.Float64)
        known = pl.select(pl.when(told).then(window.judged(moves)).alias("move"))["move"]
        tally.add_moves(window.judged(window.rows["ts"]), known, shown)

    def _flagged(
        self, window: Window, flagged: BoolArray, shift: FloatArray
    ) -> tuple[pl.Series, pl.Series]:
        text = [""] * len(window.rows)
        for row in np.flatnonzero(flagged).tolist():
            text[row] = f"times {10 ** shift[row]:.4g}"
        return (
            window.judged(pl.Series(flagged)),
            window.judged(pl.Series(text, dtype=pl.String)),
        )


class Ticks:
    """Follows the smallest increment of prices from period to period.

    Args:
        columns: those that hold prices.
        period: a duration as polars writes it.
    """

    def __init__(self, columns: tuple[str, ...], period: str) -> None:
        self.columns, self.period = columns, period
        self.tally = Tally(
            "the smallest price increment changed",
            "nothing: margins do not use the tick",
        )
        self._tick: float | None = None
        self._candidate: tuple[datetime, float] | None = None

    def add(self, block: pl.DataFrame) -> None:
        """Take a block of prices."""
        period = pl.col("ts").dt.truncate(self.period).alias("period")
        parts = block.with_columns(period).partition_by("period", maintain_order=True)
        for part in parts:
            tick = smallest_increment(part, self.columns)
            if tick is not None:
                self._follow(part["ts"][0], tick)

    def _follow(self, time: datetime, tick: float) -> None:
        if self._tick is None or _alike(tick, self._tick):
            self._tick = self._tick or tick
            self._candidate = None
        elif self._candidate is not None and _alike(tick, self._candidate[1]):
            since, now = self._candidate
            self.tally.note(since, f"{self._tick:.3g} to {now:.3g}")
            self._tick, self._candidate = tick, None
        else:
            self._candidate = (time, tick)

    def finding(self, table: StoredTable) -> CheckFinding:
        """Say what was found."""
        return self.tally.finding(table, table.rows)


def smallest_increment(block: pl.DataFrame, columns: tuple[str, ...]) -> float | None:
    """Smallest distance between two prices, where all are multiples of it; None if not known."""
    there = [name for name in columns if name in block.columns]
    if not there:
        return None
    prices = np.unique(np.concatenate([block[name].drop_nulls().to_numpy() for name in there]))
    if len(prices) < FEWEST_PRICES:
        return None
    steps = np.diff(prices)
    # two decimal numbers that are equal differ by less than this as floats
    steps = steps[steps > 1e-12 * np.abs(prices[1:])]
    tick = float(np.min(steps))
    multiples = prices / tick
    # a multiple is a whole number up to the error of its division
    near = np.abs(multiples - np.rint(multiples)) <= np.maximum(1e-3, 1e-9 * multiples)
    return tick if near.mean() >= ON_TICK else None


def _alike(one: float, other: float) -> bool:
    return max(one, other) < TICK_RATIO * min(one, other)
