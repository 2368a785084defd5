"""The last rows of funding, open interest, liquidations, implied volatility and options."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import polars as pl

from margincast.data.schemas import TIMESTAMP
from margincast.data.states import StateTable
from margincast.features.stream.clock import NEVER_US, instant, known_time, microseconds, time_of
from margincast.features.stream.counts import Counts


class States:
    """Rows of the tables beside bars, as long as they matter."""

    def __init__(self, memory: timedelta, counts: Counts) -> None:
        self._memory_us = microseconds(memory)
        self._counts = counts
        self._frames: dict[tuple[str, str], pl.DataFrame] = {}
        self._new: dict[tuple[str, str], list[dict[str, Any]]] = {}
        self._newest_us: dict[tuple[str, str], int] = {}

    def add(self, table: str, symbol: str, row: Mapping[str, Any], decided_us: int) -> None:
        """Take a row in; ``known_at`` says when it could have been known, where ``ts`` does not."""
        what = f"{table} of {symbol}"
        ts = time_of(row, "ts", what)
        stated = time_of(row, "known_at", what) if row.get("known_at") is not None else ts
        known = max(stated, known_time(row, ts, 0, decided_us, what))
        self._counts.row(table, symbol)
        if stated <= decided_us:
            self._meet(
                table,
                symbol,
                "given after a decision that could have known it",
                "known from then on",
                ts,
            )
        key = (table, symbol)
        if table != "liquidations" and ts < self._newest_us.get(key, ts):
            self._meet(table, symbol, "older than a row given before", "dropped", ts)
            return
        self._newest_us[key] = ts
        values = {name: value for name, value in row.items() if name != "received_at"}
        self._new.setdefault(key, []).append(values | {"known_at": instant(known)})

    def fill(self, table: str, symbol: str, frame: pl.DataFrame, decided_us: int) -> None:
        """Set the rows known by a decision, as :class:`StateTable` holds them."""
        known = frame.filter(pl.col("known_at") <= instant(decided_us))
        if len(known):
            self._frames[table, symbol] = self._kept(known, decided_us)
            self._newest_us[table, symbol] = microseconds(known["ts"].max())  # type: ignore[arg-type]

    def tables(self, decided_us: int) -> dict[str, StateTable]:
        """Give the rows kept, by table, those not known by the decision among them."""
        for key, rows in self._new.items():
            more = pl.DataFrame(rows, infer_schema_length=None)
            times = [pl.col(name).cast(TIMESTAMP) for name in ("ts", "known_at")]
            held = self._frames.get(key)
            joined = more.with_columns(times)
            if held is not None:
                joined = pl.concat([held, joined], how="diagonal_relaxed")
            joined = joined.sort("known_at", maintain_order=True)
            self._frames[key] = self._kept(joined, decided_us)
        self._new.clear()
        tables: dict[str, StateTable] = {}
        for (table, symbol), frame in self._frames.items():
            tables.setdefault(table, StateTable({}, ())).frames[symbol] = frame
        return tables

    def _kept(self, frame: pl.DataFrame, decided_us: int) -> pl.DataFrame:
        if decided_us == NEVER_US:
            return frame
        return frame.filter(pl.col("known_at") >= instant(decided_us - self._memory_us))

    def _meet(self, table: str, symbol: str, what: str, action: str, ts_us: int) -> None:
        self._counts.meet(table, symbol, what, action, instant(ts_us))
