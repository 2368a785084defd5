"""The price level of books, trades, quotes and liquidations: a wrong unit is a wrong margin.

Single rows are judged by the rows around them; the rest, as minutes (first, highest, lowest and
last price), by the minutes around, with the same rules as bars. So a snapshot that is wrong alone,
one that is wrong for some seconds and a unit that changes are all found; memory is bounded by a
block and a minute.
"""

from collections.abc import Iterable

import polars as pl

from margincast.data.check import spikes, units
from margincast.data.check.contract import StoredTable
from margincast.data.check.coverage import NOT_READ
from margincast.data.check.finding import CheckFinding
from margincast.data.check.spikes import (
    PriceSpikes,
    smallest_spikes,
    spike_moves,
    spike_texts,
    without_late_prints,
)
from margincast.data.check.tally import Tally
from margincast.data.check.units import UnitChanges
from margincast.data.check.windows import Window, Windows

CONTEXT = max(spikes.CONTEXT, units.CONTEXT)


def minute_bars(rows: pl.DataFrame) -> pl.DataFrame:
    """Reduce rows to the minutes in which there are any.

    Args:
        rows: ``ts`` in order, ``price`` and ``size``.

    Returns:
        ``ts``, ``open``, ``high``, ``low``, ``close``; ``volume``, the mean size of a row; and
        ``rows``, how many there were.
    """
    price = pl.col("price")
    return rows.group_by(pl.col("ts").dt.truncate("1m"), maintain_order=True).agg(
        price.first().alias("open"),
        price.max().alias("high"),
        price.min().alias("low"),
        price.last().alias("close"),
        pl.col("size").mean().alias("volume"),
        pl.len().alias("rows"),
    )


class PriceLevel:
    """Finds prices and units that are wrong in rows that are moments.

    Args:
        table: the table.
        price: what its prices are called: ``mid`` or ``price``.
    """

    def __init__(self, table: StoredTable, price: str) -> None:
        self.table = table
        action = spikes.EXCURSION if table.schema.table in spikes.ACTED_ON else NOT_READ
        self.rows = Tally(f"price spikes that come back ({price} of a row)", action, "warning")
        self.minutes = PriceSpikes(table, price)
        self.units = UnitChanges(table, price, "size")
        self._rows, self._minutes = Windows(CONTEXT), Windows(CONTEXT)
        self._unfinished: pl.DataFrame | None = None

    def add(self, block: pl.DataFrame) -> None:
        """Take a block: ``ts``, ``price`` and ``size``; prices that are not known are left out."""
        priced = block.select(
            "ts", pl.col("price").cast(pl.Float64), pl.col("size").cast(pl.Float64)
        ).filter(pl.col("price") > 0)
        self._judge_rows(self._rows.add(priced))

    def findings(self) -> list[CheckFinding]:
        """Say what was found; to be asked once, after the last block."""
        self._judge_rows(self._rows.rest())
        if self._unfinished is not None:
            self._judge_minutes(self._minutes.add(minute_bars(self._unfinished)))
        self._judge_minutes(self._minutes.rest())
        return [
            self.rows.finding(self.table, self.table.rows),
            *self.minutes.findings(),
            *self.units.findings(),
        ]

    def _judge_rows(self, windows: Iterable[Window]) -> None:
        for window in windows:
            price = window.rows["price"]
            moves = spike_moves(price, smallest_spikes(window.rows["ts"]))
            if moves.null_count() < len(moves):
                moves = without_late_prints(price, moves)
            told = window.judged(moves)
            rows = window.rows.slice(window.start, window.stop - window.start)
            self.rows.add_moves(rows["ts"], told, window.judged(spike_texts(price, moves)))
            # what was told of a row is not told again of its minute
            self._add_to_minutes(rows.filter(told.is_null()))

    def _add_to_minutes(self, rows: pl.DataFrame) -> None:
        if self._unfinished is not None:
            rows = pl.concat([self._unfinished, rows])
        if rows.is_empty():
            return
        last = pl.col("ts").dt.truncate("1m") == pl.col("ts").dt.truncate("1m").last()
        self._unfinished = rows.filter(last)
        self._judge_minutes(self._minutes.add(minute_bars(rows.filter(~last))))

    def _judge_minutes(self, windows: Iterable[Window]) -> None:
        for window in windows:
            self.minutes.add(window)
            self.units.add(window)
