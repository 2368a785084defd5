"""The last bars of a contract on their grid: what its volatility is computed from."""

import math
from collections.abc import Collection, Mapping
from datetime import timedelta
from typing import Any

import numpy as np
import polars as pl

from margincast.core.errors import InputError
from margincast.core.time import format_duration
from margincast.core.types import FloatArray
from margincast.data.bars import PRICES
from margincast.data.schemas import BARS, TIMESTAMP, check_bar_consistency, check_values
from margincast.features.stream.clock import instant, microseconds, time_of
from margincast.features.stream.counts import Counts
from margincast.features.stream.last_intervals import TimesUs


class Bars:
    """Bars of one contract, at most as many as are looked back to.

    Attributes:
        first_us: open of the first bar that was neither missing nor stale; None before it.
    """

    def __init__(
        self, symbol: str, interval: timedelta, rows: int, read: Collection[str], counts: Counts
    ) -> None:
        """Start without any.

        Args:
            symbol: the contract.
            interval: grid step.
            rows: bars to keep.
            read: columns to keep, where bars have them.
            counts: where irregular bars are counted.
        """
        self.first_us: int | None = None
        self._symbol = symbol
        self._step = microseconds(interval)
        self._interval = interval
        self._rows = rows
        self._read = {"close", *read}
        self._counts = counts
        self._columns: dict[str, FloatArray] = {}
        # what stands at a place: 0 no bar came, 1 one came; NaN in the columns where it is stale
        self._came = np.zeros(2 * rows, dtype=np.bool_)
        self._origin_us = 0

    def add(self, bar: Mapping[str, Any], decided_us: int) -> None:
        """Take a bar in.

        Raises:
            InputError: a column is missing, a value breaks a rule, the open is off the grid, or
                there is one of that time.
        """
        what = f"bar of {self._symbol}"
        open_us = time_of(bar, "ts", what)
        missing = [name for name in (*PRICES, "volume") if name not in bar]
        if missing:
            raise InputError(
                f"{what}: no {', '.join(missing)}; a bar has {', '.join(PRICES)} and volume"
            )
        if open_us % self._step:
            raise InputError(
                f"{what}: opens at {bar['ts']}, off the {format_duration(self._interval)} grid; a "
                "bar's ts is its open"
            )
        names = [name for name in bar if name in self._read or name in BARS.required]
        if not _is_sound(bar):
            # the checks of a table say what is wrong, and take a millisecond
            frame = pl.DataFrame({name: [bar[name]] for name in names})
            check_values(frame, BARS, what)
            check_bar_consistency(frame, what)
        if self._holds(open_us):
            raise InputError(f"{what}: a second one that opens at {bar['ts']}; give each bar once")
        self._counts.row("bars", self._symbol)
        if open_us + self._step <= decided_us:
            self._meet("given after the decision at its close", "known from then on", open_us)
        if bar["volume"] == 0 and bar["high"] == bar["low"]:
            self._meet("stale bars (zero volume, no change)", "treated as missing", open_us)
            self.put(open_us, {})
        else:
            self.put(open_us, {name: bar[name] for name in names if name != "ts"})

    def put(self, open_us: int, values: Mapping[str, Any]) -> None:
        """Set a bar that was checked at its place; one without values is missing."""
        if self.first_us is None or open_us < self.first_us:
            if not values:
                return
            if self.first_us is None:
                self._origin_us = open_us
            self.first_us = open_us
        place = (open_us - self._origin_us) // self._step
        if place < 0:
            self._shift(place)
            place = (open_us - self._origin_us) // self._step
        if place >= len(self._came):
            self._shift(place - self._rows + 1)
            place = (open_us - self._origin_us) // self._step
        self._came[place] = True
        for name in self._read.intersection(values).difference(self._columns):
            self._columns[name] = np.full(len(self._came), np.nan)
        for name, column in self._columns.items():
            value = values.get(name)
            column[place] = np.nan if value is None else value

    def fill(self, frame: pl.DataFrame) -> None:
        """Set regular bars, as :class:`margincast.data.bars.BarTable` holds them."""
        first = frame["ts"][0]
        names = [name for name in frame.columns if name in self._read]
        for ts, *values in frame.tail(self._rows).select("ts", *names).iter_rows():
            row = dict(zip(names, values, strict=True))
            self.put(microseconds(ts), {} if row["close"] is None else row)
        self.first_us = microseconds(first)

    def known(self, decided_us: int) -> bool:
        """Say whether there is a bar, not a stale one, that closes at a decision."""
        place = (decided_us - self._step - self._origin_us) // self._step
        column = self._columns.get("close")
        return column is not None and 0 <= place < len(column) and not bool(np.isnan(column[place]))

    def came(self, decided_us: int) -> bool:
        """Say whether a bar was given, a stale one too, that closes at a decision."""
        return self._holds(decided_us - self._step)

    def frame(self, decided_us: int, rows: int) -> pl.DataFrame:
        """Give so many regular bars, the last one closing at a decision; fewer at the start."""
        opens, found = self.arrays(decided_us, rows)
        columns = [pl.Series("ts", opens).cast(TIMESTAMP)]
        for name, values in found.items():
            columns.append(pl.Series(name, values, nan_to_null=bool(np.isnan(values).any())))
        return pl.DataFrame(columns)

    def arrays(self, decided_us: int, rows: int) -> tuple[TimesUs, dict[str, FloatArray]]:
        """Give the same as opens, microseconds, and columns; NaN where the bar is missing."""
        assert self.first_us is not None
        last = (decided_us - self._origin_us) // self._step - 1
        first = max(last - rows + 1, (self.first_us - self._origin_us) // self._step, 0)
        opens = self._origin_us + np.arange(first, last + 1) * self._step
        # rows after the last bar are missing, too
        inside = slice(first, min(last + 1, len(self._came)))
        beyond = len(opens) - max(inside.stop - inside.start, 0)
        missing = np.full(beyond, np.nan)
        found = {
            name: np.concatenate([column[inside], missing])
            for name, column in self._columns.items()
        }
        return opens, found

    def _holds(self, open_us: int) -> bool:
        place = (open_us - self._origin_us) // self._step
        return 0 <= place < len(self._came) and bool(self._came[place])

    def _shift(self, by: int) -> None:
        """Move the first place kept: forward, and the oldest bars are let go, or back."""
        for column in (self._came, *self._columns.values()):
            empty = False if column.dtype == np.bool_ else np.nan
            if by >= len(column) or by <= -len(column):
                column[:] = empty
            elif by > 0:
                column[:-by] = column[by:].copy()
                column[-by:] = empty
            else:
                column[-by:] = column[:by].copy()
                column[:-by] = empty
        self._origin_us += by * self._step

    def _meet(self, what: str, action: str, open_us: int) -> None:
        self._counts.meet("bars", self._symbol, what, action, instant(open_us))


def _is_sound(bar: Mapping[str, Any]) -> bool:
    """Whether a bar surely keeps all rules of the table."""
    ruled = (*BARS.positive, *BARS.non_negative)
    values = [bar[name] for name in ruled if bar.get(name) is not None]
    if not all(isinstance(value, int | float) and math.isfinite(value) for value in values):
        return False
    first, high, low, last = (bar[name] for name in PRICES)
    positive = all(bar[name] > 0 for name in BARS.positive if bar.get(name) is not None)
    return positive and bar["volume"] >= 0 and low <= min(first, last) and high >= max(first, last)
