"""Stale stretches: a price that stands still was not made by a market; to the end it is delisted.

A margin computed from constant prices is zero, so such bars produce neither features nor targets
(:mod:`margincast.data.bars`).
"""

from datetime import datetime

import polars as pl

from margincast.data.bars import is_stale
from margincast.data.check.contract import StoredTable
from margincast.data.check.coverage import NOT_READ
from margincast.data.check.finding import CheckFinding
from margincast.data.check.holes import seconds_text
from margincast.data.check.runs import Run, Runs
from margincast.data.check.tally import Tally

SHORTEST_STRETCH = 12
"""Stale bars in a row that are told as a stretch."""

SHORTEST_END = 24
"""Stale bars at the end of a contract that mean it is no longer traded."""

_TREATED = "treated as missing: no features, no targets"


class StaleBars:
    """Finds stretches without trade and change in bars; without change where there is no volume."""

    def __init__(self, table: StoredTable) -> None:
        self.table = table
        self.stale = Runs(SHORTEST_STRETCH)
        self.still = Runs(SHORTEST_STRETCH)
        self.empty = Tally("zero volume though the price moved", "kept as they are", "warning")
        self._close: float | None = None

    def add(self, block: pl.DataFrame) -> None:
        """Take a block with prices and, where the table has one, ``volume``."""
        times, close = block["ts"], block["close"].cast(pl.Float64)
        still = (block["high"] == block["low"]) & (close == close.shift(1, fill_value=self._close))
        self._close = close[-1]
        if "volume" in block.columns:
            stale = is_stale(block)
            self.stale.add(times, stale, close)
            self.empty.add(times, (block["volume"] == 0) & ~stale, close)
            still &= ~stale
        self.still.add(times, still, close)

    def findings(self) -> list[CheckFinding]:
        """Say what was found."""
        read = self.table.schema.table == "bars"
        findings = []
        end = self._end()
        if end is not None:
            tally = Tally(
                f"stale from {end.first:%Y-%m-%d %H:%M} to the end: delisted or dead",
                _TREATED,
                "warning",
                kind="stale to the end: delisted or dead",
            )
            tally.note(end.first, _stretch(end))
            findings.append(self._as_finding(tally, end.rows, end))
        stretches = [run for run in self.stale.all_runs() if run is not end]
        if stretches:
            tally = Tally("stale stretches: no volume, no change", _TREATED, "warning")
            findings.append(self._of_runs(tally, stretches))
        inside = self.stale.flagged - sum(run.rows for run in self.stale.all_runs())
        if inside:
            short = Tally("single stale bars: no volume, no change", _TREATED)
            findings.append(self._as_finding(short, inside, None))
        quiet = self.still.all_runs()
        if quiet:
            action = "kept: they have volume" if read else NOT_READ
            tally = Tally("stretches of a constant price", action, "warning")
            findings.append(self._of_runs(tally, quiet))
        return [*findings, self.empty.finding(self.table, self.table.rows)]

    def since(self) -> datetime | None:
        """Time from which the contract is stale to the end; None where it is not."""
        end = self._end()
        return None if end is None else end.first

    def stretches(self) -> list[Run]:
        """Stale stretches, for the figures."""
        return self.stale.all_runs()

    def _end(self) -> Run | None:
        run = self.stale.open_run()
        return run if run is not None and run.rows >= SHORTEST_END else None

    def _of_runs(self, tally: Tally, runs: list[Run]) -> CheckFinding:
        for run in sorted(runs, key=lambda run: (-run.rows, run.first)):
            tally.note(run.first, _stretch(run))
        tally.first, tally.last = runs[0].first, runs[-1].last
        return self._as_finding(tally, sum(run.rows for run in runs), None)

    def _as_finding(self, tally: Tally, rows: int, run: Run | None) -> CheckFinding:
        tally.count = rows
        if run is not None:
            tally.first, tally.last = run.first, run.last
        return tally.finding(self.table, self.table.rows)


def _stretch(run: Run) -> str:
    return f"{run.rows} bars at {run.value:g}, {seconds_text(run.last - run.first)}"
