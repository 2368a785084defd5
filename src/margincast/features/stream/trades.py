"""The trades' part of a decision: new trades summed up by interval, windows over intervals."""

from bisect import bisect_right
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import polars as pl

from margincast.core.errors import InputError
from margincast.data.schemas import TIMESTAMP
from margincast.data.trades import AGGRESSOR_SIDES, ONE_SIDED_MINIMUM
from margincast.features.order_book import on_decisions
from margincast.features.stream.book import last_intervals, until
from margincast.features.stream.clock import instant, known_time, microseconds, time_of
from margincast.features.stream.counts import Counts
from margincast.features.trade_flow.reduction import flow_intervals

_SCHEMA: dict[str, pl.DataType] = {
    "ts": TIMESTAMP,
    "known_at": TIMESTAMP,
    "price": pl.Float64(),
    "size": pl.Float64(),
    "side": pl.String(),
}
_PHYSICAL = {name: pl.Int64() if dtype == TIMESTAMP else dtype for name, dtype in _SCHEMA.items()}
_Row = tuple[int, int, float, float, str | None]


class Trades:
    """Trades of one contract not known to a decision yet, and interval sums of those that were."""

    def __init__(
        self,
        symbol: str,
        columns: list[pl.Expr],
        interval: timedelta,
        rows: int,
        *,
        memory: timedelta,
        counts: Counts,
    ) -> None:
        """Start without any.

        Args:
            symbol: the contract.
            columns: what is wanted, over regular intervals.
            interval: distance between decisions.
            rows: intervals to keep.
            memory: how long before an interval the trades were known that its sums hang on.
            counts: where irregular trades are counted.
        """
        self._symbol = symbol
        self._columns = columns
        self._interval = interval
        self._rows = rows
        self._memory = memory
        self._counts = counts
        self._known_us: list[int] = []
        self._waiting: list[_Row] = []
        self._sides = dict.fromkeys(AGGRESSOR_SIDES, 0)
        self._count = 0
        self._has_sides = True
        self._raw = pl.DataFrame(schema=_SCHEMA)
        self._held: pl.DataFrame | None = None

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
        self._count += 1
        side = side if self._has_sides else None
        if side is None:
            self._meet("without an aggressor side", "signed flow is not known", ts)
        else:
            self._sides[side] += 1
            if self._count >= ONE_SIDED_MINIMUM and self._count in self._sides.values():
                self._meet(
                    "all on one side so far: the aggressor is not known",
                    "side is null; signed flow is not known",
                    ts,
                )
                side = None
        place = bisect_right(self._known_us, known)
        if place < len(self._known_us):
            self._meet(
                "received after a trade received later", "sorted by the time they were known", ts
            )
        self._known_us.insert(place, known)
        self._waiting.insert(place, (ts, known, float(price), float(size), side))

    def fill(self, trades: pl.DataFrame) -> None:
        """Set trades of the past, as ``TradeTable`` holds them, for the next take.

        Where none of them says its side, those to come do not either.
        """
        self._has_sides = trades["side"].null_count() < max(len(trades), 1)
        self._known_us[:0] = [microseconds(known) for known in trades["known_at"]]
        ts = trades["ts"].to_physical()
        known_at = trades["known_at"].to_physical()
        columns = (ts, known_at, trades["price"], trades["size"], trades["side"])
        self._waiting[:0] = list(zip(*columns, strict=True))

    def take(self, decided_us: int) -> dict[int, float]:
        """Take in what is known at a decision.

        Returns:
            Size traded in each interval that had trades, by its open.
        """
        count = bisect_right(self._known_us, decided_us)
        rows = self._waiting[:count]
        del self._waiting[:count], self._known_us[:count]
        step = microseconds(self._interval)
        traded: dict[int, float] = {}
        for _, known, _, size, _ in rows:
            open_us = (known - 1) // step * step
            traded[open_us] = traded.get(open_us, 0.0) + size
        if self._columns and rows:
            new = pl.DataFrame(rows, schema=_PHYSICAL, orient="row").cast(pl.Schema(_SCHEMA))
            self._raw = pl.concat([self._raw, new], rechunk=True)
        return traded

    def sum_up(self, decided_us: int, since_us: int | None, quotes: pl.DataFrame | None) -> None:
        """Sum up the intervals since the decision before.

        Args:
            decided_us: the decision.
            since_us: the one before; None if there is none.
            quotes: snapshots known since then, and those that the sums look back to; None where no
                book is given.
        """
        if not self._columns:
            return
        if since_us is None:
            firsts = [
                frame["known_at"][0]
                for frame in (self._raw, quotes)
                if frame is not None and len(frame)
            ]
            if not firsts:
                return
            since = min(firsts).replace(microsecond=0) - 2 * self._interval
        else:
            since = instant(since_us)
        raw = self._raw
        if raw.is_empty():
            # outside the intervals wanted: sums have their columns where nothing was traded
            past = since - self._memory - self._interval
            raw = pl.DataFrame([(past, past, 1.0, 0.0, None)], schema=_SCHEMA, orient="row")
        book = None if quotes is None else quotes.lazy()
        summed = flow_intervals(raw.lazy(), book, self._columns, self._interval).filter(
            pl.col("ts") >= since
        )
        self._raw = self._raw.filter(pl.col("known_at") > instant(decided_us) - self._memory)
        if summed.is_empty():
            return
        held = summed if self._held is None else pl.concat([self._held, summed], rechunk=True)
        self._held = last_intervals(held, self._rows, self._interval)

    def columns(self, decided_us: int, rows: int) -> pl.DataFrame | None:
        """Give the trades' columns at the last decisions; None before anything was known."""
        if self._held is None:
            return None
        held = until(self._held, instant(decided_us) - self._interval)
        return on_decisions(held, self._interval).select("ts", *self._columns).tail(rows)

    def _meet(self, what: str, action: str, ts_us: int) -> None:
        self._counts.meet("trades", self._symbol, what, action, instant(ts_us))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
