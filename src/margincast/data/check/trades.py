"""Trades as they were received: which side pressed, when, and how late it was known."""

from collections import Counter
from datetime import datetime, timedelta

import numpy as np
import polars as pl

from margincast.core.types import FloatArray
from margincast.data.check.contract import StoredTable
from margincast.data.check.coverage import NOT_READ
from margincast.data.check.finding import CheckFinding
from margincast.data.check.holes import seconds_text
from margincast.data.check.tally import Tally
from margincast.data.trades import AGGRESSOR_SIDES

ONE_SIDED_MINIMUM = 1000
"""Trades from which a feed with one side only is reported as broken.

If the aggressor sold nine times in ten, a thousand sells in a row would still have a chance of
0.9^1000, about 2e-46.
"""

LARGE_BURST = 1000
"""Trades of one time stamp from which it is told: one order, or a clock that stood still."""

LATENCY_DIGITS = 2
"""Significant digits of the latencies that are summed up."""


class Trades:
    """Counts what is odd in trades: sides, bursts of one time, clocks."""

    def __init__(self, table: StoredTable) -> None:
        self.table = table
        read = table.schema.table == "trades"
        self.sides: Counter[str | None] = Counter()
        self.bursts = Tally(
            f"bursts of {LARGE_BURST:,} trades of one time, and more", "kept" if read else NOT_READ
        )
        self.early = Tally(
            "received before it was traded: clocks disagree",
            "taken as known when it was traded" if read else NOT_READ,
            "warning",
        )
        self.equal = Tally(
            "equal to the row before, and no id tells them apart",
            "kept: two trades may be alike" if read else f"kept; {NOT_READ}",
        )
        self._before: pl.DataFrame | None = None
        self._read = read
        self._latencies: Counter[float] = Counter()
        self._burst: tuple[datetime, int] | None = None

    def add(self, block: pl.DataFrame) -> None:
        """Take a block of trades."""
        if "side" in block.columns:
            counts = block["side"].cast(pl.String).str.to_lowercase().value_counts()
            self.sides.update(dict(counts.iter_rows()))
        self._add_bursts(block["ts"])
        self._add_equal(block)
        if "received_at" in block.columns:
            received = block["received_at"].cast(block["ts"].dtype)
            late = (received - block["ts"]).dt.total_microseconds() / 1e6
            self.early.add(block["ts"], late < 0, late)
            seconds = late.drop_nulls().to_numpy()
            values, numbers = np.unique(_rounded(seconds), return_counts=True)
            self._latencies.update(dict(zip(values.tolist(), numbers.tolist(), strict=True)))

    def findings(self) -> list[CheckFinding]:
        """Say what was found; to be asked once, after the last block."""
        if self._burst is not None:
            self._tell([self._burst])
            self._burst = None
        rows = self.table.rows
        told = sum(self.sides.values()) - self.sides[None]
        one_sided = told >= ONE_SIDED_MINIMUM and any(
            self.sides[side] == rows for side in AGGRESSOR_SIDES
        )
        without = Tally(
            "without an aggressor side",
            "kept; signed flow of their interval is not known" if self._read else NOT_READ,
        )
        without.count = self.sides[None]
        side = Tally(
            "all on one side: the aggressor is not known",
            "side is null; signed flow is not known" if self._read else NOT_READ,
            "fault",
        )
        side.count = rows if one_sided else 0
        if one_sided:
            side.first, side.last = self.table.first, self.table.last
        tallies = [side, without, self.bursts, self.equal, self.early]
        findings = [tally.finding(self.table, rows) for tally in tallies]
        if self._latencies:
            findings.append(self._latency_finding())
        return findings

    def _latency_finding(self) -> CheckFinding:
        values = np.array(sorted(self._latencies))
        reached = np.cumsum([self._latencies[value] for value in values.tolist()])
        middle, late = (
            values[np.searchsorted(reached, share * reached[-1])] for share in (0.5, 0.99)
        )
        tally = Tally(
            f"received {_told(middle)} the trade (median; 99 %: {_told(late)} it)",
            "known when received, at the earliest when it was traded" if self._read else NOT_READ,
            kind="time of reception",
        )
        tally.count = int(reached[-1])
        return tally.finding(self.table, self.table.rows)

    def _add_bursts(self, times: pl.Series) -> None:
        runs = times.rle().struct.unnest()
        bursts = list(zip(runs["value"].to_list(), runs["len"].to_list(), strict=True))
        if self._burst is not None:
            # a burst may go on in this block
            if self._burst[0] == bursts[0][0]:
                bursts[0] = (bursts[0][0], self._burst[1] + bursts[0][1])
            else:
                bursts.insert(0, self._burst)
        self._burst = bursts.pop()
        self._tell(bursts)

    def _add_equal(self, block: pl.DataFrame) -> None:
        told = block.drop("received_at", strict=False)
        joined = told
        if self._before is not None:
            joined = pl.concat([self._before, told], how="diagonal_relaxed")
        same = joined.select(
            pl.all_horizontal(pl.all().eq_missing(pl.all().shift(1))).alias("same")
        )["same"]
        # a first row of nulls would equal the nothing before it
        same = (same & (pl.int_range(len(joined), eager=True) > 0)).tail(len(told))
        shown = block.select(pl.format("{} at {}", "size", "price").alias("text"))["text"]
        self.equal.add(block["ts"], same, shown)
        self._before = told.tail(1)

    def _tell(self, bursts: list[tuple[datetime, int]]) -> None:
        for time, length in bursts:
            if length >= LARGE_BURST:
                self.bursts.note(time, f"{length} trades")
                self.bursts.count += length - 1


def _rounded(seconds: FloatArray) -> FloatArray:
    """Round to :data:`LATENCY_DIGITS` significant digits."""
    safe = np.where(seconds == 0, 1.0, np.abs(seconds))
    unit = 10.0 ** (np.floor(np.log10(safe)) - (LATENCY_DIGITS - 1))
    return np.where(seconds == 0, 0.0, np.rint(seconds / unit) * unit)


def _told(seconds: float) -> str:
    length = timedelta(seconds=abs(seconds))
    return f"{seconds_text(length)} {'before' if seconds < 0 else 'after'}"
