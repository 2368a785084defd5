"""The last rows of funding, open interest, liquidations, implied volatility and options.

An option chain is fitted when it comes, and its surface kept: a decision does not wait for a fit.
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import polars as pl

from margincast.core.errors import InputError
from margincast.data.schemas import TIMESTAMP
from margincast.data.states import StateTable
from margincast.features.implied_vol import surface_findings, surface_states
from margincast.features.stream.clock import NEVER_US, instant, known_time, microseconds, time_of
from margincast.features.stream.counts import Counts

_OF_A_CHAIN = (
    "ts",
    "expiry",
    "option_type",
    "strike",
    "underlying_price",
    "implied_volatility",
)


class States:
    """Rows of the tables beside bars, as long as they matter."""

    def __init__(self, memory: timedelta, tenors: Sequence[float], counts: Counts) -> None:
        """Start without any.

        Args:
            memory: how long ago a row was known that still matters.
            tenors: those read off option chains, in days.
            counts: where irregular rows are counted.
        """
        self._tenors = tenors
        self._chains: dict[str, pl.DataFrame] = {}
        self._memory_us = microseconds(memory)
        self._counts = counts
        self._frames: dict[tuple[str, str], pl.DataFrame] = {}
        self._new: dict[tuple[str, str], list[dict[str, Any]]] = {}
        self._newest_us: dict[tuple[str, str], int] = {}

    def add(self, table: str, symbol: str, row: Mapping[str, Any], decided_us: int) -> None:
        """Take a row in; ``known_at`` says when it could have been known, where ``ts`` does not.

        Raises:
            InputError: it has no time, or is an option of a chain.
        """
        if table == "options" and "strike" in row:
            raise InputError(
                f"options of {symbol}: one option of a chain; a chain is fitted as a whole: give "
                "all of its options to update_chain"
            )
        self._counts.row(table, symbol)
        timed = self._timed(table, symbol, row, decided_us)
        if timed is not None:
            self._new.setdefault((table, symbol), []).append(timed)

    def add_chain(self, symbol: str, chain: Sequence[Mapping[str, Any]], decided_us: int) -> None:
        """Fit the options of a chain, all of one time, together with those given of it before.

        Raises:
            InputError: an option has no time, or a column is missing, or their times differ.
        """
        what = f"options of {symbol}"
        for option in chain:
            missing = [name for name in _OF_A_CHAIN if name not in option]
            if missing:
                raise InputError(
                    f"{what}: an option has no {', '.join(missing)}; an option has "
                    f"{', '.join(_OF_A_CHAIN)} and may have bid_price and ask_price"
                )
        if len({time_of(option, "ts", what) for option in chain}) > 1:
            raise InputError(f"{what}: options of several times; give the chain of one ts at once")
        self._counts.row("options", symbol, len(chain))
        timed = [self._timed("options", symbol, option, decided_us) for option in chain]
        rows = [row for row in timed if row is not None]
        if not rows or not self._tenors:
            return
        held = self._chains.get(symbol)
        joined = _with_times(rows)
        if held is not None:
            joined = pl.concat([held, joined], how="diagonal_relaxed")
        self._chains[symbol] = last_chains(joined)
        first = min(row["known_at"] for row in rows)
        surface = surface_states(self._chains[symbol], self._tenors)
        surface = surface.filter(pl.col("known_at") >= first)
        self._new.setdefault(("options", symbol), []).extend(surface.to_dicts())
        for found in surface_findings(surface, symbol):
            if found.count:
                at = rows[0]["ts"]
                self._counts.meet(
                    "options", symbol, found.what, found.action, at, count=found.count
                )

    def _timed(
        self, table: str, symbol: str, row: Mapping[str, Any], decided_us: int
    ) -> dict[str, Any] | None:
        """Say when a row was known; None for one that is older than one given before."""
        what = f"{table} of {symbol}"
        ts = time_of(row, "ts", what)
        stated = time_of(row, "known_at", what) if row.get("known_at") is not None else ts
        known = max(stated, known_time(row, ts, 0, decided_us, what))
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
            return None
        self._newest_us[key] = ts
        values = {name: value for name, value in row.items() if name != "received_at"}
        return values | {"known_at": instant(known)}

    def fill(self, table: str, symbol: str, known: pl.DataFrame) -> None:
        """Set the rows of the past that matter, as :class:`StateTable` holds them."""
        if len(known):
            self._frames[table, symbol] = known
            self._newest_us[table, symbol] = microseconds(known["ts"].max())  # type: ignore[arg-type]

    def fill_chain(self, symbol: str, chain: pl.DataFrame) -> None:
        """Set the chains of the past, as :class:`StateTable` holds them."""
        self._chains[symbol] = last_chains(chain)

    def tables(self, decided_us: int) -> dict[str, StateTable]:
        """Give the rows kept, by table, those not known by the decision among them."""
        for key, rows in self._new.items():
            joined = _with_times(rows)
            held = self._frames.get(key)
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


def last_chains(chain: pl.DataFrame) -> pl.DataFrame:
    """Keep the newest chain, more of which may come, and the one before, which it is held against.

    Whether the newest one is whole shows beside the other (``implied_vol.surface.WHOLE``).
    """
    return chain.filter(pl.col("ts").rank("dense", descending=True) <= 2)


def _with_times(rows: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    frame = pl.DataFrame(rows, infer_schema_length=None)
    return frame.with_columns(
        pl.col("ts", "known_at").cast(TIMESTAMP),
        # a column of which nothing is known yet is one of numbers
        pl.col(pl.Null).cast(pl.Float64),
    )
