"""A random market as plain arrays, whose rows each say when they were known.

Small, hostile to features that look ahead: snapshots and trades crowd around the closes at which
decisions are made, some known exactly then, some a tenth of a second later; bars are missing, moves
have heavy tails, levels of the book are empty. Tables are those that features read.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property

import numpy as np
import numpy.typing as npt
import polars as pl

from margincast.data.bars import BarTable
from margincast.data.book import BookTable
from margincast.data.schemas import TIMESTAMP, book_columns
from margincast.data.states import StateTable
from margincast.data.trades import TradeTable
from margincast.features.sources import Sources

Floats = npt.NDArray[np.float64]
Times = npt.NDArray[np.int64]

START = datetime(2024, 1, 1, tzinfo=UTC)
INTERVAL = timedelta(hours=12)
"""Two bars a day and fourteen a week: the shortest grid on which a day and a week have a season."""

ROWS = 150
LEVELS = 5
SNAPSHOTS = 8
TRADES = 8
"""Snapshots and trades around each close."""

LEADER = "BTCUSDT"

SECOND = 1_000_000
HOUR = 3600 * SECOND
STEP = INTERVAL // timedelta(microseconds=1)
FIRST = int(START.timestamp()) * SECOND
END = FIRST + ROWS * STEP

BARS = (
    "open", "high", "low", "close", "mark_close", "index_close",
    "volume", "quote_volume", "trade_count", "taker_buy_volume",
)  # fmt: skip
COLUMNS: Mapping[str, tuple[str, ...]] = {
    "bars": BARS,
    "book": tuple(book_columns(LEVELS)),
    "trades": ("price", "size", "side"),
    "funding": ("funding_rate",),
    "open_interest": ("open_interest", "open_interest_usd"),
    "liquidations": ("long_liquidated_usd", "short_liquidated_usd"),
    "implied_vol": ("implied_volatility",),
    "options": (
        "strike", "underlying_price", "implied_volatility", "bid_price", "ask_price", "mark_price",
        "open_interest", "delta", "option_type", "expiry",
    ),
}  # fmt: skip
"""Values of every table; a side is 1 or -1, an expiry is in microseconds since 1970."""

OF_LEADER = ("implied_vol", "options")
"""Tables of which only the leader has rows."""

STATES = tuple(table for table in COLUMNS if table not in ("bars", "book", "trades"))


@dataclass(frozen=True)
class Rows:
    """Rows of one table of one contract.

    Attributes:
        table: its name.
        ts: microseconds since 1970.
        known_at: likewise; when the row could have been known.
        values: one row each, in the order of ``COLUMNS``; NaN where there is nothing.
    """

    table: str
    ts: Times
    known_at: Times
    values: Floats

    def __len__(self) -> int:
        return len(self.ts)

    def take(self, which: npt.NDArray[np.generic]) -> "Rows":
        """Pick rows by a mask or by places."""
        return Rows(self.table, self.ts[which], self.known_at[which], self.values[which])

    def ordered(self) -> "Rows":
        """Rows as a reader hands them on.

        Bars by their own time, other tables by the time they were known; of a book without the
        rows overtaken by then, and with the last of those of one time known together.
        """
        if self.table == "bars":
            _, first = np.unique(self.ts, return_index=True)
            return self.take(first)
        rows = self.take(np.argsort(self.known_at, kind="stable"))
        if self.table != "book" or not len(rows):
            return rows
        rows = rows.take(rows.ts >= np.maximum.accumulate(rows.ts))
        another = (np.diff(rows.ts) != 0) | (np.diff(rows.known_at) != 0)
        return rows.take(np.append(another, True))

    @cached_property
    def frame(self) -> pl.DataFrame:
        """The rows as features read them."""
        rows = self
        if self.table == "bars":  # a grid ends with its last bar
            rows = self.take(np.arange(np.flatnonzero(~np.isnan(self.values[:, 3]))[-1] + 1))
        columns = [
            pl.Series("ts", rows.ts).cast(TIMESTAMP),
            *(
                pl.Series(name, np.ascontiguousarray(rows.values[:, place]), nan_to_null=True)
                for place, name in enumerate(COLUMNS[self.table])
            ),
        ]
        if self.table == "bars":
            return pl.DataFrame(columns)
        frame = pl.DataFrame([*columns, pl.Series("known_at", rows.known_at).cast(TIMESTAMP)])
        if self.table == "trades":
            side = pl.when(pl.col("side") > 0).then(pl.lit("buy"))
            side = side.when(pl.col("side") < 0).then(pl.lit("sell"))
            return frame.with_columns(side.alias("side"))
        if self.table == "options":
            call = pl.col("option_type") > 0
            return frame.with_columns(
                pl.when(call).then(pl.lit("call")).otherwise(pl.lit("put")).alias("option_type"),
                pl.col("expiry").cast(pl.Int64).cast(TIMESTAMP),
                pl.concat_str(pl.lit("BTC"), "expiry", "strike", "option_type", separator="-")
                .alias("instrument"),
            )  # fmt: skip
        return frame


Contract = Mapping[str, Rows]
Market = Mapping[str, Contract]


def sources_of(market: Market, tables: tuple[str, ...]) -> Sources:
    """What a feature set is built from: the named tables of a market, bars always among them."""

    def of(table: str) -> dict[str, pl.DataFrame]:
        return {
            symbol: contract[table].frame
            for symbol, contract in market.items()
            if len(contract.get(table, ()))
        }

    bars = {
        symbol: frame.with_columns(pl.lit(symbol).alias("symbol"))
        for symbol, frame in of("bars").items()
    }
    books = {symbol: frame.lazy() for symbol, frame in of("book").items()}
    trades = {symbol: frame.lazy() for symbol, frame in of("trades").items()}
    return Sources(
        BarTable(bars, INTERVAL, ()),
        BookTable(books, dict.fromkeys(books, LEVELS), ()) if "book" in tables else None,
        TradeTable(trades, ()) if "trades" in tables else None,
        {table: StateTable(of(table), ()) for table in STATES if table in tables},
    )


def random_market(
    rng: np.random.Generator, contracts: int, tables: Collection[str] = tuple(COLUMNS)
) -> dict[str, dict[str, Rows]]:
    """Draw some tables of a market; the leader is its first contract."""
    symbols = [LEADER, *(f"C{number:03d}USDT" for number in range(1, contracts))]
    return {symbol: _contract(rng, symbol, tables) for symbol in symbols}


def _contract(rng: np.random.Generator, symbol: str, wanted: Collection[str]) -> dict[str, Rows]:
    bars, path = _bars(rng)
    draw: dict[str, Callable[[], Rows]] = {
        "bars": lambda: bars,
        "book": lambda: _book(rng, path),
        "trades": lambda: _trades(rng, path),
        "funding": lambda: _state(
            rng, "funding", 8 * HOUR, rng.normal(1e-4, 2e-4, (ROWS * 3 // 2, 1))
        ),
        "open_interest": lambda: _state(
            rng, "open_interest", 6 * HOUR, rng.lognormal(12, 0.2, (ROWS * 2, 2))
        ),
        "liquidations": lambda: _liquidations(rng),
        "implied_vol": lambda: _state(
            rng, "implied_vol", 4 * HOUR, rng.lognormal(-0.6, 0.1, (ROWS * 3, 1))
        ),
        "options": lambda: _options(rng, path),
    }
    return {
        table: drawn().ordered()
        for table, drawn in draw.items()
        if table in wanted and (symbol == LEADER or table not in OF_LEADER)
    }


def _bars(rng: np.random.Generator) -> tuple[Rows, Floats]:
    """Bars with a tail that an index of it can see, one in fifty missing; and their closes."""
    jump = rng.random((ROWS, 1)) < 0.18
    steps = rng.normal(0, 0.002, (ROWS, 4)) + jump * rng.choice([-0.012, 0.012], (ROWS, 1))
    path = 100 * np.exp(steps.cumsum().reshape(ROWS, 4))
    opens = np.concatenate([[100.0], path[:-1, -1]])
    reached = np.column_stack([opens, path])
    close = path[:, -1]
    volume = rng.lognormal(6, 1, ROWS)
    values = np.column_stack(
        [
            opens, reached.max(axis=1), reached.min(axis=1), close,
            close * np.exp(rng.normal(0, 1e-3, ROWS)), close * np.exp(rng.normal(0, 1e-3, ROWS)),
            volume, volume * close, np.ceil(volume), volume * rng.random(ROWS),
        ]
    )  # fmt: skip
    missing = rng.random(ROWS) < 0.02
    missing[0] = False
    values[missing] = np.nan
    ts = FIRST + STEP * np.arange(ROWS)
    return Rows("bars", ts, ts + STEP, values), close


def _around_closes(offsets: npt.NDArray[np.int64], rng: np.random.Generator) -> tuple[Times, Times]:
    """Times around every close, and when they were known.

    Args:
        offsets: tenths of a second from the close, one row an interval.
        rng: randomness.
    """
    closes = FIRST + STEP * np.arange(1, ROWS + 1)
    ts = (closes[:, None] + np.sort(offsets, axis=1) * (SECOND // 10)).ravel()
    return ts, ts + rng.integers(0, 12, len(ts)) * (SECOND // 10)


def _book(rng: np.random.Generator, path: Floats) -> Rows:
    # seconds apart, from longer before the close than a feature of the book looks back
    offsets = np.linspace(-150, 20, SNAPSHOTS).astype(np.int64)
    jitter = rng.integers(-8, 9, (ROWS, SNAPSHOTS))
    ts, known_at = _around_closes(offsets + jitter, rng)
    mid = np.repeat(path, SNAPSHOTS) * np.exp(rng.normal(0, 1e-4, len(ts)))
    steps = rng.uniform(0.5e-4, 4e-4, (len(ts), 2, LEVELS)).cumsum(axis=2)
    values = np.empty((len(ts), 4 * LEVELS))
    sizes = rng.lognormal(3, 0.7, (len(ts), 2, LEVELS)) * rng.lognormal(0, 0.5, (len(ts), 1, 1))
    for side, sign in enumerate((-1, 1)):
        values[:, 2 * side :: 4] = mid[:, None] * (1 + sign * steps[:, side])
        values[:, 2 * side + 1 :: 4] = sizes[:, side]
    short = rng.random(len(ts)) < 0.05
    values[short, 4 * (LEVELS - 1) :] = np.nan
    return Rows("book", ts, known_at, values)


def _trades(rng: np.random.Generator, path: Floats) -> Rows:
    ts, known_at = _around_closes(rng.integers(-150, 25, (ROWS, TRADES)), rng)
    values = np.column_stack(
        [
            np.repeat(path, TRADES) * np.exp(rng.normal(0, 2e-4, len(ts))),
            rng.lognormal(0, 2, len(ts)),
            rng.choice([-1.0, 1.0], len(ts)),
        ]
    )
    return Rows("trades", ts, known_at, values)


def _state(rng: np.random.Generator, table: str, step: int, values: Floats) -> Rows:
    """Rows a step apart; some are known an hour or two late, and so after newer ones."""
    ts = FIRST + step * np.arange(len(values))
    late = rng.choice([0, HOUR, 5 * HOUR], len(ts), p=[0.7, 0.2, 0.1])
    return Rows(table, ts, ts + late, values)


def _liquidations(rng: np.random.Generator) -> Rows:
    count = 6 * ROWS
    ts = np.sort(rng.integers(FIRST // HOUR, END // HOUR, count)) * HOUR
    usd = rng.lognormal(9, 2, count)
    is_long = rng.random(count) < 0.5
    values = np.column_stack([np.where(is_long, usd, 0.0), np.where(is_long, 0.0, usd)])
    return Rows("liquidations", ts, ts + rng.integers(0, 2, count) * HOUR, values)


def _options(rng: np.random.Generator, path: Floats) -> Rows:
    """Snapshots of a chain every ten days: a smile in each of three expiries."""
    day = 24 * HOUR
    snapshots = FIRST + 10 * day * np.arange(1, ROWS // 20)
    expiries = np.array([14, 35, 70]) * day
    moneyness = np.linspace(-0.35, 0.35, 9)
    ts, days, k, call = (
        part.ravel() for part in np.meshgrid(snapshots, expiries, moneyness, [0.0, 1.0])
    )
    forward = path[((ts - FIRST) // STEP).astype(np.intp) - 1]
    level = rng.uniform(0.4, 0.8, len(snapshots))[((ts - FIRST) // (10 * day)).astype(np.intp) - 1]
    volatility = level * np.sqrt(1 - 0.3 * k + 0.8 * k**2) * np.exp(rng.normal(0, 1e-3, len(ts)))
    price = np.maximum(0.01, 0.2 - np.abs(k) / 2)
    values = np.column_stack(
        [
            forward * np.exp(k), forward, volatility, price * 0.98, price * 1.02, price,
            rng.lognormal(3, 1, len(ts)), np.where(call > 0, 0.5 - k, -0.5 - k), call, ts + days,
        ]
    )  # fmt: skip
    order = np.argsort(ts, kind="stable")
    return Rows("options", ts, ts + rng.integers(0, 2) * HOUR, values).take(order)
