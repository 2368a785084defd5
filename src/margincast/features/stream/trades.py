"""Trades of one contract that no decision has known yet, judged as a file's are."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import polars as pl

from margincast.core.errors import InputError
from margincast.data.trades import AGGRESSOR_SIDES, ALL_ON_ONE_SIDE
from margincast.features.stream.clock import instant, known_time, microseconds, time_of
from margincast.features.stream.counts import Counts

Trade = tuple[int, int, float, float, str | None]
"""Time and time known (microseconds since 1970), price, size, and the aggressor's side."""


class Trades:
    """Trades given and not known to a decision yet."""

    def __init__(self, symbol: str, counts: Counts) -> None:
        """Start without any.

        Args:
            symbol: the contract.
            counts: where irregular trades are counted.
        """
        self._symbol = symbol
        self._counts = counts
        self._known_us: list[int] = []
        self._waiting: list[Trade] = []
        self._unseen: set[str | None] = {*AGGRESSOR_SIDES}

    def add(self, trade: Mapping[str, Any], decided_us: int) -> None:
        """Take a trade in.

        Raises:
            InputError: a value breaks a rule of trades.
        """
        what = f"trade of {self._symbol}"
        ts = time_of(trade, "ts", what)
        price: Any = trade.get("price")
        size: Any = trade.get("size")
        side: Any = trade.get("side")
        side = side.lower() if isinstance(side, str) else side
        if not (_is_number(price) and 0 < price < float("inf")):
            raise InputError(
                f"{what} at {trade['ts']}: price is {price!r}; it must be a finite "
                "number above zero"
            )
        if not (_is_number(size) and 0 <= size < float("inf")):
            raise InputError(
                f"{what} at {trade['ts']}: size is {size!r}; it must be a finite "
                "number, zero or above"
            )
        if side not in (*AGGRESSOR_SIDES, None):
            raise InputError(
                f"{what} at {trade['ts']}: side is {side!r}; it is buy or sell, or "
                "None where the venue does not say"
            )
        known = known_time(trade, ts, 0, decided_us, what)
        self._counts.row("trades", self._symbol)
        if side is None:
            self._meet("without an aggressor side", "signed flow is not known", ts)
        place = bisect_right(self._known_us, known)
        if place < len(self._known_us):
            self._meet(
                "received after a trade received later", "sorted by the time they were known", ts
            )
        self._known_us.insert(place, known)
        self._waiting.insert(place, (ts, known, float(price), float(size), side))

    def fill(self, trades: pl.DataFrame) -> None:
        """Set trades of the past, as ``TradeTable`` holds them, for the next take.

        Where one of them has a side, both had been seen by then.
        """
        if trades["side"].null_count() < len(trades):
            self._unseen.clear()
        self._known_us[:0] = [microseconds(known) for known in trades["known_at"]]
        ts = trades["ts"].to_physical()
        known_at = trades["known_at"].to_physical()
        columns = (ts, known_at, trades["price"], trades["size"], trades["side"])
        self._waiting[:0] = list(zip(*columns, strict=True))

    def take(self, decided_us: int) -> list[Trade]:
        """Hand over what is known at a decision; it is not held any longer."""
        count = bisect_right(self._known_us, decided_us)
        rows = self._told_by_both_sides(self._waiting[:count])
        del self._waiting[:count], self._known_us[:count]
        return rows

    def _told_by_both_sides(self, rows: list[Trade]) -> list[Trade]:
        """Take the side off the trades known before both sides had been seen, as the reader does.

        Args:
            rows: trades in the order in which they were known, all of those known by a decision.
        """
        if not self._unseen:
            return rows
        both_us: int | None = None
        for row in rows:
            self._unseen.discard(row[4])
            if not self._unseen:
                both_us = row[1]
                break
        told = [
            row if both_us is not None and row[1] >= both_us else (*row[:4], None) for row in rows
        ]
        for given, kept in zip(rows, told, strict=True):
            if given[4] != kept[4]:
                self._meet(ALL_ON_ONE_SIDE, "side is null; signed flow is not known", given[0])
        return told

    def _meet(self, what: str, action: str, ts_us: int) -> None:
        self._counts.meet("trades", self._symbol, what, action, instant(ts_us))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def size_by_interval(trades: Sequence[Trade], interval: timedelta) -> dict[int, float]:
    """Size traded in each interval that had trades, by its open."""
    step = microseconds(interval)
    traded: dict[int, float] = {}
    for _, known, _, size, _ in trades:
        open_us = (known - 1) // step * step
        traded[open_us] = traded.get(open_us, 0.0) + size
    return traded
